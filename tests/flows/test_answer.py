"""`qcrd answer`: the champion before the teacher, killed with -9 on the way; then a run that trains on what came."""

import http.client
import json
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyarrow.parquet import read_table

from storage.store import Store
from tasks.tracking.client import open_tracking
from tests.conftest import Qcrd, qcrd_command
from tests.flows.own_data import SHORT_TRAINING, write_own_data
from tests.flows.test_loopback import free_port
from tests.flows.test_shards import adds_up, teacher

pytestmark = pytest.mark.slow

CONFIG = (
    """
dataset: {name: sums.yaml, validation_split: null}
teacher: {url: URL, model: big, n: 3}
method: {negatives: false, discriminator: false}
cascade: {below: 1.0}
"""
    + SHORT_TRAINING
)
KEY = "a-key-of-the-service"


class Service:
    """A started service.

    Args:
        port: where it listens.
        process: of `qcrd answer --serve`.
    """

    def __init__(self, port: int, process: "subprocess.Popen[str]") -> None:
        self.port, self.process = port, process

    def request(self, method: str, path: str, body: Any = None, key: str | None = KEY, **more: str) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}) | more
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            content = body if isinstance(body, str) else json.dumps(body) if body is not None else None
            connection.request(method, path, content, headers)
            reply = connection.getresponse()
            text = reply.read().decode()
            return reply.status, json.loads(text) if reply.getheader("Content-Type") == "application/json" else text

    def ask(self, *questions: str) -> tuple[int, Any]:
        return self.request("POST", "/answer", {"questions": [{"question": one} for one in questions]})


@contextmanager
def serving(home: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, key: str = KEY) -> Iterator[Service]:
    """A service that is there; it is killed at the end if it is there still."""
    monkeypatch.setenv("QCRD_ANSWER_API_KEY", key)
    port = free_port()
    command = qcrd_command(home, "answer", "small.yaml", "--serve", "--port", port, *arguments)
    log = home.with_suffix(".log")
    with log.open("ab") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, text=True)
    service = Service(port, process)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                if service.request("GET", "/health", key=None)[0] == 200:
                    break
            except OSError:
                time.sleep(0.2)
        yield service
    finally:
        process.kill()
        process.wait()


def question(number: int) -> str:
    return f"Ann has {number} nuts and gets 3. How many?"


@pytest.mark.usefixtures("databases")
def test_nothing_is_lost_and_the_next_run_learns_from_it(
    tmp_path: Path, home: Path, qcrd: Qcrd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_own_data(tmp_path)
    with teacher(adds_up) as served:
        Path("small.yaml").write_text(CONFIG.replace("URL", f'"{served.url}"'), encoding="utf-8")
        qcrd("distill", "small.yaml")
        refused = qcrd("answer", "small.yaml", "--set", "cascade.below=null", question(1), code=2).stderr
        assert "promises nothing" in refused
        asked_before = len(served.bodies)
        answered = killed_on_the_way(home, monkeypatch)
        with serving(home, monkeypatch) as service:
            orderly(service)
            again = service.ask(*answered)[1]["answers"]
            assert [one["answer"] for one in again] == list(answered.values())
            assert {one["by"] for one in again} == {"teacher"}
            under_load(service)
            other = qcrd("answer", "small.yaml", question(500), code=2).stderr
            assert "Another process passes questions on to this teacher" in other
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(timeout=60) == 143
        of_a_file(qcrd, answered)
        store = Store(home / "store")
        rows = store.query("SELECT * FROM rationales WHERE split = 'passed-on'").to_pylist()
        assert {row["n"] for row in store.query(
            "SELECT count(*) AS n FROM rationales WHERE split = 'passed-on' GROUP BY example_id, sample_index"
        ).to_pylist()} == {1}  # fmt: skip
        votes = store.query("SELECT * FROM votes JOIN examples USING (example_id) WHERE votes.split = 'passed-on'")
        assert {row["question"]: row["winner"] for row in votes.to_pylist()}.items() >= answered.items()
        assert len(rows) == 3 * votes.num_rows
        asked = Counter(body["seed"] for body in served.bodies[asked_before:])
        # What was under way at the kill has to be asked again; nothing else is.
        assert sum(asked.values()) - len(asked) <= 8
        done = qcrd("distill", "small.yaml", "--set", "optimisation.seed=1", "--json")
        assert f"{votes.num_rows} training questions were passed on by `qcrd answer`" in done.stderr
        assert len(served.bodies) - asked_before == sum(asked.values())  # the run asks for none of them
        [method] = json.loads(done.stdout)["methods"]
        trained_on = read_table(home / "trainings" / method["training_id"] / "examples.parquet").to_pylist()
        labels = {row["question"]: row["answer"] for row in trained_on}
        assert answered.items() <= labels.items()
        settings = ("--set", "cascade.look_s=0.3", "--set", "cascade.queue=2")
        with serving(home, monkeypatch, *settings, key="") as service:
            status, reply = service.request("GET", "/health", Host="rebound.example")
            assert (status, reply["error"]) == (
                403, "Without a key this service is reached as localhost or 127.0.0.1 or ::1 alone."
            )  # fmt: skip
            turned_away(service)
            gives_way(service, home)


def of_a_file(qcrd: Qcrd, answered: dict[str, str]) -> None:
    """Questions that are known, in a file with the dataset's columns: they are not asked again."""
    lines = "".join(json.dumps({"body": one}) + "\n" for one in answered)
    Path("today.jsonl").write_text(lines, encoding="utf-8")
    given = json.loads(qcrd("answer", "small.yaml", "--path", "today.jsonl", "--json").stdout)
    assert [(one["by"], one["answer"]) for one in given] == [("teacher", answer) for answer in answered.values()]
    told = qcrd("answer", "small.yaml", next(iter(answered))).stderr
    assert "0 of 1 questions answered by the student, 1 by the teacher, 0 by nobody." in told
    Path("none.jsonl").write_text("", encoding="utf-8")
    for arguments, line in (
        (["--path", "today.jsonl", "How many?"], "Give one of the three: questions, such as"),
        (
            ["--path", "today.jsonl", "--choice", "5"],
            "Give questions on the command line or in a file with --path, not both.",
        ),
        (["--path", "none.jsonl"], "none.jsonl"),
    ):
        assert line in qcrd("answer", "small.yaml", *arguments, code=2).stderr


def turned_away(service: Service) -> None:
    """Requests with more questions than may wait, and more such requests than the champion has room for."""
    status, reply = service.ask(*map(question, range(200, 203)))
    assert (status, reply) == (422, {"error": "questions: at most 2 at a time (cascade.queue); ask in several."})
    with ThreadPoolExecutor(32) as threads:
        asked = [[question(number), question(number + 1)] for number in range(100, 164, 2)]
        replies = list(threads.map(lambda one: service.ask(*one), asked))
    away = [reply for status, reply in replies if status == 503]
    assert {reply["error"] for reply in away} == {"2 questions wait for the champion already; ask again in a moment."}
    assert f"qcrd_turned_away_total {len(away)}.0" in service.request("GET", "/metrics")[1]
    assert all(status in (200, 503) for status, _ in replies)
    assert service.ask(question(200))[0] == 200


def gives_way(service: Service, home: Path) -> None:
    """Somebody makes another version the champion."""
    assert service.request("GET", "/health")[1]["version"] == "1"
    open_tracking(home).client.set_registered_model_alias("qcrd-sums", "champion", "2")
    deadline = time.monotonic() + 60
    while service.request("GET", "/health")[1]["version"] != "2":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert service.ask(question(200))[1]["answers"][0]["version"] == "2"


def killed_on_the_way(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Asks from eight threads until the service is killed; what was answered until then."""
    answered: dict[str, str] = {}
    enough = threading.Event()
    with serving(home, monkeypatch) as service:

        def ask(number: int) -> None:
            try:
                status, reply = service.ask(question(number))
            except (OSError, http.client.HTTPException):
                return  # it was killed
            [one] = reply["answers"]
            assert (status, one["by"], one["answer"]) == (200, "teacher", str(number + 3)), reply
            assert one["rationale"] == f"{number} + 3 = {number + 3}."
            answered[question(number)] = one["answer"]
            if len(answered) >= 30:
                enough.set()

        with ThreadPoolExecutor(8) as threads:
            asking = [threads.submit(ask, number) for number in range(100, 160)]
            assert enough.wait(120)
            service.process.kill()
            for one in asking:
                one.result()
    assert len(answered) < 60
    return answered


def under_load(service: Service) -> None:
    """64 clients at once: everybody gets an answer of their own."""
    numbers = range(1000, 1192)
    with ThreadPoolExecutor(64) as threads:
        replies = list(threads.map(lambda number: service.ask(question(number)), numbers))
    assert [reply["answers"][0]["answer"] for _, reply in replies] == [str(number + 3) for number in numbers]


def orderly(service: Service) -> None:
    """What a service says to those who have no key, ask wrongly, or look at its figures."""
    assert service.request("POST", "/answer", {"questions": []}, key=None)[0] == 401
    assert service.request("GET", "/metrics", key="another")[0] == 401
    for wrong, said in (
        ({"questions": []}, "questions: it must have at least 1."),
        ({"questions": [{"question": " \u001c"}]}, "questions.0.question: it is empty."),
        ({"questions": [{"question": "How many?", "choice": []}]}, "questions.0.choice: there is no such field."),
        ("{", "the body: it is not valid JSON"),
        (None, "the body: it is empty."),
    ):
        status, reply = service.request("POST", "/answer", wrong)
        assert status == 422, reply
        assert said in reply["error"], reply
        assert "\n" not in reply["error"]
    figures = service.request("GET", "/metrics")[1]
    assert re.search(r'^qcrd_answers_total\{by="teacher"\} \d', figures, re.M)
    assert "qcrd_answering_version 1.0" in figures

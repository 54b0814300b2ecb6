"""`qcrd distill` on somebody's own data, with recorded samples: interrupted, killed, gone on; and wrong data."""

import json
import os
import pty
import random
import select
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest
from safetensors.torch import load_file

from storage.checking import check_store
from storage.store import Store
from tests.conftest import Qcrd, figures, qcrd_command

pytestmark = pytest.mark.slow

KILLS = 3

DATASET = """
name: sums
answers: number
question: "{body}"
fields: {label: total}
splits: {train: train.jsonl, test: test.jsonl}
instruction: Add up. Finish with "So the answer is NUMBER."
exemplars: []
"""

CONFIG = """
dataset: {name: sums.yaml, validation_split: null}
teacher: {source: import, files: [{path: samples.jsonl}]}
student:
  model: new
  new: {hidden: 16, layers: 1, heads: 2, intermediate: 24, vocab_size: 320}
  dropout: 0.1
  max_input_tokens: 80
  max_target_tokens: 40
compare: [dss]
negatives: {lag: 1, max_tokens: 10}
discriminator: {pretrain_steps: 10, update_steps: 5, batch_size: 4}
optimisation: {batch_size: 4, device: cpu, learning_rate: 1.0e-3, checkpoint_every_s: 0.05}
rounds: {rounds: 3, epochs_per_round: 4, answer_tokens: 4, threads: 1}
"""


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a dataset of 60 questions, three recorded samples of each, and a configuration; the working
    directory."""
    questions = [(f"Ann has {a} nuts and gets {b}. How many?", a, b) for a in range(2, 12) for b in range(1, 8)]
    rows = [{"body": body, "total": a + b} for body, a, b in questions]
    for name, part in (("train", rows[:60]), ("test", rows[60:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    samples = [
        {"body": body, "total": a + b, "samples": [
            {"teacher": "big", "text": f"{a} + {b} = {a + b}. So the answer is {a + b}."},
            {"teacher": "big", "text": f"She has {a} and {b}, {a + b} then. So the answer is {a + b}."},
            {"teacher": "big", "text": f"{a} - {b} = {a - b}. So the answer is {a - b}."},
        ]}
        for body, a, b in questions[:60]
    ]  # fmt: skip
    lines = "".join(json.dumps(row) + "\n" for row in samples)
    (tmp_path / "samples.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "sums.yaml").write_text(DATASET, encoding="utf-8")
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def family(pid: int) -> list[psutil.Process]:
    """A process and all it has started."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def still_running(processes: list[psutil.Process]) -> list[list[str]]:
    """Command lines of those that are there 10 seconds later."""
    _, alive = psutil.wait_procs(processes, timeout=10)
    return [process.cmdline() for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def weights(home: Path, result: dict[str, Any]) -> dict[str, bytes]:
    """The bytes of the weights of each method's best round."""
    found = {}
    for method in result["methods"]:
        folder = home / "trainings" / method["training_id"] / f"round-{method['best']:03d}"
        file = next(folder.glob("step-*/model/model.safetensors"))
        found[method["method"]] = b"".join(value.numpy().tobytes() for _, value in sorted(load_file(file).items()))
    return found


def without_clock(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Every method's figures, less those that say when, where and how long."""
    clocks = {"seconds", "folder", "mlflow_run", "mlflow_round", "mlflow_model", "mlflow_url"}

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(one) for key, one in value.items() if key not in clocks}
        return [clean(one) for one in value] if isinstance(value, list) else value

    cleaned: list[dict[str, Any]] = clean(result["methods"])
    return cleaned


def test_a_label_that_is_none_is_refused_though_older_questions_are_stored(own_data: Path, qcrd: Qcrd) -> None:
    with (own_data / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"body": "How many is many?", "total": "many"}) + "\n")
    refused = qcrd("distill", "small.yaml", code=2)
    assert refused.stderr.splitlines()[-1] == "qcrd: sums row 61: label 'many' is no number"
    assert "votes" not in refused.stderr.lower()


@pytest.mark.usefixtures("own_data")
def test_ctrl_c_in_a_terminal_ends_it_at_once(home: Path) -> None:
    command = qcrd_command(home, "distill", "small.yaml", "--set", "rounds.epochs_per_round=200")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)  # noqa: S606 - our own command
    written, interrupted, last = b"", 0.0, time.monotonic()
    processes: list[psutil.Process] = []
    while True:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                written += os.read(terminal, 4096)
            except OSError:  # Linux's way to say that nobody writes to the terminal any more
                break
        if not interrupted and list(home.glob("trainings/*/round-000/steps.jsonl")):
            processes = family(pid)
            os.write(terminal, b"\x03")
            interrupted = time.monotonic()
        assert time.monotonic() - (interrupted or last) < (60 if interrupted else 240), written.decode()
    _, status = os.waitpid(pid, 0)
    os.close(terminal)

    shown = written.decode()
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGINT, shown
    assert "Traceback" not in shown
    assert "go on" in shown, "it says that nothing is lost"
    assert still_running(processes) == []
    assert run_states(home) == ["stopped"]


def test_served_it_runs_as_a_deployment_until_it_is_told_to_end(own_data: Path, home: Path) -> None:
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(str(probe.getsockname()[1]))
    arguments = ["small.yaml", "--every", "1d", "--now", "--prefect-port", ports[0], "--mlflow-port", ports[1]]
    printed = own_data / "serve.log"
    with printed.open("wb") as log, subprocess.Popen(
        qcrd_command(home, "serve", *arguments, "--set", "compare=[]", "--set", "rounds.rounds=1"),
        stdout=log, stderr=log,
    ) as run:  # fmt: skip
        deadline = time.monotonic() + 300
        while not (states := run_states(home)) or states == ["running"]:
            assert run.poll() is None, printed.read_text()
            assert time.monotonic() < deadline, printed.read_text()
            time.sleep(1)
        processes = family(run.pid)
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/api/deployments/name/distill/small") as answer:
            deployment = json.load(answer)
        wanted = {"filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}}}
        heartbeats = httpx.post(f"http://127.0.0.1:{ports[0]}/api/events/filter", json=wanted).json()["events"]
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=60) == 0, printed.read_text()
    assert states == ["finished"], printed.read_text()
    assert deployment["parameters"]["config"]["dataset"]["name"] == "sums.yaml"
    assert set(deployment["tags"]) == {"sums.yaml", "qcrd"}
    assert [schedule["schedule"]["interval"] for schedule in deployment["schedules"]] == [86400.0]
    assert "student" in deployment["parameter_openapi_schema"]["definitions"]["DistillConfig"]["properties"]
    of = {related["prefect.resource.role"]: related["prefect.resource.id"] for related in heartbeats[0]["related"]}
    assert of["deployment"] == f"prefect.deployment.{deployment['id']}"
    assert still_running(processes) == []


def run_states(home: Path) -> list[str]:
    """States in the store's table of runs."""
    if not (home / "store" / "runs").exists():
        return []
    states: list[str] = Store(home / "store").query("SELECT state FROM runs")["state"].to_pylist()
    return states


def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(own_data: Path, home: Path, qcrd: Qcrd) -> None:
    undisturbed = own_data / "undisturbed"
    started = time.monotonic()
    expected = figures(qcrd("distill", "small.yaml", "--json", home=undisturbed))
    whole = time.monotonic() - started

    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed of the moments: {seed}")  # shown where the test fails
    moments = random.Random(seed)
    for _ in range(KILLS):
        with subprocess.Popen(
            qcrd_command(home, "distill", "small.yaml"),
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
        ) as run:  # fmt: skip
            time.sleep(moments.uniform(0.1, 0.9) * whole)
            os.killpg(run.pid, signal.SIGKILL)

    result = figures(qcrd("distill", "small.yaml", "--json"))
    assert without_clock(result) == without_clock(expected)
    assert weights(home, result) == weights(undisturbed, expected)
    assert result["registered"]["version"] == "1"
    assert result["registered"]["champion"]

    store = Store(home / "store")
    report = check_store(store, repair=True)
    assert (report.damaged, report.repeated) == ([], {})
    assert not list((home / "trainings").rglob("*.partial-*"))
    for table in ("rationales", "scores", "predictions"):
        count = f"SELECT count(*) AS n FROM {table}"
        assert store.query(count).to_pylist() == Store(undisturbed / "store").query(count).to_pylist()

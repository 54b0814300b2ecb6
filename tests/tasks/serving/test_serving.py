"""`mlflow models serve` answers over HTTP with a registered champion."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from tasks.serving.settings import Question, ServedConfig
from tasks.tracking.client import AboutTraining, open_tracking
from tasks.tracking.packaging import ToServe
from tasks.tracking.registry import hold_gate, register
from tests.tasks.conftest import Taught, home_with
from tests.tasks.serving.test_served_model import LIMITS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(taught: Taught, mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server of the champion, started as the README says, in a folder of its own."""
    folder = tmp_path_factory.mktemp("serving")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking = open_tracking(home_with(mlflow_database, folder / "home"))
        training = tracking.training(AboutTraining("served", "lab", "qcrd", "v", "r"), {})
        logged = tracking.finish_round(training, 0, {"accuracy": 1.0}, taught.student)
        example = Question(next(iter(taught.answers)))
        parts = ToServe(taught.student, taught.discriminator, ServedConfig(dataset="lab", **LIMITS), [example])
        hold_gate(tracking, register(tracking, "qcrd-lab", logged, parts), lambda _: {})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/qcrd-lab@champion"]
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(
        [*command, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # it starts `uvicorn` by name
            "MLFLOW_TRACKING_URI": tracking.backend.uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 180
        while not healthy(port):
            assert process.poll() is None, (folder / "server.log").read_text()[-3000:]
            assert time.monotonic() < deadline, (folder / "server.log").read_text()[-3000:]
            time.sleep(0.5)
        yield port
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def healthy(port: int) -> bool:
    with suppress(OSError, HTTPException), closing(HTTPConnection("127.0.0.1", port, timeout=5)) as server:
        server.request("GET", "/ping")
        return server.getresponse().status == 200
    return False


def ask(port: int, content: Any) -> tuple[int, Any]:
    """Status and body of a request to /invocations."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as server:
        server.request("POST", "/invocations", json.dumps(content), {"Content-Type": "application/json"})
        response = server.getresponse()
        return response.status, json.loads(response.read())


def test_questions_over_http(server: int, taught: Taught) -> None:
    rows = [{"question": question} for question in taught.answers]
    for key in ("dataframe_records", "inputs"):
        status, found = ask(server, {key: rows})
        assert status == 200, found
        assert [row["answer"] for row in found["predictions"]] == list(taught.answers.values())
        assert [row["rationale"] for row in found["predictions"]] == list(taught.rationales.values())
        assert all(0 <= row["quality"] <= 1 for row in found["predictions"])


def test_no_answer_is_null(server: int) -> None:
    status, found = ask(server, {"dataframe_records": [{"question": "why? " * 200}]})
    assert (status, found) == (
        200,
        {"predictions": [{"answer": None, "rationale": None, "quality": None, "confidence": None, "abstained": False}]},
    )


def test_choices_may_be_sent(server: int) -> None:
    rows = [{"question": "Which?", "choices": ["3", "7"]}, {"question": "Which?", "choices": None}]
    status, found = ask(server, {"dataframe_records": rows})
    assert (status, len(found["predictions"])) == (200, 2)


def test_a_bad_question_is_a_bad_request(server: int) -> None:
    status, found = ask(server, {"dataframe_records": [{"question": ""}]})
    assert status == 400
    assert "Cannot answer: question 1 is ''; it must be a text that is not empty." in found["message"]
    status, found = ask(server, {"dataframe_records": [{"text": "Who?"}]})
    assert status == 400
    assert "Model is missing inputs ['question']" in found["message"]

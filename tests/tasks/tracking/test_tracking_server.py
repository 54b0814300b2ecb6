"""The same story told to an MLflow server: nothing but MLFLOW_TRACKING_URI differs."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tasks.errors import TrackingFailed
from tasks.serving.settings import Question, ServedConfig
from tasks.tracking.client import AboutTraining, QuestionsUsed, open_tracking
from tasks.tracking.packaging import ToServe
from tasks.tracking.registry import hold_gate, load_registered, register
from tests.tasks.conftest import Taught
from tests.tasks.serving.test_served_model import LIMITS

pytestmark = pytest.mark.slow

QUESTIONS = QuestionsUsed("lab/validation", "aB3dE5gH7jK9", "/data/store", "validation", 4)


@pytest.fixture
def server(mlflow_database: Path, tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server with a database and artifacts of its own."""
    folder = tmp_path / "server"
    folder.mkdir()
    database = folder / "mlflow.db"
    database.write_bytes(mlflow_database.read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *arguments, "--host", "127.0.0.1", "--port", str(port),
             "--workers", "1"],
            cwd=folder,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # it starts `uvicorn` by name
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        while not answers(tmp_path / "probe", f"http://127.0.0.1:{port}"):
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(home: Path, address: str) -> bool:
    with pytest.MonkeyPatch.context() as patch, suppress(TrackingFailed):
        patch.setenv("MLFLOW_TRACKING_URI", address)
        return bool(open_tracking(home))
    return False


def test_a_training_on_a_server(
    server: str,
    taught: Taught,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    example = Question(next(iter(taught.answers)))
    parts = ToServe(taught.student, taught.discriminator, ServedConfig(dataset="lab", **LIMITS), [example])
    tracking = open_tracking(home)
    for _ in range(2):  # the second time nothing is new
        run = tracking.training(AboutTraining("remote", "lab", "qcrd", "v", "r"), {"seed": 1}, [QUESTIONS])
        with tracking.system_metrics(run):
            tracking.losses(tracking.round(run, 0), [{"step": step, "loss": 1.0} for step in range(1500)])
            logged = tracking.finish_round(run, 0, {"accuracy": 0.5}, taught.student, QUESTIONS)
        version = register(tracking, "qcrd-lab", logged, parts)
        assert version.version == "1"
        assert hold_gate(tracking, version, lambda _: {}).promoted
        tracking.finish(run, {"accuracy": 0.4}, logged)
    assert tracking.address(run) == f"{server}/#/experiments/1/runs/{run}"
    client = tracking.client
    assert len(client.get_metric_history(logged.run_id, "loss")) == 1500
    assert len(client.search_runs(["1"])) == 2
    model = client.get_logged_model(logged.model_id)
    assert {metric.key for metric in model.metrics or ()} == {"validation/accuracy", "test/accuracy"}
    assert model.artifact_location.startswith("mlflow-artifacts:/")
    found = load_registered(home, "qcrd-lab").predict(taught.answers)
    assert [row["answer"] for row in found] == list(taught.answers.values())
    assert {path.name for path in (home / "mlflow").iterdir()} == {"mlflow.lock", "packaging.lock", "registry.lock"}
    assert capfd.readouterr().out == ""

"""What a run does when the disk is full, and when Prefect's and MLflow's servers go away under it, for a while or for
good."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from storage.checking import check_store
from storage.store import Store
from tests.conftest import Qcrd, figures
from tests.flows.own_data import weights, without_clock, write_own_data
from tests.warm_start import Started, WarmStart

pytestmark = pytest.mark.slow

SHORT = ("--set", "compare=[]")


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small dataset of one's own; the working directory."""
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a disk of its own needs the right to mount one: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(place)], check=True)


def until_inside_round(number: int, home: Path, run: Started) -> None:
    """Waits until a round's training has begun."""
    while not list(home.glob(f"trainings/*/round-{number:03d}/steps.jsonl")):
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)


@pytest.mark.usefixtures("databases")
def test_a_full_disk_is_told_in_one_line_and_nothing_is_lost(
    own_data: Path, small_disk: Path, qcrd: Qcrd, warm_start: WarmStart, new_databases: Callable[[Path], Path]
) -> None:
    expected = figures(qcrd("distill", "small.yaml", "--json", *SHORT))
    home, ballast = new_databases(small_disk / "home"), small_disk / "ballast"
    with warm_start.start(home, "distill", "small.yaml", *SHORT, stderr=subprocess.PIPE) as run:
        until_inside_round(0, home, run)
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # until it is full
            while True:
                file.write(b"\0" * 4096)
        assert run.stderr
        lines = run.stderr.read().splitlines()
        assert run.wait(timeout=300) == 2, lines
    assert lines[-1].startswith("qcrd: The disk that holds "), lines[-5:]
    assert "qcrd resume" in lines[-1]

    ballast.unlink()
    result = figures(qcrd("resume", "--json", home=home))
    assert without_clock(result) == without_clock(expected)
    assert weights(home, result) == weights(own_data / "home", expected)
    assert check_store(Store(home / "store"), repair=True).damaged == []


class Service:
    """A server that can be stopped and started again under the same address.

    Args:
        command: with PORT where the port goes.
        health: path of a page that answers when it is up.
        env: further variables, PORT in them, too.
    """

    def __init__(self, command: list[str], health: str, env: dict[str, str], log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        self.address, self._health, self._log = f"http://127.0.0.1:{self.port}", health, log
        self._command = [part.replace("PORT", self.port) for part in command]
        self._env = {name: value.replace("PORT", self.port) for name, value in env.items()}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env={**os.environ, **self._env}, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(self.address + self._health, timeout=2):  # noqa: S310 - our own address
                    return
            except OSError:
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.3)

    def stop(self) -> None:
        """At once, as a crash would."""
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def prefect_server(tmp_path: Path, prefect_database: Path) -> Iterator[Service]:
    (tmp_path / "prefect").mkdir()
    shutil.copyfile(prefect_database, tmp_path / "prefect" / prefect_database.name)
    env = {
        "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_URL": "http://127.0.0.1:PORT/api", "PREFECT_SERVER_API_PORT": "PORT",
    }  # fmt: skip
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", "PORT"]
    service = Service(command, "/api/health", env, tmp_path / "prefect.log")
    service.start()
    yield service
    service.stop()


@pytest.fixture
def mlflow_server(tmp_path: Path, mlflow_database: Path) -> Iterator[Service]:
    shutil.copyfile(mlflow_database, tmp_path / "mlflow.db")
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}",
        "--artifacts-destination", str(tmp_path / "artifacts"), "--serve-artifacts", "--host", "127.0.0.1",
        "--port", "PORT", "--workers", "1",
    ]  # fmt: skip
    service = Service(command, "/health", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, tmp_path / "mlflow.log")
    service.start()
    yield service
    service.stop()


@pytest.mark.usefixtures("own_data")
def test_servers_that_restart_under_a_run_do_not_end_it(
    home: Path, prefect_server: Service, mlflow_server: Service, warm_start: WarmStart
) -> None:
    env = {
        **os.environ, "PREFECT_API_URL": f"{prefect_server.address}/api", "MLFLOW_TRACKING_URI": mlflow_server.address,
    }  # fmt: skip
    with warm_start.start(
        home, "distill", "small.yaml", "--json", *SHORT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as run:
        for round_, service in ((0, prefect_server), (1, mlflow_server)):
            until_inside_round(round_, home, run)
            service.stop()
            time.sleep(3)
            service.start()
        out, err = run.communicate(timeout=600)
    assert run.returncode == 0, err
    assert '"version": "1"' in out
    shown = Store(home / "store").query("SELECT state FROM runs").to_pylist()
    assert shown == [{"state": "finished"}]


@pytest.mark.usefixtures("own_data", "databases")
def test_an_mlflow_that_stays_away_fails_the_run_in_one_line_and_it_can_go_on(
    home: Path, mlflow_server: Service, qcrd: Qcrd, warm_start: WarmStart
) -> None:
    # Without the second one its client would wait for minutes.
    env = {"MLFLOW_TRACKING_URI": mlflow_server.address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    with warm_start.start(home, "distill", "small.yaml", *SHORT, stderr=subprocess.PIPE, env=os.environ | env) as run:
        until_inside_round(1, home, run)
        mlflow_server.stop()
        _, err = run.communicate(timeout=600)
    [stored] = Store(home / "store").query("SELECT run_id, state FROM runs").to_pylist()
    assert (run.returncode, stored["state"]) == (2, "failed"), err
    *_, hint, complaint = err.splitlines()
    assert complaint.startswith(f"qcrd: No MLflow server answers at {mlflow_server.address}. Start it, or "), err
    assert f"qcrd resume {stored['run_id']}" in hint, err

    mlflow_server.start()
    result = figures(qcrd("resume", "--json", home=home, **env))
    assert result["registered"]["version"] == "1"
    client = MlflowClient(mlflow_server.address)
    experiment = client.get_experiment_by_name("qcrd/sums")
    assert experiment
    told = client.search_runs([experiment.experiment_id])
    assert Counter(run.info.status for run in told) == {"FINISHED": 4}, "a training and its three rounds, told once"

"""`qcrd distill` on somebody's own data, with recorded samples: interrupted, served; and wrong data."""

import json
import os
import pty
import select
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from storage.store import Store
from tests.conftest import Qcrd, qcrd_command
from tests.flows.own_data import family, still_running, write_own_data

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("databases")]


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small dataset of one's own; the working directory."""
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_label_that_is_none_is_refused_though_older_questions_are_stored(own_data: Path, qcrd: Qcrd) -> None:
    with (own_data / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"body": "How many is many?", "total": "many"}) + "\n")
    refused = qcrd("distill", "small.yaml", code=2)
    assert refused.stderr.splitlines()[-1] == "qcrd: sums row 61: label 'many' must be a number"
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
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        told = database.execute("SELECT state_type FROM flow_run").fetchall()
    assert told == [("CRASHED",)], "its own server lived long enough to be told"


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

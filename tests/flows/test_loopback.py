"""Servers that `qcrd` starts listen on this machine's own address only."""

import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from models import watchdog
from models.hardware import detect_hardware
from models.server_settings import ServerConfig, server_command
from tests.conftest import qcrd_command


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listening(pid: int) -> dict[int, set[str]]:
    """port -> addresses that a process and all it has started listen on."""
    found: dict[int, set[str]] = {}
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        for connection in one.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.setdefault(connection.laddr.port, set()).add(connection.laddr.ip)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("databases")
def test_the_pages_of_qcrd_ui(tmp_path: Path, home: Path) -> None:
    ports = [free_port(), free_port()]
    command = qcrd_command(home, "ui", "--prefect-port", ports[0], "--mlflow-port", ports[1])
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as run:
        try:
            deadline = time.monotonic() + 180
            while "Ctrl-C ends both" not in (tmp_path / "log").read_text():
                assert run.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.5)
            found = listening(run.pid)
            started = {process.cmdline()[3] for process in psutil.Process(run.pid).children()}
        finally:
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=60) == 130
    assert started == {watchdog.__file__}, "else they would outlive a command that is killed with -9"
    assert found.keys() >= set(ports)
    assert set().union(*found.values()) == {"127.0.0.1"}


def test_vllms_server_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    machine = detect_hardware()
    command = server_command(ServerConfig(model=str(tmp_path)), "lab", 8000, machine)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "0.0.0.0" not in " ".join(command)  # noqa: S104 - what must not be there
    told = server_command(ServerConfig(model=str(tmp_path), extra_args=("--host", "::")), "lab", 8000, machine)
    assert told[-2:] == ["--host", "::"]

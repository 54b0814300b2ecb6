"""A command's own Prefect server: only this process knows it, it answers, and it ends with the process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.prefect.own_server import OwnServer, has_configured_server, start_own_server
from storage.errors import UsageError
from storage.locks import file_lock
from tests.conftest import qcrd_command
from tests.flows.own_data import family, still_running
from tests.flows.test_loopback import free_port

ROOT = Path(__file__).parents[3]
BEGIN = """
import os, sys, threading
from pathlib import Path
from flows.prefect.embedded import prepare_prefect
home = Path(sys.argv[1])
prepare_prefect(home)
from flows.prefect.own_server import has_configured_server, start_own_server
server = start_own_server(home / "logs")
server.wait()
"""
ASK = """
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

def ask():
    with get_client(sync_client=True) as client:
        print(client.api_url, len(client.read_flows()), has_configured_server())

ask()
other = threading.Thread(target=ask)  # which has no context of its own
other.start()
other.join()
print(server.api, "PREFECT_API_URL" in os.environ, flush=True)
sys.stdin.readline()
"""


def started(home: Path, program: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.Popen(
        [sys.executable, "-c", program, str(home)], cwd=ROOT, env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("killed", [False, True])
def test_it_answers_this_process_alone_and_ends_with_it(
    home: Path, new_databases: Callable[[Path], Path], killed: bool
) -> None:
    with started(new_databases(home), BEGIN + ASK) as command:
        assert command.stdout
        asked, in_a_thread, last = (command.stdout.readline().split() for _ in range(3))
        below = family(command.pid)[1:]
        assert asked == in_a_thread
        assert asked[1:] == ["0", "False"], "nobody configured it"
        assert last == [asked[0].rstrip("/"), "False"], "programs that this one starts do not learn of it"
        assert os.getsid(command.pid) not in {os.getsid(process.pid) for process in below}, "Ctrl-C is not for it"
        if killed:
            command.send_signal(signal.SIGKILL)
        else:
            command.communicate("\n", timeout=60)
            assert command.returncode == 0
    assert still_running(below) == []
    assert (home / "logs" / "prefect-own-server.log").read_text() == ""


def test_one_that_cannot_start_is_told_with_its_log(home: Path) -> None:
    (home / "prefect").mkdir(parents=True)
    (home / "prefect" / "prefect.db").write_bytes(b"no database" * 1000)
    with started(home, BEGIN) as command:
        _, errors = command.communicate(timeout=120)
    log = home / "logs" / "prefect-own-server.log"
    assert errors.splitlines()[-1] == (
        f"storage.errors.UsageError: Prefect's server did not start (ConnectionResetError); its log: {log}."
    )
    assert "file is not a database" in log.read_text()


def test_of_several_that_start_at_once_one_makes_the_database(home: Path) -> None:
    """Two that made it at once found a column twice. So they wait for whoever starts; here, that is this test."""
    made, log = home / "prefect" / "prefect.db", home / "ui.log"
    pages = qcrd_command(home, "ui", "--prefect-port", free_port(), "--mlflow-port", free_port())
    with ExitStack() as stack:
        with file_lock(home / "prefect" / ".starting.lock"):
            printed = stack.enter_context(log.open("wb"))
            ui = stack.enter_context(subprocess.Popen(pages, stdout=printed, stderr=subprocess.STDOUT))
            stack.callback(ui.send_signal, signal.SIGINT)
            commands = [stack.enter_context(started(home, BEGIN + ASK)) for _ in range(2)]
            time.sleep(15)  # each would have made it by then, on a machine that is not very busy
            assert not made.exists()
        told = [command.communicate("\n", timeout=240) for command in commands]
        assert [command.returncode for command in commands] == [0, 0], told
        deadline = time.monotonic() + 180
        while "Ctrl-C ends both" not in log.read_text():
            assert ui.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
    assert (home / "logs" / "prefect-own-server.log").read_text() == ""


def test_where_a_server_is_configured_none_is_started(tmp_path: Path) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert has_configured_server()
        assert start_own_server(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_sick_server_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sick:
        status = 500

    def answer(_: Any) -> Sick:
        return Sick()

    monkeypatch.setattr("http.client.HTTPConnection.request", lambda *_: None)
    monkeypatch.setattr("http.client.HTTPConnection.getresponse", answer)
    with pytest.raises(UsageError, match=rf"^Prefect's server is not well \(status 500\); its log: {tmp_path}/log\.$"):
        OwnServer(1, tmp_path / "log").wait()

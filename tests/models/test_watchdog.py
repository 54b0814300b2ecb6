"""The watchdog ends everything it started, whoever dies and however. Small processes stand in for vLLM's."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from models.watchdog import Watched

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="subreaper and parent-death signal are Linux's")

# A server with a child that has a child of its own session, as an engine with workers may be; each writes its pid.
TREE = """
import os, signal, subprocess, sys, time
depth, stubborn = int(sys.argv[1]), sys.argv[2] == "stubborn"
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if depth:
    subprocess.Popen([sys.executable, "-c", os.environ["TREE"], str(depth - 1), sys.argv[2]],
                     start_new_session=depth == 1)
with open(os.path.join(os.environ["PIDS"], str(os.getpid())), "w"):
    pass
time.sleep(600)
"""

# The process that asks for the server: says the watchdog's pid, and ends it when it gets a line.
ASKER = """
import os, sys, time
from models.watchdog import Watched
watched = Watched(sys.argv[1:], grace_s=0.5)
print(watched.process.pid, flush=True)
if os.environ.get("HELD_OPEN"):  # a fork that lives on holds the pipe open
    if os.fork() == 0:
        time.sleep(600)
sys.stdin.readline()
watched.end()
print(watched.process.returncode, flush=True)
time.sleep(600)
"""


def alive(process: psutil.Process) -> bool:
    """Whether it runs; one that is dead and only not yet collected by its parent does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def gone(processes: list[psutil.Process], within_s: float) -> bool:
    """Whether the processes end in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(alive(process) for process in processes):
            return True
        time.sleep(0.01)
    return False


class Tree:
    """An asker, its watchdog, and three generations of processes below."""

    def __init__(self, folder: Path, manner: str = "obedient", held_open: bool = False) -> None:
        environment = {**os.environ, "TREE": TREE, "PIDS": str(folder), **({"HELD_OPEN": "1"} if held_open else {})}
        command = [sys.executable, "-c", TREE, "2", manner]
        self.asker = subprocess.Popen(
            [sys.executable, "-c", ASKER, *command], env=environment, cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.asker.stdout is not None
        self.watchdog = psutil.Process(int(self.asker.stdout.readline()))
        deadline = time.monotonic() + 20
        while len(list(folder.iterdir())) < 3:
            assert time.monotonic() < deadline, "the processes did not start"
            time.sleep(0.01)
        self.forks = [child for child in psutil.Process(self.asker.pid).children() if child != self.watchdog]
        self.processes = [psutil.Process(int(path.name)) for path in folder.iterdir()]

    def ask_to_end(self) -> int:
        """The asker ends it and lives on; the watchdog's exit code."""
        assert self.asker.stdin is not None
        assert self.asker.stdout is not None
        print(file=self.asker.stdin, flush=True)
        return int(self.asker.stdout.readline())

    def all_gone(self, within_s: float) -> bool:
        """Whether the watchdog and all below it are gone in time."""
        return gone([self.watchdog, *self.processes], within_s)

    def clean_up(self) -> None:
        self.asker.kill()
        for process in [self.watchdog, *self.processes, *self.forks]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.asker.communicate()


@pytest.fixture
def trees() -> Iterator[list[Tree]]:
    made: list[Tree] = []
    yield made
    for tree in made:
        tree.clean_up()


@pytest.mark.parametrize("manner", ["obedient", "stubborn"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_all_end_when_the_asker_is_ended(
    tmp_path: Path, trees: list[Tree], number: signal.Signals, manner: str
) -> None:
    tree = Tree(tmp_path, manner)
    trees.append(tree)
    tree.asker.send_signal(number)
    assert tree.all_gone(within_s=5)


def test_all_end_when_a_fork_of_the_killed_asker_holds_the_pipe_open(tmp_path: Path, trees: list[Tree]) -> None:
    tree = Tree(tmp_path, held_open=True)
    trees.append(tree)
    assert len(tree.forks) == 1
    tree.asker.kill()
    assert tree.all_gone(within_s=8)
    assert tree.forks[0].is_running()


@pytest.mark.parametrize(("manner", "code"), [("obedient", 128 + signal.SIGTERM), ("stubborn", 128 + signal.SIGKILL)])
def test_all_are_gone_when_the_asker_has_ended_it(tmp_path: Path, trees: list[Tree], manner: str, code: int) -> None:
    tree = Tree(tmp_path, manner)
    trees.append(tree)
    assert tree.ask_to_end() == code
    assert not any(alive(process) for process in tree.processes)


def test_the_asker_ends_what_a_killed_watchdog_left(tmp_path: Path, trees: list[Tree]) -> None:
    tree = Tree(tmp_path, "stubborn")
    trees.append(tree)
    server = next(process for process in tree.processes if process.ppid() == tree.watchdog.pid)
    tree.watchdog.kill()
    assert tree.ask_to_end() == -signal.SIGKILL
    assert gone([server], within_s=5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_all_end_when_the_watchdog_is_told_to(tmp_path: Path, trees: list[Tree], number: signal.Signals) -> None:
    tree = Tree(tmp_path, "stubborn")
    trees.append(tree)
    tree.watchdog.send_signal(number)
    assert tree.all_gone(within_s=5)


def test_the_server_is_told_to_end_when_the_watchdog_is_killed(tmp_path: Path, trees: list[Tree]) -> None:
    tree = Tree(tmp_path)
    trees.append(tree)
    server = next(process for process in tree.processes if process.ppid() == tree.watchdog.pid)
    tree.watchdog.kill()
    assert gone([server], within_s=5)


def test_what_a_dead_server_left_behind_is_ended(tmp_path: Path, trees: list[Tree]) -> None:
    tree = Tree(tmp_path, "stubborn")
    trees.append(tree)
    server = next(process for process in tree.processes if process.ppid() == tree.watchdog.pid)
    server.kill()
    assert tree.all_gone(within_s=5)


def ended(*command: str) -> tuple[int, str, str]:
    """Runs a short command to its end; its exit code and what it said."""
    with Watched(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watched:
        said, errors = watched.process.communicate(timeout=20)
    return watched.process.returncode, said, errors


@pytest.mark.parametrize(("code", "expected"), [("0", 0), ("3", 3)])
def test_the_exit_code_is_the_commands(code: str, expected: int) -> None:
    assert ended(sys.executable, "-c", f"raise SystemExit({code})") == (expected, "", "")


def test_a_command_ended_by_a_signal_gives_128_and_its_number() -> None:
    assert ended(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)") == (137, "", "")


def test_a_command_that_is_not_there_is_named() -> None:
    error = "cannot start /nowhere/python: [Errno 2] No such file or directory: '/nowhere/python'\n"
    assert ended("/nowhere/python") == (127, "", error)


def test_arguments_that_look_like_options_reach_the_command() -> None:
    said = ended(sys.executable, "-c", "import sys; print(sys.argv[1:])", "--grace", "1", "--", "--alive-fd")
    assert said == (0, "['--grace', '1', '--', '--alive-fd']\n", "")


def test_it_has_nothing_to_read_and_a_session_of_its_own() -> None:
    code, said, _ = ended(sys.executable, "-c", "import os, sys; print(repr(sys.stdin.read()), os.getsid(0))")
    text, session = said.split()
    assert (code, text) == (0, "''")
    assert int(session) != os.getsid(0), "Ctrl-C in a terminal reaches the foreground's session only"


ANSWER = """
import socket, sys
with socket.socket(fileno=int(sys.argv[1])) as listening:
    connection, _ = listening.accept()
    connection.sendall(connection.recv(9))
"""


def test_a_port_can_be_handed_over_before_the_server_is_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address, number = listening.getsockname(), listening.fileno()
        with socket.create_connection(address, timeout=20) as early:
            early.sendall(b"hello")
            with Watched([sys.executable, "-c", ANSWER, str(number)], keep_fds=[number]) as watched:
                listening.close()
                assert early.recv(9) == b"hello"
                assert watched.process.wait(timeout=20) == 0
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(address, timeout=20)

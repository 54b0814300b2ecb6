"""The watchdog ends everything it started, whoever dies and however. Small processes stand in for vLLM's."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

WATCHDOG = Path(__file__).parents[2] / "models" / "watchdog.py"
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

# The process that asks for the server: holds the pipe's write end, and says the watchdog's pid.
ASKER = """
import os, subprocess, sys, time
read_end, write_end = os.pipe()
command = [sys.executable, "-I", "-S", sys.argv[1], "--alive-fd", str(read_end), "--grace", "0.5", "--"]
child = subprocess.Popen(command + sys.argv[2:], pass_fds=(read_end,), start_new_session=True)
print(child.pid, flush=True)
if os.environ.get("HELD_OPEN"):  # a fork that lives on holds the pipe open
    if os.fork() == 0:
        time.sleep(600)
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
            [sys.executable, "-c", ASKER, str(WATCHDOG), *command], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self.asker.stdout is not None
        self.watchdog = psutil.Process(int(self.asker.stdout.readline()))
        deadline = time.monotonic() + 20
        while len(list(folder.iterdir())) < 3:
            assert time.monotonic() < deadline, "the processes did not start"
            time.sleep(0.01)
        self.forks = [child for child in psutil.Process(self.asker.pid).children() if child != self.watchdog]
        self.processes = [psutil.Process(int(path.name)) for path in folder.iterdir()]

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


def run_watchdog(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs a short command to its end under a watchdog."""
    read_end, write_end = os.pipe()
    try:
        return subprocess.run(
            [sys.executable, "-I", "-S", str(WATCHDOG), "--alive-fd", str(read_end), "--", *command],
            pass_fds=(read_end,),
            capture_output=True,
            text=True,
            timeout=20,
        )
    finally:
        os.close(read_end)
        os.close(write_end)


@pytest.mark.parametrize(("code", "expected"), [("0", 0), ("3", 3)])
def test_the_exit_code_is_the_commands(code: str, expected: int) -> None:
    assert run_watchdog(sys.executable, "-c", f"raise SystemExit({code})").returncode == expected


def test_a_command_ended_by_a_signal_gives_128_and_its_number() -> None:
    assert run_watchdog(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)").returncode == 137


def test_a_command_that_is_not_there_is_named() -> None:
    ended = run_watchdog("/nowhere/python")
    assert ended.returncode == 127
    assert ended.stderr.strip() == (
        "cannot start /nowhere/python: [Errno 2] No such file or directory: '/nowhere/python'"
    )


def test_arguments_that_look_like_options_reach_the_command() -> None:
    ended = run_watchdog(sys.executable, "-c", "import sys; print(sys.argv[1:])", "--grace", "1", "--", "--alive-fd")
    assert ended.stdout.strip() == "['--grace', '1', '--', '--alive-fd']"

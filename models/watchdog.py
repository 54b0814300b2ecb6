"""Keeps a child process from outliving the process that asked for it.

    with Watched([sys.executable, "-m", "mlflow", "server"]) as server:   # how all servers and torchrun are started
        server.process.wait()

A server that is started directly becomes an orphan when its parent is killed with -9: it keeps its memory and
its port. So a small process stands between the two, this file run as a program:

    python watchdog.py --alive-fd 5 --grace 10 -- COMMAND ARGUMENT ...

It starts the command in its own session, waits, and ends everything it started as soon as one of these happens:

    the pipe behind --alive-fd closes   the asking process closed it, or died in whatever way
    the asking process is gone          the pipe may be held open by a fork of it; its pid is looked at too
    SIGTERM, SIGINT or SIGHUP comes in  somebody ends the watchdog by hand
    the command exits                   whatever it left behind is ended too

Ending means: SIGTERM to the command, `--grace` seconds to comply, then SIGKILL to every process that descends
from it, also those that moved to another session or whose own parent died (on Linux the watchdog is a
"subreaper": orphans below it become its children). The exit code is the command's, or 128 + signal number.

Standard library only and no import from the rest of qcrd: it must start in milliseconds and never fail.
Off Linux there is no subreaper and no parent-death signal; the process group is ended instead.
"""

import argparse
import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
PR_SET_CHILD_SUBREAPER = 36
LOOK_S = 1.0  # how often to check that the asking process is still there
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
BEYOND_GRACE_S = 20.0  # how long the watchdog may take after its command's time is over


class Watched:
    """A command that has been started below a watchdog of its own: it ends with this process, or with `end`.

    It gets nothing to read, and no Ctrl-C of this terminal: what that does is for this process to decide.

    Args:
        command: what to run.
        grace_s: seconds between SIGTERM and SIGKILL.
        keep_fds: open files that it inherits, under the same numbers.
        popen: further arguments of `subprocess.Popen`: its output, its environment.

    Attributes:
        process: the watchdog. What the command prints comes from it; its exit code is the command's, or 128 + the
            number of the signal that ended it. A negative one means that the watchdog itself was killed.

    Raises:
        OSError: no process can be started.
    """

    def __init__(
        self, command: Sequence[str], *, grace_s: float = 10.0, keep_fds: Sequence[int] = (), **popen: Any
    ) -> None:
        self._grace_s = grace_s
        alive, held = os.pipe()  # not inherited by default: only pass_fds hands one over
        options = ["--alive-fd", str(alive), "--grace", str(grace_s)]
        for kept in keep_fds:
            options += ["--keep-fd", str(kept)]
        try:
            self.process: subprocess.Popen[Any] = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, *options, "--", *command],
                stdin=subprocess.DEVNULL,
                pass_fds=(alive, *keep_fds),
                start_new_session=True,
                **popen,
            )
        except BaseException:
            os.close(held)
            raise
        finally:
            os.close(alive)
        self._held: int | None = held

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Ends the command and all that it started; returns when they are gone. May be called twice."""
        if self._held is None:
            return
        os.close(self._held)
        self._held = None
        self.process.terminate()  # should a fork of this process still hold the pipe open
        try:
            self.process.wait(timeout=self._grace_s + BEYOND_GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        # Only if the watchdog itself was killed can anything be left; it led the session all of it was started in.
        if self.process.returncode < 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


# ---- what runs between the two ----


def prctl(option: int, value: int) -> None:
    """Linux prctl(2) with one argument; does nothing elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Pids of all living descendants of `root`, from /proc; empty off Linux. Zombies do not count."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue  # gone in the meantime
        # "pid (name) state ppid ...": the name may hold spaces and brackets, so cut after the last bracket
        state, parent = stat[stat.rindex(")") + 2 :].split()[:2]
        if state != "Z":
            children.setdefault(int(parent), []).append(int(entry.name))
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def send(pid: int, number: int) -> None:
    """Sends a signal; a process that is already gone is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def reap(command: int) -> int | None:
    """Collects every dead child; the command's exit code if it is among them (128 + n when ended by signal n)."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == command:
            raw = os.waitstatus_to_exitcode(status)
            code = raw if raw >= 0 else 128 - raw


def wait_for_end(alive_fd: int, wake_fd: int, command: int, asker: int) -> int | None:
    """Blocks until the command exits (its exit code) or has to be ended (None)."""
    while True:
        readable, _, _ = select.select([alive_fd, wake_fd], [], [], LOOK_S)
        if wake_fd in readable:
            signals = os.read(wake_fd, 512)  # one byte per signal: its number
            code = reap(command)
            if code is not None:
                return code
            if any(number in signals for number in ENDING_SIGNALS):
                return None
        if alive_fd in readable and not os.read(alive_fd, 512):
            return None
        if os.getppid() != asker:
            return None


def end_all(command: int, code: int | None, grace_s: float) -> int:
    """Ends the command and all that descends from it; the command's exit code (137 when it had to be killed)."""
    deadline = time.monotonic() + grace_s
    if code is None:
        send(command, signal.SIGTERM)
        while code is None and time.monotonic() < deadline:
            time.sleep(0.02)
            code = reap(command)
    me = os.getpid()
    # A killed process may have had children that only now become ours: go on until none is left.
    for _ in range(500):
        left = descendants(me)
        for pid in left:
            send(pid, signal.SIGKILL)
        if sys.platform != "linux" and code is None:
            send(command, signal.SIGKILL)
        exited = reap(command)
        code = exited if exited is not None else code
        if code is not None and not left:
            break
        time.sleep(0.01)
    return 137 if code is None else code


def main() -> int:
    """Runs the command until one of the ends in the module's docstring; returns the exit code."""
    parser = argparse.ArgumentParser(description="runs a command that ends when its asker does")
    parser.add_argument("--alive-fd", type=int, required=True, help="read end of a pipe held open by the asker")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds between SIGTERM and SIGKILL")
    parser.add_argument("--keep-fd", type=int, action="append", default=[], help="an open file for the command")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    asker = os.getppid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (*ENDING_SIGNALS, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # the wake-up pipe does the work; SIG_IGN would not wake us

    def before_exec() -> None:
        # If the watchdog itself is killed with -9, the command is told to end (vLLM then ends its engine).
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != watchdog:  # it died before the line above took effect
            os._exit(143)

    watchdog = os.getpid()
    try:
        # This process has one thread, so code between fork and exec is safe here.
        child = subprocess.Popen(
            options.command, stdin=subprocess.DEVNULL, pass_fds=options.keep_fd, preexec_fn=before_exec
        )
        for kept in options.keep_fd:  # it is the command's now: a port must be free when that ends
            os.close(kept)
    except OSError as error:
        print(f"cannot start {options.command[0]}: {error}", file=sys.stderr, flush=True)
        return 127
    code = wait_for_end(options.alive_fd, wake_read, child.pid, asker)
    code = end_all(child.pid, code, options.grace)
    child.returncode = code  # already reaped here: keeps Popen from waiting for it
    return code


if __name__ == "__main__":
    sys.exit(main())

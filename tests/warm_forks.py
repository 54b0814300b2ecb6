"""What a warm `qcrd` forks from itself where a cold one starts a new Python: the process that workers come from, and
the command's own Prefect server below its watchdog.

Only the start differs. The watchdog, the server and the workers run the same code as anywhere, as processes of their
own: they can be killed, and have to be gone when their command is. `tests/flows/prefect/test_own_server.py` and the
tests with `tests.conftest.qcrd_command` start them as a user's command does.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import forkserver, util
from types import SimpleNamespace
from typing import IO, Any

from flows.prefect import own_server
from models import watchdog

MOST_FILES = 2**16


def warm_workers() -> None:
    """The process that workers are forked from is forked from this one, where it would be started anew.

    This is done now because a process with several threads should not fork.
    """
    start = util.spawnv_passfds

    def fork(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:  # noqa: ARG001
        # Python's own "from multiprocessing.forkserver import main; ..."
        return forked(lambda: exec(args[-1], {}), [0, 1, 2, *passfds])  # noqa: S102

    util.spawnv_passfds = fork
    try:
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = start


def warm_server() -> None:
    """This command's own Prefect server will be forked from it, and so will the watchdog above it."""
    setattr(own_server, "Watched", ForkedWatched)  # noqa: B010 - what the module imported, it does not export


class ForkedWatched(watchdog.Watched):
    """As the class above, with a watchdog and a server that are forked; only the latter can be started."""

    def __init__(
        self, command: Sequence[str], *, grace_s: float, keep_fds: Sequence[int], stdout: IO[bytes], stderr: IO[bytes]
    ) -> None:
        assert list(command[:3]) == [sys.executable, "-m", "flows.prefect.own_server"], command
        self._grace_s = grace_s
        alive, self._held = os.pipe()

        def watch() -> None:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out, 1)
            os.dup2(errors, 2)
            signal.set_wakeup_fd(-1)
            setattr(watchdog, "subprocess", SimpleNamespace(Popen=start_server, DEVNULL=subprocess.DEVNULL))  # noqa: B010
            kept = [part for fd in keep_fds for part in ("--keep-fd", str(fd))]
            sys.argv = ["watchdog", "--alive-fd", str(alive), "--grace", str(grace_s), *kept, "--", *command]
            os._exit(watchdog.main())

        out, errors = stdout.fileno(), stderr.fileno()
        self.process = Forked(forked(watch, [0, 1, 2, out, errors, alive, *keep_fds]))  # type: ignore[assignment]
        os.close(alive)


def start_server(
    command: Sequence[str],
    stdin: int,  # noqa: ARG001
    pass_fds: Sequence[int],
    preexec_fn: Callable[[], None],
) -> "Forked":
    """Forks the server from its watchdog, where that would start a new Python."""

    def serve() -> None:
        for number in (*watchdog.ENDING_SIGNALS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        preexec_fn()
        own_server.serve(int(command[3]))

    return Forked(forked(serve, [0, 1, 2, *pass_fds]))


class Forked:
    """A child process; what `subprocess.Popen` offers, as far as `Watched` needs it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a forked process", timeout)
            else:
                time.sleep(0.01)
        return self.returncode

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send(signal.SIGTERM)

    def kill(self) -> None:
        self.send(signal.SIGKILL)


def forked(run: Callable[[], None], files: Sequence[int]) -> int:
    """Runs a function in a forked process that keeps only these open files; returns its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            kept = sorted(set(files))
            for low, high in zip(kept, [*kept[1:], MOST_FILES], strict=True):
                os.closerange(low + 1, high)
            run()
            code = 0
        except SystemExit:  # how Python's own ends
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    return pid

"""Starts `qcrd` as a process of its own in a moment: by forking one that has imported everything already.

    with WarmStart(folder) as warm:
        run = warm.start(home, "distill", "small.yaml", stderr=subprocess.PIPE)
        run.kill()

Importing Prefect, MLflow, torch and transformers takes fifteen seconds of a processor, and the tests start some two
hundred commands. What is forked runs the same `main` as the `qcrd` command, in a session of its own, with the
environment, working directory and files it was given; its workers and its own Prefect server are warm, too.
Tests for which the start itself matters use `tests.conftest.qcrd_command`.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module, reload
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self

from tests.lasting import lasting_folder

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 2**17  # bytes of an order: mostly the environment
GONE = "the process that the others are forked from is gone"
TRAIN = {"distill", "resume", "compare", "serve"}
"""Commands that start workers."""


class Started:
    """A started command; what `subprocess.Popen` offers, as far as tests need it.

    Attributes:
        pid: which is also its process group's and session's.
        returncode: None as long as it is not known to have ended.
        stdout, stderr: what to read from, where it was started with `subprocess.PIPE`.
    """

    def __init__(self, pid: int, ended: int, stdout: IO[str] | None, stderr: IO[str] | None) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode: int | None = None
        self._ended = os.fdopen(ended, "rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self.wait()
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended; its exit code, or minus the number of the signal that ended it."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("qcrd", timeout or 0.0)
            said = self._ended.read()
            assert said, GONE
            self.returncode = int(said)
            self._ended.close()
        return self.returncode

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self.wait(timeout=0)
        return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All it writes until it ends: standard output, standard error."""
        written = {1: "", 2: ""}

        def read(number: int, stream: IO[str]) -> None:
            written[number] = stream.read()

        readers = [
            threading.Thread(target=read, args=(number, stream), daemon=True)
            for number, stream in ((1, self.stdout), (2, self.stderr))
            if stream
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return written[1], written[2]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill_group(self) -> None:
        """kill -9 of it and of what it started in its session."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


class WarmStart:
    """The process that the others are forked from; it ends with the block, or with this process.

    Args:
        folder: for its own state, of which it needs none.
    """

    def __init__(self, folder: Path) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm_start", str(theirs.fileno()), str(folder)],
                cwd=ROOT, pass_fds=[theirs.fileno()],
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._orders.close()
        self._process.wait(timeout=60)

    def start(
        self,
        home: Path,
        *arguments: object,
        stdout: "int | IO[Any] | None" = None,
        stderr: "int | IO[Any] | None" = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Started:
        """Starts `qcrd ARGUMENTS --home HOME`.

        Args:
            stdout, stderr: as for `subprocess.Popen`, without which they are this process's.
            cwd, env: working directory and environment; this process's unless given.
        """
        (ended, ending), (out, written), (err, errors) = os.pipe(), _target(stdout, 1), _target(stderr, 2)
        order = {
            "arguments": qcrd_arguments(home, *arguments),
            "home": str(home),
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
        }
        socket.send_fds(self._orders, [json.dumps(order).encode()], [ending, out, err])
        for file in (ending, out, err):
            os.close(file)
        answer = self._orders.recv(64)
        assert answer, GONE
        return Started(int(answer), ended, written, errors)

    def run(self, home: Path, *arguments: object, **more: Any) -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end."""
        with self.start(home, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more) as run:
            out, err = run.communicate()
            return subprocess.CompletedProcess([*map(str, arguments)], run.wait(), out, err)


@cache
def shared_warm_start() -> WarmStart:
    """One for all tests of this process, with which it ends."""
    return WarmStart(lasting_folder())


def qcrd_arguments(home: Path, *arguments: object) -> list[str]:
    """Arguments of a `qcrd` command, with its state folder."""
    command, *rest = map(str, arguments)
    subcommand = rest[:1] if command in ("lab", "show", "store") else []
    return [command, *subcommand, "--home", str(home), *rest[len(subcommand) :]]


def _target(given: "int | IO[Any] | None", own: int) -> tuple[int, IO[str] | None]:
    """Where a stream goes: a file descriptor to close when it was handed on, and what to read from, if anything."""
    if given == subprocess.PIPE:
        read, write = os.pipe()
        return write, os.fdopen(read, encoding="utf-8", errors="replace")
    if given == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_WRONLY), None
    if given is None:
        return os.dup(own), None
    return os.dup(given if isinstance(given, int) else given.fileno()), None


# ---- what runs in the process that the others are forked from ----


def serve(orders: socket.socket) -> None:
    """Forks a command for every order, and says how each ended, until nobody can order any more."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is pytest's business
    signal.set_wakeup_fd(waker)
    running: dict[int, int] = {}  # pid -> where to say how it ended
    while True:
        ready = select.select([orders.fileno(), wake], [], [])[0]
        if wake in ready:
            os.read(wake, 4096)
            while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with suppress(BrokenPipeError), os.fdopen(running.pop(ended[0]), "wb") as ending:
                    ending.write(str(os.waitstatus_to_exitcode(ended[1])).encode())
        if orders.fileno() in ready:
            message, files, _, _ = socket.recv_fds(orders, LONGEST, 3)
            if not message:
                break
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGCHLD, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                orders.close()
                for file in (wake, waker, files[0], *running.values()):
                    os.close(file)
                become(json.loads(message), *files[1:])
            for file in files[1:]:
                os.close(file)
            running[pid] = files[0]
            orders.send(str(pid).encode())
    for pid in running:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def become(order: dict[str, Any], out: int, err: int) -> NoReturn:
    """The forked process becomes `qcrd`."""
    from prefect.context import refresh_global_settings_context

    from flows.cli import main
    from flows.prefect.embedded import prepare_prefect
    from storage.errors import UsageError
    from tests.warm_forks import warm_server, warm_workers

    os.setsid()
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as it lives
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    reload(import_module("tasks"))  # sets variables that nobody has set
    with suppress(UsageError):  # the command says so itself, if it needs Prefect
        prepare_prefect(Path(order["home"]))
    refresh_global_settings_context()  # Prefect read its settings when it was imported
    if order["arguments"][0] in TRAIN:
        warm_workers()
        warm_server()
    sys.argv = ["qcrd", *order["arguments"]]
    main()
    sys.exit()


MODULES = (
    "flows.cli", "flows.distill", "flows.runs", "flows.prefect.report", "flows.config.distill", "flows.commands.serve",
    "tasks.tracking.client", "tasks.serving.served_model", "tasks.serving.answering", "prefect.server.api.server",
    "flows.compare", "tests.warm_forks",
)  # fmt: skip

if __name__ == "__main__":
    from flows.prefect.embedded import prepare_prefect
    from tasks.running.worker import PRELOADED

    prepare_prefect(Path(sys.argv[2]))
    for module in (*MODULES, *PRELOADED):
        import_module(module)
    gc.collect()
    gc.freeze()  # else every process, at its end, would look through a million objects that it shares with this one
    serve(socket.socket(fileno=int(sys.argv[1])))

"""The services of deploy/compose.yaml as plain processes, each with a log of its own, waited for, and ended."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

START_S = 180
LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on, below those that the system hands out by itself: it is still free later on."""
    for port in random.sample(range(15_000, 32_000), 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise AssertionError("no free port below 32,000")


def answers(url: str) -> bool:
    """Whether a GET is answered with success."""
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own address
            return True
    except (urllib.error.URLError, OSError):
        return False


@dataclass
class Services:
    """Processes that end with the block, whatever happens in it.

    Attributes:
        folder: where they are started, and where their logs go.
        env: the environment that all of them share.
    """

    folder: Path
    env: dict[str, str]
    _running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for process in reversed(self._running.values()):  # clients before the servers they talk to
            _end(process)

    def start(self, name: str, *command: object, env: dict[str, str] | None = None, **more: Any) -> None:
        """Starts a process; its output goes to `<name>.log`. `wait` says when it answers."""
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.folder, env=self.env | (env or {}), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, **more,
            )  # fmt: skip

    def wait(self, name: str, ready: Callable[[], bool]) -> None:
        """Until a service is ready; fails with the end of its log where it is not."""
        deadline = time.monotonic() + START_S
        while not ready():
            waiting = self._running[name].poll() is None and time.monotonic() < deadline
            assert waiting, f"{name} did not start:\n{self.log(name).read_text()[-3000:]}"
            time.sleep(0.3)

    def pid(self, name: str) -> int:
        """Of a service's first process."""
        return self._running[name].pid

    def kill(self, name: str) -> None:
        """Kills a service's first process with -9."""
        self._running[name].kill()
        self._running[name].wait()

    def run(self, *command: object, code: int = 0, **more: Any) -> str:
        """Runs a command to its end; returns what it printed."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [str(part) for part in command],
            cwd=more.pop("cwd", self.folder), env=self.env | more.pop("env", {}), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, **more,
        )  # fmt: skip
        assert done.returncode == code, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def log(self, name: str) -> Path:
        """Where a service's output goes."""
        return self.folder / f"{name}.log"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and all it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def postgres_programs() -> Path:
    """The folder of PostgreSQL's programs; Debian keeps them off the path. Fails where it is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: -int(folder.parent.name))
    found = shutil.which("initdb", path=":".join([os.environ["PATH"], *map(str, debian)]))
    if found:
        return Path(found).resolve().parent
    pytest.fail("PostgreSQL is missing, and the stack keeps its state there: apt-get install postgresql", pytrace=False)


def start_postgres(services: Services, folder: Path, password: str) -> str:
    """PostgreSQL with the databases of deploy/databases.sql.

    Args:
        services: who starts it.
        folder: an empty folder for its data that other users may enter.
        password: of its owner.

    Returns:
        The address of its databases up to their names, without scheme and password.
    """
    programs, port = postgres_programs(), free_port()
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(folder, "postgres", "postgres")
    file, data = folder / "password", folder / "data"
    file.write_text(password, encoding="utf-8")
    services.run(
        programs / "initdb", "--pgdata", data, "--username", "qcrd", "--pwfile", file, "--auth", "scram-sha-256",
        "--encoding", "UTF8", "--no-sync", cwd=folder, **as_user,
    )  # fmt: skip
    services.start(
        "postgres", programs / "postgres", "-D", data, "-c", f"port={port}", "-c", f"listen_addresses={LOOPBACK}",
        "-c", f"unix_socket_directories={folder}", "-c", "fsync=off", **as_user,
    )  # fmt: skip
    address = f"qcrd@{LOOPBACK}:{port}"
    ready = [str(programs / "pg_isready"), "--host", LOOPBACK, "--port", str(port), "--quiet"]
    services.wait("postgres", lambda: subprocess.run(ready, check=False).returncode == 0)
    sql = Path(__file__).parents[2] / "deploy" / "databases.sql"
    services.run(
        programs / "psql",
        f"postgresql://{address}/postgres",
        "-v",
        "ON_ERROR_STOP=1",
        "-f",
        sql,
        env={"PGPASSWORD": password},
    )
    return address

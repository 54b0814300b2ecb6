"""Prefect's and MLflow's servers on the state folder, for as long as a command runs; on this machine only."""

import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from flows.home import Home
from flows.prefect.embedded import starting_alone
from models.watchdog import Watched
from storage.errors import UsageError

START_S = 90
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        name: prefect or mlflow.
        address: the URL of its pages.
        watched: its process, with all that it starts.
        log: the file with what it printed.
    """

    name: str
    address: str
    watched: Watched
    log: str


@contextmanager
def servers(home: Home, prefect_port: int, mlflow_port: int) -> Iterator[list[Server]]:
    """Starts both and waits until they answer; ends them after the block. `prepare_prefect` must have been called.

    Raises:
        UsageError: a port is taken, or a server does not start.
    """
    from tasks.tracking.client import open_tracking

    tracking = open_tracking(home.path)
    for option, port in (("--prefect-port", prefect_port), ("--mlflow-port", mlflow_port)):
        _refuse_taken(option, port)
    home.logs.mkdir(parents=True, exist_ok=True)
    api = f"http://{LOOPBACK}:{prefect_port}/api"
    prefect_env = {
        "PREFECT_API_URL": api,
        "PREFECT_UI_API_URL": api,
        "PREFECT_SERVER_API_PORT": str(prefect_port),
        "PREFECT_SERVER_API_HOST": LOOPBACK,
    }
    prefect = [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(prefect_port)]
    mlflow = [
        sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(mlflow_port), "--workers", "1",
    ]  # fmt: skip
    # The database's address may hold a password, and everybody on the machine can read command lines.
    mlflow_env = {"MLFLOW_BACKEND_STORE_URI": tracking.backend.uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if tracking.backend.artifacts:
        mlflow += ["--artifacts-destination", tracking.backend.artifacts, "--serve-artifacts"]
    started: list[Server] = []
    with ExitStack() as until_the_end:
        with starting_alone():
            for name, command, env, port in (
                ("prefect", prefect, prefect_env, prefect_port),
                ("mlflow", mlflow, mlflow_env, mlflow_port),
            ):
                file = home.logs / f"{name}-server.log"
                with file.open("ab") as log:
                    watched = until_the_end.enter_context(
                        Watched(command, stdout=log, stderr=log, env=os.environ | env)
                    )
                started.append(Server(name, f"http://{LOOPBACK}:{port}", watched, str(file)))
            for server in started:
                _wait(server)
        yield started


def refuse_dead(started: list[Server]) -> None:
    """Raises UsageError if one of the servers has ended by itself."""
    for server in started:
        if server.watched.process.poll() is not None:
            raise UsageError(f"The {server.name} server ended by itself; its log: {server.log}.")


def _refuse_taken(option: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise UsageError(
                f"Port {port} cannot be used ({error.strerror}); name another one with {option}."
            ) from None


def _wait(server: Server) -> None:
    """Waits until a server answers.

    Raises:
        UsageError: it died, or does not answer.
    """
    health = f"{server.address}/api/health" if server.name == "prefect" else f"{server.address}/health"
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.watched.process.poll() is None:
        try:
            with urllib.request.urlopen(health, timeout=2):  # noqa: S310 - our own address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise UsageError(f"The {server.name} server did not start; its log: {server.log}.")

"""`qcrd ui`: Prefect's and MLflow's web pages on the state folder, until Ctrl-C."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Annotated

import typer

from flows.embedded import prepare_prefect
from flows.options import DEFAULT_HOME, HomeOption, home_at
from flows.terminal import notice, out, plain
from storage.errors import UsageError

START_S = 90
LOOPBACK = "127.0.0.1"


def ui_command(
    prefect_port: Annotated[int, typer.Option("--prefect-port", help="Of Prefect's pages.")] = 4200,
    mlflow_port: Annotated[int, typer.Option("--mlflow-port", help="Of MLflow's pages.")] = 5000,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show runs in Prefect's UI and models in MLflow's; both only on this machine, until Ctrl-C.

    While it runs, PREFECT_API_URL (printed) lets `qcrd distill` report to the same server as it goes.

    Example: qcrd ui
    """
    place = home_at(home)
    prepare_prefect(place.path)
    from tasks.tracking import open_tracking

    tracking = open_tracking(place.path)
    for option, port in (("--prefect-port", prefect_port), ("--mlflow-port", mlflow_port)):
        _refuse_taken(option, port)
    place.logs.mkdir(parents=True, exist_ok=True)
    api = f"http://{LOOPBACK}:{prefect_port}/api"
    prefect_env = {
        "PREFECT_API_URL": api,
        "PREFECT_UI_API_URL": api,
        "PREFECT_SERVER_API_PORT": str(prefect_port),
        "PREFECT_SERVER_API_HOST": LOOPBACK,
    }
    prefect = [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(prefect_port)]
    mlflow = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking.backend.uri, "--host", LOOPBACK,
        "--port", str(mlflow_port), "--workers", "1",
    ]  # fmt: skip
    if tracking.backend.artifacts:
        mlflow += ["--artifacts-destination", tracking.backend.artifacts, "--serve-artifacts"]
    servers: list[tuple[str, subprocess.Popen[bytes], str]] = []
    try:
        for name, command, env, address in (
            ("prefect", prefect, prefect_env, f"http://{LOOPBACK}:{prefect_port}"),
            ("mlflow", mlflow, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, f"http://{LOOPBACK}:{mlflow_port}"),
        ):
            with (place.logs / f"{name}-server.log").open("ab") as log:
                process = subprocess.Popen(
                    command, stdout=log, stderr=log, env={**os.environ, **env}, start_new_session=True
                )
            servers.append((name, process, address))
        for name, process, address in servers:
            health = f"{address}/api/health" if name == "prefect" else f"{address}/health"
            _wait(name, process, health, str(place.logs / f"{name}-server.log"))
            out.print(plain(f"{name:<8} {address}"), soft_wrap=True)
        out.print(plain(f"PREFECT_API_URL={api}"), soft_wrap=True)
        notice("Ctrl-C ends both.")
        while all(process.poll() is None for _, process, _ in servers):
            time.sleep(0.5)
        dead = next(name for name, process, _ in servers if process.poll() is not None)
        raise UsageError(f"The {dead} server ended by itself; its log: {place.logs / f'{dead}-server.log'}.")
    finally:
        for _, process, _ in servers:
            _end(process)


def _refuse_taken(option: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise UsageError(
                f"Port {port} cannot be used ({error.strerror}); name another one with {option}."
            ) from None


def _wait(name: str, process: "subprocess.Popen[bytes]", health: str, log: str) -> None:
    """Until a server answers.

    Raises:
        UsageError: it died, or does not answer.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(health, timeout=2):  # noqa: S310 - our own address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise UsageError(f"The {name} server did not start; its log: {log}.")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a server and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

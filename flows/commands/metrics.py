"""`qcrd metrics`: an exporter for Prometheus."""

import sys
import threading
from typing import Annotated

import typer

from flows.commands.options import DEFAULT_HOME, HomeOption, home_at
from flows.prefect.servers import LOOPBACK
from flows.terminal import notice, out, plain
from storage.errors import UsageError


def metrics_command(
    port: Annotated[int, typer.Option("--port", help="Port of /metrics.", min=1, max=65535)] = 9464,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 0.0.0.0 shows the metrics to the network.")
    ] = LOOPBACK,
    once: Annotated[
        bool, typer.Option("--once", help="Print the metrics and exit, for the node exporter's textfile collector.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Serve metrics to Prometheus, until Ctrl-C.

    They show the state of runs, rounds, figures and the champion.

    Example: qcrd metrics --port 9464
    """
    from prometheus_client import CollectorRegistry, generate_latest, start_http_server

    from tasks.watching.prometheus import HomeCollector  # takes some seconds: MLflow

    place = home_at(home)
    registry = CollectorRegistry()
    registry.register(HomeCollector(place.path, place.store_root, notice))
    if once:
        sys.stdout.write(generate_latest(registry).decode("utf-8"))
        return
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(
            f"Port {port} of {host} cannot be used ({error.strerror}); name another one with --port."
        ) from error
    out.print(plain(f"http://{host}:{port}/metrics"), soft_wrap=True)
    notice("Ctrl-C ends it.")
    try:
        threading.Event().wait()
    finally:
        server.shutdown()
        thread.join()

"""`qcrd ui`: Prefect's and MLflow's web pages on the state folder, until Ctrl-C."""

import time
from typing import Annotated

import typer

from flows.commands.options import DEFAULT_HOME, HomeOption, home_at
from flows.prefect.embedded import prepare_prefect
from flows.prefect.servers import refuse_dead, servers
from flows.terminal import notice, out, plain

PrefectPortOption = Annotated[int, typer.Option("--prefect-port", help="Port of Prefect's pages.")]
MlflowPortOption = Annotated[int, typer.Option("--mlflow-port", help="Port of MLflow's pages.")]


def ui_command(
    prefect_port: PrefectPortOption = 4200,
    mlflow_port: MlflowPortOption = 5000,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Serve Prefect's and MLflow's pages, until Ctrl-C.

    Both are reachable from this machine only. With the PREFECT_API_URL that it
    prints, `qcrd distill` reports to the same server as it runs.

    Example: qcrd ui
    """
    place = home_at(home)
    prepare_prefect(place.path)
    with servers(place, prefect_port, mlflow_port) as started:
        for server in started:
            out.print(plain(f"{server.name:<8} {server.address}"), soft_wrap=True)
        out.print(plain(f"PREFECT_API_URL={started[0].address}/api"), soft_wrap=True)
        notice("Ctrl-C ends both.")
        while True:
            refuse_dead(started)
            time.sleep(0.5)

"""`qcrd ui`: Prefect's and MLflow's web pages on the state folder, until Ctrl-C."""

import time
from typing import Annotated

import typer

from flows.commands.options import DEFAULT_HOME, HomeOption, home_at
from flows.prefect.embedded import prepare_prefect
from flows.prefect.servers import refuse_dead, servers
from flows.terminal import notice, out, plain

PrefectPortOption = Annotated[int, typer.Option("--prefect-port", help="Of Prefect's pages.")]
MlflowPortOption = Annotated[int, typer.Option("--mlflow-port", help="Of MLflow's pages.")]


def ui_command(
    prefect_port: PrefectPortOption = 4200,
    mlflow_port: MlflowPortOption = 5000,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show runs in Prefect's UI and models in MLflow's; both only on this machine, until Ctrl-C.

    While it runs, PREFECT_API_URL (printed) lets `qcrd distill` report to the same server as it goes.

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

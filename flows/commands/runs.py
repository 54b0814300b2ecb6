"""`qcrd show runs` and `qcrd resume`: what ran, and going on with what ended early."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from flows.commands.distill import run_and_show
from flows.commands.options import DEFAULT_HOME, HomeOption, JsonOption, at_least, home_at
from flows.commands.show import LimitOption
from flows.prefect.embedded import prepare_prefect
from flows.terminal import notice, out, plain, print_json

STYLES = {"finished": "green", "failed": "red", "killed": "red", "stopped": "yellow"}


def show_runs(limit: LimitOption = 20, as_json: JsonOption = False, home: HomeOption = DEFAULT_HOME) -> None:
    """List distillations and how they ended, the newest first.

    Example: qcrd show runs
    """
    at_least("--limit", limit, 1)
    place = home_at(home)
    prepare_prefect(place.path)
    from flows.runs import stored_runs  # takes some seconds: Prefect, MLflow

    runs = stored_runs(place)[:limit]
    if as_json:
        print_json([asdict(run) for run in runs])
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "dataset", "method", "state", "since (UTC)", "Prefect's run"):
        table.add_column(column, no_wrap=column != "dataset", overflow="fold")
    for run in runs:
        table.add_row(
            run.run_id, plain(run.dataset), plain(run.config["method"]["name"]),
            plain(run.state, STYLES.get(run.state, "")), f"{run.since:%Y-%m-%d %H:%M}", run.prefect_run_id[:8],
        )  # fmt: skip
    out.print(table)
    if any(run.state in ("killed", "failed", "stopped") for run in runs):
        notice("To go on with a run that ended early: qcrd resume RUN")


def resume_command(
    run: Annotated[
        str | None,
        typer.Argument(help="The run's id or Prefect's, or how it begins; by default the last run that ended early."),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Go on with a run that was killed, stopped or failed.

    It keeps the configuration it began with. Samples, votes and finished rounds
    are not made again; a round goes on from its last checkpoint.

    Example: qcrd resume
    """
    place = home_at(home)
    prepare_prefect(place.path)
    from flows.config.distill import checked
    from flows.runs import find_run, refuse_to_resume  # takes some seconds: Prefect, MLflow

    found = find_run(place, run)
    refuse_to_resume(found)
    if not as_json:
        notice(f"going on with run {found.run_id} of {found.dataset}, {found.state} since {found.since:%Y-%m-%d %H:%M}")
    run_and_show(place, checked(found.config, f"run {found.run_id}: "), as_json=as_json, resume=found.run_id)

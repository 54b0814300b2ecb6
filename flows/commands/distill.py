"""`qcrd distill`: from questions to a registered student."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.commands.options import DEFAULT_HOME, HomeOption, JsonOption, home_at
from flows.home import Home
from flows.prefect.embedded import check_server, prepare_prefect, show_own_lines
from flows.prefect.own_server import start_own_server
from flows.terminal import notice, out, plain, print_json
from storage.errors import StoreWriteFailed, UsageError

if TYPE_CHECKING:
    from flows.config.distill import DistillConfig

ConfigArgument = Annotated[str, typer.Argument(help="Name of a shipped configuration, or path of your own YAML file.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Value of a key, as section.key=value; wins over the file. Repeatable."),
]

LEAST_BYTES = 4 * 2**20
"""Free space below which neither the smallest student's checkpoint nor a database's journal fits."""


def distill_command(
    config: ConfigArgument,
    settings: SetOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Teach a small model to answer and to explain.

    Stop whenever you like; the same command goes on from there.

    A configuration has the sections dataset, teacher, variants, votes, student,
    method, compare, compare_rounds, negatives, own, discriminator, optimisation,
    rounds, answering, registry, cascade and drift.
    `qcrd keys SECTION` explains the keys of each.

    Example: qcrd distill lab --set rounds.rounds=6 --set method.scheme=mean
    """
    from flows.config.distill import load_config

    loaded = load_config(config, settings or [])
    place = home_at(home)
    prepare_prefect(place.path)
    run_and_show(place, loaded, as_json=as_json)


def run_and_show(home: Home, config: "DistillConfig", *, as_json: bool, resume: str | None = None) -> None:
    """Runs the flow and prints what came out. `prepare_prefect` has been called.

    Args:
        resume: id of the run to go on with.
    """
    check_server()
    server = start_own_server(home.logs)  # takes some seconds, as do the imports below
    from flows.distill import distill
    from flows.prefect.report import abstention_lines, comparison_lines, result_rows
    from tasks.tracking.client import open_tracking

    open_tracking(home.path)  # whatever is wrong with MLflow shows before the teacher is paid
    show_own_lines()
    if server:
        server.wait()
    with full_disk_told(home.path):
        result = distill(config, home.path, resume)
    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    rows = result_rows(result)
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "method" else "right")
    for row in rows:
        table.add_row(*(row.get(name, "") for name in rows[0]))
    out.print(table)
    for line in (*comparison_lines(result), *abstention_lines(result)):
        out.print(plain(line), soft_wrap=True)
    if result.registered:
        out.print(
            plain(f"{result.registered.name} version {result.registered.version}: {result.registered.reason}"),
            soft_wrap=True,
        )
    notice(f"Look at it: qcrd show rounds --training {result.methods[0].training_id}; qcrd ui; qcrd predict QUESTION")


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Says that the disk is full when it is, whatever failed first: Parquet, SQLite, a checkpoint.

    Raises:
        StoreWriteFailed: in place of any error, where less than `LEAST_BYTES` are free.
    """
    try:
        yield
    except Exception as error:
        left = shutil.disk_usage(folder).free
        if left >= LEAST_BYTES or isinstance(error, UsageError):
            raise
        raise StoreWriteFailed(
            f"The disk that holds {folder} is full ({left / 2**20:.1f} MiB left). What was finished is stored. Free "
            "some space, then go on: qcrd resume, or the same command again."
        ) from error

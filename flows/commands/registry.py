"""`qcrd registry` and `qcrd rollback`: the versions of a registered student, and an earlier one made champion again."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from flows.commands.options import DEFAULT_HOME, HomeOption, JsonOption, ModelOption, home_at, only_model
from flows.terminal import notice, out, percent, plain, print_json


def registry_command(
    model: ModelOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """List the versions of a registered student.

    Each with its test accuracy, what the gate said, and where it comes from.

    Example: qcrd registry
    """
    from tasks.tracking.forgotten import FORGOTTEN
    from tasks.tracking.versions import versions_of  # takes some seconds: MLflow

    place = home_at(home)
    name = model or only_model(place)
    versions = versions_of(place.path, name)
    if as_json:
        print_json([asdict(version) for version in versions])
        return
    table = Table(box=None, pad_edge=False, title=plain(name), title_justify="left")
    for column in ("version", "alias", "registered (UTC)", "test", "explains", "student", "gate"):
        right = column in ("version", "test", "explains")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for one in versions:
        said = f"rolled back {one.rolled_back}" if one.rolled_back else one.gate or "-"
        if forgotten := one.tags.get(FORGOTTEN):
            said = f"learned from forgotten questions ({forgotten}); {said}"
        table.add_row(
            one.version, plain(", ".join(one.aliases) or "-"), f"{one.created_at:%Y-%m-%d %H:%M}",
            percent(one.accuracy), percent(one.explanation_accuracy), plain(one.tags.get("qcrd.student", "-")),
            plain(said),
        )  # fmt: skip
    out.print(table)


def rollback_command(
    model: ModelOption = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Version to make champion; by default the champion before this one.")
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Make an earlier version champion again.

    From then on the gate does not promote the version that was rolled back.

    Example: qcrd rollback
    """
    from tasks.tracking.versions import roll_back  # takes some seconds: MLflow

    place = home_at(home)
    done = roll_back(place.path, model or only_model(place), to)
    if as_json:
        print_json(done)
        return
    out.print(plain(f"{done.name}: version {done.champion} is champion again, in place of version {done.before}"))
    notice("A running model server keeps the version it has loaded; restart it.")

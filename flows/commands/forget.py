"""`qcrd forget`: examples leave the store and all that was made from them, and are never stored again."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.options import DEFAULT_HOME, HomeOption, JsonOption, home_at
from flows.home import Home
from flows.terminal import inert, notice, out, plain, print_json
from storage.errors import NothingToDo, UsageError
from storage.store import Store

if TYPE_CHECKING:
    from tasks.forgetting.forget import Forgot, Plan
    from tasks.tracking.lineage import Origin

SHOWN, LONGEST = 10, 80
"""How many examples are shown before they go, and the most characters of each."""


def forget_command(
    example: Annotated[
        list[str] | None, typer.Option("--example", help="Id of an example (column example_id). Repeatable.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", help="All examples for which this DuckDB condition over `examples` holds.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask. Needed without a terminal.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    retrain: Annotated[
        bool,
        typer.Option("--retrain", help="Then distil again what learned from them, in the same configuration."),
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Forget examples: for good, and everywhere.

    Their rows leave every table, and what quotes them goes: training sets and
    students of trainings that learned from them, reports, input examples.
    Copies in other splits go with them. Registered students stay, marked. No
    import or run stores the questions again; `forgotten` in `qcrd sql` lists
    their ids. If it is killed, the same command goes on.

    Example: qcrd forget --where "question LIKE '%Jane Doe%'" --dry-run
    """
    if not example and where is None:
        raise UsageError("Name what to forget: --example ID, or --where with a condition over `examples`.")
    if not (yes or dry_run) and (as_json or not sys.stdin.isatty()):
        nobody = "with --json nobody is asked" if as_json else "nobody can be asked, for this is no terminal"
        raise UsageError(
            f"Nothing was forgotten: {nobody}. --yes forgets without asking, --dry-run only shows what would go."
        )
    at = home_at(home)
    store = at.open_store()
    from tasks.forgetting.forget import forget, plan  # imports mlflow, which takes seconds

    found = plan(at.path, store, example or [], where)
    if not found.ids:
        raise NothingToDo("No stored example is meant, or all of them were forgotten before: nothing to forget.")
    if not as_json:
        _show(found)
    if dry_run or not (yes or typer.confirm("Forget them for good?", err=True)):
        if as_json:
            print_json({"forgotten": False, **_planned(found)})
        else:
            notice("Nothing was forgotten." + ("" if dry_run else " --yes does it."))
        return
    done = forget(at.path, store, example or [], where)
    if as_json:
        print_json({"forgotten": True, **_done(done)})
    else:
        _tell(done)
    if retrain:
        _retrain(at, store, done, as_json=as_json)


def _show(found: "Plan") -> None:
    for one in found.chosen[:SHOWN]:
        text = " ".join(inert(one.question).split())
        shown = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
        why = "" if one.by.startswith("--") else f" ({one.by})"
        out.print(plain(f"{one.example_id}  {one.dataset}/{one.split}{why}: {shown}"), soft_wrap=True)
    if len(found.chosen) > SHOWN:
        out.print(f"... and {len(found.chosen) - SHOWN:,} more")
    if found.unfinished:
        out.print(f"{len(found.unfinished):,} that an earlier `qcrd forget` has begun with")
    totals = ", ".join(f"{count:,} {table}" for table, count in found.totals().items())
    out.print(f"{len(found.ids):,} examples: {totals or 'no rows left'}", soft_wrap=True)
    _learned(sorted(found.affected.trainings), list(found.affected.versions))


def _learned(trainings: list[str], versions: "list[Origin]") -> None:
    if trainings:
        out.print(plain(f"trainings that learned from them: {', '.join(trainings)}"), soft_wrap=True)
    if versions:
        named = ", ".join(one.version for one in versions)
        out.print(plain(f"registered students that learned from them: {named}"), soft_wrap=True)


def _tell(done: "Forgot") -> None:
    out.print(f"Forgotten: {len(done.examples):,} examples.")
    for verb, files in (("changed", done.changed), ("removed", done.removed)):
        for file in files:
            out.print(plain(f"{verb}: {file}"), soft_wrap=True)
    if done.versions:
        notice("The students are marked (tag qcrd.forgotten); --retrain, or `qcrd distill`, makes what replaces them.")
    notice(f"What may still hold them: {'; '.join(done.elsewhere)}.")


def _planned(found: "Plan") -> dict[str, Any]:
    return {
        "examples": found.ids,
        "rows": found.totals(),
        "trainings": sorted(found.affected.trainings),
        "versions": [one.version for one in found.affected.versions],
    }


def _done(done: "Forgot") -> dict[str, Any]:
    return {
        "examples": done.examples,
        "rows": done.rows,
        "trainings": done.trainings,
        "versions": [one.version for one in done.versions],
        "changed": [str(file) for file in done.changed],
        "removed": [str(file) for file in done.removed],
        "elsewhere": done.elsewhere,
    }


def _retrain(home: Home, store: Store, done: "Forgot", *, as_json: bool) -> None:
    """Distils again, with what is left, what the newest affected version of each registered student came from; where
    none was registered, what the affected trainings came from."""
    from flows.commands.distill import run_and_show
    from flows.config.distill import checked
    from flows.prefect.embedded import prepare_prefect
    from tasks.forgetting.retraining import to_retrain

    prepare_prefect(home.path)
    runs = to_retrain(home.path, store, done)
    if not runs:
        notice("Nothing to distil again: no run is known behind what learned from them.")
    for run, config in runs:
        if not as_json:
            notice(f"distilling again what run {run} did")
        run_and_show(home, checked(config, f"run {run}: "), as_json=as_json)

"""`qcrd store prune`: removes what nobody needs any more, by stated rules."""

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from flows.commands.options import DEFAULT_HOME, HomeOption, JsonOption, home_at, time_span
from flows.home import Home
from flows.terminal import data_size, notice, out, plain, print_json
from storage.compaction import KEPT_FOR, remove_replaced, rewriting
from storage.errors import UsageError
from storage.pruning import Doomed, prune, student_samples, superseded, teacher_samples
from storage.store import Store
from tasks.training.folder import trainings_in
from tasks.training.retention import OldTraining, old_trainings, remove_leftovers, remove_training

STUDENTS, TRAININGS = "--student-samples-older-than", "--trainings-older-than"
SUPERSEDED, TEACHER = "--superseded", "--teacher"


def prune_command(
    students: Annotated[
        str | None,
        typer.Option(STUDENTS, help="Texts and scores of trainings that have no folder in this state folder: 90d."),
    ] = None,
    trainings: Annotated[
        str | None, typer.Option(TRAININGS, help="Folders of trainings that no run has used for so long: 90d.")
    ] = None,
    superseded_rows: Annotated[
        bool, typer.Option(SUPERSEDED, help="Rows of which a newer version counts; never a sample's text.")
    ] = False,
    teacher: Annotated[
        str | None,
        typer.Option(TEACHER, help="Texts of this teacher, sampled or recorded. A run that names it asks it again."),
    ] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="With --teacher: only of this one.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it. Without this it is only shown.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Show or remove what the named rules say nobody needs.

    What a registered model learned from stays: the samples and scores of its
    training, and its teachers' samples. A teacher's samples go only if the
    teacher is named. Questions, votes, predictions and runs always stay.

    Example: qcrd store prune --student-samples-older-than 90d --yes
    """
    moments = {
        option: datetime.now(UTC) - time_span(option, text)
        for option, text in {STUDENTS: students, TRAININGS: trainings}.items()
        if text is not None
    }
    if not (moments or superseded_rows or teacher):
        raise UsageError(f"Name a rule: {STUDENTS} 90d, {TRAININGS} 90d, {SUPERSEDED} or {TEACHER} NAME.")
    if dataset is not None and teacher is None:
        raise UsageError(f"--dataset goes with {TEACHER}.")
    at = home_at(home)
    store = at.open_store()
    with rewriting(store) if yes else nullcontext():
        if teacher is not None:
            _refuse_what_is_needed(at, store, teacher, dataset)
        old = old_trainings(at.path, moments[TRAININGS]) if TRAININGS in moments else []
        if yes:
            remove_leftovers(at.path)
            old = [training for training in old if remove_training(training.folder)]
        found: dict[str, list[Doomed]] = {}
        if STUDENTS in moments:
            found[STUDENTS] = student_samples(store, moments[STUDENTS], _kept_trainings(at, old))
        if superseded_rows:
            found[SUPERSEDED] = superseded(store)
        if teacher is not None:
            found[TEACHER] = [teacher_samples(store, teacher, dataset)]
        removed = prune(store, [one for of_rule in found.values() for one in of_rule]) if yes else 0
        if yes:
            remove_replaced(store, KEPT_FOR)
    lines = list(_lines(old, found))
    if as_json:
        print_json({"removed": yes, "rows_removed": removed, "rules": lines})
        return
    for line in lines:
        out.print(
            plain(f"{line['rule']}: {line['count']:,} {line['what']}, about {data_size(line['bytes'])}"),
            soft_wrap=True,
        )
    if not lines:
        out.print("nothing to remove")
    elif not yes:
        notice("Nothing was removed; --yes removes it.")
    elif removed:
        notice("Removed. The space is free after a day, when `qcrd store compact` or `prune` runs again.")
        if teacher is not None:
            notice("Vote again: the votes still count these samples.")


def _refuse_what_is_needed(home: Home, store: Store, teacher: str, dataset: str | None) -> None:
    """Raises if a registered model learned from a teacher's samples.

    Raises:
        UsageError: it names the model's version.
    """
    datasets = store.query(
        "SELECT DISTINCT dataset FROM rationales WHERE source <> 'student' AND model = $1 "
        "AND ($2::VARCHAR IS NULL OR dataset = $2) ORDER BY dataset",
        [teacher, dataset],
    )["dataset"].to_pylist()
    from tasks.tracking.lineage import needs_teacher, registered_origins  # imports mlflow, which takes seconds

    origins = registered_origins(home.path)
    for name in datasets:
        if version := needs_teacher(store, origins, teacher, name):
            raise UsageError(
                f"{version} learned from votes that count samples of {teacher!r} on {name!r}, so they stay. Delete "
                "the version in MLflow first, or name another dataset with --dataset."
            )


def _kept_trainings(home: Home, but: list[OldTraining]) -> set[str]:
    """Ids of trainings whose samples are needed: of registered models, and those that may go on."""
    from tasks.tracking.lineage import registered_origins

    here = {training.folder.name for training in trainings_in(home.path)}
    return {origin.training for origin in registered_origins(home.path)} | (here - {one.folder.name for one in but})


def _lines(old: list[OldTraining], found: dict[str, list[Doomed]]) -> Iterator[dict[str, Any]]:
    """What goes: one line for each rule and table."""
    if old:
        yield {"rule": TRAININGS, "what": "folders of trainings", "count": len(old), "bytes": sum(t.bytes for t in old)}
    for rule, of_rule in found.items():
        for one in of_rule:
            if one.rows:
                what = f"rows of {one.table.name}"
                yield {"rule": rule, "what": what, "count": one.rows, "bytes": one.bytes}

"""`qcrd store`: is everything stored readable, and each row once; few files for it; answers read again."""

from typing import Annotated

import typer

from flows.commands.options import DEFAULT_HOME, DatasetOption, HomeOption, JsonOption, SplitOption, home_at, time_span
from flows.terminal import data_size, notice, out, print_json, progress_bar
from storage.checking import SET_ASIDE, check_store
from storage.compaction import compact
from storage.datasets.registry import get_dataset
from tasks.teacher.read_again import read_again

app = typer.Typer(help="Look after the store.\n\nExample: qcrd store check", no_args_is_help=True)


@app.callback()
def _store() -> None:
    """Look after the store."""


@app.command("check")
def check(
    repair: Annotated[
        bool, typer.Option("--repair", help="Set damaged files aside; remove what killed processes left unfinished.")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Read every part file whole, checksums included.

    The exit code is 1 if something is wrong and not repaired.

    Example: qcrd store check --repair
    """
    store = home_at(home).open_store()
    with progress_bar(show=not as_json) as progress:
        bar = progress.add_task("reading part files", total=None, note="")
        report = check_store(
            store, repair=repair, on_progress=lambda done, total: progress.update(bar, completed=done, total=total)
        )
    if as_json:
        print_json({**vars(report), "damaged": [vars(file) for file in report.damaged], "sound": report.sound})
    else:
        counted = ", ".join(f"{count:,} {name}" for name, count in report.rows.items() if count) or "no rows"
        out.print(f"{store.files.given}: {report.files:,} part files, {counted}.", soft_wrap=True, markup=False)
        for file in report.damaged:
            out.print(f"damaged: {file.path} ({file.reason})", soft_wrap=True, markup=False)
        for column, files in report.newer.items():
            what = f"newer: column {column} in {files:,} part files is unknown to this qcrd"
            notice(f"{what}. It is kept; upgrade to use it.")
        for table, keys in report.repeated.items():
            out.print(f"repeated: {keys:,} keys of {table} are stored more than once")
        if report.unfinished:
            out.print(f"unfinished: {len(report.unfinished):,} temporary files of processes that no longer run")
        if repair and (report.damaged or report.repeated or report.unfinished):
            notice(f"repaired; damaged files lie in {store.files.given}/{SET_ASIDE}. Run what made them again.")
        elif report.damaged or report.repeated or report.unfinished:
            notice("`qcrd store check --repair` deals with these.")
        else:
            out.print("sound")
    if not report.sound:
        raise typer.Exit(1)


@app.command("compact")
def compact_command(
    keep_replaced: Annotated[
        str,
        typer.Option(
            help="How long replaced files stay for those who still read them: longer than any query of yours takes."
        ),
    ] = "1d",
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Copy many small part files into few large ones.

    Others may read and write meanwhile. Replaced files no longer count; they
    are deleted by a later compaction.

    Example: qcrd store compact
    """
    store = home_at(home).open_store()
    span = time_span("--keep-replaced", keep_replaced)
    with progress_bar(show=not as_json) as progress:
        bar = progress.add_task("copying part files", total=None, note="")
        done = compact(
            store, kept_for=span, on_progress=lambda count, total: progress.update(bar, completed=count, total=total)
        )
    if as_json:
        print_json(done)
        return
    if done.written:
        sizes = f"{data_size(done.bytes_before)} -> {data_size(done.bytes_after)}"
        out.print(f"{done.files:,} part files -> {done.written:,} ({sizes})", soft_wrap=True)
    else:
        out.print("nothing to compact", soft_wrap=True)
    if done.removed or done.waiting:
        notice(f"Replaced files: {done.removed:,} deleted, {done.waiting:,} kept for those who still read them.")


@app.command("read-again")
def read_samples_again(
    dataset: DatasetOption,
    split: SplitOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Read the answers of stored teacher samples again.

    For when the dataset's definition or qcrd itself reads better than it did.
    Nothing is sampled. Vote again afterwards. Recorded samples are read again
    by importing their file again.

    Example: qcrd store read-again --dataset tickets.yaml
    """
    named = get_dataset(dataset)
    with progress_bar(show=not as_json) as progress:
        bar = progress.add_task("reading samples", total=None, note="")
        done = read_again(
            home_at(home).open_store(), named, split, on_progress=lambda count: progress.update(bar, completed=count)
        )
    if as_json:
        print_json(done)
        return
    out.print(
        f"{done.samples:,} samples read: {done.changed:,} changed, {done.answered:,} of them have an answer now, "
        f"{done.unanswered:,} have none any more.",
        soft_wrap=True,
        markup=False,
    )
    if done.changed:
        notice(f"Vote again: qcrd vote --dataset {dataset}")

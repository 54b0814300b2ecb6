"""`qcrd export`: votes as a file that other trainers read."""

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from flows.commands.options import (
    DEFAULT_HOME,
    DatasetOption,
    HomeOption,
    JsonOption,
    ReplaceOption,
    SplitOption,
    VoteOption,
    home_at,
    new_file,
    one_of,
)
from flows.terminal import notice, out, print_json, progress_bar
from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo
from storage.voted import Wanted, newest_vote
from tasks.questions.export import SUFFIXES, Asked, Export, ExportSummary, Labels, Shape, export_votes


def export_command(
    file: Annotated[Path, typer.Argument(help=f"The file to write; its name ends in {' or '.join(SUFFIXES)}.")],
    dataset: DatasetOption,
    shape: Annotated[
        str,
        typer.Option(
            "--as",
            help="sft (prompt, completion), preferences (prompt, chosen, rejected), or rationales (every sample with "
            "its vote).",
        ),
    ],
    split: SplitOption = None,
    vote: VoteOption = None,
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt",
            help="student: what a student is asked, such as 'explain: QUESTION'. question: the question with its "
            "choices; a completion then ends in the answer.",
        ),
    ] = "student",
    labels: Annotated[
        str,
        typer.Option("--labels", help="Answers to learn, for sft: the gold labels, or the teacher's majority."),
    ] = "gold",
    replace: ReplaceOption = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write votes to a file that other trainers read, such as TRL.

    JSONL or Parquet, whole or not at all.

    Example: qcrd export pairs.jsonl --dataset svamp --as preferences
    """
    one_of("--as", shape, get_args(Shape))
    one_of("--prompt", prompt, get_args(Asked))
    one_of("--labels", labels, get_args(Labels))
    store = home_at(home).open_store()
    new_file("FILE", file, SUFFIXES, store, replace=replace)
    named = get_dataset(dataset)
    vote = newest_vote(store, named.name, split, vote)
    if vote is None:
        raise NothingToDo(
            f"No votes of {named.name!r}{f' on split {split!r}' if split else ''} are stored at {store.files.given}. "
            "To get some: `qcrd vote`."
        )
    export = Export(
        cast("Shape", shape), Wanted(split=split, vote_id=vote), cast("Asked", prompt), cast("Labels", labels)
    )
    with progress_bar(show=not as_json) as progress:
        bar = progress.add_task("exporting questions", total=None, note="")
        summary = export_votes(store, named, export, file, lambda done: progress.update(bar, completed=done))
    if as_json:
        print_json(summary)
    else:
        _print(summary, export)


def _print(summary: ExportSummary, export: Export) -> None:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(summary.rows.items()))
    told = f" ({kinds})" if len(summary.rows) > 1 else ""
    rows = sum(summary.rows.values())
    out.print(f"{summary.file}: {rows:,} rows of {summary.questions:,} questions{told}.", soft_wrap=True, markup=False)
    notice(f"vote {summary.vote_id}" + (f", scores of training {summary.training}" if summary.training else ""))
    if summary.left_out:
        notice(f"{summary.left_out:,} questions give no row.")
    if export.shape == "sft" and export.asked == "student" and "predict" not in summary.rows:
        notice("No question has a label, so no answers are in it; --labels teacher takes the majority's.")
    if summary.outdated:
        notice(
            f"{summary.outdated:,} questions have other samples now than were voted on. Run `qcrd vote` again, then "
            "export again."
        )

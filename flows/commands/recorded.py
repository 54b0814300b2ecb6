"""`qcrd import`: samples that somebody recorded before."""

from typing import Annotated, cast, get_args

import typer

from flows.commands.options import (
    DEFAULT_HOME,
    DatasetOption,
    HomeOption,
    JsonOption,
    home_at,
    key_option,
    one_of,
    pairs,
    split_named,
)
from flows.terminal import inert, notice, out, plain, print_json, progress_bar
from storage.datasets.registry import get_dataset
from tasks.teacher.reading import Rationale
from tasks.teacher.recorded import Answers, import_recorded
from tasks.teacher.settings import RecordedFile, TeacherSettings


def import_file(
    file: Annotated[str, typer.Argument(help=RecordedFile.model_fields["path"].description)],
    dataset: DatasetOption,
    split: Annotated[str, typer.Option("--split", help="The split that the questions belong to.")] = "train",
    answers: Annotated[str, key_option(RecordedFile, "answers")] = "parsed",
    mapping: Annotated[
        list[str] | None, key_option(RecordedFile, "columns", "--map", "Written field=column. Repeatable.")
    ] = None,
    rationale: Annotated[str, key_option(TeacherSettings, "rationale")] = "auto",
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Store samples that were recorded elsewhere.

    Importing a file again adds nothing.

    Example: qcrd import samples.jsonl.gz --dataset svamp --map text=completion --map teacher=model
    """
    one_of("--answers", answers, get_args(Answers))
    one_of("--rationale", rationale, get_args(Rationale))
    named = get_dataset(dataset)
    store = home_at(home).open_store()
    with progress_bar(show=not as_json) as progress:
        bar = progress.add_task(inert(f"reading {file}"), total=None, note="")

        def on_progress(questions: int, samples: int) -> None:
            progress.update(bar, completed=questions, note=f"{samples:,} samples")

        summary = import_recorded(
            store,
            named,
            file,
            split_named(split),
            answers=cast("Answers", answers),
            rationale=cast("Rationale", rationale),
            mapping=pairs("--map", mapping or []),
            on_progress=on_progress,
        )
    if as_json:
        print_json(summary)
        return
    out.print(
        f"{summary.samples:,} samples of {summary.questions:,} questions ({summary.labelled:,} labelled): "
        f"{summary.added:,} added, {summary.changed:,} changed, {summary.unchanged:,} known. "
        f"{summary.unparsed:,} without an answer.",
        soft_wrap=True,
    )
    for teacher, count in summary.teachers.items():
        out.print(plain(f"  {count:>9,}  {teacher}"))
    if answers == "parsed" and summary.unparsed * 2 > summary.samples:
        notice(
            "Most texts state no answer. If they were recorded without their closing statement, import them again "
            "with --answers recorded."
        )
    if not summary.questions:
        notice("All questions of the file were forgotten: they are not stored again.")
    elif not summary.labelled:
        notice("No question has a label. If the file has one under another name: --map label=COLUMN.")
    for note in summary.notes:
        notice(note)
    if summary.repeated_questions:
        notice(f"{summary.repeated_questions:,} questions occur more than once; each is one example.")

"""`qcrd init`: from somebody's file to the two files that `qcrd distill` needs."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table

from flows.new_files import Split, dataset_text, name_for, splits_of, student_text, told
from flows.terminal import notice, out, plain
from storage.datasets.definition import Dataset
from storage.datasets.file_columns import SHOWN_ROWS, FileColumns, count_columns
from storage.datasets.guessing import NONE, STEPS, check_given, columns_in, listed
from storage.datasets.registry import BUILT_IN, get_dataset
from storage.errors import BadFile, StorageError, UsageError
from storage.rows import read_rows
from tasks.questions.sets import Part

URL, MODEL = "https://host/v1", "big-model"


def init_command(
    file: Annotated[str, typer.Argument(help="Your questions: JSONL, JSON, CSV or TSV (also .gz), or Parquet.")],
    question: Annotated[
        str | None,
        typer.Option("--question", help='Column of the question; several as a,b or as "Subject: {a}\\n{b}".'),
    ] = None,
    choices: Annotated[
        str | None, typer.Option("--choices", help="Column of the choices, or a column each as a,b,c; or none.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="Column of the gold label; or none.")] = None,
    answers: Annotated[str | None, typer.Option("--answers", help="number, choice or label.")] = None,
    labels: Annotated[str | None, typer.Option("--labels", help="The classes, as low,high.")] = None,
    choice_labels: Annotated[
        str | None, typer.Option("--choice-labels", help="What the label column calls the choices, as 0,1,2,3.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Column that says which rows are for training and test; or none.")
    ] = None,
    validation: Annotated[str | None, typer.Option("--validation", help="A file with validation questions.")] = None,
    test: Annotated[str | None, typer.Option("--test", help="A file with test questions.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="The dataset's name; by default after the file.")] = None,
    url: Annotated[str, typer.Option("--url", help="The teacher's endpoint, for the configuration.")] = URL,
    model: Annotated[str, typer.Option("--model", help="The teacher's name there.")] = MODEL,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take the guesses.")] = False,
) -> None:
    """Look at a file and write what distill needs to know.

    Guesses what is the question, the choices, the label, the kind of answers
    and the split; asks whether that is right, where there is a terminal; and
    writes NAME.yaml and NAME-student.yaml here.

    Example: qcrd init tickets.csv --label priority --yes
    """
    seen = count_columns(file)
    given = {"split": split, "choices": choices, "question": question, "label": label, "answers": answers,
             "labels": labels, "choice-labels": choice_labels}  # fmt: skip
    named = name or name_for(file)
    targets = Path(f"{named}.yaml"), Path(f"{named}-student.yaml")
    for target in targets:
        if target.exists():
            raise UsageError(f"{target} exists and is left as it is; choose another --name, or move it away.")
    out.print(plain(f"{file}: {seen.rows:,} rows; columns {', '.join(seen.columns)}"), soft_wrap=True)
    chosen = _choose(seen, given, asking=not yes and sys.stdin.isatty())
    splits = splits_of(seen, chosen["split"], {"validation": validation, "test": test})
    out.print(plain(told(splits)), soft_wrap=True)
    texts = dataset_text(named, seen, chosen, splits), student_text(named, seen, chosen, splits, url, model)
    for target, text in zip(targets, texts, strict=True):
        target.write_text(text, encoding="utf-8")
    try:
        wrong = _try_out(str(targets[0]), str(targets[1]), seen, splits)
    except StorageError:
        for target in targets:
            target.unlink()
        raise
    out.print(plain(f"Wrote {targets[0]} and {targets[1]}; change in them what is not right.", "bold"), soft_wrap=True)
    if wrong:
        notice(f"{wrong} Mend or remove what cannot be read; until then the file is refused.")
        raise typer.Exit(1)
    _say_next(named, url, model)


def _choose(file: FileColumns, given: Mapping[str, str | None], *, asking: bool) -> dict[str, str]:
    """What is the question, the label and so on: given, guessed, or asked for; shows each with the reason."""
    chosen = {step: value for step, value in given.items() if value is not None}
    for step, value in chosen.items():
        check_given(file, step, value)
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for step, guess in STEPS.items():
        if step in chosen:
            why = f"given with --{step}"
        elif asking:
            chosen[step], why = _asked(file, step, chosen)
        else:
            try:
                guessed = guess(file, chosen)
            except UsageError as error:
                raise UsageError(f"{error}{_read_as_it_is(file)}") from error
            chosen[step], why = guessed.value, f"{guessed.why} (--{step})" if guessed.why else ""
        if chosen[step] != NONE or step in ("label", "split"):
            table.add_row(plain(step), plain(chosen[step], "bold"), plain(why, "dim"))
    if chosen["answers"] == "choice" and chosen["choices"] == NONE:
        raise UsageError("--answers choice needs the column of the choices: --choices COLUMN, or --choices A,B,C.")
    used = [name for step in ("question", "choices", "label", "split") for name in columns_in(file, chosen[step])]
    unused = [name for name in file.columns if name not in used]
    if unused:
        table.add_row(plain("not used"), plain(", ".join(unused)), plain("kept beside the question", "dim"))
    out.print(Padding(table, (0, 0, 1, 2)))
    codes = listed(chosen["labels"])
    if codes == [str(code) for code in range(len(codes))]:
        notice(
            "The classes are codes, and a teacher cannot know what they mean. Name them in the order of the codes, "
            f"from 0 to {len(codes) - 1}: --labels {','.join('abcdefghij'[: len(codes)])}"
        )
    return chosen


def _asked(file: FileColumns, step: str, chosen: Mapping[str, str]) -> tuple[str, str]:
    """What a person says to a guess, until it can be."""
    while True:
        default: Any = None
        try:
            guessed = STEPS[step](file, chosen)
            default, why = guessed.value, guessed.why
            if default == NONE and step in ("labels", "choice-labels", "choices"):
                return default, why  # nothing speaks for it; an option says otherwise
        except UsageError as error:
            why = "asked"
            notice(str(error))
        value = typer.prompt(f"{step}" + (f" ({why})" if default else ""), default=default)
        try:
            check_given(file, step, value)
        except UsageError as error:
            notice(str(error))
            continue
        return value, why if value == default else "as you say"


def _try_out(definition: str, configuration: str, file: FileColumns, splits: Mapping[Part, Split]) -> str:
    """Reads every row as distill will, and shows the first ones; returns what is wrong with some, or nothing."""
    from flows.config.distill import load_config

    load_config(configuration)
    dataset = get_dataset(definition)
    wrong: list[str] = []
    readable = labelled = 0
    for path in dict.fromkeys(split.file for split in splits.values()):
        for number, row in enumerate(read_rows(path), start=1):
            try:
                labelled += dataset.example_from_row(row).label is not None
                readable += 1
            except BadFile as error:
                wrong.append(f"{path} row {number}: {error}")
    _show(dataset, file)
    if labelled < readable:
        notice(f"{labelled:,} of {readable:,} questions have a label.")
    return f"{len(wrong):,} rows cannot be read; the first: {wrong[0]}." if wrong else ""


def _show(dataset: Dataset, file: FileColumns) -> None:
    """The first questions as the teacher reads them."""
    out.print(plain(f"The teacher is told: {dataset.teacher_prompt('', ()).system}"), soft_wrap=True)
    for number, row in enumerate(file.first, start=1):
        try:
            example = dataset.example_from_row(row)
        except BadFile:
            continue
        prompt = dataset.teacher_prompt(example.question, example.choices)
        out.print(plain(f"{number} of {min(file.rows, SHOWN_ROWS)}", "dim"))
        out.print(Padding(plain(prompt.question), (0, 0, 0, 2)))
        out.print(Padding(plain(f"label: {example.label or NONE}", "dim"), (0, 0, 1, 2)))


def _read_as_it_is(file: FileColumns) -> str:
    """Names the built-in datasets that read a file's first rows, with labels, without any definition."""
    fitting = []
    for name in sorted(set(BUILT_IN) - {"lab"}):
        example_from_row = BUILT_IN[name]().example_from_row
        try:
            if all(example_from_row(row).label is not None for row in file.first):
                fitting.append(name)
        except BadFile:
            continue
    return f" Or take it as it is, with --dataset {' or '.join(fitting)}." if fitting else ""


def _say_next(name: str, url: str, model: str) -> None:
    if (url, model) == (URL, MODEL):
        notice(
            f"Next: put your teacher's url and model into {name}-student.yaml, its key into QCRD_TEACHER_API_KEY; then"
        )
    else:
        notice("Next (the endpoint's key, if it has one, goes into QCRD_TEACHER_API_KEY):")
    out.print(plain(f"  qcrd sample --dataset {name}.yaml --limit 20 --url {url} --model {model}"), soft_wrap=True)
    out.print(plain(f"  qcrd show rationales --dataset {name}"), soft_wrap=True)
    out.print(plain(f"  qcrd distill {name}-student.yaml"), soft_wrap=True)

"""`qcrd init`: from somebody's file to the two files that `qcrd distill` needs."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table

from flows.new_files import Split, dataset_text, long_texts, name_for, splits_of, student_text, told
from flows.terminal import notice, out, plain
from storage.datasets.definition import Dataset
from storage.datasets.file_columns import SHOWN_ROWS, FileColumns, count_columns
from storage.datasets.guessing import NONE, STEPS, Guess, check_given, columns_in, listed
from storage.datasets.label_columns import decimals_of
from storage.datasets.registry import BUILT_IN, get_dataset
from storage.encodings import encoding_of
from storage.errors import BadFile, StorageError, UsageError
from storage.rows import PARQUET, read_rows
from tasks.questions.sets import Part

URL, MODEL = "https://host/v1", "big-model"
SHOWN_CHARACTERS = 600  # of a question
RATINGS = ("stars", "rating", "score", "grade", "sterne", "bewertung", "punkte")  # numbers that say what they mean


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
    answers: Annotated[str | None, typer.Option("--answers", help="number, choice, label or labels (several).")] = None,
    labels: Annotated[str | None, typer.Option("--labels", help="The classes, as low,high.")] = None,
    choice_labels: Annotated[
        str | None, typer.Option("--choice-labels", help="What the label column calls the choices, as 0,1,2,3.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Column that says which rows are for training and test; or none.")
    ] = None,
    validation: Annotated[str | None, typer.Option("--validation", help="A file with validation questions.")] = None,
    test: Annotated[str | None, typer.Option("--test", help="A file with test questions.")] = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", help="Encoding of a text file that is not UTF-8, as cp1252.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The dataset's name; by default after the file.")] = None,
    url: Annotated[str, typer.Option("--url", help="The teacher's endpoint, for the configuration.")] = URL,
    model: Annotated[str, typer.Option("--model", help="The teacher's name there.")] = MODEL,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take the guesses.")] = False,
) -> None:
    """Look at a file and write what distill needs to know.

    Guesses what is the question, the choices, the label, the kind of answers
    and the split; asks whether that is right; and writes NAME.yaml and
    NAME-student.yaml here. Where nobody answers, guesses are taken.

    Example: qcrd init tickets.csv --label priority --yes
    """
    encoding = encoding or _encoding(file)
    seen = count_columns(file, encoding)
    given = {"split": split, "choices": choices, "question": question, "label": label, "answers": answers,
             "labels": labels, "choice-labels": choice_labels}  # fmt: skip
    named = name or name_for(file)
    targets = Path(f"{named}.yaml"), Path(f"{named}-student.yaml")
    for target in targets:
        if target.exists():
            raise UsageError(f"{target} exists and is left as it is; choose another --name, or move it away.")
    read_as = f"read as {encoding}, since it is not UTF-8 (--encoding); " if encoding else ""
    out.print(plain(f"{file}: {read_as}{seen.rows:,} rows; columns {', '.join(seen.columns)}"), soft_wrap=True)
    chosen = _choose(seen, given, asking=not yes)
    splits = splits_of(seen, chosen["split"], {"validation": validation, "test": test})
    found = next((name for split in splits.values() if (name := _encoding(split.file))), None)
    seen = replace(seen, encoding=encoding or found)
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
    doubts: list[str] = []
    for step in STEPS:
        why = f"given with --{step}"
        if step not in chosen and asking:
            try:
                chosen[step], why = _asked(file, step, chosen)
            except EOFError:
                asking = False
                notice("Nobody answers: the rest is as guessed.")
        if step not in chosen:
            guessed = _guessed(file, step, chosen, doubts)
            chosen[step], why = guessed.value, f"{guessed.why} (--{step})" if guessed.why else ""
            doubts.append(guessed.doubt)
        if chosen[step] != NONE or step in ("label", "split"):
            table.add_row(plain(step), plain(chosen[step], "bold"), plain(why, "dim"))
    if chosen["answers"] == "choice" and chosen["choices"] == NONE:
        raise UsageError("--answers choice needs the column of the choices: --choices COLUMN, or --choices A,B,C.")
    used = [name for step in ("question", "choices", "label", "split") for name in columns_in(file, chosen[step])]
    unused = [name for name in file.columns if name not in used]
    if unused:
        table.add_row(plain("not used"), plain(", ".join(unused)), plain("kept beside the question", "dim"))
    out.print(Padding(table, (0, 0, 1, 2), expand=False))
    for doubt in filter(
        None,
        [*doubts, *_about_codes(file, chosen), _about_decimals(file, chosen), long_texts(file, chosen["question"])],
    ):
        notice(doubt)
    return chosen


def _guessed(file: FileColumns, step: str, chosen: Mapping[str, str], doubts: list[str]) -> Guess:
    """A guess; where there is none, the error tells of earlier doubts, too, which may well be why."""
    try:
        return STEPS[step](file, chosen)
    except UsageError as error:
        said = f"{error}{_read_as_it_is(file)}"
        before = "".join(f" {doubt}" for doubt in doubts if doubt)
        raise UsageError(f"{said.rstrip('.')}.{before}" if before else said) from error


def _about_codes(file: FileColumns, chosen: Mapping[str, str]) -> list[str]:
    """A hint where classes are mere numbers."""
    labels, column = listed(chosen["labels"]), file.columns.get(chosen["label"])
    if not all(label.isdecimal() for label in labels) or (column and column.key in RATINGS):
        return []
    names = ",".join("abcdefghij"[: len(labels)])
    return [
        "The classes are numbers. If they are codes, a teacher cannot know what they mean: name them, in the order "
        f"{', '.join(labels)}: --labels {names}"
    ]


def _about_decimals(file: FileColumns, chosen: Mapping[str, str]) -> str:
    """A hint where numbers can be read in two ways."""
    column = file.columns.get(chosen["label"])
    return decimals_of(column)[1] if column and chosen["answers"] == "number" else ""


def _asked(file: FileColumns, step: str, chosen: Mapping[str, str]) -> tuple[str, str]:
    """What a person says to a guess, until it can be.

    Raises:
        EOFError: there is nobody, and nothing more to read.
    """
    while True:
        default: Any = None
        try:
            guessed = STEPS[step](file, chosen)
            default, why = guessed.value, guessed.why
            if guessed.doubt:
                notice(guessed.doubt)
            if default == NONE and step in ("labels", "choice-labels", "choices"):
                return default, why  # nothing speaks for it; an option says otherwise
        except UsageError as error:
            why = "asked"
            notice(str(error))
        value = _answer(f"{step}" + (f" ({why})" if default else ""), default)
        try:
            check_given(file, step, value)
        except UsageError as error:
            notice(str(error))
            continue
        return value, why if value == default else "as you say"


def _answer(question: str, default: str | None) -> str:
    """What is typed, or comes through a pipe; the default for an empty line.

    Raises:
        EOFError: the pipe is at its end.
    """
    if sys.stdin.isatty():
        return str(typer.prompt(question, default=default))
    out.print(plain(f"{question}{f' [{default}]' if default else ''}: "), end="", soft_wrap=True)
    line = sys.stdin.readline()
    out.print(plain(line.strip()), soft_wrap=True)
    if not line:
        raise EOFError
    return line.strip() or default or ""


def _try_out(definition: str, configuration: str, file: FileColumns, splits: Mapping[Part, Split]) -> str:
    """Reads every row as distill will, and shows the first ones; returns what is wrong with some, or nothing."""
    from flows.config.distill import load_config

    load_config(configuration)
    dataset = get_dataset(definition)
    wrong: list[str] = []
    readable = labelled = differing = 0
    labels: dict[tuple[str, ...], str | None] = {}
    for path in dict.fromkeys(split.file for split in splits.values()):
        for number, row in enumerate(read_rows(path, file.encoding), start=1):
            try:
                example = dataset.example_from_row(row)
            except BadFile as error:
                wrong.append(f"{path} row {number}: {error}")
                continue
            readable += 1
            labelled += example.label is not None
            asked = (example.question, *example.choices)
            before = labels.get(asked)
            differing += before is not None and example.label is not None and before != example.label
            labels[asked] = example.label if example.label is not None else before
    _show(dataset, file)
    if labelled < readable:
        notice(f"{labelled:,} of {readable:,} rows have a label.")
    if len(labels) < readable:
        other = f"; {differing:,} of these rows have another label, and the last one counts" if differing else ""
        notice(f"{readable - len(labels):,} rows ask what an earlier row asks: {len(labels):,} questions{other}.")
    return f"{len(wrong):,} rows cannot be read; the first: {wrong[0].rstrip('.')}." if wrong else ""


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
        out.print(plain(indent(_beginning(prompt.question), "  ")), soft_wrap=True)
        out.print(plain(f"  {f'label: {example.label}' if example.label else 'no label'}\n", "dim"))


def _beginning(text: str) -> str:
    if len(text) <= SHOWN_CHARACTERS * 3 // 2:
        return text
    return f"{text[:SHOWN_CHARACTERS]} ... ({len(text):,} characters in all)"


def _encoding(path: str) -> str | None:
    """The encoding of a text file that is not UTF-8."""
    return encoding_of(Path(path)) if Path(path).is_file() and not path.lower().endswith(PARQUET) else None


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

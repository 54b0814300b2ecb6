"""`qcrd predict` and `qcrd evaluate`: a registered student at work."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.options import (
    DEFAULT_HOME,
    DatasetOption,
    HomeOption,
    JsonOption,
    ModelOption,
    at_least,
    home_at,
    only_model,
    split_named,
)
from flows.terminal import figure, notice, out, percent, plain, print_json
from storage.datasets.choices import wrong_choices
from storage.datasets.definition import Dataset
from storage.datasets.registry import get_dataset
from storage.errors import UsageError
from storage.rows import read_rows

AliasOption = Annotated[
    str, typer.Option("--alias", help="Alias of the version: champion, challenger, or one of your own.")
]
SamplesOption = Annotated[
    int | None,
    typer.Option("--samples", min=0, help="Rationales to sample, whose answers vote; else as it was registered."),
]


def predict_command(
    questions: Annotated[
        list[str] | None, typer.Argument(help="Questions; - reads one per line from standard input.")
    ] = None,
    path: Annotated[
        str | None, typer.Option("--path", help="JSONL, CSV or Parquet with the questions (and choices) instead.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Your definition, where the columns of the file are those of its files."),
    ] = None,
    choice: Annotated[
        list[str] | None, typer.Option("--choice", help="An answer choice, for datasets that have some. Repeatable.")
    ] = None,
    model: ModelOption = None,
    alias: AliasOption = "champion",
    samples: SamplesOption = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Ask the champion: it answers, and explains its answer.

    Example: qcrd predict "Ann has 3 apples and buys 2 more. How many apples does Ann have now?"
    """
    asked = questions_of(questions or [], path, choice or [], dataset)
    from tasks.tracking.registry import load_registered  # takes some seconds: MLflow and torch

    place = home_at(home)
    student = load_registered(place.path, model or only_model(place), alias)
    check_choices(student.served.dataset, asked)
    answers = student.predict(asked, samples)
    if as_json:
        print_json([{**question, **answer} for question, answer in zip(asked, answers, strict=True)])
        return
    for question, answer in zip(asked, answers, strict=True):
        out.print(plain(question["question"]))
        unsure = "(withheld: not sure enough)" if answer.get("confidence") is not None else "(abstains)"
        told = unsure if answer["abstained"] else answer["answer"]
        out.print(plain(f"  answer:    {told if told is not None else '-'}"))
        if answer["rationale"] is not None:
            out.print(plain(f"  rationale: {answer['rationale']}"))
        if answer["quality"] is not None:
            out.print(plain(f"  quality:   {answer['quality']:.3f}"))
        if answer.get("confidence") is not None:
            out.print(plain(f"  sure:      {answer['confidence']:.0%}"))
    notice(f"{student.registered.name} version {student.registered.version} ({alias})")


def evaluate_command(
    dataset: DatasetOption,
    split: Annotated[str, typer.Option("--split", help="The split whose questions are answered.")] = "test",
    path: Annotated[
        str | None, typer.Option("--path", help="A file with the questions, instead of the dataset's own source.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Take at most this many questions.")] = None,
    model: ModelOption = None,
    alias: AliasOption = "champion",
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Measure a registered student on labelled questions.

    Its predictions are stored.

    Example: qcrd evaluate --dataset lab --split test --limit 200
    """
    at_least("--limit", limit, 1)
    split_named(split)
    named = get_dataset(dataset)
    from tasks.serving.evaluate import evaluate_registered  # takes some seconds: MLflow and torch

    place = home_at(home)
    examples = named.load(split, path, limit)
    result = evaluate_registered(
        place.path, place.open_store(), named, split, examples, model or only_model(place), alias
    )
    if as_json:
        print_json(result)
        return
    out.print(plain(f"{result.name} version {result.version} on {figure(result.questions)} questions of {named.name}:"))
    out.print(plain(f"  accuracy     {percent(result.accuracy)}  ({percent(result.low)} to {percent(result.high)})"))
    if result.answered < result.questions:
        out.print(plain(f"  answered     {percent(result.answered / result.questions)}  ({_between(result.coverage)})"))
        if result.answered:
            out.print(
                plain(f"  wrong        {percent(result.wrong / result.answered)}  ({_between(result.risk)}) of these")
            )
    if result.explanation_accuracy is not None:
        out.print(plain(f"  explanations {percent(result.explanation_accuracy)}  whose own answer is right"))
    if result.mean_quality is not None:
        out.print(plain(f"  quality      {result.mean_quality:.3f}  mean"))
    notice(f"predictions stored as {result.student}")


def _between(interval: tuple[float, float]) -> str:
    return f"{percent(interval[0])} to {percent(interval[1])}"


def check_choices(dataset: Dataset, asked: list[dict[str, Any]]) -> None:
    """Checks that questions have choices if those of the dataset have some, and only then.

    Raises:
        UsageError: one does not; the message says which.
    """
    for number, one in enumerate(asked, start=1):
        choices = one.get("choices") or []
        # What is no list of texts is refused by the student.
        if isinstance(choices, list) and (why := wrong_choices(dataset, [str(choice) for choice in choices])):
            raise UsageError(f"Question {number}: {why}.")


def questions_of(texts: list[str], path: str | None, choices: list[str], dataset: str | None) -> list[dict[str, Any]]:
    """What is asked, from the command line, standard input or a file.

    Raises:
        UsageError: nothing is asked, or it comes from two places.
    """
    if path is not None:
        if texts or choices:
            raise UsageError("Give questions on the command line or in a file with --path, not both.")
        if dataset is not None:
            found = [
                {"question": one.question, **({"choices": list(one.choices)} if one.choices else {})}
                for one in get_dataset(dataset).load("train", path)
            ]
            if not found:
                raise UsageError(f"There is no question in {path}.")
            return found
        rows = list(read_rows(Path(path)))
        for number, row in enumerate(rows, start=1):
            if not isinstance(row.get("question"), str):
                raise UsageError(
                    f"{path}: row {number} has no text in the column `question`. If its columns are those of your "
                    "dataset, say which: --dataset NAME.yaml."
                )
        return [{name: row[name] for name in ("question", "choices") if row.get(name) is not None} for row in rows]
    if dataset is not None:
        raise UsageError("--dataset says how a file is read: give the file with --path.")
    if texts == ["-"]:
        texts = [line.strip() for line in sys.stdin if line.strip()]
    if not texts:
        raise UsageError('Give a question, such as "How many ...?", or a file with --path.')
    return [{"question": text, **({"choices": choices} if choices else {})} for text in texts]

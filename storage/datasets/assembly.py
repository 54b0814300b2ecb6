"""Assembles a `Dataset` from its parts, for built-in datasets and users' YAML files alike."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from storage.datasets.definition import LABEL_SETS, Dataset, Example, Exemplar, Parsed
from storage.datasets.label_sets import LabelSetReader
from storage.datasets.layout import Layout, examples_from_file, rename
from storage.datasets.parsing import LabelReader, normalise_choice, normalise_number, parse_choice, parse_number
from storage.datasets.prompts import few_shot, render_question
from storage.errors import BadFile, UnknownName

Rows = Callable[[str], Iterator[Mapping[str, Any]]]  # split -> its rows


@dataclass(frozen=True)
class Answers:
    """How answers of one kind are read and spelled.

    Attributes:
        kind: "number", "choice", "label", "labels" or "custom".
        parse: (text, choices) -> rationale and answer.
        normalise: (answer, choices) -> its canonical spelling, or None.
        allowed: the labels, if they are the same for every question.
        normalise_label: the same for gold labels, where files spell them differently; by default `normalise`.
    """

    kind: str
    parse: Callable[[str, tuple[str, ...]], Parsed]
    normalise: Callable[[str, tuple[str, ...]], str | None]
    allowed: tuple[str, ...] = field(default=())
    normalise_label: Callable[[str, tuple[str, ...]], str | None] | None = None


NUMBERS = Answers("number", parse_number, normalise_number)
COMMA_NUMBERS = Answers(
    "number",
    partial(parse_number, comma_decimals=True),
    normalise_number,  # what is stored, and what a student writes, has points
    normalise_label=partial(normalise_number, comma_decimals=True),
)
"""Numbers that files and teachers write as 1.234,5."""
CHOICES = Answers("choice", parse_choice, normalise_choice)


def labels(
    names: Sequence[str],
    synonyms: Mapping[str, Sequence[str]] | None = None,
    short_answers: Mapping[str, Sequence[str]] | None = None,
) -> Answers:
    """Answers from a fixed set of class labels; see `parsing.LabelReader` for the arguments."""
    reader = LabelReader(names, synonyms, short_answers)
    return Answers("label", reader.parse, reader.normalise, reader.labels)


def label_sets(names: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None) -> Answers:
    """Answers that are sets of class labels; see `label_sets.LabelSetReader` for the arguments."""
    reader = LabelSetReader(names, synonyms)
    return Answers(LABEL_SETS, reader.parse, reader.normalise, reader.labels)


def assemble(
    *,
    name: str,
    description: str,
    answers: Answers,
    splits: Sequence[str],
    rows: Rows,
    instruction: str,
    exemplars: Sequence[Exemplar],
    template: str = "{question}",
    has_choices: bool | None = None,
    adapt: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
    choice_labels: tuple[str, ...] = (),
    most_words: Mapping[str, int] | None = None,
    encoding: str | None = None,
) -> Dataset:
    """A dataset from its parts.

    Args:
        name: its name in every row.
        description: one line for people.
        answers: how answers are read.
        splits: the names that `load` accepts.
        rows: gives the rows of a split if `load` gets no path.
        instruction: the teacher's system message, also the head of the plain prompt.
        exemplars: worked questions. The dataset's own parser must read the answer of each (checked here).
        template: the question as text, with fields in braces.
        has_choices: whether rows have choices; by default if answers are choices.
        adapt: renames published columns to canonical fields.
        choice_labels: what gold labels call the choices, where the rows give them no names.
        most_words: column -> words of it that a question takes at most.
        encoding: of files that are not UTF-8.

    Raises:
        ValueError: the parser does not read an exemplar's reply as its answer.
    """
    normalise_label = answers.normalise_label or answers.normalise
    with_choices = answers.kind == "choice" if has_choices is None else has_choices
    layout = Layout(
        template,
        with_choices,
        normalise_label,
        answers.allowed,
        adapt,
        choice_labels,
        tuple((most_words or {}).items()),
        answers.kind == LABEL_SETS,
    )

    def load(split: str, path: str | None = None, limit: int | None = None) -> Iterator[Example]:
        if path is not None:
            return examples_from_file(layout.example, path, limit, encoding=encoding)
        if split not in splits:
            raise UnknownName("split", split, splits, f"({name}; or pass a file with --path)")
        return _loaded(layout, name, islice(rows(split), limit))

    prompt = few_shot(instruction, exemplars)
    for exemplar, (_, reply) in zip(exemplars, prompt("", ()).turns, strict=True):
        expected = normalise_label(exemplar.answer, exemplar.choices)
        if expected is None or answers.parse(reply, exemplar.choices).answer != expected:
            raise ValueError(
                f"the exemplar {exemplar.question[:60]!r} of {name} answers {exemplar.answer!r}, "
                f"which its own parser reads as {answers.parse(reply, exemplar.choices).answer!r}"
            )
    return Dataset(
        name=name,
        description=description,
        answer_kind=answers.kind,
        splits=tuple(splits),
        load=load,
        teacher_prompt=prompt,
        student_input=render_question,
        parse=answers.parse,
        normalise=answers.normalise,
        equal=same_text,
        compares_strings=True,
        example_from_row=layout.example,
        fields=layout.fields,
    )


def same_text(answer: str, label: str, extra: Mapping[str, Any]) -> bool:  # noqa: ARG001 - one signature for all
    """Equality of normalised answers, for datasets that compare strings."""
    return answer == label


def _loaded(layout: Layout, name: str, rows: Iterator[Mapping[str, Any]]) -> Iterator[Example]:
    for number, row in enumerate(rows, start=1):
        try:
            example = layout.example(row)
        except BadFile as error:
            raise BadFile(f"{name} row {number}: {error}{rename(error)}") from error
        yield example

"""Reads the choices of a row, in the layouts in which people and published datasets write them:

    ["attic", "cellar"]                                  a list of texts
    attic|cellar                                         texts separated by "|"
    attic; cellar                                        by semicolons, or each in a line of its own
    (A) attic (B) cellar                                 texts behind their letters or numbers
    {"label": ["A", "B"], "text": ["attic", "cellar"]}   two lists side by side
    [{"label": "A", "text": "attic"}, ...]               a list of objects
    {"A": "attic", "B": "cellar"}                        one object

A text, such as a CSV cell, may hold lists and objects as JSON or as Python, pandas and numpy print them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import commonprefix
from typing import Any

from storage.datasets.definition import Dataset
from storage.datasets.values import as_text, written_value
from storage.errors import BadFile
from storage.rows import missing_column


@dataclass(frozen=True)
class Choices:
    """The choices of one question.

    Attributes:
        texts: in order.
        names: what a gold label may call them besides their texts, in small letters, such as "a"; empty if the file
            gives them no names.
    """

    texts: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def named(self, answer: str) -> str | None:
        """The text that an answer names: by its name, else by the text itself; None if it names none."""
        name = answer.strip(" ().:").casefold()
        by_name = self.names.get(name, self.names.get(name.removesuffix(".0")))
        if by_name is not None:
            return by_name
        return next((text for text in self.texts if text.casefold() == answer.strip().casefold()), None)


def has_choices(dataset: Dataset) -> bool:
    """Whether the questions of a dataset have choices; then all of them have."""
    return "choices" in dataset.fields


def wrong_choices(dataset: Dataset, choices: Sequence[str]) -> str | None:
    """What is wrong with the choices of a question that somebody asks; None if nothing is. Published questions may have
    a choice twice."""
    if not has_choices(dataset):
        return f"it has choices, and {dataset.name} has none: leave them out" if choices else None
    if not choices:
        return f"it has no choices, and {dataset.name} asks for one of them"
    if len({choice.strip() for choice in choices}) < 2:
        return "its choices must be at least two different texts"
    return None


def read_choices(value: Any) -> Choices:
    """The choices that a value holds.

    Raises:
        BadFile: none of the layouts above, fewer than two choices, or an empty one.
    """
    if isinstance(value, (str, bytes)):
        value = _from_text(as_text(value, "choices").strip())
    names: list[Any] = []
    if isinstance(value, Mapping):
        if isinstance(value.get("text"), Sequence) and not isinstance(value["text"], str):
            names, value = list(value.get("label") or ()), list(value["text"])
        else:
            value = {name: text for name, text in value.items() if text is not None}
            names, value = list(value), list(value.values())
    elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        if not all(isinstance(item, Mapping) and "text" in item for item in value):
            raise BadFile('each of choices must be a text, or an object such as {"label": "A", "text": "cellar"}')
        names, value = [item.get("label") for item in value], [item["text"] for item in value]
    if not isinstance(value, (list, tuple)):
        raise BadFile(f"choices must be a list or texts separated by '|', not {type(value).__name__}")
    return named_choices([name for name in names if name is not None], value)


def named_choices(names: Sequence[Any], texts: Sequence[Any]) -> Choices:
    """Choices from their names (none, or one for each) and texts.

    Raises:
        BadFile: fewer than two choices, an empty one, not as many names as texts, or one name twice.
    """
    choices = tuple(as_text(choice, "each of choices").strip() for choice in texts)
    if len(choices) < 2 or not all(choices):
        raise BadFile(f"choices must be at least two texts, none of them empty; got {str(list(choices))[:120]}")
    keys = [as_text(name, "each label of choices").strip().casefold() for name in names]
    if keys and len(keys) != len(choices):
        raise BadFile(f"choices have {len(choices)} texts and {len(keys)} labels; there must be as many")
    if len(set(keys)) < len(keys):
        raise BadFile(f"choices have a label twice: {', '.join(keys)[:80]}")
    return Choices(choices, dict(zip(keys, choices, strict=True)) if keys else {})


def choices_in_columns(row: Mapping[str, Any], columns: Sequence[str], labels: Sequence[str]) -> Choices:
    """The choices of a row that has each in a column of its own; an empty cell is no choice.

    A gold label may name them by the column's letter (the first is A), by the column's name or what sets it apart
    ("2" for option_2), or by what `labels` says, if it says anything.

    Raises:
        BadFile: a column is missing, or fewer than two hold a choice.
    """
    for column in columns:
        if column not in row:
            raise missing_column(column, row, "It is one of the choices.")
    texts = [as_text(row[column], column).strip() for column in columns]
    shared = len(commonprefix(list(columns)))
    apart = [column[shared:].strip(" _-.") for column in columns]
    ways = [labels] if labels else [[chr(ord("a") + place) for place in range(len(columns))], apart, columns]
    names = {
        name.strip().casefold(): text
        for way in ways
        if len(set(way)) == len(columns) and all(way)
        for name, text in zip(way, texts, strict=True)
    }
    found = named_choices((), [text for text in texts if text])
    return Choices(found.texts, {name: text for name, text in names.items() if text})


def split_lettered(text: str) -> tuple[str, list[dict[str, str]]]:
    """A text and the choices at its end: "Why? (A) heat (B) cold" is "Why?" and two; none if there are not two.

    Letters begin with (A) and numbers with (1), without a gap.
    """
    marks = list(_MARK.finditer(text))
    for first in range(len(marks) - 2, -1, -1):
        names = [mark[1] for mark in marks[first:]]
        start = ord(names[0])
        if names[0] in "A1" and names == [chr(start + place) for place in range(len(names))]:
            ends = [mark.start() for mark in marks[first + 1 :]] + [len(text)]
            spans = zip(marks[first:], ends, strict=True)
            return text[: marks[first].start()].strip(), [
                {"label": mark[1], "text": text[mark.end() : end].strip()} for mark, end in spans
            ]
    return text, []


_LETTERS, _NUMBERS = "ABCDEFGHI", "123456789"
_BEFORE = re.compile(r"\s*\(?([A-Ia-i1-9])[).:]\s+")
_MARK = re.compile(r"(?:^|(?<=\s))\(([A-Z1-9])\)(?=\s)")


def _from_text(text: str) -> Any:
    if text.startswith(("[", "{")):
        try:
            return written_value(text)
        except ValueError as error:
            kind = "list" if text.startswith("[") else "object"
            raise BadFile(f"choices {text[:80]!r} begin like a JSON {kind} but cannot be read as one") from error
    head, lettered = split_lettered(text)
    if lettered and not head and "|" not in text:
        return lettered
    between = next((sign for sign in "|\n;" if sign in text), "|")
    texts = text.split(between)
    if between != "|":
        texts = [one for one in texts if one.strip()]  # a line or a semicolon at the end
    marks = [_BEFORE.match(one) for one in texts]
    names = [mark[1].upper() for mark in marks if mark]
    if len(names) == len(texts) > 1 and names in (list(_LETTERS[: len(texts)]), list(_NUMBERS[: len(texts)])):
        return [
            {"label": mark[1], "text": one[mark.end() :].strip()}
            for one, mark in zip(texts, marks, strict=True)
            if mark
        ]
    return texts

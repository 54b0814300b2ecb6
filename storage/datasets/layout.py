"""Turns rows of files into `Example`s: which column is what, and which values it may have.

The canonical fields are `question`, `choices` and `label`; inference datasets have `premise` and `hypothesis` instead
of `question`. Other column names are mapped onto these by `--map`, a YAML file's `fields`, or a built-in dataset's
`adapt`, which knows the published names. All other columns go into `extra`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from string import Formatter
from typing import Any

from storage.datasets.definition import Example
from storage.errors import BadFile, UnknownName
from storage.rows import missing_column, parse_json, read_rows

NO_MAPPING: Mapping[str, str] = {}
_MAP_HINT = "Name the right one with --map {field}=COLUMN."


@dataclass(frozen=True)
class Layout:
    """How the rows of one dataset become examples.

    Attributes:
        template: the question as text, with fields in braces; "{question}" for most datasets.
        has_choices: whether every row must have choices.
        normalise: the dataset's normaliser, for gold labels.
        allowed: the labels, for the message about a row with another one; empty if they are not fixed.
        adapt: renames published columns to canonical fields; leaves canonical rows alone.
    """

    template: str
    has_choices: bool
    normalise: Callable[[str, tuple[str, ...]], str | None]
    allowed: tuple[str, ...] = ()
    adapt: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The fields of the question."""
        return tuple(name for _, name, _, _ in Formatter().parse(self.template) if name)

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field that a mapping may name."""
        return (*self.inputs, *(("choices",) if self.has_choices else ()), "label")

    def example(self, row: Mapping[str, Any]) -> Example:
        """The example of one row.

        Raises:
            BadFile: a column is missing or has a value that is not allowed. The caller adds file and row.
        """
        adapted = dict(self.adapt(row) if self.adapt else row)
        values = {name: _text(adapted, name) for name in self.inputs}
        question = self.template.format_map(values)
        choices = _choices(adapted) if self.has_choices else ()
        label = self._label(adapted.get("label"), choices)
        used = {*self.inputs, "label", *(("choices",) if self.has_choices else ())}
        extra = {str(column): jsonable(value) for column, value in adapted.items() if column not in used}
        return Example(question, choices, label, extra)

    def _label(self, value: Any, choices: tuple[str, ...]) -> str | None:
        # Published inference datasets use -1 where the annotators did not agree.
        if value is None or value == "" or (value in (-1, "-1") and self.allowed):
            return None
        text = as_text(value, "label")
        label = self.normalise(text, choices)
        if label is None:
            allowed = self.allowed or choices
            expected = f"one of {', '.join(allowed)}" if allowed else "a number"
            raise BadFile(f"label {text[:80]!r} must be {expected}")
        return label


def examples_from_file(
    example_of: Callable[[Mapping[str, Any]], Example],
    path: str,
    limit: int | None = None,
    mapping: Mapping[str, str] = NO_MAPPING,
) -> Iterator[Example]:
    """The examples of a user's file; errors name the file and the row.

    Args:
        example_of: a dataset's `example_from_row`.
        path: a file that `storage.rows` can read.
        limit: at most this many; None for all.
        mapping: field -> column, for columns with other names.
    """
    for number, row in enumerate(islice(read_rows(path), limit), start=1):
        try:
            example = example_of(renamed(row, mapping))
        except BadFile as error:
            raise BadFile(f"{path} row {number}: {error}") from error
        yield example


def renamed(row: Mapping[str, Any], mapping: Mapping[str, str]) -> Mapping[str, Any]:
    """The row with the mapped columns renamed to their fields.

    Raises:
        BadFile: a mapped column is not in the row.
    """
    if not mapping:
        return row
    for column in mapping.values():
        if column not in row:
            raise missing_column(column, row)
    taken = set(mapping.values())
    out = {column: value for column, value in row.items() if column not in taken and column not in mapping}
    return out | {field: row[column] for field, column in mapping.items()}


def check_mapping(mapping: Mapping[str, str], fields: Sequence[str]) -> None:
    """Checks that a mapping names only fields that exist.

    Raises:
        UnknownName: it names another.
    """
    for field in mapping:
        if field not in fields:
            raise UnknownName("field", field, fields, "Write --map FIELD=COLUMN.")


def as_text(value: Any, field: str) -> str:
    """The value as text: None as "", bytes decoded as UTF-8, numbers and dates as Python writes them.

    Raises:
        BadFile: a list, an object, or bytes that are not UTF-8; the message names the field.
    """
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise BadFile(f"{field} holds bytes that are not UTF-8 text") from error
    if isinstance(value, (list, tuple, Mapping)):
        raise BadFile(f"{field} must be a text, not {type(value).__name__}")
    return str(value)


def choice_list(value: Any) -> tuple[str, ...]:
    """Choices as files write them: a list, a JSON list in a text, or texts separated by "|".

    Raises:
        BadFile: none of these, fewer than two choices, or an empty one.
    """
    if isinstance(value, (str, bytes)):
        text = as_text(value, "choices").strip()
        if text.startswith("["):
            try:
                value = parse_json(text)
            except ValueError as error:
                raise BadFile(f"choices {text[:80]!r} begin like a JSON list but cannot be read as one") from error
        else:
            value = text.split("|")
    if not isinstance(value, (list, tuple)):
        raise BadFile(f"choices must be a list or texts separated by '|', not {type(value).__name__}")
    choices = tuple(as_text(choice, "each of choices").strip() for choice in value)
    if len(choices) < 2 or not all(choices):
        raise BadFile(f"choices must be at least two texts, none of them empty; got {str(list(choices))[:120]}")
    return choices


def jsonable(value: Any) -> Any:
    """The value in a form that JSON can hold: dates, decimals, bytes and other objects become text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(inner) for inner in value]
    if isinstance(value, (set, frozenset)):
        return sorted((jsonable(inner) for inner in value), key=str)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else repr(value)[:200]


def _text(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        raise missing_column(name, row, _MAP_HINT.format(field=name))
    text = as_text(row[name], name).strip()
    if not text:
        raise BadFile(f"{name} is empty")
    return text


def _choices(row: Mapping[str, Any]) -> tuple[str, ...]:
    if "choices" not in row:
        raise missing_column("choices", row, _MAP_HINT.format(field="choices"))
    return choice_list(row["choices"])

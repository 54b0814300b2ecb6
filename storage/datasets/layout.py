"""Turns rows of files into `Example`s: which column is what, and which values it may have.

The canonical fields are `question`, `choices` and `label`; inference datasets have `premise` and `hypothesis` instead
of `question`. Other column names are mapped onto these by `--map`, a YAML file's `fields`, or a built-in dataset's
`adapt`, which knows the published names. All other columns go into `extra`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from string import Formatter
from typing import Any

from storage.datasets.choices import Choices, named_choices, read_choices
from storage.datasets.definition import Example
from storage.datasets.label_sets import label_text
from storage.datasets.values import as_text, jsonable
from storage.errors import BadFile, NoField, UnknownName
from storage.rows import missing_column, read_rows

NO_MAPPING: Mapping[str, str] = {}
MISSING = ("-", "N/A", "n/a", "#N/A", "#NV")  # as people and spreadsheets write it
NO_LABEL = (*MISSING, "-1", "-1.0")  # published where the annotators did not agree, or the label is hidden
CUT = "cut_from_words"
"""Key of an example's extra that says how many words the cut fields had."""
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Layout:
    """How the rows of one dataset become examples.

    Attributes:
        template: the question as text, with fields in braces; "{question}" for most datasets.
        has_choices: whether every row must have choices.
        normalise: the dataset's normaliser, for gold labels.
        allowed: the labels, for the message about a row with another one; empty if they are not fixed.
        adapt: renames published columns to canonical fields; leaves canonical rows alone.
        choice_labels: what gold labels call the choices, in order, where the rows themselves give them no names.
        most_words: (field, words of it that a question takes at most).
        label_sets: whether a gold label is a set, which a row may hold as a list.
    """

    template: str
    has_choices: bool
    normalise: Callable[[str, tuple[str, ...]], str | None]
    allowed: tuple[str, ...] = ()
    adapt: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    choice_labels: tuple[str, ...] = ()
    most_words: tuple[tuple[str, int], ...] = ()
    label_sets: bool = False

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
            NoField: a column is missing. The caller says what helps.
            BadFile: a column has a value that is not allowed. The caller adds file and row.
        """
        adapted = dict(self.adapt(row) if self.adapt else row)
        values = {name: _text(adapted, name) for name in self.inputs}
        left_out: dict[str, int] = {}
        for name, most in self.most_words:
            values[name], words = first_words(values[name], most)
            if words > most:
                left_out[name] = words
        question = self.template.format_map(values)
        choices = self._choices(adapted) if self.has_choices else Choices()
        label = self._label(adapted.get("label"), choices)
        used = {*self.inputs, "label", *(("choices",) if self.has_choices else ())}
        extra = {str(column): jsonable(value) for column, value in adapted.items() if column not in used}
        return Example(question, choices.texts, label, extra | ({CUT: left_out} if left_out else {}))

    def _choices(self, row: Mapping[str, Any]) -> Choices:
        if "choices" not in row:
            raise no_field("choices", row)
        choices = row["choices"] if isinstance(row["choices"], Choices) else read_choices(row["choices"])
        if not self.choice_labels or choices.names:
            return choices
        if len(choices.texts) > len(self.choice_labels):
            raise BadFile(f"it has {len(choices.texts)} choices, and choice_labels names {len(self.choice_labels)}")
        return named_choices(self.choice_labels[: len(choices.texts)], choices.texts)

    def _label(self, value: Any, choices: Choices) -> str | None:
        text = label_text(value) if self.label_sets else as_text(value, "label").strip()
        allowed = self.allowed or choices.texts
        # A number may well be -1; where there are classes or choices, it is none of them.
        if not text or (text in (NO_LABEL if allowed else MISSING) and text not in allowed):
            return self.normalise(text, choices.texts) if self.label_sets and text else None  # "n/a" may say: no label
        # What the file calls its choices counts, not where they stand: "A" is the one labelled A.
        named = choices.named(text) if choices.names else text
        label = None if named is None else self.normalise(named, choices.texts)
        if label is None:
            expected = f"one of {', '.join((*choices.names, *allowed))}" if allowed else "a number"
            raise BadFile(f"label {text[:80]!r} must be {expected}")
        return label


def no_field(field: str, row: Mapping[str, Any]) -> NoField:
    """The error for a row without the column of a field."""
    return NoField(str(missing_column(field, row)), field)


def rename(error: BadFile) -> str:
    """What helps where no option maps columns: a further sentence if a row has no column for a field, else nothing."""
    if not isinstance(error, NoField):
        return ""
    name = error.field
    return f" Rename the right one to {name}; in a dataset of your own, `fields: {{{name}: COLUMN}}` names it"


def first_words(text: str, most: int) -> tuple[str, int]:
    """The text up to its `most`-th word, with " ..." where more follows, and how many words it has."""
    words = [*_WORD.finditer(text)]
    return (text if len(words) <= most else f"{text[: words[most - 1].end()]} ..."), len(words)


def examples_from_file(
    example_of: Callable[[Mapping[str, Any]], Example],
    path: str,
    limit: int | None = None,
    mapping: Mapping[str, str] = NO_MAPPING,
    encoding: str | None = None,
) -> Iterator[Example]:
    """The examples of a user's file; errors name the file and the row.

    Args:
        example_of: a dataset's `example_from_row`.
        path: a file that `storage.rows` can read.
        limit: at most this many; None for all.
        mapping: field -> column, for columns with other names.
        encoding: of a text file that is not UTF-8.
    """
    for number, row in enumerate(islice(read_rows(path, encoding), limit), start=1):
        try:
            example = example_of(renamed(row, mapping))
        except BadFile as error:
            raise BadFile(f"{path} row {number}: {error}{rename(error)}") from error
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


def _text(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        raise no_field(name, row)
    value = row[name]
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        value = "\n".join(value)  # paragraphs
    text = as_text(value, name).strip()
    if not text:
        raise BadFile(f"{name} is empty")
    return text

"""What the columns of somebody's file hold: counted in one pass, to guess from (`guessing.py`)."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from storage.datasets.label_sets import label_text
from storage.datasets.layout import MISSING
from storage.datasets.parsing import normalise_number
from storage.datasets.values import as_text
from storage.errors import BadFile
from storage.rows import Row, read_rows, unfolded

MAX_VALUES = 1000  # different values of a column that are counted; a column with more has no classes
SHOWN_ROWS = 5
CHOICES = ("choices", "options", "answeroptions", "answerchoices", "endings", "candidates", "optionen", "auswahl",
           "antworten", "answers", "antwortoptionen", "antwortmöglichkeiten")  # fmt: skip
"""Names of a column that holds all choices; an object there is not taken apart."""


@dataclass
class Column:
    """One column.

    Attributes:
        name: as the file writes it; "ticket.body" for what is in an object.
        filled: how many rows have a value.
        nested: how many of them a list or an object.
        lists: how many of them a list of texts.
        numbers: how many of them a number, or a sign that there is none.
        characters, longest: of all its texts together, and of the longest.
        values: text -> how often, for the first `MAX_VALUES` different ones.
        many: whether there are more.
    """

    name: str
    filled: int = 0
    nested: int = 0
    lists: int = 0
    numbers: int = 0
    characters: int = 0
    longest: int = 0
    values: Counter[str] = field(default_factory=Counter)
    many: bool = False

    @property
    def key(self) -> str:
        """The name without case, spaces, signs and unit: gold_label is Gold Label, Sum (EUR) is sum. In an object the
        last name: ticket.body is body."""
        return plain_name(re.sub(r"(?<=\w)\s*[(\[].*", "", self.heading))

    @property
    def heading(self) -> str:
        """The name for people: of what is in an object, without the object's."""
        return self.name.strip(".").rpartition(".")[2] if " " not in self.name else self.name

    @property
    def mean(self) -> float:
        """Mean length of its texts."""
        return self.characters / max(self.filled, 1)

    @property
    def is_number(self) -> bool:
        """Whether every value is a number."""
        return 0 < self.filled == self.numbers

    @property
    def is_text(self) -> bool:
        """Whether it holds texts that are not all numbers."""
        return self.filled > 0 and not self.nested and not self.is_number

    @property
    def is_passage(self) -> bool:
        """Whether it holds lists of sentences or paragraphs."""
        return 0 < self.filled == self.lists and self.longest > 60 and self.mean > 40

    @property
    def is_name(self) -> bool:
        """Whether it looks like ids, addresses or codes: ASCII without a space."""
        return all(value.isascii() and " " not in value for value in self.values)

    def add(self, value: Any) -> None:
        """Counts one value."""
        if value is None:
            return
        if isinstance(value, (list, tuple, Mapping)):
            self.nested += 1
            text = _listed(value)
            self.lists += text is not None
            text = text or ""
        else:
            # As a label is read from a file of the same values: true is "true", whatever wrote it.
            text = str(value).lower() if isinstance(value, bool) else as_text(value, self.name).strip()
            if not text:
                return
        self.filled += 1
        self.numbers += text in MISSING or normalise_number(text) is not None
        self.characters += len(text)
        self.longest = max(self.longest, len(text))
        if text in self.values or len(self.values) < MAX_VALUES:
            self.values[text] += 1
        else:
            self.many = True


@dataclass(frozen=True)
class FileColumns:
    """A file's columns, in order.

    Attributes:
        path: the file.
        rows: how many there are.
        columns: by name.
        first: the first few rows, objects taken apart.
        encoding: of a text file that is not UTF-8.
    """

    path: str
    rows: int
    columns: Mapping[str, Column]
    first: list[Row]
    encoding: str | None = None

    def read(self) -> Iterator[Row]:
        """Its rows once more, with these columns."""
        for row in read_rows(self.path, self.encoding):
            yield unfolded(row, _holds_choices)


def plain_name(name: str) -> str:
    """A name without case, spaces and signs."""
    return re.sub(r"[\W_]+", "", name).casefold()


def count_columns(path: str, encoding: str | None = None) -> FileColumns:
    """Reads a file once.

    Args:
        encoding: of a text file that is not UTF-8.

    Raises:
        BadFile: it cannot be read.
    """
    columns: dict[str, Column] = {}
    first: list[Row] = []
    number = 0
    for number, row in enumerate(FileColumns(path, 0, {}, [], encoding).read(), start=1):
        for name, value in row.items():
            try:
                columns.setdefault(name, Column(name)).add(value)
            except BadFile as error:
                raise BadFile(f"{path} row {number}: {error}") from error
        if len(first) < SHOWN_ROWS:
            first.append(row)
    return FileColumns(path, number, columns, first, encoding)


def _holds_choices(name: str) -> bool:
    return plain_name(name) in CHOICES


def _listed(value: Any) -> str | None:
    """A list of texts as `label_text` has it; None for any other list or object."""
    if isinstance(value, Mapping):
        return None
    try:
        return label_text(value)
    except BadFile:
        return None

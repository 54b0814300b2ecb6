"""What a column of labels holds: classes, numbers or sets of labels, and how often each."""

import re
from collections import Counter
from collections.abc import Mapping

from storage.datasets.definition import LABEL_SETS
from storage.datasets.file_columns import Column, FileColumns
from storage.datasets.label_sets import label_text, labels_in
from storage.datasets.layout import MISSING, NO_LABEL
from storage.datasets.parsing import normalise_number
from storage.errors import BadFile, UsageError

MOST_CLASSES = 100
LONGEST_LABEL = 60  # characters of one of several labels
FEW = 5  # rows of a class


def kind_of(column: Column) -> str | None:
    """The answer kind that a label column's values tell: number, label, labels or none of them."""
    if not column.values or column.nested > column.lists:
        return None
    if column.is_number:
        different = len(classes(column))
        whole = all(re.fullmatch(r"-?\d+(\.0)?", value) for value in column.values if value not in MISSING)
        return "label" if whole and different <= 10 and column.filled >= 5 * different else "number"
    if _holds_sets(column):
        return LABEL_SETS
    different = len(classes(column))
    few = not column.nested and not column.many and different <= MOST_CLASSES and column.filled >= 2 * different
    return "label" if few else None


def _holds_sets(column: Column) -> bool:
    """Whether cells hold several labels each: what stands between their commas stands in other cells, too.

    "Hof, Garten" may well be one class, as long as no other cell has a Hof or a Garten.
    """
    sets = {value: {label.casefold() for label in labels_in(value)} for value in column.values if value not in NO_LABEL}
    several = {label for value, found in sets.items() for label in found if len(found) > 1 or value.startswith("[")}
    cells = Counter(label for found in sets.values() for label in found)
    if any(re.search(r"\d,\d", value) for value in sets):  # amounts
        return False
    if not several or len(cells) > MOST_CLASSES or max(map(len, cells)) > LONGEST_LABEL:
        return False
    again = sum(cells[label] > 1 for label in several)
    return (column.nested > 0 or 3 * again >= 2 * len(several)) and column.filled >= 2 * len(cells)


def classes(column: Column) -> list[str]:
    """The classes in a column; spellings that differ only in case or spaces are one, by its most frequent spelling."""
    return list(counted_classes(column))


def counted_classes(column: Column) -> dict[str, int]:
    """Class -> how many rows have it: most frequent first, or numbers in their order."""
    values = {value: count for value, count in column.values.most_common() if value not in NO_LABEL}
    spelled: dict[str, str] = {}
    found: Counter[str] = Counter()
    for value, count in values.items():
        same = value.removesuffix(".0") if column.is_number else " ".join(value.split()).casefold()
        found[spelled.setdefault(same, same if column.is_number else value)] += count
    if column.is_number:
        return dict(sorted(found.items(), key=lambda pair: float(normalise_number(pair[0]) or 0)))
    return dict(found.most_common())


def counted_in_sets(file: FileColumns, name: str) -> dict[str, int]:
    """Label -> how many rows have it, in a column of sets; most frequent first."""
    spelled: dict[str, str] = {}
    found: Counter[str] = Counter()
    for row in file.read():
        try:
            labels = labels_in(label_text(row.get(name)))
        except BadFile as error:
            raise UsageError(f"{name} of {file.path} holds no sets of labels: {error}.") from error
        found.update(spelled.setdefault(" ".join(label.split()).casefold(), label) for label in labels)
    return dict(found.most_common())


_COMMA = re.compile(r"\d,\d{1,2}(?!\d)|\d,\d{4}|\d\.\d{3},\d|\d\.\d{3}\.\d{3}(?!\d)")
_POINT = re.compile(r"\d\.\d{1,2}(?!\d)|\d\.\d{4}|\d,\d{3}\.\d|\d,\d{3},\d{3}(?!\d)")
_EITHER = re.compile(r"(?<![\d.,])[1-9]\d{0,2}[.,]\d{3}(?![\d.,])")


def decimals_of(column: Column) -> tuple[str, str]:
    """What stands before the decimals of a column's numbers, point or comma, and what to look at, if anything."""
    commas = next((value for value in column.values if _COMMA.search(value)), None)
    points = next((value for value in column.values if _POINT.search(value)), None)
    either = next((value for value in column.values if _EITHER.search(value)), None)
    if commas and points:
        return "point", (
            f"{column.name} holds both {commas!r} and {points!r}; numbers such as 1.234 are read with a decimal point "
            "(decimals: comma reads a thousand and more)."
        )
    if either and not commas and not points:
        return "point", (
            f"{either!r} in {column.name} is read in the English way; where it is not, write decimals: comma into the "
            "dataset's file."
        )
    return "comma" if commas else "point", ""


def rare(found: Mapping[str, int]) -> str:
    """Which labels hardly anything can be learnt about: a spelling mistake, or a class to collect more of."""
    few = [f"{label} ({count})" for label, count in found.items() if count < FEW]
    if not few or sum(found.values()) < FEW * FEW:
        return ""
    return (
        f"Few rows have {', '.join(few[:10])}{' and others' if len(few) > 10 else ''}: if it is a mistake in the file, "
        "mend it; if not, a student learns little about it."
    )

"""Reads answers that are sets of labels: "So the answer is billing, outage." Any number of them may hold, or none.

A set is one text: its labels in the order of the alphabet, with ", " between them, or `NO_LABELS`. So equal sets are
equal strings, and SQL can count the votes of each label (`storage.votes`).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from storage.datasets.answering_part import answering_part, plain_characters
from storage.datasets.definition import Parsed
from storage.datasets.negation import affirmed
from storage.datasets.options_in_text import LabelReader
from storage.datasets.spellings import key
from storage.datasets.statements import (
    DENIED,
    EMPTY_TEXT,
    NO_ANSWER,
    SEVERAL_ANSWERS,
    UNFINISHED_THOUGHT,
    by_trust,
    find_statements,
    rationale_of,
)
from storage.datasets.values import as_text

NO_LABELS = "none"
"""The set without labels."""
BETWEEN = ", "
NO_SUCH_LABEL = "names what is no label"
_NO_LABELS = ("none", "none of them", "none of these", "none of the above", "no label", "no labels", "nothing", "n/a")
_LIST = re.compile(r"\s*(?:[,;|\n]|(?:^|(?<=[\n,;]))\s*[-*•])\s*")
_AND = re.compile(r"\s+(?:and|as well as|&|\+)\s+", re.IGNORECASE)
_BEFORE = re.compile(r"\s*(?:and|both|as well as|&|\+)\s+", re.IGNORECASE)
_AROUND = "'\"`*. \t\r\n"
_NAMES = ("name", "label", "tag", "category", "class", "type", "topic", "value", "text", "title")
"""What an object that stands for a label calls it, the surest first."""
MOST_ANDS = 12  # in one item of a list
_CODE = re.compile(r"\d+(?:\.0)?")
_NUMBERED = re.compile(r"(?:^|\n)\s*\d{1,2}[.)]\s+")
_ALTERNATIVE = re.compile(r"\s(?:or|oder|ou|o)\s", re.IGNORECASE)
_BECAUSE = re.compile(r"\s+(?:because|since|as)\b|\s[-–—]\s|\.(?:\s|$)|[:(]")


class LabelSetReader:
    """Parser and normaliser of sets of labels.

    Args:
        labels, synonyms: as of `LabelReader`.

    Raises:
        ValueError: a word means two labels, or a label cannot stand in a list.
    """

    def __init__(self, labels: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None = None) -> None:
        for label in labels:
            if any(sign in label for sign in ",;|\n") or key(label) in _NO_LABELS:
                raise ValueError(f"label {label!r} cannot be one of several: it holds , ; or |, or says {NO_LABELS!r}")
        self.labels = tuple(labels)
        self._one = LabelReader(labels, synonyms)

    def normalise(self, answer: str, choices: Sequence[str] = ()) -> str | None:  # noqa: ARG002 - one signature for all
        """The set that a list of labels spells out; None if an item of it is no label.

        Items stand between commas, semicolons, bars or lines, or are the values of a JSON list.
        """
        plain = plain_characters(answer).strip().strip("[]{}")
        if key(plain) in _NO_LABELS or (not plain.strip() and answer.strip()):
            return NO_LABELS
        return self._set(plain)

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:  # noqa: ARG002
        """Reads the set of labels that a sampled text announces, or consists of. Labels that it only talks about are
        none: "It is no outage" names one."""
        part = answering_part(text)
        if part is None:
            return Parsed(text.strip(), None, UNFINISHED_THOUGHT)
        if not part.strip():
            return Parsed("", None, EMPTY_TEXT)
        plain = plain_characters(part)
        statements = find_statements(plain)
        rationale = rationale_of(part, statements)
        if not statements:
            found = self.normalise(part)
            return Parsed("" if found is not None else rationale, found, None if found is not None else NO_ANSWER)
        announced = by_trust(statements)[0]
        found, reason = self._announced(announced.said)
        return Parsed(rationale, found, reason)

    def _announced(self, said: str) -> tuple[str | None, str | None]:
        """The set that an announcement names, or why it names none."""
        said = _NUMBERED.sub("\n", said).strip()
        found = self.normalise(said)
        if found is not None:
            return found, None
        said, *because = _BECAUSE.split(said, maxsplit=1)
        found = self.normalise(said)
        if found is None:
            return None, _why_not(said)
        if self._one.mentioned(" ".join(because)) - {*found.split(BETWEEN)}:
            return None, SEVERAL_ANSWERS  # "billing (twice) and outage (all day)"
        return found, None

    def _set(self, plain: str) -> str | None:
        codes = [item.strip().removesuffix(".0") for item in _LIST.split(plain) if _CODE.fullmatch(item.strip())]
        each = len(codes) == len(self.labels) and {*codes} <= {"0", "1"}
        if each or len({*codes}) < len(codes):
            return None  # "1, 0, 0, 1" says of each label whether it holds, and in which order nobody knows
        names: set[str] = set()
        for item in _LIST.split(plain):
            if not item.strip():
                continue
            before = _BEFORE.match(item)
            found = self._joined(item[before.end() :] if before else item)
            if found is None:
                return None
            names |= found
        return BETWEEN.join(sorted(names)) if names else None

    def _joined(self, item: str) -> set[str] | None:
        """The labels that an item names with "and" between them; a label may hold an "and" of its own, so the longest
        counts."""
        name = self._one.normalise(item.strip(_AROUND))
        if name is not None:
            return {name}
        for place in [*_AND.finditer(item)][-1 : -1 - MOST_ANDS : -1]:
            first = self._one.normalise(item[: place.start()].strip(_AROUND))
            rest = self._joined(item[place.end() :]) if first is not None else None
            if first is not None and rest is not None:
                return {first, *rest}
        return None


def label_text(value: Any) -> str:
    """A set of labels, as a file holds it, as one text: a list's items with commas between them, `NO_LABELS` for an
    empty list, and "" where nothing is known. An item may be an object with a name: [{"name": "outage"}].

    Raises:
        BadFile: it is no text, and no list of texts.
    """
    if not isinstance(value, (list, tuple)):
        return as_text(value, "label").strip()
    known = [text for one in value if (text := as_text(_named(one), "label").strip())]
    return BETWEEN.join(known) if known or value else NO_LABELS


def labels_in(text: str) -> list[str]:
    """What a set of labels holds, as `label_text` or a cell of a file spells it: `["outage", "billing"]`, `outage;
    billing`. Nobody has said yet which labels there are."""
    plain = text.strip().strip("[]{}").strip()
    if key(plain) in _NO_LABELS:
        return []
    return [label for item in _LIST.split(plain) if (label := item.strip(" \t'\""))]


def _named(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    return next((item[name] for name in _NAMES if isinstance(item.get(name), str)), item)


def _why_not(said: str) -> str:
    if not affirmed(said).strip():
        return DENIED
    return SEVERAL_ANSWERS if _ALTERNATIVE.search(said) else NO_SUCH_LABEL

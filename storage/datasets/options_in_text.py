"""Reads the choice or class label that a sampled text settles on, in its canonical spelling. See `parsing.py`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from storage.datasets.definition import Parsed
from storage.datasets.statements import (
    EMPTY_TEXT,
    NO_ANSWER,
    SEVERAL_ANSWERS,
    by_trust,
    find_statements,
    rationale_of,
    split_sentences,
)


@dataclass(frozen=True)
class _Option:
    """A possible answer: its spelling in the store, and the keys (see `_key`) by which texts name it."""

    name: str
    keys: tuple[str, ...]


_SPACES = re.compile(r"\s+")
_EDGES = " \t\r\n*_`\"'“”‘’.,;:!?"


def _key(text: str) -> str:
    """What spellings of one answer share: the text without case, extra spaces, quotes, Markdown and end punctuation."""
    plain = _SPACES.sub(" ", text.replace("’", "'")).casefold().strip()
    return plain.strip(_EDGES) or plain


def normalise_choice(answer: str, choices: Sequence[str]) -> str | None:
    """The choice that an answer names by its text or letter, in the spelling in which it is first listed.

    A choice's text counts before its letter, so that the choice "a" is never mistaken for the first one. Without
    choices, the answer itself with single spaces.
    """
    if not choices:
        return _SPACES.sub(" ", answer).strip() or None
    options = _choice_options(tuple(choices))
    by_key = _exactly(answer, options)
    if by_key is not None:
        return by_key
    return _said_option(answer, options, loosely=False)


def parse_choice(text: str, choices: Sequence[str]) -> Parsed:
    """Reads the choice that a sampled text settles on."""
    options = _choice_options(tuple(choices))
    return _parse_option(text, options)


class LabelReader:
    """Parser and normaliser for a fixed set of class labels.

    Args:
        labels: the labels as stored, in the order of integer codes ("0" is the first) and of letters in texts ("(a)"
            is the first).
        synonyms: label -> other words for it, anywhere in a text ("contradicts").
        short_answers: label -> words that mean it only if they are the whole announced answer ("yes").

    Raises:
        ValueError: a word means two labels.
    """

    def __init__(
        self,
        labels: Sequence[str],
        synonyms: Mapping[str, Sequence[str]] | None = None,
        short_answers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.labels = tuple(labels)
        self._options = tuple(
            _Option(label, tuple(dict.fromkeys(map(_key, (label, *(synonyms or {}).get(label, ()))))))
            for label in self.labels
        )
        self._exact: dict[str, str] = {}
        for option in self._options:
            for key in (*option.keys, *map(_key, (short_answers or {}).get(option.name, ()))):
                if self._exact.setdefault(key, option.name) != option.name:
                    raise ValueError(f"{key!r} means both {self._exact[key]!r} and {option.name!r}")
        for code, label in enumerate(self.labels):
            self._exact.setdefault(str(code), label)

    def normalise(self, answer: str, choices: Sequence[str] = ()) -> str | None:  # noqa: ARG002 - one signature for all
        """The label that an answer spells out, abbreviates or gives as an integer code; None if there is none."""
        key = _key(answer)
        return self._exact.get(key) or self._exact.get(key.removesuffix(".0"))

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:  # noqa: ARG002
        """Reads the label that a sampled text settles on."""
        return _parse_option(text, self._options, self._exact)


@lru_cache(maxsize=1024)
def _choice_options(choices: tuple[str, ...]) -> tuple[_Option, ...]:
    """One option per choice, in order; choices that differ only in case or spaces share the first one's spelling."""
    first: dict[str, str] = {}
    for choice in choices:
        first.setdefault(_key(choice), _SPACES.sub(" ", choice).strip())
    return tuple(_Option(first[key], (key,) if key else ()) for key in map(_key, choices))


def _exactly(said: str, options: Sequence[_Option]) -> str | None:
    key = _key(said)
    return next((option.name for option in options if key in option.keys), None)


def _parse_option(text: str, options: Sequence[_Option], exact: Mapping[str, str] | None = None) -> Parsed:
    if not text.strip():
        return Parsed("", None, EMPTY_TEXT)
    statements = find_statements(text)
    rationale = rationale_of(text, statements)
    for statement in by_trust(statements):
        name = (exact or {}).get(_key(statement.said)) or _said_option(statement.said, options)
        if name is not None:
            return Parsed(rationale, name, None)
        if _letters(statement.said, len(options)) > 1:  # "So the answer is either (a) pond or (e) aquarium."
            return Parsed(rationale, None, SEVERAL_ANSWERS)
    # A bare answer ("(b) homely", "neutral"), or one in the first line with the reasons below; not the choices listed.
    first_line, _, rest = text.strip().partition("\n")
    name = _exactly(first_line, options) or _said_option(first_line, options, loosely=False)
    if name is not None and not _LETTER.match(rest.strip()):
        return Parsed(rationale if rest.strip() else "", name, None)
    return _concluded_option(text, rationale, options)


def _concluded_option(text: str, rationale: str, options: Sequence[_Option]) -> Parsed:
    """The option named by the last sentence that names any, if it names only one."""
    for sentence in reversed(split_sentences(text)):
        named = _named(sentence, options)
        if len(named) == 1:
            return Parsed(rationale, named[0], None)
        if named:
            return Parsed(rationale, None, SEVERAL_ANSWERS)
    return Parsed(rationale, None, NO_ANSWER)


# "(c)", "c)", "c.", "[C]", "choice (c)", "Answer: c"; a bare letter only if nothing follows, since "a" is a word.
_LETTER = re.compile(r"[(\[]([A-Za-z])[)\]]|([A-Za-z])[).:](?=\W|$)|([A-Za-z])(?=\W*$)")
_BRACKETED = re.compile(r"\(([A-Za-z])\)")
_FILLER = re.compile(
    r"(?:\W{0,5}(?:\b(?:answers?|choice|option|label|letter|number|is|are|would be|will be|to|that|it|they|the|a|an|"
    r"most likely|likely|probably|definitely|clearly|actually|therefore|thus)\b))*",
    re.IGNORECASE,
)
_OPENERS = " \t\r\n*_`\"'“”‘’:=-–.,$\\{"


def _said_option(said: str, options: Sequence[_Option], loosely: bool = True) -> str | None:
    """The option that an announcement names: by letter and text, by either alone, or by its only mention.

    If letter and text disagree, the text counts: teachers mix up letters, not words. None if it hedges.
    """
    said = said.strip(_OPENERS)
    by_key = _exactly(said, options)
    if by_key is not None:
        return by_key
    if _letters(said, len(options)) > 1:
        return None
    filler = _FILLER.match(said)
    for start in dict.fromkeys((0, filler.end() if filler else 0)):
        rest = said[start:].lstrip(_OPENERS)
        letter = _LETTER.match(rest)
        index = _letter_index(letter, len(options)) if letter else None
        if letter and index is not None:
            return _leading_option(rest[letter.end() :], options) or options[index].name or None  # None: a blank choice
        spelled = _leading_option(rest, options) if loosely else None
        if spelled is not None:
            return spelled
    named = _named(said, options) if loosely else []
    return named[0] if len(named) == 1 else None


def _letters(said: str, count: int) -> int:
    """How many different options are named by letters in parentheses."""
    return len({letter.lower() for letter in _BRACKETED.findall(said) if ord(letter.lower()) - ord("a") < count})


def _letter_index(letter: re.Match[str], letters: int) -> int | None:
    index = ord(next(filter(None, letter.groups())).lower()) - ord("a")
    return index if index < letters else None


def _leading_option(said: str, options: Sequence[_Option]) -> str | None:
    """The option with whose spelling the text begins; the longest such spelling decides."""
    key = _key(said[:MAX_OPTION].lstrip(_OPENERS + ")]"))
    best, length = None, 0
    for option in options:
        for spelling in option.keys:
            if len(spelling) > length and key.startswith(spelling) and _ends_word(key, len(spelling)):
                best, length = option.name, len(spelling)
    return best


MAX_OPTION = 300  # characters of an announcement that are searched for a leading option


def _named(sentence: str, options: Sequence[_Option]) -> list[str]:
    """The different options that a sentence mentions as whole words (or their plural in s), longer spellings first.

    A mention inside a longer one does not count: "large house" does not mention "house".
    """
    key = _SPACES.sub(" ", sentence.replace("’", "'")).casefold()
    names: dict[str, None] = {}
    spellings = sorted(((spelling, option.name) for option in options for spelling in option.keys), key=_by_length)
    for spelling, name in spellings:
        position = key.find(spelling)
        while position >= 0:
            end = position + len(spelling)
            if (position == 0 or not key[position - 1].isalnum()) and _ends_word(key, end):
                names[name] = None
                key = f"{key[:position]}{chr(0) * len(spelling)}{key[end:]}"
            position = key.find(spelling, end)
    return list(names)


def _by_length(spelling: tuple[str, str]) -> int:
    return -len(spelling[0])


def _ends_word(key: str, end: int) -> bool:
    rest = key[end : end + 2]
    if rest[:1] == "s":
        rest = rest[1:]
    return not rest[:1].isalnum()

"""Reads the number that a sampled text arrives at, and gives numbers one canonical spelling. See `parsing.py`."""

import re
from collections.abc import Sequence
from fractions import Fraction

from storage.datasets.arithmetic import NUMBER, evaluate, write_number
from storage.datasets.definition import Parsed
from storage.datasets.statements import EMPTY_TEXT, NO_ANSWER, by_trust, find_statements, rationale_of, split_sentences

_DASHES = "−–-"  # the plain one last, so that it makes no range inside [...]
# A stretch that may be arithmetic. After its start it is a single character class, so matching is linear.
# A dash is a sign only if it touches the number and nothing touches it: not in "x - 24", "18-4", "- 3 pens".
_SIGN = rf"(?<![\w.)])(?:[{_DASHES}](?=[$€£]?[.\d(]))?"
_ARITHMETIC = re.compile(rf"(?:{_SIGN}[$€£]?[.(]*\d|\()[\d\s.,$€£*/()×÷·⋅%x+{_DASHES}]*")
_ONE_NUMBER = re.compile(rf"(?:{_SIGN}[$€£]?)?{NUMBER}")
_TRAILING = " \t\n.,+*/×÷·⋅x$€£(" + _DASHES

_LATEX = [
    (re.compile(r"\\d?t?frac\s?\{([^{}]{1,60})\}\s?\{([^{}]{1,60})\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:times|cdot)"), "*"),
    (re.compile(r"\\div"), "/"),
    (re.compile(r"\\(?:text|mathrm|mathbf)\s?\{([^{}]{0,60})\}"), r" \1 "),
    (re.compile(r"\\[,;! ]|\\left|\\right|\\quad"), ""),
    (re.compile(r"\\([$%])"), r"\1"),
]
# Parentheses after a word, or around a whole sentence of words; "(84 / 2)" and "2 x (3 + 4)" are not asides.
_INSIDE = r"(?:[^()]|\([^()]{0,60}\)){0,120}\)"
_ASIDE = re.compile(rf"(?<=[A-Za-z]{{2}})\s?\({_INSIDE}|^\s{{0,3}}\((?=[^()]{{0,60}}[A-Za-z]{{2}}){_INSIDE}")
_OPENING_CLAUSE = re.compile(
    r"^\W{0,5}(?:(?:so|thus|hence|therefore|finally|overall|in (?:total|conclusion|summary)|this means that),?\s{1,3})?"
    r"(?:to|after|when|if|since|because|on|in|with|by|for|given|at|before|once|as|during|over|out of|of|from)\s"
    r"(?:[^,]|,(?=\d{3})){1,200},\s",
    re.IGNORECASE,
)
# ", so he brought 8 in all", "for a total of 229": the answer follows the last of these.
_TURN = re.compile(
    r"(?:,|\band)\s(?:so|therefore|thus|hence|which means)\s|\bfor a (?:\w{1,12}\s)?total of\b", re.IGNORECASE
)
_STEP_LABEL = re.compile(r"^\s*(?:step\s\d{1,3}\s?[:.)-]|\d{1,2}[.)]\s)", re.IGNORECASE)
_EACH_OF = re.compile(
    r"\b(?:each|all|every one) of (?:the|his|her|their|its|my|your|our|these|those)\s\d{1,9}\b", re.IGNORECASE
)
_EQUALS = re.compile(r"\b(?:is equal to|equal to|equals|equalling|comes to)\b")
_ORDINAL = re.compile(r"(?<![\d.,])\d{1,9}(?:st|nd|rd|th)\b")
_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_NUMBER_WORD = re.compile(rf"\b({'|'.join(_WORDS)})\b", re.IGNORECASE)


def normalise_number(answer: str, choices: Sequence[str] = ()) -> str | None:  # noqa: ARG001 - one signature for all kinds
    """A number's canonical spelling: "42.0" -> "42", "1,200.50" -> "1200.5", "$5" -> "5", "3/4" -> "0.75".

    A percentage keeps its figure ("25%" -> "25"), because gold answers are written that way.
    """
    text = answer.strip().strip("*").rstrip(".").strip()
    if text.endswith("%"):
        text = text[:-1]
    value = evaluate(text)
    return None if value is None else write_number(value)


def parse_number(text: str, choices: Sequence[str] = ()) -> Parsed:  # noqa: ARG001
    """Reads a number, or arithmetic that gives one, from a sampled text."""
    statements = find_statements(text)
    rationale = rationale_of(text, statements)
    value = None
    for statement in by_trust(statements):
        value = _stated_number(statement.said)
        if value is not None:
            break
    else:
        value = _concluded_number(text)
    if value is None:
        return Parsed(rationale, None, NO_ANSWER if text.strip() else EMPTY_TEXT)
    if _ARITHMETIC.fullmatch(text.strip()) and "=" not in text:
        rationale = ""  # a bare "30" explains nothing
    return Parsed(rationale, write_number(value), None)


def _stated_number(said: str) -> Fraction | None:
    """The number in an announced answer. A long announcement is read like any other conclusion."""
    said = _plain_text(said)
    value = _concluding_value(said)
    return _last_value(said) if value is None else value


def _concluded_number(text: str) -> Fraction | None:
    """The number in an unannounced conclusion; parentheses count only if there is no number outside them."""
    sentences = [_plain_text(sentence) for sentence in split_sentences(text)]
    for reading in (_concluding_value, _last_value):
        for sentence in reversed(sentences):
            value = reading(sentence)
            if value is not None:
                return value
    for sentence in reversed(sentences):  # "So Dan bought three candy bars."
        words = _NUMBER_WORD.findall(sentence)
        if words:
            return Fraction(_WORDS.index(words[-1].lower()))
    return None


def _concluding_value(sentence: str) -> Fraction | None:
    """The number that a concluding sentence is about.

    If there is an "=", what follows the last one. Otherwise the first number outside parentheses and outside an
    opening clause: people give the new number first and repeat the old ones after it ("32 cakes are left after 5 were
    eaten"), unless they open with these ("After 5 were eaten, 32 are left", "He had 5, so 3 are left").
    """
    if "=" in sentence:
        return _number_after_equals(sentence)
    sentence = _ASIDE.sub(" ", sentence)
    values = _values(sentence)
    if len(values) > 1:
        for narrower in (_TURN.split(sentence)[-1], _OPENING_CLAUSE.sub("", sentence, count=1), sentence):
            found = _values(_EACH_OF.sub("", narrower))
            if found and narrower != sentence:
                return found[0]
            values = found or values
    return values[0] if values else None


def _number_after_equals(text: str) -> Fraction | None:
    """The first value after the last "=" that is followed by one; if there is none, the last value before "="."""
    parts = text.split("=")
    for part in reversed(parts[1:]):
        value = _first_value(part)
        if value is not None:
            return value
    return _last_value(parts[0])


def _plain_text(text: str) -> str:
    """The text without LaTeX, Markdown and ordinals ("the 28th day"), which hide numbers; "equals" becomes "="."""
    if "\\" in text:
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    text = text.replace("**", "") if "**" in text else text
    return _ORDINAL.sub("", _EQUALS.sub("=", _STEP_LABEL.sub("", text, count=1)))


def _values(text: str) -> list[Fraction]:
    """The values of the arithmetic in a text, in order: "2 + 3" is one, "2 apples and 3 pears" are two."""
    out = []
    for match in _ARITHMETIC.finditer(text):
        stretch = match.group()
        value = _value_of(stretch)
        if value is not None:
            out.append(value)
        else:
            out += [number for number in map(_value_of, _ONE_NUMBER.findall(stretch)) if number is not None]
    return out


def _value_of(stretch: str) -> Fraction | None:
    trimmed = stretch.rstrip(_TRAILING)
    # Unbalanced parentheses belong to the sentence, not to the sum: "(see above: 42)".
    spare = trimmed.count(")") - trimmed.count("(")
    while spare > 0 and trimmed.endswith(")"):
        trimmed, spare = trimmed[:-1].rstrip(_TRAILING), spare - 1
    while spare < 0 and trimmed.startswith("("):
        trimmed, spare = trimmed[1:].lstrip(), spare + 1
    if trimmed.endswith("%") and trimmed.count("%") == 1 and not re.search(r"[+*/×÷]", trimmed):
        trimmed = trimmed[:-1]  # "25%" is the figure 25
    return evaluate(trimmed)


def _first_value(text: str) -> Fraction | None:
    values = _values(text)
    return values[0] if values else None


def _last_value(text: str) -> Fraction | None:
    values = _values(text)
    return values[-1] if values else None

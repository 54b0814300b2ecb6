"""Reads the number that a sampled text arrives at, and gives numbers one canonical spelling. See `parsing.py`."""

import re
from collections.abc import Sequence
from enum import Enum
from fractions import Fraction
from itertools import pairwise

from storage.datasets.answering_part import answering_part, plain_characters
from storage.datasets.arithmetic import NUMBER, evaluate, write_number
from storage.datasets.compound_units import without_compounds
from storage.datasets.definition import Parsed
from storage.datasets.negation import affirmed, turned, without_denied_numbers
from storage.datasets.refusals import names_nothing, refuses
from storage.datasets.several_numbers import (
    MAX_BARE,
    is_bare_list,
    is_factorial,
    is_formula,
    is_of_unknown,
    names_several,
)
from storage.datasets.spelled_numbers import spelled_numbers, spells_several
from storage.datasets.statements import (
    DENIED,
    EMPTY_TEXT,
    NO_ANSWER,
    NO_SINGLE_NUMBER,
    NULL,
    UNFINISHED_THOUGHT,
    Statement,
    by_trust,
    find_statements,
    rationale_of,
    split_sentences,
)
from storage.datasets.written_numbers import MOMENT, RANGE, rewritten


class _Unclear(Enum):
    """What stands where a number is looked for, and is none: a range, a date, a formula with unknowns; or one that is
    denied."""

    UNCLEAR = 0
    DENIED = 1


_UNCLEAR, _DENIED = _Unclear.UNCLEAR, _Unclear.DENIED
_Value = Fraction | _Unclear

_DASHES = "−–-"  # the plain one last, so that it makes no range inside [...]
# A stretch that may be arithmetic. After its start it is a single character class, so matching is linear.
# A dash is a sign only if it touches the number and nothing touches it: not in "x - 24", "18-4", "- 3 pens".
_SIGN = rf"(?<![\w.)])(?:[{_DASHES}](?=[$€£]?[.\d(]))?"
_ARITHMETIC = re.compile(rf"(?:{_SIGN}[$€£]?[.(]*\d|\()[\d\s.,$€£*/^()×÷·⋅%x+{_DASHES}]*|[{RANGE}{MOMENT}]")
_ONE_NUMBER = re.compile(rf"(?:{_SIGN}[$€£]?)?{NUMBER}")
_TRAILING = " \t\n.,+*/×÷·⋅x$€£(" + _DASHES
_IMAGINARY = re.compile(r"[ijπ√](?![\w'’])")  # "5 + 3i"
_GOES_ON = re.compile(r"[\d)]\s{1,2}[+*/×÷·⋅]\s{0,2}\(?$")  # "10 + John's age"
_UNKNOWN = re.compile(r"\dx\s{0,2}[+-]\s?[\d(]|[\d)]\s{0,2}[+*/×÷·⋅-]\s{0,2}\d{0,9}x(?!\s{0,2}[\d(])")  # "10 + 2x"
# "10-12" is a range, and so is "10 - 12"; "18 - 4" is none. "2021-03-05" and "555-12-34" are no subtractions.
_DIFFERENCE = re.compile(rf"({NUMBER})\s?[{_DASHES}]\s?({NUMBER})")
_CODE = re.compile(rf"\d+(?:[{_DASHES}]\d+){{2,}}")

_LATEX = [
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\left|\\right|\\displaystyle|\\approx|\\(?:text|math)(?:bf|rm|it)?\s?\{\s?\}"), ""),
    (re.compile(r"\^\s?(?:\{\s?)?\\circ\s?\}?|\^\s?\{?(?=(?:st|nd|rd|th)\b)"), ""),
    (re.compile(r"\^\s?\{([^{}]{1,40})\}"), r"^(\1)"),
    (re.compile(r"(?<!\d)\d{0,9}\.?\\(?:overline|bar|dot|hat)\s?\{"), f"{RANGE}{{"),
    (re.compile(r"(?<=\d)\s?\\[dt]?frac\s?\{(\d{1,9})\}\s?\{(\d{1,9})\}"), r" \1/\2"),
    (re.compile(r"\\[dt]?frac\s?\{([^{}]{1,60})\}\s?\{([^{}]{1,60})\}"), r"((\1)/(\2))"),
    (re.compile(r"\^\s?\{([^{}]{1,40})\}"), r"^(\1)"),  # an exponent that was a fraction
    (re.compile(r"\\(?:times|cdot)"), "*"),
    (re.compile(r"\d{0,9}\s?\\(?:sqrt|pi\b|log|ln|binom)[\s_]?[({\[]?\s?\d*[)}\]]?"), RANGE),
    (re.compile(r"\\div"), "/"),
    (re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s?\{([^{}]{0,60})\}"), r" \1 "),
    (re.compile(r"\\q?quad"), ", "),
    (re.compile(r"\\c?dots|\\ldots"), "..."),
    (re.compile(r"\\[,;! ]"), ""),
    (re.compile(r"\\([$%{}])"), r"\1"),
    (re.compile(r" {2,}"), " "),
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
# Not a mere list of things: it calculates, or a clause says what comes of it ("spent 3, leaving 1").
_CALCULATES = re.compile(r"[=+*/×÷·⋅]|\s[-−–]\s|\\|,\s\w{2,12}ing\s")
_OR = re.compile(r"\bor\b")
_EQUALS = re.compile(r"\b(?:is equal to|equal to|equals|equalling|comes to)\b")
# "So x = 5 and y = 6": two unknowns, or two solutions.
_SOLUTIONS = re.compile(
    r"\b([a-z])\s?=\s?-?[\d./]+(?:[,;]\s?|,?\s(?:and|or|und|oder|et|ou|y"
    r"|o)\s)[a-z]\s?=\s?-?(?!\d[\d./]{0,9}\s?[-+*/=])\d"
)
_ORDINAL = re.compile(r"(?<![\d.,])\d{1,9}(?:st|nd|rd|th)\b")


def normalise_number(
    answer: str,
    choices: Sequence[str] = (),  # noqa: ARG001 - one signature for all kinds
    comma_decimals: bool = False,
) -> str | None:
    """A number's canonical spelling: "42.0" -> "42", "1,200.50" -> "1200.5", "$5" -> "5", "3/4" -> "0.75".

    A percentage keeps its figure ("25%" -> "25"), because gold answers are written that way.

    Args:
        comma_decimals: it is written as 1.234,5, which decides what 1.234 is.
    """
    text = plain_characters(answer).strip().strip("*").rstrip(".").strip()
    if text.endswith("%"):
        text = text[:-1]
    text = rewritten(text, comma_decimals)
    if _CODE.fullmatch(text) or re.fullmatch(rf"{NUMBER}[{_DASHES}]{NUMBER}", text):
        return None  # "10-12" is a range, "3-1" a score
    value = evaluate(text)
    return None if value is None else write_number(value)


def parse_number(
    text: str,
    choices: Sequence[str] = (),  # noqa: ARG001
    comma_decimals: bool = False,
) -> Parsed:
    """Reads a number, or arithmetic that gives one, from a sampled text.

    Args:
        comma_decimals: numbers are written as 1.234,5, whatever language announces them.
    """
    part = answering_part(text)
    if part is None:
        return Parsed(text.strip(), None, UNFINISHED_THOUGHT)
    plain = plain_characters(part)
    statements = find_statements(plain, comma_decimals)
    rationale = rationale_of(part, statements)
    value, reason = _settled(plain, statements, comma_decimals)
    if value is None:
        return Parsed(rationale, None, reason if plain.strip() else EMPTY_TEXT)
    if _ARITHMETIC.fullmatch(plain.strip()) and "=" not in plain:
        rationale = ""  # a bare "30" explains nothing
    return Parsed(rationale, write_number(value), None)


def _settled(text: str, statements: list[Statement], commas: bool) -> tuple[Fraction | None, str]:
    """The number that a text settles on; None, and the reason, if it settles on none."""
    denied = None
    for statement in by_trust(statements):
        if statement.only_letters:
            continue
        said = affirmed(statement.said)
        if not said and statement.said.strip() and denied is None:
            denied = statement
        if said == NULL or names_nothing(said):
            return None, NO_ANSWER
        value = _stated_number(said, commas or statement.comma_decimals)
        if isinstance(value, _Unclear) or (statement.strength == 2 and is_factorial(said)):
            return None, NO_SINGLE_NUMBER
        if value is not None:
            return value, ""
    concluded = _concluded_number(text[denied.end :] if denied else text, commas)
    if isinstance(concluded, _Unclear):
        return None, DENIED if concluded is _DENIED else NO_SINGLE_NUMBER
    return concluded, DENIED if denied else NO_ANSWER


def _stated_number(said: str, comma_decimals: bool) -> _Value | None:
    """The number in an announced answer. A long announcement is read like any other conclusion."""
    plain = _plain_text(said, comma_decimals)
    value = _concluding_value(plain, alone=True)
    if value is None:
        value = _last_value(plain)
    if value is None and not re.search(r"\d", plain):
        spelled = spelled_numbers(plain)
        if len(set(spelled)) > 1 or spells_several(plain):
            return _UNCLEAR
        return spelled[0] if spelled else None
    return value


def _concluded_number(text: str, commas: bool) -> _Value | None:
    """The number in an unannounced conclusion; parentheses count only if there is no number outside them."""
    sentences: list[str] = []
    if len(text.strip()) <= MAX_BARE and is_bare_list(_plain_text(text.strip(), commas)):
        return _UNCLEAR
    parts = split_sentences(text)
    if len(parts) == 1 and not _CALCULATES.search(text) and names_several(_stripped(text, commas)):
        return _UNCLEAR  # "There are 5 apples and 6 pears.": nothing says which counts
    for sentence in reversed(parts):
        if refuses(sentence, calculated="=" in text):
            break
        plain = _plain_text(turned(sentence) or sentence, commas)
        sentences.append(without_denied_numbers(plain))
        value = _concluding_value(sentences[-1])
        if value is None and sentences[-1] != plain:
            return _DENIED
        if value is not None:
            return value
    for sentence in sentences:
        value = _last_value(sentence)
        if value is not None:
            return value
    for sentence in sentences:  # "So Dan bought three candy bars."
        spelled = spelled_numbers(sentence)
        if RANGE in without_compounds(sentence, RANGE) or (len(set(spelled)) > 1 and _OR.search(sentence)):
            return _UNCLEAR
        if spelled:
            return spelled[-1]
    return None


def _stripped(text: str, commas: bool) -> str:
    """The text in plain spelling, without numbers that are denied or only say of how many it speaks."""
    return _EACH_OF.sub("", without_denied_numbers(_plain_text(text, commas)))


def _concluding_value(sentence: str, alone: bool = False) -> _Value | None:
    """The number that a concluding sentence is about.

    If there is an "=", what follows the last one. Otherwise the first number outside parentheses and outside an
    opening clause: people give the new number first and repeat the old ones after it ("32 cakes are left after 5 were
    eaten"), unless they open with these ("After 5 were eaten, 32 are left", "He had 5, so 3 are left").

    Args:
        sentence: in plain text.
        alone: whether it must say one number and no more: it is announced.
    """
    if "=" in sentence:
        if names_several(sentence) if alone else _SOLUTIONS.search(sentence):
            return _UNCLEAR
        return _number_after_equals(sentence, alone)
    if alone and (names_several(sentence) or is_formula(sentence)):
        return _UNCLEAR
    sentence = _ASIDE.sub(" ", sentence)
    values = _values(sentence)
    if len(values) > 1:
        for narrower in (_TURN.split(sentence)[-1], _OPENING_CLAUSE.sub("", sentence, count=1), sentence):
            found = _values(_EACH_OF.sub("", narrower))
            if found and narrower != sentence:
                return found[0]
            values = found or values
    return values[0] if values else None


def _number_after_equals(text: str, alone: bool = False) -> _Value | None:
    """The first value after the last "=" that is followed by one; if there is none, the last value before "="."""
    parts = text.split("=")
    for before, part in reversed(list(pairwise(parts))):
        value = _first_value(part)
        if value is not None:
            return _UNCLEAR if (alone and is_formula(part)) or is_of_unknown(before) else value
    return _last_value(parts[0])


def _plain_text(text: str, comma_decimals: bool) -> str:
    """The text without LaTeX, Markdown and ordinals ("the 28th day"), which hide numbers; "equals" becomes "="; numbers
    in one spelling."""
    if "\\" in text or "{,}" in text:
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    text = rewritten(_EQUALS.sub("=", _STEP_LABEL.sub("", text, count=1)), comma_decimals)
    text = text.replace("**", "") if "**" in text else text
    return _ORDINAL.sub("", text)


def _values(text: str) -> list[_Value]:
    """The values of the arithmetic in a text, in order: "2 + 3" is one, "2 apples and 3 pears" are two.

    A date or a time is none where there are others.
    """
    out: list[_Value] = []
    moments = False
    for match in _ARITHMETIC.finditer(text):
        stretch = match.group()
        if stretch == MOMENT:
            moments = True
        elif (
            stretch == RANGE
            or _UNKNOWN.search(stretch)
            or (stretch[-1].isdigit() and _IMAGINARY.match(text, match.end()))
            or (_GOES_ON.search(stretch) and text[match.end() : match.end() + 1].isalpha())
        ):
            out.append(_UNCLEAR)
        else:
            out += _values_of(stretch)
    return out or [_UNCLEAR] * moments


def _values_of(stretch: str) -> list[_Value]:
    trimmed = _trimmed(stretch)
    difference = _DIFFERENCE.fullmatch(trimmed)
    if difference and Fraction(difference[1].replace(",", "")) < Fraction(difference[2].replace(",", "")):
        return [_UNCLEAR]
    if _CODE.fullmatch(trimmed):
        return [_UNCLEAR]
    value = evaluate(trimmed)
    if value is not None:
        return [value]
    if "^" in stretch:
        return [_UNCLEAR]
    numbers = (evaluate(_trimmed(number)) for number in _ONE_NUMBER.findall(stretch))
    return [number for number in numbers if number is not None]


def _trimmed(stretch: str) -> str:
    """The stretch without what belongs to the sentence: end punctuation, a parenthesis without its other half."""
    trimmed = stretch.rstrip(_TRAILING)
    spare = trimmed.count(")") - trimmed.count("(")
    while spare > 0 and trimmed.endswith(")"):
        trimmed, spare = trimmed[:-1].rstrip(_TRAILING), spare - 1
    while spare < 0 and trimmed.startswith("("):
        trimmed, spare = trimmed[1:].lstrip(), spare + 1
    if trimmed.endswith("%") and trimmed.count("%") == 1 and not re.search(r"[+*/×÷]", trimmed):
        trimmed = trimmed[:-1]  # "25%" is the figure 25
    return trimmed


def _first_value(text: str) -> _Value | None:
    values = _values(text)
    return values[0] if values else None


def _last_value(text: str) -> _Value | None:
    values = _values(text)
    return values[-1] if values else None

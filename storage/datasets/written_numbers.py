"""Rewrites numbers as people write them into digits with a point, which `arithmetic.py` reads.

    1,234.5   1.234,5   1 234,5   1'234.5   12,34,567   1_000      thousands and decimal marks of several countries
    2 1/2   2½   two and a half   ¾                                mixed numbers and fractions
    3k   1.8 million   10^6   10⁶   1.5e6                          scales and powers
    minus 17                                                       signs in words

What looks like a number and is not one becomes a mark that no number can be read from, so that no part of it is read
in its place: RANGE for "10 to 12", "1,2,3" or "5 300", MOMENT for dates and times.
"""

import re
import unicodedata
from fractions import Fraction

from storage.datasets.compound_units import without_compounds
from storage.datasets.spelled_numbers import PART, PARTS

RANGE = "\ue000"
MOMENT = "\ue001"

_SPACES = "\u00a0\u2009\u202f"
_RUN = re.compile(rf"(?<![\w.,])\d+(?:[.,'’_{_SPACES}]\d+| \d{{3}}(?!\d))+")
_INDIAN = re.compile(r"\d{1,2}(?:,\d{2})+,\d{3}")
_PLAIN = r"\d+(?:\.\d+)?"

_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?"
)
_DATE = re.compile(
    r"(?<![\w.:/-])(?:\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[/.]\d{1,2}[/.]\d{4}|0\d/\d{1,2}/\d{2}|\d{1,2}/0\d/\d{2})(?![\w/-])"
    r"|(?<![\w.])\d{1,3}:\d{1,2}(?::\d{1,2})?(?:\s?[ap]\.?m\b\.?)?(?!\d)|(?<![\w.])\d{1,2}\s?[ap]\.?m\b\.?"
    rf"|\b{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:, ?\d{{4}}\b|(?= *(?:[.,;)\n]|$)))"
    rf"|\b\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH}(?:,? \d{{4}}\b)?|\b{_MONTH} \d{{4}}\b"
)
_DATE_HINT = re.compile(r"\d[-:/.]\d|\d ?[ap]\.?m\b|[JFMASOND][a-z]{2}")
_OR = r"(?:to|or|through|bis|oder|ou|o)"
_TO = re.compile(
    rf"(?<![\d.])[$€£]?({_PLAIN})%?(?: [a-z]{{1,12}})? {_OR} (?:about |around |maybe )?[$€£]?({_PLAIN})(?![\d.]*\d)"
)
_EM_DASH = re.compile(rf"(?<![\d.]){_PLAIN}\s?—\s?{_PLAIN}")
_LIST = re.compile(rf"(?:{_PLAIN}, ?)+{RANGE}")
_BETWEEN = re.compile(
    rf"\b(?:between|from|zwischen|von|entre|de|du|desde) [$€£]?{_PLAIN}%? (?:and|und|bis|et|à|y|a|al"
    rf"|hasta) [$€£]?{_PLAIN}"
)
_HEX = re.compile(r"\b0[xX][0-9a-fA-F]+\b")

# 2**3 and (2)**3, but not "**2** 3", which is bold. An exponent in braces or parentheses: 2^{10}, 2^(n + 1).
_STARS = re.compile(r"(\*\*)?((?<![\w.])\d+(?:\.\d+)?|\))( ?)\*\*\3(?=[-\d(])")
_BRACES = re.compile(r"\^\s?\{([^{}]{1,40})\}")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT = re.compile(r"[⁻⁰¹²³⁴-⁹]+(?:[·⋅][⁰¹²³⁴-⁹]+)?")
_UNIT_POWER = re.compile(r"((?<=[A-Za-z])[a-z]|(?<![A-Za-z])[msh])\^\(?[23]\)?")
# "2 to the power of 3"; other words for powers tell no number here.
_TO_THE_POWER = re.compile(r"(?<=\d)(?: raised)? to the power (?:of )?(?=-?\d)")
_WORDS_OF_POWER = re.compile(
    r"(?<!\d)\d+ (?:squared|cubed|(?:raised )?to the (?:\d{1,2}(?:st|nd|rd|th)|power|\w{1,12}th)\b|hoch |elevado a"
    r"|à la puissance)"
)
_SCIENTIFIC = re.compile(rf"(?<![\w.])({_PLAIN})[eE]([+-]?\d{{1,2}})(?!\w)")
MAX_EXPONENT = 40

_VULGAR = "".join(
    chr(code) for code in (*range(0xBC, 0xBF), *range(0x2150, 0x215F)) if unicodedata.numeric(chr(code), None)
)
_ANY_NUMBER = re.compile(rf"[\d{_VULGAR}]|dozen")
_VULGAR_MIXED = re.compile(rf"(\d+)?\s?([{_VULGAR}])")
_MIXED = re.compile(r"(?<![\d./])(\d{1,9})(?: and | )(\d{1,4})/(\d{1,4})(?![\d/])")
_AND_A_HALF = re.compile(rf"(?<![\d.])(\d+) and (?:a |one )({PART})\b", re.IGNORECASE)

_SCALES = {
    "thousand": 10**3, "thousands": 10**3, "million": 10**6, "millions": 10**6, "billion": 10**9, "billions": 10**9,
    "trillion": 10**12, "trillions": 10**12, "lakh": 10**5, "lakhs": 10**5, "crore": 10**7, "crores": 10**7,
    "hundred": 100, "k": 10**3, "mio": 10**6, "mln": 10**6, "millionen": 10**6, "millones": 10**6,
    "mrd": 10**9, "bn": 10**9, "milliarden": 10**9, "milliards": 10**9, "tausend": 10**3,
}  # fmt: skip
_SCALE_WORD = "|".join(sorted((word for word in _SCALES if len(word) > 1), key=len, reverse=True))
_SCALED = re.compile(
    rf"(?<![\w.]){_PLAIN}\s?-?(?:{_SCALE_WORD})\b(?:(?:,|,? and)? {_PLAIN}\s?-?(?:{_SCALE_WORD})\b)*", re.IGNORECASE
)
_MYRIADS = {
    "十": 10, "십": 10, "百": 100, "백": 100, "千": 10**3, "천": 10**3, "万": 10**4, "萬": 10**4, "만": 10**4,
    "亿": 10**8, "億": 10**8, "억": 10**8,
}  # fmt: skip
_MYRIAD = re.compile(rf"({_PLAIN}|\d{{1,3}}(?:,\d{{3}})+)?\s?([{''.join(_MYRIADS)}])")
_IN_MYRIADS = re.compile(rf"(?<![\d.,])(?:\d[\d.,]*\s?[{''.join(_MYRIADS)}]+\s?)+(?:{_PLAIN})?(?![\d.,]*\d)")
_NUMBER_AND_SCALE = re.compile(rf"({_PLAIN})\s?-?({_SCALE_WORD})\b", re.IGNORECASE)
_SCALE_OF_SCALE = re.compile(rf"(?<![\w.])({_PLAIN}) hundred (thousand|million|billion|trillion)s?\b", re.IGNORECASE)
_SUFFIXED = re.compile(rf"(?<![\w.])({_PLAIN})([kKM])(?![\w^])|(?<=[$€£])({_PLAIN})\s?([BT])(?![\w^])")
_SUFFIXES = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_ROOM = re.compile(r"(?<![\w.])\d+(?:\.\d+)?[BT](?![\w^])")  # "Room 12B", or 12 billion: no number
_DOZEN = re.compile(
    rf"(?<![\w.]){_PLAIN} dozens?\b|\b(?:a|one|two|three|four|five|six|seven|eight|nine|ten) dozens?\b", re.IGNORECASE
)

# Between numbers: "5 times 6" is a product, "5 times as many" is none.
_OPERATOR_WORD = re.compile(r"(?<=\d) (plus|times|multiplied by|divided by) (?=[$€£]?\d)")
_OPERATORS = {"plus": "+", "times": "*", "multiplied by": "*", "divided by": "/"}
_SIGN_WORD = re.compile(r"(?P<before>[\d)%]\s)?\b(?:minus|negative)\s(?=[$€£]?[\d(])", re.IGNORECASE)

# Words beside digits that change what these are; looked for first, since few sentences have one.
_WORDY = re.compile(
    rf"\d(?:\s?[kKMBT]\b|\s?-?(?:{_SCALE_WORD}|dozen|and|und|et|y|à|al?|hasta|plus|times|multiplied|divided|{_OR})\b"
    rf"|%? [a-z]{{1,12}} {_OR} )"
    r"|\b(?:minus|negative|between)\b|dozen",
    re.IGNORECASE,
)


def rewritten(text: str, comma_decimals: bool = False) -> str:
    """The text with its numbers in digits with a decimal point, and marks for what is no single number.

    Args:
        text: a sentence, or an answer.
        comma_decimals: the text is in a language that writes 1.234,5, which decides what 1.234 and 1,234 are.
    """
    if not _ANY_NUMBER.search(text):
        return text
    if not text.isascii():
        text = _SUPERSCRIPT.sub(_superscript, text)
        text = _EM_DASH.sub(RANGE, _VULGAR_MIXED.sub(_vulgar, text))
        text = _IN_MYRIADS.sub(_in_myriads, text)
    if "**" in text:
        text = _STARS.sub(lambda match: match.group() if match[1] else f"{match[2]}^", text)
    if " power" in text or _WORDS_OF_POWER.search(text):
        text = _WORDS_OF_POWER.sub(RANGE, _TO_THE_POWER.sub("^", text))
    if "^" in text:
        text = _UNIT_POWER.sub(r"\1", _BRACES.sub(r"^(\1)", text))
    text = without_compounds(text, RANGE)
    if _DATE_HINT.search(text):
        text = _DATE.sub(MOMENT, text)
    if "0x" in text or "0X" in text:
        text = _HEX.sub(RANGE, text)
    text = _RUN.sub(lambda run: _run(run, text, comma_decimals), text)
    text = _SCIENTIFIC.sub(_scientific, text)
    if "/" in text:
        text = _MIXED.sub(_mixed, text)
    if _WORDY.search(text):
        text = _OPERATOR_WORD.sub(lambda match: _OPERATORS[match[1]], text)
        text = _AND_A_HALF.sub(lambda match: f"({match[1]}+1/{PARTS[match[2].lower()]})", text)
        text = _SCALE_OF_SCALE.sub(lambda match: f"{_decimal(Fraction(match[1]) * 100)} {match[2]}", text)
        text = _DOZEN.sub(RANGE, _ROOM.sub(RANGE, _SUFFIXED.sub(_suffixed, _SCALED.sub(_scaled, text))))
        text = _SIGN_WORD.sub(lambda match: f"{match['before']}- " if match["before"] else "-", text)
        text = _LIST.sub(RANGE, _BETWEEN.sub(RANGE, _TO.sub(_either, text)))
    return text


def _run(match: re.Match[str], text: str, comma_decimals: bool) -> str:
    """Digits with marks between them, by what the marks tell; RANGE if they tell nothing."""
    run = match.group()
    groups = re.split(r"\D", run)
    marks = [character for character in run if not character.isdigit()]
    kinds = list(dict.fromkeys("'" if mark == "’" else mark for mark in marks))
    grouped = 1 <= len(groups[0]) <= 3 and groups[0] != "0"
    if len(kinds) == 1:
        mark = kinds[0]
        thousands = grouped and all(len(group) == 3 for group in groups[1:])
        if mark in ".," and len(groups) == 2:
            decimal = (
                (mark == ",") == comma_decimals if thousands else mark == "." or comma_decimals or _is_decimal(groups)
            )
            return ".".join(groups) if decimal else "".join(groups) if thousands else RANGE
        if mark == " " and len(groups) == 2:  # "5 300 ml bottles" are five
            return "".join(groups) if text.strip(" \t\n.*_$€£%-−–") == run else RANGE
        if thousands or (mark == "," and _INDIAN.fullmatch(run)):
            return "".join(groups)
        return RANGE
    if len(kinds) == 2 and marks[-1] in ".," and marks.count(marks[-1]) == 1:
        whole = run[: run.rindex(marks[-1])]
        if (grouped and all(len(group) == 3 for group in groups[1:-1])) or _INDIAN.fullmatch(whole):
            return f"{''.join(groups[:-1])}.{groups[-1]}"
    return RANGE


def _is_decimal(groups: list[str]) -> bool:
    """Whether "3,5" in an English text is a decimal number: nobody groups digits so."""
    return len(groups[1]) < 3 or groups[0] == "0" or len(groups[0]) > 3


def _in_myriads(match: re.Match[str]) -> str:
    """Chinese, Japanese and Korean count in myriads: "1万2千" is 12,000. RANGE where the order of the signs is none."""
    text, total, last = match.group(), Fraction(), None
    position = 0
    while (one := _MYRIAD.match(text, position)) is not None:
        if one[1] is None:  # "3千万": the scales multiply
            if last is None:
                return RANGE
            total += last[0] * (_MYRIADS[one[2]] - 1)
            last = (last[0] * _MYRIADS[one[2]], last[1] * _MYRIADS[one[2]])
        else:
            value = Fraction(one[1].replace(",", "")) * _MYRIADS[one[2]]
            if last is not None and value >= last[1]:
                return RANGE
            total += value
            last = (value, _MYRIADS[one[2]])
        position = one.end()
    rest = text[position:].strip()
    if rest and not re.fullmatch(_PLAIN, rest):
        return RANGE
    return _decimal(total + Fraction(rest or 0))


def _superscript(match: re.Match[str]) -> str:
    """An exponent of a number or a variable; nothing where it belongs to a unit, as in cm²."""
    ahead = match.string[max(0, match.start() - 2) : match.start()]
    before, earlier = ahead[-1:], ahead[-2:-1]
    if len(match.group().strip("⁻⁰¹²³⁴⁵⁶⁷⁸⁹")):
        return f"^{RANGE}"  # 2⁰·⁵
    exponent = f"^({match.group().translate(_SUPERSCRIPTS)})"
    is_unit = before.isalpha() and (earlier.isalpha() or before in "msh")
    return "" if is_unit or not (before.isalnum() or before == ")") else exponent


def _scientific(match: re.Match[str]) -> str:
    value = Fraction(f"{match[1]}e{match[2]}") if abs(int(match[2])) <= MAX_EXPONENT else None
    return RANGE if value is None else _decimal(value)


def _vulgar(match: re.Match[str]) -> str:
    part = Fraction(unicodedata.numeric(match[2])).limit_denominator(10)
    return f"({match[1]}+{part})" if match[1] else f"({part})"


def _mixed(match: re.Match[str]) -> str:
    whole, over, under = match.groups()
    return f"({whole}+{over}/{under})" if 0 < int(over) < int(under) else match.group()


def _scaled(match: re.Match[str]) -> str:
    parts = [(Fraction(number), _SCALES[word.lower()]) for number, word in _NUMBER_AND_SCALE.findall(match.group())]
    scales = [scale for _, scale in parts]
    if scales != sorted(set(scales), reverse=True):  # "3 million and 5 million" are two numbers
        return _NUMBER_AND_SCALE.sub(lambda one: _decimal(Fraction(one[1]) * _SCALES[one[2].lower()]), match.group())
    return _decimal(sum((number * scale for number, scale in parts), Fraction()))


def _suffixed(match: re.Match[str]) -> str:
    return _decimal(Fraction(match[1] or match[3]) * _SUFFIXES[(match[2] or match[4]).upper()])


def _either(match: re.Match[str]) -> str:
    """RANGE, unless both numbers are the same: "6 rows or 6 groups"."""
    return match.group() if Fraction(match[1]) == Fraction(match[2]) else RANGE


def _decimal(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"({value.numerator}/{value.denominator})"

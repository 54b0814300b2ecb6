"""Tells an announced answer that is no single number: "5 and 6", "x = 5, y = 6", "5 + 3i", "n + 1", "half of 10".

An announcement that says one number in a sentence is another matter: "32 cakes after 5 were eaten".
"""

import re
from itertools import pairwise

from storage.datasets.arithmetic import NUMBER
from storage.datasets.spelled_numbers import SMALL
from storage.datasets.written_numbers import RANGE

MOST_NUMBERS = 12  # of an announcement that are looked at
MAX_BARE = 80  # characters of a text that is nothing but a list
MAX_BETWEEN = 80  # characters between two numbers of a list
_NUMBER = re.compile(rf"(?:(?<![\w.)])[-−–])?[$€£]?{NUMBER}(?:/\d+)?%?")
_VALUE = re.compile(r"[^\d./−–-]")
_WORD = r"[^\W\d_][\w'’-]{0,14}"
_AND = (
    r"and|or|und|oder|sowie|et|ou|y|e|o|u|as well as|nor|also|maybe|perhaps|possibly|vs\.?|versus|by|x|r|R|remainder|"
    r"with a remainder of|Rest|reste|resto|mal|fois|por|más|geteilt durch|divisé par"
)
# What stands between two numbers of a list: a unit, "and", the name of the next.
_BETWEEN = re.compile(
    rf"(?:[ °-]?{_WORD}\.?){{0,3}}?[)\]}}\"'$*]{{0,4}}\s{{0,2}}"
    rf"(?:[,;|&~…→×\n]|\.{{2,3}}|->|[,;]?\s?\(?\b(?:{_AND})\b|[、和或与與とか]|(?=\(?[a-h1-9]\)\s))"
    rf"\s{{0,2}}(?:(?:and|or|und|oder|et|ou|y|o)\s)?(?:(?:[\"']?{_WORD}[\"']?"
    rf"|[-*•]):?\s{{1,2}}){{0,3}}(?:\(?[a-h1-9]\)\s?)?(?:[A-Za-z]\s?=\s?)?[(\[{{*$\"'€£]{{0,4}}\s?"
)
_TAIL = re.compile(rf"[)\]}}°\"'$*]{{0,4}}(?:[ -]?{_WORD}\.?){{0,3}}[\W_]*$")
# Words of a sentence in which the second number only explains the first.
_EXPLAINS = re.compile(
    r"\b(?:so|then|therefore|thus|hence|which|because|since|(?<!well )as(?! well)|if|when|after|before|while|than"
    r"|fewer|less|more|of|from|out|left)\b",
    re.IGNORECASE,
)
_PARTS = re.compile(r"[\W_]{0,4}\d[^\n)]{0,60}(?<![-+*/×÷])\s2\)\s")  # "1) 5 2) 6", its first label cut off
_FRACTION = re.compile(r"\(\(?(\d{1,9})\)?/\(?(\d{1,9})\)?\)")
_BARE = re.compile(r"[\W_]{0,8}(?:[A-Za-z]{1,12}[\"']?\s?[|:=]\W{0,4})?-?\d")
_ASSIGNED = re.compile(
    r"\b([A-Za-z]\w{0,11})\s?=\s?[($]{0,2}(-?[\d./]+)[)$%]{0,2}\s{0,2}"
    r"(?:[,;\n]|[,;]?\s?(?:and|or|und|oder|et|ou|y|o)\s)\s?(?:or\s|and\s)?[($]{0,2}"
    r"([A-Za-z]\w{0,11})\s?=\s?[($]{0,2}(-?[\d./]+)(?![\d\s]*[-+*/=])"
)
# Unknowns, functions, comparisons, parts of expressions that are left over, "half of 10", and LaTeX that is not known.
_FORMULA = re.compile(
    r"[±√∛π∞≥≤≠<>](?!\w{0,20}>)(?<![-=]>)|\+\s?/\s?-"
    r"|\d\s?i(?=\s*(?:[-+*/^=).,;:$]|$))|\d(?:[jnyzabq]|x(?!\s?[\d(]|\s\w))(?![\w'’])"  # 3i, 2n
    r"|(?<![\w'’°])[b-zN]\)?\s?[+*/×^-]\s?[\d(]|(?<![\w'’])a\s?[+*/^]\s?[\d(]"  # n + 1
    r"|\d\([a-z]|\d\.\(\d"  # 2(x + 1), 0.(3)
    r"|[\d)]\s?[-+*/×]\s?[a-zN](?=\s*(?:[-+*/^=).,;:$]|$))"  # 5 - x
    rf"|[-+*/×·]\s?{RANGE}|{RANGE}\s?[-+*/×·^]|\d\s?\.{{2,3}}\s?\d|\d\s(?:vs|versus)\b"
    rf"|\d\s(?:and|or)\s(?:{'|'.join(SMALL[1:])})\b"
    r"|[a-z]\s\+\s\(?\d|[\d)]\s\+\s[A-Za-z]"  # "John's age + 10"
    r"|\b(?:sin|cos|tan|log|ln|exp|sqrt|root)\b[\s(]{0,2}\d"
    r"|\d!(?=\.|\s?[+*/^×÷=)]|\s?-\s?\d)|\)!"
    r"|\b(?:half|twice|double|triple|thrice|third|quarter|fourth|sum|product|difference|quotient|root|average|mean"
    r"|doppelte|Hälfte|moitié|mitad|doble)\s(?:(?:of|between|von|de)\s)?(?:the\s|about\s)?[$]?\d"
    r"|\d times (?:the|his|her|their|as much as the|[a-z]\b(?!\s\w{3}))\b|\\[A-Za-z]+"
)
# "10 more than 5", "more than 10", "12 less 3", "25% of 80", "1/2 of 10", "555 1234": no value of their own.
_RELATIVE = re.compile(
    rf"\D{{0,20}}?{NUMBER} (?:(?:more|fewer|less|greater|higher|lower|larger|smaller) than|less) [$€£]?\d"
    r"|\W{0,4}(?:(?:more|fewer|less|greater|higher|lower|larger|smaller) than|over|under|above|below) [$€£]?\d"
    rf"|\D{{0,20}}?(?:{NUMBER}%|\(?\d{{1,9}}/\d{{1,9}}\)?) (?:of|von|de) [$€£]?\d"
    r"|\D{0,20}\d{1,9}(?: \d{1,9}){1,8}[\W_]*$|\W{0,4}\+\d{1,3}(?:[ -]\d{1,9}){2,8}[\W_]*$"
)
# What stands before the "=" of "2x = 8", "x - 1 = 8", "|x| = 8": the value is not that of the unknown.
_OF_UNKNOWN = re.compile(
    r"(?:\|[^|=]{0,20}(?<![A-Za-z])[a-z](?![A-Za-z])[^|=]{0,20}\||(?:(?<![\w.])\d[\d.]{0,9}\s?[*·×⋅]?\s?|[+*/×÷·⋅√^−–-]\s?)[nxyz]"
    r"|(?<![\w'’])[nxyz]\)?\s?[+*/×÷·⋅^−–-]\s?\(?\d[\d.]{0,9}\)?)\){0,2}[\s$]*$"
)


def names_several(text: str) -> bool:
    """Whether an announced answer names several numbers.

    Args:
        text: the announcement, numbers rewritten; from where its number is read.
    """
    if (assigned := _ASSIGNED.search(text)) and assigned[2] != assigned[4]:
        return True
    if _PARTS.match(text):
        return True
    text = _FRACTION.sub(r"\1/\2", text) if "/" in text else text
    numbers = []
    for number in _NUMBER.finditer(text):
        numbers.append(number)
        if len(numbers) == MOST_NUMBERS:
            break
    values = [_VALUE.sub("", number.group()) for number in numbers]
    for place, (first, second) in enumerate(pairwise(numbers)):
        between = text[first.end() : second.start()]
        if between.strip() in ("x", "X", "×"):
            return False  # "2 x 3" is a product, "2 m x 3 m" is none
        if len(between) > MAX_BETWEEN or _EXPLAINS.search(between) or not _BETWEEN.fullmatch(between):
            return False
        tail = text[second.end() : second.end() + MAX_BETWEEN]
        if _TAIL.fullmatch(tail) and not _EXPLAINS.search(tail):
            return len(set(values[: place + 2])) > 1 and not _adds_up(values[: place + 2])
    return False


def is_bare_list(text: str) -> bool:
    """Whether a whole text is a list of numbers: "5 and 6", "| 5 | 6 |"."""
    return _BARE.match(text) is not None and names_several(text)


def is_formula(text: str) -> bool:
    """Whether an announced answer has more in it than a number and what it counts: unknowns, functions, comparisons."""
    return _FORMULA.search(text) is not None or _RELATIVE.match(text) is not None


def is_of_unknown(left: str) -> bool:
    """Whether the left side of an equation has more in it than an unknown: "2x", "x - 1", "|x|"."""
    return _OF_UNKNOWN.search(left) is not None


def is_factorial(said: str) -> bool:
    """Whether what a mark for machines holds ends in a factorial, as "5!" does there."""
    return re.search(r"\d!\s*$", said) is not None


def _adds_up(values: list[str]) -> bool:
    """Whether the first number is what the others make together: "5 in all, 2 red and 3 blue"."""
    try:
        whole, *parts = (float(value) for value in values)
    except ValueError:
        return False
    return len(parts) > 1 and abs(whole - sum(parts)) < 1e-9

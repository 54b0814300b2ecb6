"""Reads numbers that a text spells out in English: "twenty-five", "one hundred and five", "minus two and a half"."""

import re
from fractions import Fraction

PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4}
"""Word for a part -> how many of them make one."""
PARTS |= {
    f"{word}{s}": size
    for size, word in enumerate(("fifth", "sixth", "seventh", "eighth", "ninth", "tenth"), 5)
    for s in ("", "s")
}
PART = "|".join(PARTS)

SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: value for value, word in enumerate(SMALL)} | {word: 10 * tens for tens, word in enumerate(TENS, 2)}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_FIRST = "|".join(sorted(_WORDS, key=len, reverse=True))
_NEXT = "|".join(sorted((*_WORDS, *_SCALES), key=len, reverse=True))
_SPELLED = re.compile(
    rf"\b(?:(?P<sign>minus|negative) )?(?P<words>(?:a (?=hundred|thousand|million)|(?:{_FIRST})\b)"
    rf"(?:(?:[ -]| and )?(?:{_NEXT})\b){{0,12}})(?: and (?:a|one) (?P<more>{PART})\b|[ -](?P<part>{PART})\b)?",
    re.IGNORECASE,
)
_PRONOUN_BEFORE = re.compile(
    r"\b(?:the|this|that|which|any|each|every|no|first|last|right|correct|only|another|other|a)\s$", re.IGNORECASE
)
_PRONOUN_BEHIND = re.compile(r"\s(?:of|another|can|could|cannot|must|should|may|by|who|that|which)\b")


def spelled_numbers(text: str) -> list[Fraction]:
    """The numbers that a text spells out, in order: "twenty-five and two thirds" -> 25 2/3."""
    found = []
    for match in _SPELLED.finditer(text):
        words = [word for word in re.split(r"[\s-]+", match["words"].lower()) if word not in ("and", "")]
        if words == ["one"] and not (match["part"] or match["more"]):
            before, behind = text[max(0, match.start() - 12) : match.start()], text[match.end() : match.end() + 12]
            if _PRONOUN_BEFORE.search(before) or _PRONOUN_BEHIND.match(behind):
                continue  # "the right one", "one of them"
        value = _spelled(words)
        if value is None:
            continue
        if match["part"]:
            value /= PARTS[match["part"].lower()]
        elif match["more"]:
            value += Fraction(1, PARTS[match["more"].lower()])
        found.append(-value if match["sign"] else value)
    return found


def spells_several(text: str) -> bool:
    """Whether number words stand together that are no single number: "seven and nine"."""
    return any(
        _spelled([word for word in re.split(r"[\s-]+", match["words"].lower()) if word not in ("and", "")]) is None
        for match in _SPELLED.finditer(text)
    )


def _spelled(words: list[str]) -> Fraction | None:
    """The value of number words in order; None where they make no number, as in "five six"."""
    total = current = 0
    smallest_scale = 10**15
    previous = ""
    for word in ("one" if word == "a" else word for word in words):
        if word == "hundred":
            if not 0 < current < 20:
                return None
            current *= 100
        elif word in _SCALES:
            scale = _SCALES[word]
            if current == 0 or scale >= smallest_scale:
                return None
            total, current, smallest_scale = total + current * scale, 0, scale
        else:
            value = _WORDS[word]
            fits = previous == "" or previous in _SCALES or (previous in TENS and value < 10)
            if not fits or (value == 0 and previous):
                return None
            current += value
        previous = word
    return Fraction(total + current)

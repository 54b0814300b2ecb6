"""Amounts in two units: "2 hours and 30 minutes", "5 ft 6 in", "2 Stunden 30 Minuten", "$2 and 50 cents".

Which unit the question wants is not in the text, so such an amount is no single number.
"""

import re

from storage.datasets.spelled_numbers import SMALL, TENS

# The units of one kind, in English, German, French and Spanish.
_TIME = (
    r"years?|yrs?|months?|weeks?|wks?|days?|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s"
    r"|Jahren?|Jahre?|Monaten?|Monate?|Wochen?|Tagen?|Tage?|Stunden?|Std|Minuten?|Sekunden?"
    r"|ans?|années?|mois|semaines?|jours?|heures?|secondes?|años?|mes(?:es)?|semanas?|días?|horas?|minutos?|segundos?"
)
_LENGTH = (
    r"kilomet(?:er|re)s?|km|met(?:er|re)s?|m|centimet(?:er|re)s?|cm|millimet(?:er|re)s?|mm|miles?|mi|yards?|yds?"
    r"|feet|foot|ft|inch(?:es)?|in|Metern?|mètres?|metros?"
)
_WEIGHT = (
    r"tons?|tonnes?|kilograms?|kilos?|kg|grams?|g|stones?|pounds?|lbs?|ounces?|oz|Gramm|Pfund|Kilo|grammes?|gramos?"
)
_VOLUME = (
    r"gallons?|gal|quarts?|qts?|pints?|pts?|cups?|lit(?:er|re)s?|L|l|millilit(?:er|re)s?|mL|ml|tablespoons?|tbsp"
    r"|teaspoons?|tsp|Litern?|litros?"
)
_MONEY = r"dollars?|euros?|pounds?|cents?|pence|pennies|Euro|Cent|Dollar|centimes?|céntimos?|dólares"
_KINDS = tuple(re.compile(kind) for kind in (_TIME, _LENGTH, _WEIGHT, _VOLUME, _MONEY))
_UNIT = rf"(?:{'|'.join((_TIME, _LENGTH, _WEIGHT, _VOLUME, _MONEY))})(?![\w'’])"

_WORD = (
    rf"(?:{'|'.join(TENS)})(?:[ -](?:{'|'.join(SMALL[1:10])}))?|{'|'.join(sorted(SMALL[1:], key=len, reverse=True))}"
)
_AMOUNT = rf"(?:(?<!\d)\d+(?:\.\d+)?|\b(?:an?|half an?|{_WORD})(?=[ -]))"
_BETWEEN = r"\.?,?\s?(?:(?:and|plus|&|und|et|y|e)\s)?"
_TWO = re.compile(
    rf"(?<![\w.])(?:{_AMOUNT}[ -]?(?P<first>{_UNIT})|[$€£]\d++){_BETWEEN}"
    rf"(?:{_AMOUNT}[ -]?(?P<second>{_UNIT})|an? (?:half|quarter)\b)"
    rf"|(?<![\w.])\d+ ?(?:h|heures?|foot|feet|ft) ?\d{{1,2}}(?=m?(?:in)?\s{{0,2}}(?:[.,;:)}}*]|$))"
)
# Few sentences have an amount right behind another; looking for that is far cheaper than the pattern.
_TWO_AMOUNTS = re.compile(
    r"\d(?:[ -]?[^\W\d_]{1,12})?\.?,?\s?(?:(?:and|plus|&|und|et|y|e)\s)?"
    rf"(?:(?<!\d)\d|(?:an?|{'|'.join((*SMALL[1:], *TENS))})[ -])"
)
_IN_WORDS = (
    ("hour", "minute"),
    ("minute", "second"),
    ("day", "hour"),
    ("week", "day"),
    ("year", "month"),
    ("feet", "inch"),
    ("dollar", "cent"),
)


def without_compounds(text: str, mark: str) -> str:
    """The text with a mark in the place of every amount in two units."""
    if any(one in text and other in text for one, other in _IN_WORDS) or _TWO_AMOUNTS.search(text):
        return _TWO.sub(lambda match: mark if _is_compound(match) else match.group(), text)
    return text


def _is_compound(match: re.Match[str]) -> bool:
    """Whether the units are two of one kind: hours and minutes, but not hours and dollars, or hours and hours."""
    first, second = match["first"], match["second"]
    if second is None:
        return True  # "an hour and a half", "5 foot 6"
    if first is None:
        return _KINDS[-1].fullmatch(second) is not None
    return _stem(first) != _stem(second) and any(kind.fullmatch(first) and kind.fullmatch(second) for kind in _KINDS)


def _stem(unit: str) -> str:
    return unit.rstrip("s")

"""A calculator for the arithmetic that teachers write in their answers, such as "(84 / 2)" or "$1,200.50 x 3".

Teachers' texts are untrusted, so nothing here calls Python's `eval`. A small recursive-descent parser reads

    sum     := product (("+" | "-") product)*
    product := signed (("*" | "/") signed)*
    signed  := ("-" | "+")* value "%"* ("^" signed)?
    value   := number | "(" sum ")"

with exact fractions, so that 0.1 + 0.2 is 0.3 and 100 / 3 * 3 is 100. An exponent is a whole number and small, because
a short string such as "9^9^9" could keep a machine busy for years. Length, nesting and magnitude are limited. Anything
outside the grammar or the limits gives None, never an exception.
"""

import re
from fractions import Fraction
from functools import lru_cache

MAX_LENGTH = 400  # characters; the longest genuine expression in recordings has about 60
MAX_DEPTH = 40  # nested parentheses
MAX_DIGITS = 50  # of one written number; enough for MAX_MAGNITUDE and DECIMALS, so that results can be read back
MAX_MAGNITUDE = 10**40  # of a numerator or denominator of any intermediate result
MAX_EXPONENT = 40
MAX_POWERS = 8  # in one expression

DECIMALS = 6  # of a written answer that is not a whole number: 2/3 is "0.666667"

# A number as people write it: 1,200.50 or .5 or 42. or 3e-7. Commas only before groups of three digits.
NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>{NUMBER}(?:[eE][+-]?\d{{1,2}}(?![\w.]))?)|(?P<symbol>[-+*/()%^])|(?P<currency>[$€£]))"
)
# Other characters for the same operators. The letter x counts as a multiplication sign.
_HEX = re.compile(r"(?<![\d.])0[xX][\da-fA-F]")  # not zero times something
_SIGNS = str.maketrans("−–×xX·⋅∙÷∕⁄", "--******///")


class _Unreadable(Exception):
    """The text is not arithmetic, or exceeds the limits."""


@lru_cache(maxsize=4096)
def evaluate(expression: str) -> Fraction | None:
    """The exact value of an arithmetic expression; None if it is not one or exceeds the limits.

    Reads + - * / ^ ( ), decimals, unary signs, the characters × ÷ · x − – as the operators they mean, thousands commas,
    currency signs (ignored) and the percent sign (a hundredth). Never raises.
    """
    if len(expression) > MAX_LENGTH or not expression.isprintable() or _HEX.search(expression):
        return None
    try:
        return _Expression(_tokens(expression)).value()
    except (_Unreadable, ZeroDivisionError):
        return None


def write_number(value: Fraction) -> str:
    """A number's canonical spelling: "42", "-0.5", "1200.5"; at most 6 decimals, no trailing zeros, never "-0"."""
    scaled = round(value * 10**DECIMALS)
    sign = "-" if scaled < 0 else ""
    whole, part = divmod(abs(scaled), 10**DECIMALS)
    decimals = f"{part:0{DECIMALS}d}".rstrip("0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"


def _tokens(expression: str) -> list[Fraction | str]:
    """Numbers as fractions, everything else as one-character strings; currency signs are dropped."""
    tokens: list[Fraction | str] = []
    text = expression.translate(_SIGNS).strip()
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _Unreadable
        number = match["number"]
        if number is not None:
            if not number.isascii() or sum(map(str.isdigit, number)) > MAX_DIGITS:
                raise _Unreadable
            tokens.append(Fraction(number.replace(",", "")))
        elif match["symbol"] is not None:
            tokens.append(match["symbol"])
        position = match.end()
    return tokens


class _Expression:
    """One pass over the tokens of one expression."""

    def __init__(self, tokens: list[Fraction | str]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0
        self.powers = 0

    def value(self) -> Fraction:
        result = self._sum()
        if self.position != len(self.tokens):
            raise _Unreadable
        return result

    def _next_is(self, *symbols: str) -> str | None:
        """Consumes and returns the next token if it is one of these symbols."""
        if self.position < len(self.tokens):
            token = self.tokens[self.position]
            if isinstance(token, str) and token in symbols:
                self.position += 1
                return token
        return None

    def _sum(self) -> Fraction:
        result = self._product()
        while symbol := self._next_is("+", "-"):
            right = self._product()
            result = _bounded(result + right if symbol == "+" else result - right)
        return result

    def _product(self) -> Fraction:
        result = self._signed()
        while symbol := self._next_is("*", "/"):
            right = self._signed()
            result = _bounded(result * right if symbol == "*" else result / right)
        return result

    def _signed(self) -> Fraction:
        negative = False
        while symbol := self._next_is("-", "+"):  # a loop, so that "-----...1" needs no recursion
            negative ^= symbol == "-"
        result = self._value()
        while self._next_is("%"):
            result = _bounded(result / 100)
        if self._next_is("^"):
            result = self._power(result)
        return -result if negative else result

    def _power(self, base: Fraction) -> Fraction:
        self.powers += 1
        if self.powers > MAX_POWERS:
            raise _Unreadable
        exponent = self._signed()
        if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
            raise _Unreadable
        return _bounded(base**exponent.numerator)

    def _value(self) -> Fraction:
        if self._next_is("("):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise _Unreadable
            result = self._sum()
            if not self._next_is(")"):
                raise _Unreadable
            self.depth -= 1
            return result
        if self.position < len(self.tokens):
            token = self.tokens[self.position]
            if isinstance(token, Fraction):
                self.position += 1
                return _bounded(token)
        raise _Unreadable


def _bounded(value: Fraction) -> Fraction:
    if abs(value.numerator) > MAX_MAGNITUDE or value.denominator > MAX_MAGNITUDE:
        raise _Unreadable
    return value

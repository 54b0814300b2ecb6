"""The arithmetic that a rationale writes down, such as "12 + 3 = 15", and whether it is right.

A step is a calculation with its result: what stands before an "=" has an operator, what stands after it has a value.
"12 + 3 = 15 - 4 = 11" is two steps: people go on from a result. Rationales are untrusted texts: nothing here raises,
and time is proportional to their length.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from storage.datasets.arithmetic import NUMBER, evaluate

_OPERATORS = r"[-−–+*/×÷·⋅]"
_OPERAND = rf"\(*+-?[$€£]?(?>{NUMBER}) ?%?\)*+"
_OPERATION = rf"{_OPERAND}(?: ?(?:{_OPERATORS}|[xX]) ?{_OPERAND})*+"
# Not where the text before it belongs to the calculation: "5 apples x 3 + 2", "2^3 + 1", "10:30 + 2".
_NOT_AFTER = r"(?<![\w.,^(])(?<!\d:)" + "".join(rf"(?<!{before})" for before in (_OPERATORS, f"{_OPERATORS} ", "\\bx "))
_CHAIN = re.compile(rf"{_NOT_AFTER}{_OPERATION}(?: ?= ?{_OPERATION})+")
_FIRST = re.compile(_OPERAND)
_OPERATOR = re.compile(rf"(?<=[\d)%]) ?(?:{_OPERATORS}|[xX])")
_MARKUP = re.compile(r"(?m)^\s*[-*•–]\s+|\*\*|\\[$]")
_WORDS = (("\\times", "×"), ("\\cdot", "×"), ("\\div", "÷"), (" equals ", " = "))


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        text: the calculation with its result, as written.
        right: whether the result is right, rounded to the decimals that it is written with.
    """

    text: str
    right: bool


def arithmetic_steps(rationale: str) -> list[Step]:
    """The steps of a rationale, in order. What cannot be read as arithmetic is no step: "4 boxes x 12 = 48"."""
    text = _MARKUP.sub(" ", rationale)
    for word, sign in _WORDS:
        text = text.replace(word, sign)
    return [step for chain in _CHAIN.finditer(" ".join(text.split())) for step in _steps(chain.group())]


def right_steps(rationale: str) -> tuple[int, int]:
    """How many steps of a rationale are right, and how many there are."""
    steps = arithmetic_steps(rationale)
    return sum(step.right for step in steps), len(steps)


def miscalculates(rationale: str) -> bool:
    """Whether a step of a rationale is wrong."""
    return any(not step.right for step in arithmetic_steps(rationale))


def _steps(chain: str) -> list[Step]:
    parts = [part.strip() for part in chain.split("=")]
    found = []
    for place, (left, right) in enumerate(pairwise(parts)):
        if not _OPERATOR.search(left):
            continue  # "x = 15", or "15 = 15"
        value = evaluate(_balanced(left))
        results = [right]
        if place + 2 < len(parts) and (first := _FIRST.match(right)):
            results.append(first.group())  # the next calculation goes on from this one's result
        read = [_balanced(result) for result in results]
        if value is not None and evaluate(read[0]) is not None:
            found.append(Step(f"{left} = {right}", any(_equal(value, result) for result in read)))
    return found


def _equal(value: Fraction, written: str) -> bool:
    """Whether a value is what is written. 2 / 3 is 0.67, but not 0 or 1; 10 / 40 x 100 is 25 %."""
    readings = [written] + ([written.rstrip("% ")] if written.endswith("%") else [])
    decimals = len(written.rstrip("% )").partition(".")[2])
    for result in map(evaluate, readings):
        if result is not None and (value == result or (decimals and abs(value - result) * 10**decimals * 2 <= 1)):
            return True
    return False


def _balanced(text: str) -> str:
    """The text without parentheses that belong to the sentence: "(see 3 + 4 = 7)"."""
    text = text.strip()
    spare = text.count("(") - text.count(")")
    opening, closing = len(text) - len(text.lstrip("(")), len(text) - len(text.rstrip(")"))
    return text[min(max(spare, 0), opening) : len(text) - min(max(-spare, 0), closing)]

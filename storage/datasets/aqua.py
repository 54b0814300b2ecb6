"""AQuA-RAT: algebra with five choices and a worked rationale (Ling et al., 2017, arXiv 1705.04146).

The hub has 97,467 training, 254 validation and 254 test questions.
"""

import re
from collections.abc import Mapping
from typing import Any

from storage.datasets.assembly import CHOICES, assemble
from storage.datasets.choices import read_choices
from storage.datasets.definition import Dataset, Exemplar
from storage.datasets.hub import HubSource, HubSplit

_SOURCE = HubSource(
    repository="deepmind/aqua_rat",
    configuration="raw",
    splits={name: HubSplit(name) for name in ("train", "validation", "test")},
)

_INSTRUCTION = (
    "Solve the problem and choose the right answer. Think step by step, write out every calculation, then finish with "
    '"So the answer is (letter) text."'
)

_EXEMPLARS = (
    Exemplar(
        question="A train covers 180 km in 2.5 hours. At the same speed, how far does it travel in 4 hours?",
        choices=("260 km", "288 km", "300 km", "320 km", "450 km"),
        rationale="The speed is 180 / 2.5 = 72 km an hour. In 4 hours the train travels 72 * 4 = 288 km.",
        answer="288 km",
    ),
    Exemplar(
        question="The price of a coat fell by 20% and then by another 10%. By how much did it fall in all?",
        choices=("30%", "25%", "28%", "32%", "22%"),
        rationale="After both cuts 0.8 * 0.9 = 0.72 of the price is left, so it fell by 1 - 0.72 = 0.28, which is 28%.",
        answer="28%",
    ),
    Exemplar(
        question="If 3x - 7 = 2x + 5, what is x + 1?",
        choices=("11", "12", "14", "13", "-1"),
        rationale="Subtracting 2x gives x - 7 = 5, so x = 12 and x + 1 = 12 + 1 = 13.",
        answer="13",
    ),
    Exemplar(
        question="Pipes P and Q fill a tank in 6 and 3 hours. How long do both together need?",
        choices=("2 hours", "4.5 hours", "9 hours", "1.5 hours", "3 hours"),
        rationale="In an hour they fill 1/6 + 1/3 = 1/2 of the tank, so together they need 1 / (1/2) = 2 hours.",
        answer="2 hours",
    ),
)
_OPTION = re.compile(r"\s*\(?([A-Z])\s*\)\s*(.+)", re.DOTALL)


def _adapt(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The published `options` begin with their letters ("A)12", tokenised "A ) 12"); `correct` is a letter."""
    if "choices" in row or "options" not in row:
        return row
    names = {"options": "choices"} | ({} if "label" in row else {"correct": "label"})
    adapted = {names.get(column, column): value for column, value in row.items()}
    choices = read_choices(adapted["choices"])
    lettered = [_OPTION.fullmatch(text) for text in choices.texts]
    if choices.names or not all(lettered):
        return adapted
    return adapted | {"choices": [{"label": option[1], "text": option[2]} for option in lettered if option]}


def aqua() -> Dataset:
    """The dataset."""
    return assemble(
        name="aqua",
        description="algebra, five choices",
        answers=CHOICES,
        splits=tuple(_SOURCE.splits),
        rows=_SOURCE.rows,
        instruction=_INSTRUCTION,
        exemplars=_EXEMPLARS,
        adapt=_adapt,
    )

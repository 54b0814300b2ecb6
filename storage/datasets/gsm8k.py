"""GSM8K: grade-school word problems of two to eight steps (Cobbe et al., 2021, arXiv 2110.14168).

The hub has 7,473 training and 1,319 test questions. Our validation split is the training questions from the 7,001st
on. A published answer is a worked solution whose last line is "#### 42".
"""

from collections.abc import Mapping
from typing import Any

from storage.datasets.assembly import NUMBERS, assemble
from storage.datasets.definition import Dataset, Exemplar
from storage.datasets.hub import HubSource, HubSplit
from storage.datasets.published import answer_as_label

_SOURCE = HubSource(
    repository="openai/gsm8k",
    configuration="main",
    splits={
        "train": HubSplit("train", stop=7000),
        "validation": HubSplit("train", start=7000),
        "test": HubSplit("test"),
    },
)

_INSTRUCTION = (
    'Solve the word problem. Think step by step, write out every calculation, then finish with "So the answer is N."'
)

_EXEMPLARS = (
    Exemplar(
        question=(
            "A cinema sells tickets for $9 and popcorn for $4. A group of 6 friends buys one ticket each and shares "
            "3 popcorns. How much do they pay?"
        ),
        rationale=(
            "The tickets cost 6 * 9 = 54 dollars. The popcorn costs 3 * 4 = 12 dollars. "
            "Together that is 54 + 12 = 66 dollars."
        ),
        answer="66",
    ),
    Exemplar(
        question=(
            "Tariq reads 20 pages on each weekday and twice as many on each day of the weekend. "
            "How many weeks does he need for a book of 540 pages?"
        ),
        rationale=(
            "On five weekdays he reads 5 * 20 = 100 pages. On a weekend day he reads 2 * 20 = 40 pages, so 2 * 40 = 80 "
            "pages on a weekend. In a week he reads 100 + 80 = 180 pages, and 540 / 180 = 3 weeks."
        ),
        answer="3",
    ),
    Exemplar(
        question=(
            "A tank holds 800 litres and is 35% full. A pump adds 26 litres a minute for 10 minutes. "
            "How many litres are still missing then?"
        ),
        rationale=(
            "At first there are 800 * 0.35 = 280 litres. The pump adds 26 * 10 = 260 litres, which makes 280 + 260 = "
            "540. Missing are 800 - 540 = 260 litres."
        ),
        answer="260",
    ),
    Exemplar(
        question=(
            "Mei earns $15 an hour for the first 40 hours of a week and half as much again for each hour beyond. "
            "What does she earn in a week of 46 hours?"
        ),
        rationale=(
            "The first 40 hours bring 40 * 15 = 600 dollars. An hour beyond brings 15 * 1.5 = 22.50 dollars, and there "
            "are 46 - 40 = 6 of them: 6 * 22.50 = 135 dollars. In all 600 + 135 = 735 dollars."
        ),
        answer="735",
    ),
)


def _adapt(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The published column `answer` is a solution, "####" and the number; the solution goes into `extra`."""
    adapted = answer_as_label(row)
    label = adapted.get("label")
    if not isinstance(label, str) or "####" not in label:
        return adapted
    solution, _, number = label.rpartition("####")
    return {**adapted, "label": number.strip(), "solution": solution.strip()}


def gsm8k() -> Dataset:
    """The dataset."""
    return assemble(
        name="gsm8k",
        description="grade-school word problems of several steps",
        answers=NUMBERS,
        splits=tuple(_SOURCE.splits),
        rows=_SOURCE.rows,
        instruction=_INSTRUCTION,
        exemplars=_EXEMPLARS,
        adapt=_adapt,
    )

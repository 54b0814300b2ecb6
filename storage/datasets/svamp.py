"""SVAMP: one-step arithmetic word problems with distracting numbers (Patel et al., 2021, arXiv 2103.07191).

The hub has 700 training and 300 test questions. Our validation split is the last 100 training questions.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from storage.datasets.assembly import NUMBERS, assemble
from storage.datasets.definition import Dataset, Exemplar
from storage.datasets.hub import HubSource, HubSplit
from storage.datasets.values import as_text
from storage.errors import BadFile

EQUATION = "equation"

_SOURCE = HubSource(
    repository="ChilleD/SVAMP",
    configuration="default",
    splits={
        "train": HubSplit("train", stop=600),
        "validation": HubSplit("train", start=600),
        "test": HubSplit("test"),
    },
)

_INSTRUCTION = (
    "Answer the arithmetic question. Some numbers in it may not matter. Think step by step in one short paragraph, "
    'then finish with "So the answer is N."'
)

_EXEMPLARS = (
    Exemplar(
        question="A bakery had 56 rolls in the morning and 12 loaves. It sold 39 rolls. How many rolls are left?",
        rationale="The loaves do not matter. Of 56 rolls 39 were sold, which leaves 56 - 39 = 17 rolls.",
        answer="17",
    ),
    Exemplar(
        question="Nina swims 14 laps a day. Her brother swims 9 laps a day. How many laps does Nina swim in 6 days?",
        rationale="Only Nina's laps count. At 14 laps a day she swims 14 * 6 = 84 laps in 6 days.",
        answer="84",
    ),
    Exemplar(
        question="A hall has 72 chairs in 8 equal rows. 5 chairs are broken. How many chairs are in each row?",
        rationale="The broken chairs still stand in their rows. 72 chairs in 8 rows make 72 / 8 = 9 chairs a row.",
        answer="9",
    ),
    Exemplar(
        question="Omar has 23 stamps, which are 8 fewer than Lena has. How many stamps does Lena have?",
        rationale="Omar has 8 fewer than Lena, so Lena has 8 more than Omar: 23 + 8 = 31 stamps.",
        answer="31",
    ),
    Exemplar(
        question="A farm sold 45 eggs on Monday and 18 on Tuesday. How many more eggs did it sell on Monday?",
        rationale="The difference between Monday and Tuesday is 45 - 18 = 27 eggs.",
        answer="27",
    ),
)


def _adapt(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The published columns: Body and Question, or both joined as question_concat; Answer as a float; Equation.

    The authors' CSV files have numbers taken out: "Ann has number0 pens ...", and `Numbers` "3 4". Their Question is
    the whole text, and their equations are no students' target: prefix notation, with the same placeholders.
    """
    if "question" in row or "Question" not in row:
        return row
    if "Numbers" in row:
        rest = {column: value for column, value in row.items() if column not in ("Question", "Answer", "Body", "Ques")}
        return {"question": _with_numbers(row["Question"], row["Numbers"]), "label": row.get("Answer")} | rest
    joined = row.get("question_concat") or f"{row.get('Body') or ''} {row['Question']}"
    rest = {
        column: value
        for column, value in row.items()
        if column not in ("Body", "Question", "question_concat", "Answer", "Equation")
    }
    equation = {EQUATION: row["Equation"]} if "Equation" in row else {}
    return {"question": joined, "label": row.get("Answer")} | equation | rest


def _with_numbers(question: Any, numbers: Any) -> str:
    """The question with its numbers put back.

    Raises:
        BadFile: it wants more than there are.
    """
    values = [number.removesuffix(".0") for number in as_text(numbers, "Numbers").split()]
    try:
        return re.sub(r"\bnumber(\d{1,3})\b", lambda place: values[int(place[1])], as_text(question, "Question"))
    except IndexError as error:
        raise BadFile(f"Question has places for more numbers than the {len(values)} of Numbers") from error


def svamp() -> Dataset:
    """The dataset."""
    return assemble(
        name="svamp",
        description="one-step arithmetic word problems with distracting numbers",
        answers=NUMBERS,
        splits=tuple(_SOURCE.splits),
        rows=_SOURCE.rows,
        instruction=_INSTRUCTION,
        exemplars=_EXEMPLARS,
        adapt=_adapt,
    )


def svamp_equation() -> Dataset:
    """The same questions, samples and votes; the student learns to write the equation, such as "( 7.0 + 2.0 )", and is
    right if that comes to the number.

    So does the published code of distilling step-by-step (Hsieh et al. 2023).
    """
    return replace(svamp(), description="SVAMP whose students write the equation, not the number", target=EQUATION)

"""What trainings answered and explained to the questions that are compared, as tables of seeds by questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from storage.datasets.arithmetic_steps import right_steps
from storage.datasets.definition import Dataset
from storage.errors import NothingToDo
from storage.schemas import PREDICTIONS
from storage.store import Store
from tasks.comparing.statistics import Answers
from tasks.questions.sets import Part, QuestionSet
from tasks.training.folder import Training
from tasks.training.rounds import best_round
from tasks.training.spec import TrainingSpec, writes

Figure = Literal["answers", "explanations", "chosen"]
FIGURES: dict[Figure, str] = {
    "answers": "correct",
    "explanations": "explanation_correct",
    "chosen": "given_correct",
}
"""Bare answers, the rationales' own, and what is chosen between them: the columns of the predictions."""


@dataclass(frozen=True)
class Said:
    """What a student said to one question.

    Attributes:
        answer: in the dataset's spelling; None if it could not be read, or was a refusal.
        rationale: its explanation; None if it wrote none.
        agrees: whether the explanation comes to the same answer as the answer itself; None without explanations, and
            where both are one text.
        steps: arithmetic steps of the explanation, the right ones and all; None without explanations, and where answers
            are no numbers.
    """

    answer: str | None
    rationale: str | None
    agrees: bool | None = None
    steps: tuple[int, int] | None = None


@dataclass(frozen=True)
class Told:
    """What one training told to the questions of a part, by the student of its best round.

    Attributes:
        right: figure -> example id -> whether it was right; a method that writes no rationales lacks `explanations`.
        said: example id -> what it said.
        student: its name in the store's `model` columns.
    """

    right: Mapping[Figure, Mapping[str, bool]]
    said: Mapping[str, Said] = field(default_factory=dict)
    student: str = ""


def told_by(store: Store, training: Training, part: Part) -> Told:
    """Reads a training's predictions.

    Raises:
        NothingToDo: it has none.
    """
    spec = training.spec
    student, questions = spec.student_name(best_round(training.evaluations())), questions_of(spec, part)
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT example_id, choices, answer, rationale, {', '.join(FIGURES.values())} "
            f"FROM {store.relation(PREDICTIONS, questions.partition)} "
            f"JOIN (SELECT example_id, choices FROM {questions.sql(store)}) USING (example_id) WHERE model = $1",
            [student],
        ).to_pylist()
    if not rows:
        raise NothingToDo(f"{student} has answered no {part} question.")
    right: dict[Figure, dict[str, bool]] = {}
    for figure, column in FIGURES.items():
        found = {row["example_id"]: row[column] for row in rows if row[column] is not None}
        if len(found) == len(rows):
            right[figure] = found
    explains, before = "explanations" in right, writes(spec.config.method) != "rationale, then answer"
    said = {row["example_id"]: _said(training.dataset, row, explains, before) for row in rows}
    return Told(right, said, student)


def questions_of(spec: TrainingSpec, part: Part) -> QuestionSet:
    """The questions of a part of a training.

    Raises:
        NothingToDo: there are no test questions.
    """
    questions = spec.test if part == "test" else spec.validation
    if questions is None:
        raise NothingToDo("A comparison on test needs test questions (dataset.test_split is null).")
    return questions


def _said(dataset: Dataset, row: Mapping[str, Any], explains: bool, before: bool) -> Said:
    """What a row of the predictions says.

    Args:
        explains: whether the student writes rationales; one that is missing then counts as an empty one.
        before: whether it answers before it explains; else its answer is the rationale's.
    """
    if not explains:
        return Said(row["answer"], None)
    rationale: str = row["rationale"] or ""
    own = dataset.parse(rationale, tuple(row["choices"])).answer
    return Said(
        row["answer"],
        row["rationale"],
        agrees=own is not None and own == row["answer"] if before else None,
        steps=right_steps(rationale) if dataset.answer_kind == "number" else None,
    )


def table_of(seeds: Sequence[Sequence[Told]], figure: Figure, examples: Sequence[str]) -> Answers:
    """(S, Q) answers.

    Args:
        seeds: for each seed its trainings, one for each fold.
        figure: what is compared.
        examples: the questions, in order.
    """
    rows = []
    for folds in seeds:
        right = {key: value for told in folds for key, value in told.right[figure].items()}
        rows.append([right[example] for example in examples])
    return np.array(rows, dtype=np.bool_)


def common_questions(seeds: Sequence[Sequence[Told]], figure: Figure) -> set[str] | None:
    """The questions that all seeds have answered; None where a training has no such figure."""
    if any(figure not in told.right for folds in seeds for told in folds):
        return None
    asked = [{key for told in folds for key in told.right[figure]} for folds in seeds]
    return set.intersection(*asked) if asked else None

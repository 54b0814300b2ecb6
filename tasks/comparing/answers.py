"""What trainings answered to the questions that are compared, as tables of seeds by questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from storage.errors import NothingToDo
from storage.schemas import PREDICTIONS
from storage.store import Store
from tasks.comparing.statistics import Answers
from tasks.questions.sets import Part
from tasks.training.folder import Training
from tasks.training.rounds import best_round

Figure = Literal["answers", "explanations", "chosen"]
FIGURES: dict[Figure, str] = {
    "answers": "correct",
    "explanations": "explanation_correct",
    "chosen": "given_correct",
}
"""Bare answers, the rationales' own, and what is chosen between them: the columns of the predictions."""


@dataclass(frozen=True)
class Told:
    """One training's rightness on the questions of a part, by the student of its best round.

    Attributes:
        right: figure -> example id -> whether it was right; a method that writes no rationales lacks `explanations`.
    """

    right: Mapping[Figure, Mapping[str, bool]]


def told_by(store: Store, training: Training, part: Part) -> Told:
    """Reads a training's predictions.

    Raises:
        NothingToDo: it has none.
    """
    spec, best = training.spec, best_round(training.evaluations())
    questions = spec.test if part == "test" else spec.validation
    if questions is None:
        raise NothingToDo("A comparison on test needs test questions (dataset.test_split is null).")
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT example_id, {', '.join(FIGURES.values())} FROM {store.relation(PREDICTIONS, questions.partition)} "
            f"SEMI JOIN {questions.sql(store)} USING (example_id) WHERE model = $1",
            [spec.student_name(best)],
        ).to_pylist()
    if not rows:
        raise NothingToDo(f"{spec.student_name(best)} has answered no {part} question.")
    right: dict[Figure, dict[str, bool]] = {}
    for figure, column in FIGURES.items():
        found = {row["example_id"]: row[column] for row in rows if row[column] is not None}
        if len(found) == len(rows):
            right[figure] = found
    return Told(right)


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

"""Evaluates a student: what it answers and explains, and what of it is right. Predictions are rows of the store."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.datasets.definition import LABEL_SETS, Dataset
from storage.errors import NothingToDo
from storage.schemas import PREDICTIONS
from storage.store import now
from tasks.questions.sets import Part
from tasks.serving.answering import Answered
from tasks.training.asking import ask_round, explains_validation
from tasks.training.calibration import figures, fitted_to
from tasks.training.folder import Training
from tasks.training.judging import judged_by_label
from tasks.training.outcomes import Calibrated, Evaluation
from tasks.training.spec import writes
from tasks.training.training_set import judged_questions


def evaluate_round(
    folder: Path, t: int, part: Part, on_progress: Callable[[int, int], None] | None = None
) -> Evaluation:
    """Lets the student that a round ended with answer the questions of a part, and stores its predictions.

    Args:
        folder: the training's folder.
        t: the round.
        part: validation in every round, test once at the end.
        on_progress: called with (texts written, texts in all).

    Raises:
        NothingToDo: none of the questions has a label.
    """
    training = Training(folder)
    spec, dataset, store = training.spec, training.dataset, training.store

    def evaluate() -> Evaluation:
        started = time.monotonic()
        questions = spec.test if part == "test" else spec.validation
        if questions is None:
            raise NothingToDo("This training has no test questions (dataset.test_split is null).")
        rows, judged_by = judged_questions(store, questions, spec.rule)
        explain = writes(spec.config.method) != "answer" and (part == "test" or explains_validation(spec))
        calibrated = training.outcome(Calibrated, t) if part == "test" else None
        decisions = calibrated.decisions if calibrated else ()
        # To choose between rounds, the weighing is fitted to the validation questions in each. Four numbers of hundreds
        # of questions flatter every round alike.
        fits = part == "validation" and explain and training.chooses_answers
        # Without its closing statement a rationale announces no set of labels, so there is nothing of its own to judge.
        last = writes(spec.config.method) == "rationale, then answer"
        judged = explain and (last or dataset.answer_kind != LABEL_SETS)
        samples = (0,) if fits else tuple(one.samples for one in decisions)
        answers = ask_round(training, t, rows, explain=explain, samples=samples, on_progress=on_progress)
        if fits:
            decisions = (fitted_to(dataset, rows, answers, 0),)
        found = [_judge(dataset, row, answered) for row, answered in zip(rows, answers, strict=True)]
        promises = (calibrated.promise if calibrated else None, *[None] * (len(decisions) - 1))  # only of the first
        # With a promise only what it is made of says how much is answered.
        refuses = spec.config.method.abstain_below is not None and spec.config.risk is None
        weighed = [
            figures(dataset, rows, answers, decision, promise, refuses)
            for decision, promise in zip(decisions, promises, strict=False)
        ]
        # The first decision is the one that the student is registered with.
        given = weighed[0][1] if weighed else [(None, None, None)] * len(rows)
        stored = [
            {
                **{name: row[name] for name in ("example_id", "answer", "rationale", "correct")},
                "explanation_correct": row["explained_right"] if judged else None,
                "given_answer": given_answer,
                "given_correct": given_correct,
                "confidence": confidence,
                "model": spec.student_name(t),
                "split": questions.split,
                "dataset": questions.dataset,
                "created_at": now(),
                "run_id": spec.training_id,
            }
            for row, (given_answer, given_correct, confidence) in zip(found, given, strict=True)
        ]
        with store.lock(f"predictions {questions.dataset}/{questions.split}"):
            store.upsert(PREDICTIONS, pa.Table.from_pylist(stored, PREDICTIONS.schema))
        correct = sum(row["correct"] for row in found)
        explained = [row for row in found if row["rationale"] is not None]
        return Evaluation(
            t=t,
            part=part,
            questions=len(found),
            answered=sum(row["answer"] is not None for row in found),
            correct=correct,
            accuracy=correct / len(found),
            explained=sum(row["rationale_answer"] is not None for row in explained),
            explanation_accuracy=sum(row["explained_right"] for row in explained) / len(found) if judged else None,
            consistency=(
                sum(row["answer"] is not None and row["answer"] == row["rationale_answer"] for row in explained)
                / len(found)
                if judged
                else None
            ),
            too_long=sum(answered.too_long for answered in answers),
            asked=training.asked(part),
            judged_by=judged_by,
            decided=tuple(decided for decided, _ in weighed),
            seconds=time.monotonic() - started,
        )

    return training.evaluated_once(t, part, evaluate)


def _judge(dataset: Dataset, row: dict[str, Any], answered: Answered) -> dict[str, Any]:
    """What the student said to a question, and whether it is right."""
    return {
        "example_id": row["example_id"],
        "answer": answered.answer,
        "rationale": answered.rationale,
        "rationale_answer": answered.rationale_answer,
        "correct": judged_by_label(dataset, row, answered.answer),
        "explained_right": judged_by_label(dataset, row, answered.rationale_answer),
    }

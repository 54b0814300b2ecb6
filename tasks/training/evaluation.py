"""Evaluates a student: what it answers and explains, and what of it is right. Predictions are rows of the store."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.student_loading import load_student
from models.trainer import torch_device
from storage.datasets.definition import Dataset
from storage.errors import NothingToDo
from storage.schemas import PREDICTIONS
from storage.store import now
from tasks.questions.sets import Part
from tasks.serving.answering import Answered, ask
from tasks.serving.settings import AskingConfig, Question
from tasks.training.folder import Training
from tasks.training.outcomes import Evaluation
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
        student = load_student(training.model(t), spec.config.student).to(torch_device(spec.config.optimisation))
        asked = writes(spec.config.method)
        if part == "validation" and asked == "answer and rationale" and not spec.config.rounds.explain_validation:
            asked = "answer"
        explain = asked != "answer"
        config = AskingConfig(
            writes=asked,
            answer_tokens=spec.config.rounds.answer_tokens,
            batch_size=spec.config.rounds.evaluation_batch,
        )
        answers = ask(
            dataset, student, [Question(row["question"], tuple(row["choices"])) for row in rows], config, on_progress
        )
        found = [_judge(dataset, row, answered) for row, answered in zip(rows, answers, strict=True)]
        stored = [
            {
                **{name: row[name] for name in ("example_id", "answer", "rationale", "correct")},
                "explanation_correct": row["explained_right"] if explain else None,
                "model": spec.student_name(t),
                "split": questions.split,
                "dataset": questions.dataset,
                "created_at": now(),
                "run_id": spec.training_id,
            }
            for row in found
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
            explanation_accuracy=sum(row["explained_right"] for row in explained) / len(found) if explain else None,
            consistency=(
                sum(row["answer"] is not None and row["answer"] == row["rationale_answer"] for row in explained)
                / len(found)
                if explain
                else None
            ),
            too_long=sum(answered.too_long for answered in answers),
            asked=training.asked(part),
            judged_by=judged_by,
            seconds=time.monotonic() - started,
        )

    return training.evaluated_once(t, part, evaluate)


def _judge(dataset: Dataset, row: dict[str, Any], answered: Answered) -> dict[str, Any]:
    """What the student said to a question, and whether it is right."""
    extra = json.loads(row["extra"] or "{}")

    def right(answer: str | None) -> bool:
        return answer is not None and dataset.equal(answer, row["label"], extra)

    return {
        "example_id": row["example_id"],
        "answer": answered.answer,
        "rationale": answered.rationale,
        "rationale_answer": answered.rationale_answer,
        "correct": right(answered.answer),
        "explained_right": right(answered.rationale_answer),
    }

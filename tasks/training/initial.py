"""The student before round 0, and what in the training set is too long for it."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.configs import NEW
from models.errors import BadStudent
from models.folders import MODEL, whole_folder
from models.methods import MethodConfig
from models.prefixes import EXPLAIN, PREDICT
from models.student import Student
from models.student_loading import make_student
from storage.datasets.definition import Dataset
from storage.datasets.prompts import with_answer
from storage.datasets.registry import get_dataset
from tasks.serving.settings import ANSWER_END
from tasks.training.folder import Training
from tasks.training.outcomes import Initial, TooLong
from tasks.training.spec import INITIAL, TrainingConfig

# Random weights come from torch's random state, which all threads share: they make their students one by one.
_RANDOM_STATE = threading.Lock()
NAMED = 5
"""How many of the examples that are too long are named."""


def make_initial(folder: Path, dataset: str, config: TrainingConfig) -> Initial:
    """Makes a training's student, and measures the examples in the training's folder with its tokenizer.

    Raises:
        BadStudent: there is no such model, it cannot be a student, or `rounds.answer_tokens` cuts answers it learns.
    """
    training, definition = Training(folder), get_dataset(dataset)

    def make() -> Initial:
        examples = training.examples()
        student = _initial_student(definition, examples, config)
        if definition.target is not None and not config.method.one_target:
            _refuse_cut_answers(student, definition.target, examples, config.rounds.answer_tokens)
        with whole_folder(training.round(INITIAL)) as partial:
            student.save(partial / MODEL)
        return Initial(
            parameters=sum(weight.numel() for weight in student.parameters()),
            too_long=measure_lengths(student, definition, examples, config.method),
        )

    return training.once(Initial, make, INITIAL)


def target_text(rationale: str, answer: str | None, method: MethodConfig) -> str:
    """What the student is to write under `explain: `; some methods have the answer in the same text."""
    if not method.one_target:
        return rationale
    if method.targets == "answer-first":
        return f"{answer}{ANSWER_END}{rationale}"
    return with_answer(rationale, answer)


def question_lengths(student: Student, dataset: Dataset, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Tokens of each question, with the prefix that makes it longer."""
    questions = [dataset.student_input(row["question"], tuple(row["choices"])) for row in rows]
    of_prefix = (_lengths(student.input_ids([prefix + text for text in questions])) for prefix in (PREDICT, EXPLAIN))
    return [max(both) for both in zip(*of_prefix, strict=True)]


def measure_lengths(student: Student, dataset: Dataset, examples: pa.Table, method: MethodConfig) -> TooLong:
    """Counts what is too long for a student."""
    rows = examples.to_pylist()
    questions = question_lengths(student, dataset, rows)
    over_questions = [row["example_id"] for row, n in zip(rows, questions, strict=True) if n > student.max_input_tokens]
    texts = [
        (row["example_id"], target_text(item["text"], row["answer"], method))
        for row in rows
        for item in (*row["positives"], *row["negatives"])
    ]
    rationales = _lengths(student.target_ids([text for _, text in texts]))
    answered = [row for row in rows if row["answer"] is not None]
    answers = _lengths(student.target_ids([row["answer"] for row in answered]))
    limit = student.max_target_tokens
    over_rationales = [key for (key, _), n in zip(texts, rationales, strict=True) if n > limit]
    over_answers = [row["example_id"] for row, n in zip(answered, answers, strict=True) if n > limit]
    over = [n for n in questions if n > student.max_input_tokens] + [n for n in (*rationales, *answers) if n > limit]
    return TooLong(
        questions=len(over_questions),
        rationales=len(over_rationales),
        answers=len(over_answers),
        examples=tuple(dict.fromkeys(over_questions + over_rationales + over_answers))[:NAMED],
        longest=max(over, default=0),
    )


def _refuse_cut_answers(student: Student, target: str, examples: pa.Table, answer_tokens: int) -> None:
    """Answers other than labels may be long, and what is cut is no answer."""
    answers = [answer for answer in examples["answer"].to_pylist() if answer is not None]
    longest = max(_lengths(student.target_ids(answers)), default=0)
    if longest > answer_tokens:
        raise BadStudent(
            f"The student learns to write the {target}, up to {longest} tokens of it, but may write only "
            f"{answer_tokens}. Set rounds.answer_tokens to {longest} or more."
        )


def _lengths(ids: list[list[int]]) -> list[int]:
    return [len(row) for row in ids]


def _initial_student(dataset: Dataset, examples: pa.Table, config: TrainingConfig) -> Student:
    """The student before training; a new one may learn its tokenizer from the training texts."""
    texts: list[str] = []
    if config.student.model == NEW and config.student.tokenizer is None:
        for row in examples.to_pylist():
            question = dataset.student_input(row["question"], tuple(row["choices"]))
            texts += [PREDICT + question, EXPLAIN + question, row["answer"] or ""]
            texts += [item["text"] for item in (*row["positives"], *row["negatives"])]
    with _RANDOM_STATE:
        return make_student(config.student, texts)

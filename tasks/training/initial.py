"""The student before round 0, and what in the training set is too long for it."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from models.errors import BadStudent
from models.folders import MODEL, whole_folder
from models.methods import MethodConfig
from models.prefixes import EXPLAIN, PREDICT
from models.student import Student
from models.student_loading import make_student
from storage.datasets.definition import Dataset
from storage.datasets.prompts import with_answer
from storage.datasets.registry import get_dataset
from tasks.serving.settings import ANSWER_END, REFUSAL
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
        BadStudent: there is no such model, it cannot be a student, or `rounds.answer_tokens` cuts what it learns.
    """
    training, definition = Training(folder), get_dataset(dataset)

    def make() -> Initial:
        student = _initial_student(definition, training, config)
        if config.method.abstain_below is not None:
            _refuse_cut_refusal(student, config.rounds.answer_tokens)
        if definition.target is not None and not config.method.one_target:
            _refuse_cut_answers(student, definition.target, training, config.rounds.answer_tokens)
        with whole_folder(training.round(INITIAL)) as partial:
            student.save(partial / MODEL)
        return Initial(
            parameters=sum(weight.numel() for weight in student.parameters()),
            too_long=measure_lengths(student, definition, training.example_parts(), config.method),
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


def measure_lengths(
    student: Student, dataset: Dataset, parts: Iterable[Sequence[Mapping[str, Any]]], method: MethodConfig
) -> TooLong:
    """Counts what is too long for a student.

    Args:
        parts: the rows of a training set, in order.
    """
    limit, longest = student.max_target_tokens, 0
    over_questions: list[str] = []
    over_rationales: list[str] = []
    over_answers: list[str] = []
    for rows in parts:
        answered = [row for row in rows if row["answer"] is not None]
        texts = [
            (row["example_id"], target_text(item["text"], row["answer"], method))
            for row in rows
            for item in (*row["positives"], *row["negatives"])
        ]
        for ids, lengths, most, over in (
            ([row["example_id"] for row in rows], question_lengths(student, dataset, rows), student.max_input_tokens,
             over_questions),
            ([key for key, _ in texts], _lengths(student.target_ids([text for _, text in texts])), limit,
             over_rationales),
            ([row["example_id"] for row in answered],
             _lengths(student.target_ids([row["answer"] for row in answered])), limit, over_answers),
        ):  # fmt: skip
            too_long = [(key, n) for key, n in zip(ids, lengths, strict=True) if n > most]
            over += [key for key, _ in too_long]
            longest = max(longest, *(n for _, n in too_long)) if too_long else longest
    return TooLong(
        questions=len(over_questions),
        rationales=len(over_rationales),
        answers=len(over_answers),
        examples=tuple(dict.fromkeys(over_questions + over_rationales + over_answers))[:NAMED],
        longest=longest,
    )


def _refuse_cut_answers(student: Student, target: str, training: Training, answer_tokens: int) -> None:
    """Answers other than labels may be long, and what is cut is no answer."""
    longest = 0
    for rows in training.example_parts(["answer"]):
        answers = [row["answer"] for row in rows if row["answer"] is not None]
        longest = max(longest, *_lengths(student.target_ids(answers)), 0)
    if longest > answer_tokens:
        raise BadStudent(
            f"The student learns to write the {target}, up to {longest} tokens of it, but may write only "
            f"{answer_tokens}. Set rounds.answer_tokens to {longest} or more."
        )


def _refuse_cut_refusal(student: Student, answer_tokens: int) -> None:
    [longest] = _lengths(student.target_ids([REFUSAL]))
    if longest > answer_tokens:
        raise BadStudent(
            f"The student learns to answer {REFUSAL!r}, {longest} tokens (method.abstain_below), but may write only "
            f"{answer_tokens}. Set rounds.answer_tokens to {longest} or more."
        )


def _lengths(ids: list[list[int]]) -> list[int]:
    return [len(row) for row in ids]


def _initial_student(dataset: Dataset, training: Training, config: TrainingConfig) -> Student:
    """The student before training; a new one may learn its tokenizer from the training texts."""

    def texts() -> Iterator[str]:
        for row in chain.from_iterable(training.example_parts()):
            question = dataset.student_input(row["question"], tuple(row["choices"]))
            yield from (PREDICT + question, EXPLAIN + question, row["answer"] or "")
            yield from (item["text"] for item in (*row["positives"], *row["negatives"]))

    with _RANDOM_STATE:
        return make_student(config.student, texts())

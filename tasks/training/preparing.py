"""Prepares a training: its data, its folder, the student as it is before round 0."""

import os
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from models.checkpoints import MODEL, whole_folder
from models.student import EXPLAIN, PREDICT, Student
from models.student_loading import NEW, make_student
from storage.datasets.definition import Dataset
from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo
from storage.ids import content_id
from storage.store import Store
from storage.votes import VoteRule
from tasks.questions import DatasetConfig, QuestionSet
from tasks.training.data import judged_questions, training_set
from tasks.training.outcomes import once
from tasks.training.spec import (
    EXAMPLES_FILE,
    INITIAL,
    TrainingConfig,
    TrainingSpec,
    read_spec,
    round_folder,
    training_id,
)

# Random weights come from torch's random state, which is the process's, and a run prepares its methods in threads.
_RANDOM_STATE = threading.Lock()
NAMED = 5
"""Examples that are too long and named one by one."""


class TooLong(BaseModel):
    """What a student cannot read or write whole; it is left out, never cut.

    Attributes:
        questions: longer than `max_input_tokens`; not trained on.
        rationales, answers: longer than `max_target_tokens`; not trained on, their questions are.
        examples: ids of the first few.
        longest: tokens of the longest text that was left out.
    """

    questions: int = 0
    rationales: int = 0
    answers: int = 0
    examples: tuple[str, ...] = ()
    longest: int = 0


class Prepared(BaseModel):
    """A training that can begin.

    Attributes:
        folder: where everything of it lies.
        training_id: its content id.
        name: of its student.
        questions: it trains on.
        positives, negatives: distinct rationales of the teacher among them.
        without_answer, without_positives, without_negatives: questions that lack them.
        left_out: questions with neither answer nor rationale.
        parameters: of the student.
        too_long: what is left out because of its length.
    """

    model_config = ConfigDict(extra="forbid")

    folder: Path
    training_id: str
    name: str
    questions: int
    positives: int
    negatives: int
    without_answer: int
    without_positives: int
    without_negatives: int
    left_out: int
    parameters: int
    too_long: TooLong


@dataclass(frozen=True)
class Parts:
    """Which questions are for what."""

    train: QuestionSet
    validation: QuestionSet
    test: QuestionSet | None

    @classmethod
    def of(cls, config: DatasetConfig, dataset: str) -> "Parts":
        """The parts of a configured dataset, whose stored name is `dataset`."""
        sets = {part: config.question_set(dataset, part) for part in config.splits()}
        return cls(sets["train"], sets["validation"], sets.get("test"))


def prepare_training(
    trainings: Path, store: Store, dataset: str, rule: VoteRule, parts: Parts, config: TrainingConfig
) -> Prepared:
    """Makes `trainings/<training id>`, or finds it there.

    Args:
        trainings: the folder of all trainings.
        dataset: name or path of the definition.
        rule: of votes that are stored.
        parts: which questions are for what.
        config: the training.

    Raises:
        NothingToDo: nothing to train on, or nothing that says what is right for validation or test.
        BadStudent: no such student.
    """
    found = training_set(store, parts.train, rule, config.method)
    identity = training_id(config, found.digest, content_id("validation", sorted(parts.validation.ids(store))))
    folder = trainings / identity
    spec = TrainingSpec(
        training_id=identity,
        dataset=dataset,
        store=store.files.given,
        rule=rule,
        train=parts.train,
        validation=parts.validation,
        test=parts.test,
        data_digest=found.digest,
        test_digest=content_id("test", sorted(parts.test.ids(store))) if parts.test else None,
        config=config,
    )

    for questions in filter(None, (parts.validation, parts.test)):  # now, not after hours of training
        judged_questions(store, questions, rule)

    def prepare() -> Prepared:
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(found.table, folder / EXAMPLES_FILE)
        student = _initial_student(get_dataset(dataset), found.table, config)
        with whole_folder(round_folder(folder, INITIAL)) as partial:
            student.save(partial / MODEL)
        too_long = measure_lengths(student, get_dataset(dataset), found.table, one_target=config.method.one_target)
        if too_long.questions == found.table.num_rows:
            raise NothingToDo(
                f"All {too_long.questions:,} questions are longer than student.max_input_tokens "
                f"({student.max_input_tokens}); the longest has {too_long.longest:,}. Raise it."
            )
        spec.write(folder)
        return Prepared(
            folder=folder,
            training_id=identity,
            name=spec.name,
            questions=found.table.num_rows,
            positives=sum(len(row) for row in found.table["positives"].to_pylist()),
            negatives=sum(len(row) for row in found.table["negatives"].to_pylist()),
            without_answer=found.without_answer,
            without_positives=found.without_positives,
            without_negatives=found.without_negatives,
            left_out=found.left_out,
            parameters=sum(weight.numel() for weight in student.parameters()),
            too_long=too_long,
        )

    prepared = once(folder / "prepared.json", Prepared, prepare)
    if read_spec(folder) != spec:  # settings of speed and safety may change between two runs, and the test questions
        spec.write(folder)
    for leftover in interrupted_leftovers(folder):  # one may lie in another that is gone by then
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    return prepared


def open_training(folder: Path) -> tuple[TrainingSpec, Dataset, Store]:
    """What every later step begins with."""
    spec = read_spec(folder)
    return spec, get_dataset(spec.dataset), spec.open_store()


def read_examples(folder: Path) -> pa.Table:
    """The training set, of `tasks.training.data.SCHEMA`."""
    return pq.read_table(folder / EXAMPLES_FILE)


def target_text(rationale: str, answer: str | None, *, one_target: bool) -> str:
    """What the student is to write under `explain: `; for single-task the answer follows in the same text."""
    return f"{rationale} So the answer is {answer}." if one_target else rationale


def question_lengths(student: Student, dataset: Dataset, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Tokens of each question under the prefix that makes it longer."""
    questions = [dataset.student_input(row["question"], tuple(row["choices"])) for row in rows]
    of_prefix = (_lengths(student.input_ids([prefix + text for text in questions])) for prefix in (PREDICT, EXPLAIN))
    return [max(both) for both in zip(*of_prefix, strict=True)]


def measure_lengths(student: Student, dataset: Dataset, examples: pa.Table, *, one_target: bool = False) -> TooLong:
    """Counts what is too long for a student."""
    rows = examples.to_pylist()
    questions = question_lengths(student, dataset, rows)
    over_questions = [row["example_id"] for row, n in zip(rows, questions, strict=True) if n > student.max_input_tokens]
    texts = [
        (row["example_id"], target_text(item["text"], row["answer"], one_target=one_target))
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


def interrupted_leftovers(folder: Path) -> list[Path]:
    """Half-written files and folders of processes that are gone; others may be at work in the same folder."""
    found = []
    for place, folders, files in os.walk(folder):  # rglob fails where a folder goes while it looks
        for name in (*folders, *files):
            half = re.fullmatch(r"\..*\.(?:partial|replaced)-([0-9]+)", name)
            if half and not psutil.pid_exists(int(half[1])):
                found.append(Path(place, name))
    return found

"""A training's folder. Only this module knows what lies in it, who works in it, and what is done.

    trainings/<training id>/
        training.json           the specification (`tasks.training.spec`)
        examples.parquet        the training set
        prepared.json           outcome: the training can begin
        initial/                the student before round 0: model/ and its outcome, initial.json
        round-000/
            negatives.json      outcome: the student's own negatives are stored
            discriminator/      the discriminator, in rounds that update it
            quality.json        outcome: every rationale has a score
            step-00000094/      checkpoint: model/, and in the newest round the optimizer's state
            steps.jsonl         figures of the optimizer's steps
            trained.json        outcome: the student is trained
            validation.json     outcome: it is evaluated; test.json in the best round
            calibrated.json     outcome, in the best round: how the student chooses its answers
        forgotten.json      it learned from questions that were forgotten; only outcomes and steps are left
        .prepare.lock, .run.lock, .work.lock   see below

A step is done when its outcome exists: a small JSON file that is written last, whole or not at all. An interrupted step
is run again, so whatever it stores before its outcome must allow that.

Locks keep processes out of each other's way. They are released however their process dies. A run holds the *run lock*
while it works on the training (`held`), so a second run with the same configuration waits and then finds everything
done. The process that computes a step holds the *work lock* (`once`): the worker of a killed run lives on for a moment,
and the run that takes over must not write at the same time. The *prepare lock* (`preparing`) is another one than the
run lock: else the run that prepared the training would take that at once, and one that also came to prepare it would
wait, without a word, until it is trained.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import Timeout

from models.folders import MODEL, STEPS_FILE, is_leftover, read_steps, whole_file
from storage.datasets.definition import Dataset
from storage.datasets.registry import get_dataset
from storage.errors import UsageError
from storage.locks import file_lock
from storage.store import Store
from tasks.questions.sets import Part
from tasks.running.worker import refuse_if_stopping
from tasks.training.outcomes import (
    Calibrated,
    Evaluation,
    Initial,
    NegativesSampled,
    Outcome,
    Preparation,
    QualityUpdated,
    RoundTrained,
)
from tasks.training.spec import INITIAL, TrainingSpec

TRAININGS = "trainings"
RUN_LOCK, WORK_LOCK, PREPARE_LOCK = LOCKS = (".run.lock", ".work.lock", ".prepare.lock")
PART_ROWS = 8192
"""Questions that are in memory at a time, with their texts and tokens."""
LOOK_S = 0.5
"""Seconds for which one attempt waits for a lock that another run holds."""
_SPEC, _EXAMPLES, _DISCRIMINATOR, _DISCRIMINATOR_WORK = (
    "training.json", "examples.parquet", "discriminator", "discriminator-training",
)  # fmt: skip
_FORGOTTEN = "forgotten.json"
_NAMES: dict[type[Outcome], str] = {
    Preparation: "prepared", Initial: "initial", NegativesSampled: "negatives", QualityUpdated: "quality",
    RoundTrained: "trained", Calibrated: "calibrated",
}  # fmt: skip
Kind = TypeVar("Kind", bound=Outcome)


class Training:
    """A training's folder.

    Args:
        folder: `<home>/trainings/<training id>`; it may not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # ---- what it is ----

    @cached_property
    def spec(self) -> TrainingSpec:
        """Its specification, as it was when it was first read.

        Raises:
            UsageError: the folder is not a training.
        """
        file = self.folder / _SPEC
        if not file.is_file():
            raise UsageError(f"{self.folder} is no training: it has no {_SPEC}. Trainings are made by `qcrd distill`.")
        return TrainingSpec.model_validate(json.loads(file.read_text(encoding="utf-8")))

    def write_spec(self, spec: TrainingSpec) -> None:
        """Replaces the specification."""
        with whole_file(self.folder / _SPEC) as partial:
            partial.write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
        self.__dict__.pop("spec", None)

    @property
    def is_one(self) -> bool:
        """Whether the folder holds a training."""
        return (self.folder / _SPEC).is_file()

    @property
    def written_at(self) -> float:
        """When its specification was last written, in seconds since 1970."""
        return (self.folder / _SPEC).stat().st_mtime

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset of its questions."""
        return get_dataset(self.spec.dataset)

    @property
    def chooses_answers(self) -> bool:
        """Whether its student's answer is chosen between bare answer and rationales (docs/distillation.md). A student
        that writes something else than the label, such as an equation, gives that."""
        return bool(self.spec.config.answering.samples) and self.dataset.target is None

    @property
    def store(self) -> Store:
        """Where its questions, samples, scores and predictions are."""
        return self.spec.open_store()

    def examples(self) -> pa.Table:
        """The training set, with `tasks.training.training_set.SCHEMA`; `example_parts` does without all in memory."""
        self._refuse_forgotten()
        return pq.read_table(self.folder / _EXAMPLES)

    def example_parts(self, columns: list[str] | None = None) -> Iterator[list[dict[str, Any]]]:
        """The rows of the training set in order, so many at a time that memory does not matter."""
        self._refuse_forgotten()
        with pq.ParquetFile(self.folder / _EXAMPLES) as file:
            for batch in file.iter_batches(PART_ROWS, columns=columns):
                yield batch.to_pylist()

    def write_examples(self, file: Path) -> None:
        """Stores the training set, a copy of a file."""
        with whole_file(self.folder / _EXAMPLES) as partial:
            shutil.copyfile(file, partial)

    # ---- what was forgotten ----

    def learned_from(self, examples: Collection[str]) -> set[str]:
        """Those of some examples that are in its training set, as far as that is there."""
        if not examples or not (self.folder / _EXAMPLES).is_file():
            return set()
        wanted = set(examples)
        with pq.ParquetFile(self.folder / _EXAMPLES) as file:
            batches = file.iter_batches(columns=["example_id"])
            return {key for batch in batches for key in batch["example_id"].to_pylist() if key in wanted}

    def forget(self, moment: datetime) -> None:
        """Removes all that may quote its questions, its students and their tokenizers included; its outcomes stay.

        The caller holds its locks. A killed process's work is ended by the next call.
        """
        with whole_file(self.folder / _FORGOTTEN) as partial:
            partial.write_text(json.dumps({"forgotten_at": moment.isoformat(timespec="seconds")}), encoding="utf-8")
        outcomes = {f"{name}.json" for name in (*_NAMES.values(), "validation", "test")} | {STEPS_FILE}
        kept = {_SPEC, _FORGOTTEN, *LOCKS} | outcomes
        for path in self.folder.iterdir():
            if path.is_dir() and not is_leftover(path.name):
                for inner in path.iterdir():
                    if inner.name not in outcomes:
                        _remove(inner)
            elif path.name not in kept:
                _remove(path)

    @property
    def is_forgotten(self) -> bool:
        """Whether it was told to `forget`."""
        return (self.folder / _FORGOTTEN).is_file()

    def _refuse_forgotten(self) -> None:
        if self.is_forgotten:
            day = json.loads((self.folder / _FORGOTTEN).read_text(encoding="utf-8"))["forgotten_at"][:10]
            raise UsageError(
                f"Training {self.folder.name} learned from questions that were forgotten on {day} (`qcrd forget`): its "
                "figures stay, its training set and students are gone. The same `qcrd distill` trains another one."
            )

    # ---- where its files lie ----

    def round(self, t: int) -> Path:
        """The folder of round t; for INITIAL, that of the student before training."""
        return self.folder / ("initial" if t == INITIAL else f"round-{t:03d}")

    def discriminator(self, version: int) -> Path:
        """The folder of the discriminator that last changed in round `version`."""
        return self.round(version) / _DISCRIMINATOR

    def discriminator_work(self, version: int) -> Path:
        """The folder where that discriminator is trained; removed afterwards."""
        return self.round(version) / _DISCRIMINATOR_WORK

    def checkpoint(self, t: int) -> Path:
        """The checkpoint that round t ended with; for INITIAL, the student before training.

        Raises:
            UsageError: the round is not trained, or its checkpoint was pruned.
        """
        self._refuse_forgotten()
        if t == INITIAL:
            return self.round(INITIAL)
        trained = self.outcome(RoundTrained, t)
        if trained is None:
            raise UsageError(
                f"Round {t} of {self.folder} is not trained yet; run the same `qcrd distill` again to go on."
            )
        checkpoint = self.round(t) / trained.checkpoint
        if not (checkpoint / MODEL).is_dir():
            raise UsageError(
                f"The checkpoint of round {t} in {self.folder} was pruned: only the best rounds and the newest are "
                "kept. Raise rounds.keep to keep more."
            )
        return checkpoint

    def model(self, t: int) -> Path:
        """The student that round t ended with, as a model folder. Raises what `checkpoint` raises."""
        return self.checkpoint(t) / MODEL

    def steps(self, t: int) -> list[dict[str, float]]:
        """Figures of the optimizer's steps of round t, as far as it is trained."""
        return read_steps(self.round(t))

    # ---- what is done ----

    def outcome(self, kind: type[Kind], t: int | None = None) -> Kind | None:
        """A step's outcome; None if it is not done.

        Args:
            kind: the outcome's class; evaluations have `evaluation`.
            t: the round; None for a step outside the rounds.
        """
        return _read(self._outcome_file(kind, t), kind)

    def evaluation(self, t: int, part: Part) -> Evaluation | None:
        """The evaluation of round t; None if there is none, or if it asked other test questions."""
        found = _read(self.round(t) / f"{part}.json", Evaluation)
        return None if found is None or found.asked != self.asked(part) else found

    def asked(self, part: Part) -> str | None:
        """Content id of the test questions; None for the validation questions, which the training's id covers."""
        return self.spec.test_digest if part == "test" else None

    def evaluations(self) -> list[Evaluation]:
        """The validation results of all rounds so far, in order."""
        found: list[Evaluation] = []
        while (result := self.evaluation(len(found), "validation")) is not None:
            found.append(result)
        return found

    def once(self, kind: type[Kind], step: Callable[[], Kind], t: int | None = None) -> Kind:
        """A step's outcome. If it is not stored yet, computes the step and stores it.

        Args:
            kind: the outcome's class.
            step: computes it, under the work lock.
            t: the round; None for a step outside the rounds.
        """
        return self._once(self._outcome_file(kind, t), lambda: self.outcome(kind, t), step)

    def evaluated_once(self, t: int, part: Part, step: Callable[[], Evaluation]) -> Evaluation:
        """Like `once`, for the evaluation of round t."""
        return self._once(self.round(t) / f"{part}.json", lambda: self.evaluation(t, part), step)

    def write_outcome(self, outcome: Outcome, t: int | None = None) -> None:
        """Marks a step as done."""
        _write(self._outcome_file(type(outcome), t), outcome)

    def _outcome_file(self, kind: type[Outcome], t: int | None) -> Path:
        return (self.folder if t is None else self.round(t)) / f"{_NAMES[kind]}.json"

    def _once(self, file: Path, known: Callable[[], Kind | None], step: Callable[[], Kind]) -> Kind:
        if (found := known()) is not None:
            return found
        with self.at_work():
            if (found := known()) is not None:  # another process made it meanwhile
                return found
            outcome = step()
            _write(file, outcome)
        return outcome

    # ---- who works in it ----

    @contextmanager
    def held(self, spec: TrainingSpec, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Keeps other runs out while the block runs.

        Args:
            spec: this run's specification. Its settings for speed and safety, and its test questions, apply meanwhile.
            waiting: called once if another run holds the training.

        Raises:
            RunStopped: this run was stopped while it waited.
        """
        with _locked(self.folder / RUN_LOCK, waiting):
            (self.folder / RUN_LOCK).touch()  # its time says when the training was last of use
            with self.at_work():
                self._remove_leftovers()
                if not self.is_one or self.spec != spec:
                    self.write_spec(spec)
            yield

    def preparing(self) -> AbstractContextManager[None]:
        """Keeps other runs from preparing the training. Waits silently: it takes seconds."""
        return _locked(self.folder / PREPARE_LOCK, lambda: None)

    def at_work(self) -> AbstractContextManager[None]:
        """Keeps other processes from computing steps. Waits silently: their run is gone, and they soon will be."""
        return _locked(self.folder / WORK_LOCK, lambda: None)

    def _remove_leftovers(self) -> None:
        """Removes what dead processes left half-written; nobody else is at work."""
        for place, folders, files in os.walk(self.folder):
            for name in filter(is_leftover, (*folders, *files)):
                _remove(Path(place, name))
            folders[:] = [name for name in folders if not is_leftover(name)]


def trainings_in(home: Path) -> list[Training]:
    """The trainings of a state folder, the oldest specification first."""
    found = [Training(folder) for folder in (home / TRAININGS).glob("[!.]*")]  # others are being removed
    return sorted((training for training in found if training.is_one), key=lambda training: training.written_at)


def _read(file: Path, kind: type[Kind]) -> Kind | None:
    return kind.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write(file: Path, outcome: Outcome) -> None:
    with whole_file(file) as partial:
        partial.write_text(outcome.model_dump_json(indent=1) + "\n", encoding="utf-8")


@contextmanager
def _locked(file: Path, waiting: Callable[[], None]) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    lock, said = file_lock(file), False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=LOOK_S)  # in short turns, so that a run can be stopped while it waits
        except Timeout:
            refuse_if_stopping()
            if not said:
                waiting()
                said = True
    try:
        yield
    finally:
        lock.release()

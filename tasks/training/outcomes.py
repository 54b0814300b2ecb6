"""What the steps of a training come to. Each outcome is a small JSON file, written last: where it is, the step is done
and is not done again."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from models.folders import MODEL
from storage.errors import UsageError
from tasks.questions.sets import Part
from tasks.training.spec import INITIAL, round_folder

NEGATIVES_FILE = "negatives.json"
QUALITY_FILE = "quality.json"
Outcome = TypeVar("Outcome", bound=BaseModel)


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


class Initial(BaseModel):
    """The student before training.

    Attributes:
        parameters: how many it has.
        too_long: for it.
    """

    parameters: int
    too_long: TooLong


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


class NegativesSampled(BaseModel):
    """The student samples that a round has as negatives.

    Attributes:
        round_before: the round whose student wrote them; -1 for the student before training; None for none.
        samples: how many there are.
        sampled: how many of them this step made; the others were stored.
        unfinished: those of them that reached the longest length.
        right: those of them whose own answer is the question's answer target; hot samples are negatives all the same.
        seconds: this step took.
    """

    round_before: int | None
    samples: int = 0
    sampled: int = 0
    unfinished: int = 0
    right: int = 0
    seconds: float = 0.0


class QualityUpdated(BaseModel):
    """The discriminator of a round.

    Attributes:
        version: the round in which it last changed.
        steps: optimizer steps of this round's update; 0 where there was none.
        scored: rationales that got a score in this round.
        too_long: rationales without one, because with their question they exceed `max_tokens`.
        positive_score, minority_score, student_score: means over the questions that it was not trained on.
        auc_minority, auc_student: how surely it ranks a positive above a minority sample, or above a student's, over
            the same; 0.5 is chance; None where there are none.
        seconds: it took.
    """

    version: int | None
    steps: int = 0
    scored: int = 0
    too_long: int = 0
    positive_score: float | None = None
    minority_score: float | None = None
    student_score: float | None = None
    auc_minority: float | None = None
    auc_student: float | None = None
    seconds: float = 0.0


class RoundTrained(BaseModel):
    """A round whose training is over.

    Attributes:
        t: the round.
        checkpoint: what it ended with, relative to the round's folder.
        steps: optimizer steps of the round.
        examples: trained on in one epoch.
        means: each term of the loss, mean per example over the round.
        seconds: the training took; of a resumed round, since the resume.
        left_out: rationales that are too long for the student, or questions.
    """

    t: int
    checkpoint: str
    steps: int
    examples: int
    means: dict[str, float]
    seconds: float
    left_out: int = 0


class Evaluation(BaseModel):
    """A student's figures on one part of the questions.

    Attributes:
        t: the round that the student ended.
        part: validation or test.
        questions: with a label to compare with.
        answered: with an answer that could be read.
        correct: equal to the label.
        accuracy: correct / questions.
        explained: questions with a rationale whose own answer could be read; 0 where none was asked for.
        explanation_accuracy: rationales whose own answer equals the label / questions; None where none was asked for.
        consistency: answers equal to their rationale's own / questions; None likewise.
        too_long: questions longer than the student reads; they count as wrong.
        asked: content id of the test questions; None for the validation questions, which the training's id stands for.
        judged_by: `gold`, or `teacher` where majority answers stand in for missing labels.
        seconds: it took.
    """

    t: int
    part: Part
    questions: int
    answered: int
    correct: int
    accuracy: float
    explained: int = 0
    explanation_accuracy: float | None = None
    consistency: float | None = None
    too_long: int = 0
    asked: str | None = None
    judged_by: str = "gold"
    seconds: float = 0.0


def trained_file(folder: Path, t: int) -> Path:
    """Where the outcome of a round's training lies."""
    return round_folder(folder, t) / "trained.json"


def evaluation_file(folder: Path, t: int, part: Part) -> Path:
    """Where the outcome lies."""
    return round_folder(folder, t) / f"{part}.json"


def discriminator_folder(folder: Path, version: int) -> Path:
    """Where the discriminator lies that last changed in round `version`."""
    return round_folder(folder, version) / "discriminator"


def checkpoint_of(folder: Path, t: int) -> Path:
    """The checkpoint that a round ended with; of round INITIAL the student before training.

    Raises:
        UsageError: the round is not trained, or its checkpoint was pruned.
    """
    if t == INITIAL:
        return round_folder(folder, INITIAL)
    trained = read_outcome(trained_file(folder, t), RoundTrained)
    if trained is None:
        raise UsageError(f"Round {t} of {folder} is not trained yet; run the same `qcrd distill` again to go on.")
    checkpoint = round_folder(folder, t) / trained.checkpoint
    if not (checkpoint / MODEL).is_dir():
        raise UsageError(
            f"The checkpoint of round {t} in {folder} was pruned: only the best rounds and the newest are kept. "
            "Raise rounds.keep to keep more."
        )
    return checkpoint


def read_outcome(file: Path, kind: type[Outcome]) -> Outcome | None:
    """The outcome of a step that is done, or None."""
    return kind.model_validate(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def once(file: Path, kind: type[Outcome], step: Callable[[], Outcome]) -> Outcome:
    """The outcome of a step: the stored one, or else the step is done and its outcome stored.

    A step that is interrupted leaves no outcome, so it is done again; whatever it stores by then must bear that.
    """
    known = read_outcome(file, kind)
    if known is not None:
        return known
    outcome = step()
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(outcome.model_dump_json(indent=1) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
    return outcome

"""A training's rounds as rows for people, in the terminal and in Prefect's UI."""

from pathlib import Path
from typing import Any

from storage.errors import NothingToDo, UnknownName
from tasks.training.agreement import agreements
from tasks.training.folder import Training, trainings_in
from tasks.training.outcomes import NegativesSampled, QualityUpdated, RoundTrained


def find_training(home: Path, training_id: str | None) -> Training:
    """A training by its id, or the newest one.

    Raises:
        NothingToDo: there is none.
        UnknownName: there is none with that id.
    """
    found = {training.folder.name: training for training in trainings_in(home)}
    if not found:
        raise NothingToDo(f"There are no trainings under {home}; `qcrd distill lab` makes one.")
    if training_id is None:
        return list(found.values())[-1]
    if training_id not in found:
        raise UnknownName("training", training_id, found)
    return found[training_id]


def round_rows(training: Training) -> list[dict[str, Any]]:
    """One row for each finished round of a training: validation, loss and its terms, discriminator, seconds."""
    rows, teacher = [], {one.t: one.share for one in agreements(training)}
    for result in training.evaluations():
        trained = training.outcome(RoundTrained, result.t)
        quality = training.outcome(QualityUpdated, result.t)
        row: dict[str, Any] = {"round": result.t, "validation": result.given_accuracy}
        if result.decided:
            row |= {"bare answers": result.accuracy}
        if result.explanation_accuracy is not None:
            row |= {"explanations": result.explanation_accuracy, "consistency": result.consistency}
        if teacher:
            row |= {"teacher": teacher.get(result.t)}
        row |= trained.means if trained else {}
        if quality and quality.version is not None:
            row |= {"AUC minority": quality.auc_minority, "AUC student": quality.auc_student}
        row["seconds"] = sum(round_seconds(training, result.t).values())
        rows.append(row)
    return rows


def round_seconds(training: Training, t: int) -> dict[str, float]:
    """Seconds of each step of a finished round, as noted when it was done."""
    steps = {
        "sampling": training.outcome(NegativesSampled, t),
        "discriminator": training.outcome(QualityUpdated, t),
        "student": training.outcome(RoundTrained, t),
        "validation": training.evaluation(t, "validation"),
    }
    return {name: step.seconds for name, step in steps.items() if step}

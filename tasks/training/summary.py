"""A training's rounds as rows, for people: in the terminal, in Prefect's UI."""

from pathlib import Path
from typing import Any

from storage.errors import NothingToDo, UnknownName
from tasks.training.outcomes import QUALITY_FILE, QualityUpdated, RoundTrained, read_outcome, trained_file
from tasks.training.rounds import evaluations
from tasks.training.spec import SPEC_FILE, TrainingSpec, read_spec, round_folder


def find_training(trainings: Path, training_id: str | None) -> tuple[TrainingSpec, Path]:
    """A training by its id, or the newest one.

    Raises:
        NothingToDo: there is none.
        UnknownName: there is none of that id.
    """
    found = {file.parent.name: file.parent for file in trainings.glob(f"*/{SPEC_FILE}")}
    if not found:
        raise NothingToDo(f"There are no trainings under {trainings}; `qcrd distill lab` makes one.")
    if training_id is None:
        folder = max(found.values(), key=lambda folder: (folder / SPEC_FILE).stat().st_mtime)
    elif training_id in found:
        folder = found[training_id]
    else:
        raise UnknownName("training", training_id, found)
    return read_spec(folder), folder


def round_rows(folder: Path) -> list[dict[str, Any]]:
    """One row for each finished round of a training: validation, loss and its terms, discriminator, seconds."""
    rows = []
    for result in evaluations(folder):
        trained = read_outcome(trained_file(folder, result.t), RoundTrained)
        quality = read_outcome(round_folder(folder, result.t) / QUALITY_FILE, QualityUpdated)
        row: dict[str, Any] = {"round": result.t, "validation": result.accuracy}
        if result.explanation_accuracy is not None:
            row |= {"explanations": result.explanation_accuracy, "consistency": result.consistency}
        row |= trained.means if trained else {}
        if quality and quality.version is not None:
            row |= {"AUC minority": quality.auc_minority, "AUC student": quality.auc_student}
        row["seconds"] = sum(step.seconds for step in (trained, quality, result) if step)
        rows.append(row)
    return rows

"""What a round's training came to, and the checkpoint that it ended with."""

from pathlib import Path

from pydantic import BaseModel

from models.checkpoints import MODEL
from storage.errors import UsageError
from tasks.training.outcomes import read_outcome
from tasks.training.spec import INITIAL, round_folder


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


def trained_file(folder: Path, t: int) -> Path:
    """Where the outcome of a round's training lies."""
    return round_folder(folder, t) / "trained.json"


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

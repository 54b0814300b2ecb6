"""What a worker process does for a training, as functions that import what they need only when they are called.

A run only passes them to its worker (`tasks.running.worker`). So its own process does not load torch and transformers,
which takes seconds and memory; a run that finds everything done needs neither.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.questions.sets import Part
from tasks.training.outcomes import Calibrated, Evaluation, Initial, NegativesSampled, QualityUpdated, RoundTrained
from tasks.training.spec import TrainingConfig

if TYPE_CHECKING:
    from models.trainer import StepReport

OnProgress = Callable[[int, int], None]


def make_initial(folder: Path, dataset: str, config: TrainingConfig) -> Initial:
    """See `tasks.training.initial`."""
    from tasks.training.initial import make_initial

    return make_initial(folder, dataset, config)


def sample_negatives(folder: Path, t: int, on_progress: OnProgress | None = None) -> NegativesSampled:
    """See `tasks.training.negatives`."""
    from tasks.training.negatives import sample_negatives

    return sample_negatives(folder, t, on_progress)


def update_quality(folder: Path, t: int, on_report: "StepReport | None" = None) -> QualityUpdated:
    """See `tasks.training.quality`."""
    from tasks.training.quality import update_quality

    return update_quality(folder, t, on_report)


def train_round(folder: Path, t: int, on_report: "StepReport | None" = None) -> RoundTrained:
    """See `tasks.training.student`."""
    from tasks.training.student import train_round

    return train_round(folder, t, on_report)


def calibrate(folder: Path, t: int, on_progress: OnProgress | None = None) -> Calibrated:
    """See `tasks.training.calibration`."""
    from tasks.training.calibration import calibrate

    return calibrate(folder, t, on_progress)


def evaluate_round(folder: Path, t: int, part: Part, on_progress: OnProgress | None = None) -> Evaluation:
    """See `tasks.training.evaluation`."""
    from tasks.training.evaluation import evaluate_round

    return evaluate_round(folder, t, part, on_progress)

"""Which round is the best, when to stop, and which checkpoints may go.

Kept are the models of the best round, of the `rounds.keep` newest rounds, and of the rounds that `negatives.lag` still
needs as the student's past. Only the newest round keeps its optimizer state, since training goes on from there. Nothing
else is ever removed: figures, scores, rationales and predictions of all rounds stay.
"""

import shutil
from pathlib import Path

from models.folders import OPTIMIZER, STATE
from storage.errors import UsageError
from tasks.training.folder import Training
from tasks.training.outcomes import Evaluation, RoundTrained
from tasks.training.spec import RoundsConfig, TrainingSpec


def best_round(results: list[Evaluation]) -> int:
    """The round with the highest validation accuracy, of chosen answers where they are; the earliest of equal ones.

    Raises:
        UsageError: no round is finished.
    """
    if not results:
        raise UsageError("No round is finished yet; run the same `qcrd distill` again to go on.")
    return max(results, key=lambda result: (result.given_accuracy, -result.t)).t


def is_over(results: list[Evaluation], config: RoundsConfig) -> bool:
    """Whether no round is left: all are done, or `patience` rounds in a row were no better."""
    if len(results) >= config.rounds:
        return True
    return config.patience is not None and bool(results) and len(results) - 1 - best_round(results) >= config.patience


def kept_rounds(spec: TrainingSpec, done: int, best: int) -> set[int]:
    """The rounds whose models stay once round `done` is over."""
    config = spec.config
    kept = {best, *range(max(0, done + 1 - config.rounds.keep), done + 1)}
    if config.method.uses_negatives and isinstance(config.negatives.lag, int):
        # Round done + 1 needs done + 1 - lag, the one after it the next, and so on.
        kept |= set(range(max(0, done + 1 - config.negatives.lag), done + 1))
    return kept


def prune(training: Training) -> list[Path]:
    """Removes model weights and optimizer states that no rule keeps; returns what was removed."""
    spec, results = training.spec, training.evaluations()
    if not results:
        return []
    done = len(results) - 1
    kept = kept_rounds(spec, done, best_round(results))
    removed: list[Path] = []
    for t in range(done + 1):
        trained = training.outcome(RoundTrained, t)
        ended = trained.checkpoint if trained else None
        for checkpoint in training.round(t).glob("step-*"):
            if checkpoint.name != ended or t not in kept:
                removed.append(checkpoint)
                shutil.rmtree(checkpoint)
            elif t != done:
                removed += [file for name in (OPTIMIZER, STATE) if (file := checkpoint / name).exists()]
                for name in (OPTIMIZER, STATE):
                    (checkpoint / name).unlink(missing_ok=True)
    return removed

"""Fits how a student's answer is chosen, and how sure it is, to the validation questions.

`tasks.serving.deciding` has the formula. Its five numbers maximise the probability of what was right, with a normal
prior around a plain vote, so that a few dozen questions are enough.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from storage.datasets.definition import Dataset
from tasks.serving.answering import Answered
from tasks.serving.deciding import Candidate
from tasks.serving.settings import Decision
from tasks.training.asking import ask_round, samples_of
from tasks.training.folder import Training
from tasks.training.judging import judged_by_label
from tasks.training.outcomes import Calibrated, Decided, ReliabilityBin
from tasks.training.training_set import judged_questions

PRIOR = (1.0, 1.0, 0.0, 0.0, 0.0)
"""Of head, votes, quality, arithmetic and none: bare answer and rationales count alike, any answer is as likely as
none."""
DEVIATION = 3.0
"""Of the prior: wide enough for what a hundred questions say."""
BINS = 10
"""Of confidences, each a tenth wide."""


def calibrate(folder: Path, t: int, on_progress: Callable[[int, int], None] | None = None) -> Calibrated:
    """Asks the student that a round ended with the validation questions, and fits a decision for each number of
    samples of `answering.samples`.

    Args:
        folder: the training's folder.
        t: the round.
        on_progress: called with (texts written, texts in all).
    """
    training = Training(folder)

    def fitted() -> Calibrated:
        started = time.monotonic()
        rows, _ = judged_questions(training.store, training.spec.validation, training.spec.rule)
        samples = samples_of(training.spec)
        answers = ask_round(training, t, rows, explain=True, samples=samples, on_progress=on_progress)
        decisions = tuple(fitted_to(training.dataset, rows, answers, one) for one in samples)
        return Calibrated(t=t, questions=len(rows), decisions=decisions, seconds=time.monotonic() - started)

    return training.once(Calibrated, fitted, t)


def fit(given: Sequence[Sequence[Candidate]], right: Sequence[Sequence[bool]], samples: int) -> Decision:
    """The decision that makes what was right likeliest.

    Args:
        given: the candidates of each question; questions without any count for nothing.
        right: whether each of them is right; of one question several may be.
        samples: noted in the decision.
    """
    tables = [
        (
            np.array([[one.head, one.votes, one.quality, one.arithmetic] for one in candidates]),
            np.array(rights, dtype=bool),
        )
        for candidates, rights in zip(given, right, strict=True)
        if candidates
    ]
    prior = np.array(PRIOR)

    def loss(weights: NDArray[np.float64]) -> float:
        total = 0.5 * float((((weights - prior) / DEVIATION) ** 2).sum())
        for features, rights in tables:
            scores = features @ weights[:-1]
            everything = logsumexp([*scores, weights[-1]])
            total += everything - (logsumexp(scores[rights]) if rights.any() else weights[-1])
        return float(total)

    head, votes, quality, arithmetic, none = minimize(loss, prior, method="L-BFGS-B").x.tolist()
    return Decision(samples=samples, head=head, votes=votes, quality=quality, arithmetic=arithmetic, none=none)


def figures(
    dataset: Dataset, rows: Sequence[dict[str, Any]], answers: Sequence[Answered], decision: Decision
) -> tuple[Decided, list[tuple[str | None, bool, float | None]]]:
    """What deciding gives on labelled questions.

    Returns:
        The figures, and for each question the answer, whether it is right, and its confidence.
    """
    found: list[tuple[str | None, bool, float | None]] = []
    for row, answered in zip(rows, answers, strict=True):
        decided = answered.decided(decision, decision.samples)
        found.append((decided.answer, judged_by_label(dataset, row, decided.answer), decided.confidence))
    confidences = np.array([confidence or 0.0 for _, _, confidence in found])
    rights = np.array([right for _, right, _ in found], dtype=bool)
    places = np.minimum((confidences * BINS).astype(int), BINS - 1)
    bins = [
        ReliabilityBin(
            questions=int(inside.sum()),
            confidence=float(confidences[inside].mean()),
            right=float(rights[inside].mean()),
        )
        for place in range(BINS)
        if (inside := places == place).any()
    ]
    correct = int(rights.sum())
    return (
        Decided(
            samples=decision.samples,
            correct=correct,
            accuracy=correct / len(found),
            calibration_error=sum(one.questions * abs(one.confidence - one.right) for one in bins) / len(found),
            reliability=tuple(bins),
        ),
        found,
    )


def fitted_to(dataset: Dataset, rows: Sequence[dict[str, Any]], answers: Sequence[Answered], samples: int) -> Decision:
    """The decision that fits labelled questions best, by `fit`."""
    given = [answered.candidates(samples) for answered in answers]
    right = [
        [judged_by_label(dataset, row, one.answer) for one in candidates]
        for row, candidates in zip(rows, given, strict=True)
    ]
    return fit(given, right, samples)

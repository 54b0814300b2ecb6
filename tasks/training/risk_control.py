"""Selective prediction: from which confidence on a student may answer, so that at most a given share of that is wrong.

The promise. Let R(c) be the probability that an answer given with a confidence of at least c is wrong, over all
questions from where the validation questions come. `certify` finds a threshold c of which, with a probability of at
least 95 % over the draw of the certifying questions, R(c) <= risk; if there is none, the student answers nothing.

How. For one fixed c, k of n answers to independent questions are wrong with the binomial distribution of R(c), so that
"R(c) > risk" is rejected at the level 5 % where the upper bound of Clopper and Pearson (1934) is at most `risk`. Many
thresholds are looked at by fixed-sequence testing (Bauer 1991, Statistics in Medicine 10:871-890; for risks in
"Learn then Test", Angelopoulos et al. 2021, arXiv 2110.01052): they are tested in an order that is fixed beforehand,
the most cautious first, each at the full level, up to the first that fails. To promise too much, the first threshold of
the sequence that is too daring must pass its own test, of which the probability is 5 %, however long the sequence is.

What makes the sequence "fixed". It may depend on nothing that the certifying questions say. Quantiles of *their*
confidences would not do: given where those lie, the wrong answers above a quantile are binomial with the mean risk of
the questions at hand, not with R(c). So `sequence` takes the thresholds from the *fitting* questions, other ones, whose
right and wrong it may use, too: it starts at the threshold that these are surest of. That costs nothing of the promise
and much helps the power: the most cautious threshold of all answers too few questions to certify anything, and the
sequence would end there.

For the same reason the certifying questions must not have been read before: not to fit the weights of the confidence,
not to choose among its sources, not to choose the best round (`tasks.training.calibration`).

Arrays are (questions,): `confidence`, NO_ANSWER where there is no answer; `wrong`, whether the answer is wrong or
missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom, binomtest

CERTAINTY = 0.95
"""Probability with which the promise holds."""
NO_ANSWER = -1.0
"""In place of a confidence, below every threshold."""
STEPS = 50
"""Thresholds that a sequence has at most: quantiles of the fitting questions' confidences."""
PLACES = 10_000
"""Thresholds are multiples of 1 / PLACES."""
CURVE = 20
"""Points of a risk-coverage curve, at equal steps of coverage."""

Confidences = NDArray[np.float64]
Wrong = NDArray[np.bool_]


@dataclass(frozen=True)
class Certified:
    """What certifying gives.

    Attributes:
        threshold: the least confidence of an answer; None where nothing can be certified.
        answered, wrong: of the certifying questions, at the threshold, or at the first one tested if none is certified.
        bound: upper bound of the share of wrong ones.
    """

    threshold: float | None
    answered: int
    wrong: int
    bound: float


def least_answered(risk: float, certainty: float = CERTAINTY) -> int:
    """The fewest answers, all of them right, that certify a risk: 59 for 5 %."""
    return ceil(log(1 - certainty) / log(1 - risk))


def upper_bound(wrong: int, answered: int, certainty: float = CERTAINTY) -> float:
    """Clopper and Pearson's one-sided upper bound of a share; 1 where nothing is answered."""
    return 1.0 if wrong == answered else float(beta.ppf(certainty, wrong + 1, answered - wrong))


def share_interval(count: int, of: int, certainty: float = CERTAINTY) -> tuple[float, float]:
    """Clopper and Pearson's two-sided interval of a share; 0 to 1 of nothing."""
    if not of:
        return 0.0, 1.0
    found = binomtest(count, of).proportion_ci(certainty, method="exact")
    return float(found.low), float(found.high)


def sequence(confidence: Confidences, wrong: Wrong, risk: float) -> list[float]:
    """The thresholds to test, the most cautious first, from the fitting questions.

    It starts where these speak loudest against a larger risk (the smallest p-value), and goes down to answering
    everything. tests/tasks/training/test_risk_control.py holds that against starting at a fixed number of answers.
    """
    known = confidence[confidence >= 0]
    if not len(known):
        return []
    quantiles = np.quantile(known, np.linspace(0, 1, STEPS + 1), method="lower")
    # Rounded down: the same question has a slightly other confidence in another batch, and many may have the same one.
    thresholds = np.unique(np.floor(quantiles * PLACES) / PLACES)[::-1]
    given = confidence >= thresholds[:, None]  # (thresholds, questions)
    p_values = binom.cdf((given & wrong).sum(axis=1), given.sum(axis=1), risk)
    return [float(one) for one in thresholds[int(np.argmin(p_values)) :]]


def certify(
    thresholds: Sequence[float], confidence: Confidences, wrong: Wrong, risk: float, certainty: float = CERTAINTY
) -> Certified:
    """The lowest threshold before the first one that cannot be certified.

    Args:
        thresholds: from `sequence`, of other questions; each lower than the one before.
        confidence, wrong: of the certifying questions.
        risk: the largest share of the answers that may be wrong, above 0 and below 1.
    """
    given = confidence >= np.array(thresholds)[:, None]  # (thresholds, questions)
    answered, errors = given.sum(axis=1), (given & wrong).sum(axis=1)
    passes = binom.cdf(errors, answered, risk) <= 1 - certainty  # as if each upper bound were held against the risk
    passed = int(np.argmin([*passes, False]))  # those before the first that fails
    place = max(0, passed - 1)
    figures = (int(answered[place]), int(errors[place])) if len(thresholds) else (0, 0)
    return Certified(thresholds[place] if passed else None, *figures, upper_bound(figures[1], figures[0], certainty))


def selective_risks(confidence: Confidences, wrong: Wrong) -> NDArray[np.float64]:
    """The risk-coverage curve (El-Yaniv and Wiener 2010): the share of wrong answers among the k surest, k from 1 to
    all questions. Equally sure answers come in random order: the mean over all orders is taken."""
    order = np.argsort(-confidence, kind="stable")
    _, starts, sizes = np.unique(-confidence[order], return_index=True, return_counts=True)
    means = np.add.reduceat(wrong[order].astype(float), starts) / sizes
    return np.asarray(np.cumsum(np.repeat(means, sizes)) / np.arange(1, len(order) + 1))


def aurc(confidence: Confidences, wrong: Wrong) -> float:
    """Area under the risk-coverage curve, the mean of `selective_risks` (Geifman et al. 2019); lower is better."""
    return float(selective_risks(confidence, wrong).mean())


def curve(confidence: Confidences, wrong: Wrong) -> list[float]:
    """The risk at a coverage of 1/CURVE, 2/CURVE ... 1."""
    risks = selective_risks(confidence, wrong)
    return [float(risks[max(0, ceil(step * len(risks) / CURVE) - 1)]) for step in range(1, CURVE + 1)]

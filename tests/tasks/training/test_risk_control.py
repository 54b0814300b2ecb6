"""Abstention with a promise: that it holds, at the true risk, for synthetic students; and what would break it.

A synthetic student has a distribution of confidences and a probability of being right at each, so that its true risk
above a threshold is a sum. A draw is one whole procedure: questions, choice of the threshold, true risk at it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta

from tasks.training.risk_control import (
    CURVE,
    NO_ANSWER,
    aurc,
    certify,
    curve,
    least_answered,
    selective_risks,
    sequence,
    share_interval,
    upper_bound,
)

DRAWS = 2000
POINTS = (np.arange(1000) + 0.5) / 1000
"""Confidences that a synthetic student may have."""


@dataclass(frozen=True)
class Shape:
    """A synthetic student.

    Attributes:
        a, b: of the beta distribution of its confidences.
        right: the probability that an answer is right, by its confidence.
    """

    a: float
    b: float
    right: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    @cached_property
    def mass(self) -> NDArray[np.float64]:
        """(POINTS,)"""
        return np.asarray(np.diff(beta.cdf(np.linspace(0, 1, len(POINTS) + 1), self.a, self.b)))

    def risk(self, threshold: float) -> float:
        """The true one."""
        mass = np.where(threshold <= POINTS, self.mass, 0.0)
        return float((mass * (1 - self.right(POINTS))).sum() / mass.sum()) if mass.sum() else 0.0

    def ask(self, rng: np.random.Generator, questions: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Confidences, and what is wrong."""
        confidence = rng.choice(POINTS, questions, p=self.mass)
        return confidence, rng.random(questions) >= self.right(confidence)


SHAPES = {
    "well calibrated": Shape(4, 0.6, lambda c: c),
    "well calibrated, mostly unsure": Shape(0.7, 0.7, lambda c: c),
    "overconfident": Shape(4, 0.6, lambda c: 0.4 + 0.6 * c**3),
    "underconfident": Shape(2, 2, lambda c: c**0.2),
    "useless, a little too often wrong": Shape(2, 2, lambda c: np.full_like(c, 0.9499)),
    "useless, right often enough": Shape(2, 2, lambda c: np.full_like(c, 0.97)),
    "surest where it is wrong": Shape(2, 2, lambda c: 0.99 - 0.1 * c),
    "too often wrong just below the surest": Shape(2, 2, lambda c: np.where(c > 0.6, 0.99, 0.8)),
}
SIZES = (20, 80, 200, 1000)
"""Of each of the two sets of questions."""


def honest(shape: Shape, rng: np.random.Generator, questions: int, risk: float) -> float | None:
    """The procedure of `tasks.training.calibration`."""
    return certify(sequence(*shape.ask(rng, questions), risk), *shape.ask(rng, questions), risk).threshold


def greedy(shape: Shape, rng: np.random.Generator, questions: int, risk: float) -> float | None:
    """Breaks the rules: the lowest threshold whose bound passes, whatever is before it."""
    confidence, wrong = shape.ask(rng, questions)
    passing = [one for one in np.unique(confidence)[::4] if certify([float(one)], confidence, wrong, risk).threshold]
    return min(passing, default=None)


def kept(
    procedure: Callable[[Shape, np.random.Generator, int, float], float | None],
    shape: Shape, questions: int, risk: float, draws: int = DRAWS,
) -> tuple[float, float]:  # fmt: skip
    """The shares of the draws in which the promise holds, and in which anything is answered."""
    rng = np.random.default_rng(questions)
    thresholds = [procedure(shape, rng, questions, risk) for _ in range(draws)]
    found = [one for one in thresholds if one is not None]
    return 1 - sum(shape.risk(one) > risk for one in found) / draws, len(found) / draws


@pytest.mark.parametrize("questions", SIZES)
@pytest.mark.parametrize("name", SHAPES)
def test_the_promise_holds_in_95_of_100_draws(name: str, questions: int) -> None:
    holds, _ = kept(honest, SHAPES[name], questions, 0.05)
    assert holds >= 0.95


@pytest.mark.parametrize("risk", [0.01, 0.1, 0.3])
def test_the_promise_holds_for_other_risks(risk: float) -> None:
    for name in ("well calibrated", "overconfident"):
        assert kept(honest, SHAPES[name], 400, risk, 500)[0] >= 0.95


def test_it_is_no_empty_promise() -> None:
    assert kept(honest, SHAPES["well calibrated"], 1000, 0.05, 200)[1] > 0.9
    assert kept(honest, SHAPES["underconfident"], 1000, 0.1, 200)[1] > 0.9
    assert kept(honest, SHAPES["well calibrated"], 58, 0.05, 200)[1] == 0, "59 right ones are the fewest"


def test_a_threshold_that_was_looked_for_breaks_it() -> None:
    holds, _ = kept(greedy, SHAPES["useless, a little too often wrong"], 400, 0.05, 300)
    assert holds < 0.9


def of_rounds(shape: Shape, rng: np.random.Generator, questions: int, *, apart: bool) -> bool:
    """Whether the promise holds if the best of 20 equally good rounds is certified, by questions that chose it, too, or
    by others."""
    rounds = [(shape.ask(rng, questions), shape.ask(rng, questions)) for _ in range(20)]
    fitting, others = min(rounds, key=lambda both: both[0][1].sum())
    threshold = certify(sequence(*fitting, 0.05), *(others if apart else fitting), 0.05).threshold
    return threshold is None or shape.risk(threshold) <= 0.05


def test_the_choice_of_the_round_costs_the_promise_only_where_it_reads_the_same_questions() -> None:
    shape, rng = SHAPES["useless, a little too often wrong"], np.random.default_rng(5)
    held = {apart: np.mean([of_rounds(shape, rng, 200, apart=apart) for _ in range(500)]) for apart in (False, True)}
    assert held[True] >= 0.95
    assert held[False] < 0.5


def test_the_sequence_ends_at_the_first_that_is_not_certified() -> None:
    confidence = np.repeat([0.9, 0.7, 0.5, 0.3], 100)
    wrong = np.zeros(400, dtype=bool)
    wrong[100:110] = True  # 10 of the first 200, none of the others: 10 of 400 would pass
    found = certify([0.9, 0.7, 0.5, 0.3], confidence, wrong, 0.05)
    assert (found.threshold, found.answered, found.wrong) == (0.9, 100, 0)
    assert certify([0.3], confidence, wrong, 0.05).threshold == 0.3
    failed = certify([0.7, 0.3], confidence, wrong, 0.05)
    assert (failed.threshold, failed.answered, failed.wrong) == (None, 200, 10)
    assert certify([], confidence, wrong, 0.05).threshold is None


def test_the_sequence_starts_where_the_fitting_questions_are_surest_and_ends_at_all() -> None:
    confidence = np.linspace(0.01, 1, 300)
    wrong = confidence < 0.5
    found = sequence(confidence, wrong, 0.05)
    assert found[0] == pytest.approx(0.5, abs=0.02)
    assert found[-1] == pytest.approx(0.01)
    assert found == sorted(set(found), reverse=True)
    unanswered = np.append(confidence, [NO_ANSWER] * 100)
    assert sequence(unanswered, np.append(wrong, [True] * 100), 0.05) == found, "what has no answer is no threshold"
    assert sequence(np.array([NO_ANSWER]), np.array([True]), 0.05) == []


def test_bounds_are_those_of_clopper_and_pearson() -> None:
    assert upper_bound(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert upper_bound(0, 59) < 0.05 < upper_bound(0, 58)
    assert upper_bound(0, 0) == upper_bound(3, 3) == 1
    assert (least_answered(0.05), least_answered(0.1), least_answered(0.01)) == (59, 29, 299)
    assert share_interval(3, 10) == pytest.approx((0.0667, 0.6525), abs=1e-4)  # R: binom.test(3, 10)
    assert share_interval(0, 0) == (0, 1)


def test_the_area_under_the_curve() -> None:
    confidence = np.array([0.9, 0.2, 0.6, NO_ANSWER])
    wrong = np.array([False, True, False, True])
    assert selective_risks(confidence, wrong).tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert aurc(confidence, wrong) == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert aurc(-confidence, wrong) > 0.7, "the other way round"
    same = np.full(4, 0.5)
    assert selective_risks(same, wrong).tolist() == pytest.approx([0.5] * 4), "equally sure: no order is better"
    assert curve(confidence, wrong)[-1] == 0.5
    assert len(curve(confidence, wrong)) == CURVE


def test_a_start_that_the_fitting_questions_choose_answers_more_than_a_fixed_one() -> None:
    shape, rng = SHAPES["well calibrated"], np.random.default_rng(8)
    learned: list[float] = []
    fixed: list[float] = []
    for _ in range(150):
        (known, known_wrong), unseen = shape.ask(rng, 1000), shape.ask(rng, 1000)
        surest = np.sort(known)[::-1][least_answered(0.05) :: 20]  # as few answers as can certify anything, then more
        ways = (sequence(known, known_wrong, 0.05), [float(one) for one in np.unique(surest)[::-1]])
        for way, into in zip(ways, (learned, fixed), strict=True):
            threshold = certify(way, *unseen, 0.05).threshold
            into.append(0.0 if threshold is None else float(shape.mass[threshold <= POINTS].sum()))
    assert np.mean(learned) > 1.3 * np.mean(fixed)

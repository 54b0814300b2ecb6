"""Is one method better than another? From the answers of several trainings of each to the same questions.

Two things vary: which questions were asked, and which seeds the trainings had. A figure must hold for other questions
and other seeds, so both count. With D[s, q] the difference of the two answers (1, 0 or -1) under seed s to question q:

    variance of the mean  =  between questions / Q  +  between seeds / S  -  what both hold of the noise / (S Q)

It is a two-way layout with random effects; the mean is compared with Student's t, with the degrees of freedom of
Satterthwaite (1946). Resampling questions and seeds (the "bootstrap over both") counts the noise of single answers
three times, so its interval is too wide where that is most of the variance; where the effects are, and there are few
seeds, it is too narrow. tests/tasks/comparing/test_statistics.py has both. Two seeds are too few for any of it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from scipy.stats import t as student_t

CONFIDENCE = 0.95
POWER = 0.8
"""Chance with which a further experiment should find a difference of the size that was seen."""

MOST = 10_000_000
"""Counts beyond which an experiment is not worth naming."""

Answers = NDArray[np.bool_]
"""(S, Q): whether the training with seed s answered question q rightly."""
Figures = NDArray[np.float64]
"""(S, Q): a figure of what the training with seed s said to question q."""
Interval = tuple[float, float, float]
"""A mean with the ends of its interval: (mean, low, high)."""


@dataclass(frozen=True)
class Difference:
    """How much better a method is than another, in shares of the questions.

    Attributes:
        mean: over seeds and questions; 0.02 is 2 points.
        low, high: its interval.
        p_value: two-sided, of no difference; 1 if the two never differ.
        seeds, questions: how many.
        between_questions, between_seeds: variances of the two effects, for `needed`.
    """

    mean: float
    low: float
    high: float
    p_value: float
    seeds: int
    questions: int
    between_questions: float
    between_seeds: float


def paired_difference(
    first: Answers | Figures, second: Answers | Figures, confidence: float = CONFIDENCE
) -> Difference:
    """First minus second.

    Args:
        first, second: (S, Q), the same questions and seeds in the same order. With one seed the interval says nothing
            about other seeds.
        confidence: nominal coverage, 0 to 1.

    Raises:
        ValueError: they have different shapes, or fewer than two questions.
    """
    if first.shape != second.shape or first.ndim != 2 or first.shape[0] < 1 or first.shape[1] < 2:
        raise ValueError(f"need two (seeds, questions) tables of one shape, two questions at least, not {first.shape} "
                         f"and {second.shape}")  # fmt: skip
    differences = first.astype(float) - second.astype(float)  # (S, Q)
    seeds, questions = differences.shape
    mean = float(differences.mean())
    of_question, of_seed = differences.mean(axis=0), differences.mean(axis=1)
    by_questions = float(of_question.var(ddof=1)) / questions
    if seeds == 1:
        error, freedom, by_seeds = math.sqrt(by_questions), questions - 1.0, 0.0
    else:
        by_seeds = float(of_seed.var(ddof=1)) / seeds
        rest = differences - of_question - of_seed[:, None] + mean
        noise = float((rest**2).sum()) / ((seeds - 1) * (questions - 1)) / (seeds * questions)
        variance = max(by_questions + by_seeds - noise, by_questions, by_seeds)
        error = math.sqrt(variance)
        parts = by_questions**2 / (questions - 1) + by_seeds**2 / (seeds - 1)
        freedom = variance**2 / parts if parts else math.inf  # the noise has (S - 1)(Q - 1): no term worth adding
    if error == 0:  # every question and seed agree: no difference, or one without exception
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0, seeds, questions, 0.0, 0.0)
    reach = float(student_t.ppf((1 + confidence) / 2, freedom)) * error
    p_value = 2 * float(student_t.sf(abs(mean) / error, freedom))
    return Difference(
        mean, mean - reach, mean + reach, p_value, seeds, questions, by_questions * questions, by_seeds * seeds
    )


def mean_interval(right: Answers, confidence: float = CONFIDENCE) -> Interval:
    """The mean of a table and its interval: over seeds and questions as above; Wilson's for one seed, and where all or
    none are right: nothing varies there, but that is no proof that nothing can."""
    seeds, questions = right.shape
    if seeds == 1 or right.all() or not right.any():
        return wilson(int(right[0].sum()), questions, confidence)
    over_both = paired_difference(right, np.zeros_like(right), confidence)
    return over_both.mean, max(0.0, over_both.low), min(1.0, over_both.high)


def ratio_interval(parts: Figures, wholes: Figures, confidence: float = CONFIDENCE) -> Interval | None:
    """A share of things of which a question has several, or none, such as the right ones of all arithmetic steps.

    The ratio of the sums, with the interval of its linear approximation (the usual one of a ratio estimator) over seeds
    and questions; where none or all are parts, Wilson's for as many things as there are questions with any: things of
    one question are no independent evidence.

    Args:
        parts, wholes: (S, Q), sums of each question; 0 <= parts <= wholes.

    Returns:
        None where there are no things, or only one question.
    """
    total = float(wholes.sum())
    if total == 0 or parts.shape[1] < 2:
        return None
    ratio = float(parts.sum()) / total
    if ratio in (0.0, 1.0):
        questions = int((wholes > 0).any(axis=0).sum())
        return wilson(round(ratio) * questions, questions, confidence)
    linear = _linear(parts, wholes)
    over_both = paired_difference(linear, np.zeros_like(linear), confidence)
    return ratio, max(0.0, over_both.low), min(1.0, over_both.high)


def ratio_difference(
    first: tuple[Figures, Figures], second: tuple[Figures, Figures], confidence: float = CONFIDENCE
) -> Difference | None:
    """The first of two such shares minus the second, paired by question and seed.

    Args:
        first, second: parts and wholes, each (S, Q), of the same questions and seeds.

    Returns:
        None where one of them has no things, or there is only one question.
    """
    if not first[1].sum() or not second[1].sum() or first[1].shape[1] < 2:
        return None
    return paired_difference(_linear(*first), _linear(*second), confidence)


def _linear(parts: Figures, wholes: Figures) -> Figures:
    """(S, Q): what each seed and question adds to the ratio of the sums, by its linear approximation. Its mean is the
    ratio."""
    ratio = float(parts.sum()) / float(wholes.sum())
    linear: Figures = ratio + (parts - ratio * wholes) / float(wholes.mean())
    return linear


def sign_test(wins: int, losses: int, confidence: float = CONFIDENCE) -> tuple[Interval, float]:
    """The share of wins among decided pairs with its exact interval (Clopper and Pearson 1934), and the two-sided
    p-value of the exact sign test; (0.5, 0, 1) and 1 where nothing is decided."""
    if wins + losses == 0:
        return (0.5, 0.0, 1.0), 1.0
    test = binomtest(wins, wins + losses)
    found = test.proportion_ci(confidence, method="exact")
    return (wins / (wins + losses), float(found.low), float(found.high)), float(test.pvalue)


def wilson(count: int, of: int, confidence: float = CONFIDENCE) -> Interval:
    """A share with its Wilson interval."""
    found = binomtest(count, of).proportion_ci(confidence, method="wilson")
    return count / of, float(found.low), float(found.high)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values of a family of tests, so that the chance of a single false find in all of it stays at the level (Holm
    1979)."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_value))
        adjusted[name] = largest
    return adjusted


def needed(difference: Difference, confidence: float = CONFIDENCE) -> dict[Literal["questions", "seeds"], int]:
    """How many questions (with as many seeds), or how many seeds (with as many questions), would tell a difference of
    this size in four of five experiments; a kind that cannot, or only beyond MOST, is left out.

    Args:
        difference: a first one, whose variances are taken for the true ones.
    """
    seeds, questions = difference.seeds, difference.questions
    found = {"questions": _smallest(lambda count: _tells(difference, seeds, count, confidence))}
    if seeds > 1:
        found["seeds"] = _smallest(lambda count: _tells(difference, count, questions, confidence))
    return {kind: count for kind, count in found.items() if count is not None}  # type: ignore[misc]


def times_of_both(difference: Difference, confidence: float = CONFIDENCE) -> int | None:
    """How many times as many seeds and questions would tell a difference of this size; None for no number."""
    seeds, questions = difference.seeds, difference.questions
    return _smallest(lambda times: _tells(difference, times * seeds, times * questions, confidence))


def _tells(difference: Difference, seeds: int, questions: int, confidence: float) -> bool:
    """Whether an experiment of this size would find the difference with a chance of POWER."""
    by_questions, by_seeds = difference.between_questions / questions, difference.between_seeds / seeds
    variance = by_questions + by_seeds
    parts = by_questions**2 / (questions - 1) + (by_seeds**2 / (seeds - 1) if seeds > 1 else 0.0)
    freedom = variance**2 / parts if parts else math.inf
    reach = float(student_t.ppf((1 + confidence) / 2, freedom) + student_t.ppf(POWER, freedom))
    return abs(difference.mean) >= reach * math.sqrt(variance)


def _smallest(holds: Callable[[int], bool]) -> int | None:
    """The smallest count from 2 to MOST for which it holds, if it holds for all larger ones; None for none."""
    high = 2
    while not holds(high):
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def verdict(
    difference: Difference, p_value: float, level: float = 1 - CONFIDENCE
) -> Literal["better", "worse", "same"]:
    """What may be said: "same" where it cannot be told.

    Args:
        difference: of a method to the one it is compared with.
        p_value: its own, or the one adjusted for the whole family.
    """
    if p_value > level:
        return "same"
    return "better" if difference.mean > 0 else "worse"


def sentence(name: str, other: str, difference: Difference, p_value: float) -> str:
    """The verdict in plain words, with its figures."""
    mean, low, high = (f"{100 * value:+.1f}" for value in (difference.mean, difference.low, difference.high))
    chance = f"p = {p_value:.2g}" if p_value >= 0.001 else "p < 0.001"
    points = f"{mean} points (95 % interval {low} to {high}, {chance})"
    only_one = " One seed says nothing about other seeds." if difference.seeds == 1 else ""
    found = verdict(difference, p_value)
    if found != "same":
        return f"{name} is {found} than {other}: {points}.{only_one}"
    ways = [f"{count:,} {kind}" for kind, count in needed(difference).items() if count > getattr(difference, kind)]
    if not ways and (times := times_of_both(difference)):
        ways = [f"{times:,} times as many seeds and questions"]
    more = f" A difference of this size would take about {' or '.join(ways)} to tell." if ways else ""
    return f"Whether {name} is better than {other} cannot be told: {points}.{more}{only_one}"

"""How trainings went, round by round: what they reached on validation, what they repelled, how long they took."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.comparing.statistics import Interval
from tasks.training.agreement import agreements
from tasks.training.folder import Training
from tasks.training.outcomes import RoundTrained
from tasks.training.summary import round_seconds


@dataclass(frozen=True)
class RoundPoint:
    """One round of one training.

    Attributes:
        answers, explanations: shares of the validation questions that were right; None if it did not explain.
        repelled: share of the examples that a negative repelled; None without negatives.
        seconds: of each step (`tasks.training.summary.round_seconds`).
        agreement: share of the validation questions with a teacher's majority answer that it answered likewise; None
            where there are none.
    """

    answers: float
    explanations: float | None
    repelled: float | None
    seconds: dict[str, float]
    agreement: float | None = None


@dataclass(frozen=True)
class Curves:
    """The rounds of several trainings of a variant, each as (mean, lowest, highest) over the trainings; as many rounds
    as all of them have.

    Attributes:
        answers, explanations, repelled, agreement: as in `RoundPoint`; empty if a training lacks them.
        passed: seconds from the beginning to the end of each round.
        steps: mean seconds of each step, over all rounds of a training.
    """

    answers: list[Interval]
    explanations: list[Interval]
    repelled: list[Interval]
    passed: list[Interval]
    steps: dict[str, float]
    agreement: list[Interval]


def round_points(training: Training) -> list[RoundPoint]:
    """The finished rounds of a training, in order."""
    points, teacher = [], {one.t: one.share for one in agreements(training)}
    for result in training.evaluations():
        trained = training.outcome(RoundTrained, result.t)
        repelled = trained.means.get("repelled") if trained else None
        seconds = round_seconds(training, result.t)
        points.append(
            RoundPoint(result.accuracy, result.explanation_accuracy, repelled, seconds, teacher.get(result.t))
        )
    return points


def curves_of(trainings: Sequence[Sequence[RoundPoint]]) -> Curves:
    """The curves of a variant's trainings; each has a round at least."""
    rounds = range(min(map(len, trainings)))

    def curve(value: Callable[[Sequence[RoundPoint], int], float | None]) -> list[Interval]:
        found = [[value(points, t) for points in trainings] for t in rounds]
        whole = [[one for one in row if one is not None] for row in found]
        if any(len(row) < len(trainings) for row in whole):
            return []
        return [(statistics.fmean(row), min(row), max(row)) for row in whole]

    names = dict.fromkeys(name for points in trainings for point in points for name in point.seconds)
    return Curves(
        answers=curve(lambda points, t: points[t].answers),
        explanations=curve(lambda points, t: points[t].explanations),
        repelled=curve(lambda points, t: points[t].repelled),
        passed=curve(lambda points, t: sum(sum(point.seconds.values()) for point in points[: t + 1])),
        steps={
            name: statistics.fmean(sum(point.seconds.get(name, 0.0) for point in points) for points in trainings)
            for name in names
        },
        agreement=curve(lambda points, t: points[t].agreement),
    )

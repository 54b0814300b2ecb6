"""Rounds of several trainings as one curve."""

from pathlib import Path

import pytest

from tasks.comparing.curves import RoundPoint, curves_of, round_points
from tasks.training.folder import Training
from tasks.training.outcomes import Evaluation, NegativesSampled, QualityUpdated, RoundTrained
from tests.tasks.training.test_rounds import spec


def point(answers: float, explanations: float | None, repelled: float | None, seconds: float) -> RoundPoint:
    return RoundPoint(answers, explanations, repelled, {"student": seconds, "validation": 1.0})


def test_means_with_the_lowest_and_the_highest_of_the_rounds_that_all_have() -> None:
    first = [point(0.2, 0.1, None, 10), point(0.4, 0.3, None, 20), point(0.9, 0.9, None, 20)]
    second = [point(0.4, 0.1, 0.5, 14), point(0.6, 0.2, 0.5, 20)]
    found = curves_of([first, second])
    assert found.answers == [pytest.approx((0.3, 0.2, 0.4)), pytest.approx((0.5, 0.4, 0.6))]
    assert found.explanations == [pytest.approx((0.1, 0.1, 0.1)), pytest.approx((0.25, 0.2, 0.3))]
    assert found.repelled == [], "one of them has no negatives"
    assert found.passed == [pytest.approx((13, 11, 15)), pytest.approx((34, 32, 36))]
    assert found.steps == {"student": pytest.approx((50 + 34) / 2), "validation": pytest.approx(2.5)}


def test_they_are_read_from_a_training(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.write_spec(spec(1, 1))
    for t, accuracy in enumerate((0.25, 0.5)):
        training.write_outcome(NegativesSampled(round_before=t - 1, seconds=2.0), t)
        training.write_outcome(QualityUpdated(version=t, seconds=3.0), t)
        means = {"loss": 1.0, "repelled": 0.1 * t}
        training.write_outcome(RoundTrained(t=t, checkpoint="step-9", steps=9, examples=4, means=means, seconds=5.0), t)
        result = Evaluation(
            t=t, part="validation", questions=4, answered=4, correct=2, accuracy=accuracy, explanation_accuracy=0.75,
            seconds=1.0,
        )  # fmt: skip
        training.evaluated_once(t, "validation", lambda result=result: result)  # type: ignore[misc]
    seconds = {"sampling": 2.0, "discriminator": 3.0, "student": 5.0, "validation": 1.0}
    assert round_points(training) == [
        RoundPoint(0.25, 0.75, 0.0, seconds), RoundPoint(0.5, 0.75, 0.1, seconds),
    ]  # fmt: skip

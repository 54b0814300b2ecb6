"""How sure chosen answers are, over several trainings."""

import pytest

from tasks.comparing.reliability import reliability_of
from tasks.comparing.statistics import wilson
from tasks.training.outcomes import Decided, ReliabilityBin


def decided(samples: int, accuracy: float, *bins: tuple[int, float, float]) -> Decided:
    parts = tuple(ReliabilityBin(questions=n, confidence=sure, right=right) for n, sure, right in bins)
    return Decided(samples=samples, correct=0, accuracy=accuracy, calibration_error=accuracy / 10, reliability=parts)


def test_bins_of_several_trainings_are_put_together() -> None:
    first = [decided(0, 0.5, (10, 0.42, 0.3), (30, 0.97, 1.0)), decided(4, 0.6, (40, 0.5, 0.6))]
    second = [decided(4, 0.8, (40, 0.52, 0.8)), decided(0, 0.7, (20, 0.48, 0.6))]
    none, four = reliability_of([first, second])
    assert (none.samples, four.samples) == (0, 4)
    assert none.accuracy == pytest.approx(0.6)
    assert none.calibration_error == pytest.approx(0.06)
    (low, low_right), (high, high_right) = none.bins
    assert low == pytest.approx((10 * 0.42 + 20 * 0.48) / 30)
    assert low_right == pytest.approx(wilson(15, 30))
    assert high == pytest.approx(0.97)
    assert high_right[0] == 1.0
    assert four.bins[0][1][0] == pytest.approx(0.7)


def test_only_what_all_trainings_have() -> None:
    assert [one.samples for one in reliability_of([[decided(0, 0.5)], [decided(0, 0.5), decided(4, 0.6)]])] == [0]
    assert reliability_of([]) == []
    assert reliability_of([[], [decided(0, 0.5)]]) == []

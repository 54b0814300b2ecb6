"""How sure chosen answers are, over several trainings."""

import pytest

from tasks.comparing.reliability import reliability_of
from tasks.comparing.statistics import wilson
from tasks.training.outcomes import Abstention, Decided, Promise, ReliabilityBin


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


def test_risk_and_coverage_are_put_together() -> None:
    promise = Promise(risk=0.05, certainty=0.95, abstain_below=0.8, questions=90, answered=80, wrong=0, bound=0.04)

    def abstaining(answered: int, wrong: int, aurc: float) -> Decided:
        found = Abstention(promise=promise, questions=50, answered=answered, wrong=wrong, coverage=answered / 50,
                           coverage_interval=(0, 1), risk=None, risk_interval=(0, 1))  # fmt: skip
        return decided(0, 0.5).model_copy(update={"aurc": aurc, "risks": (aurc, 2 * aurc), "abstention": found})

    [one] = reliability_of([[abstaining(20, 1, 0.1)], [abstaining(40, 2, 0.2)]])
    assert one.aurc == pytest.approx(0.15)
    assert [pytest.approx(risk) for risk in one.risks] == [(0.15, 0.1, 0.2), (0.3, 0.2, 0.4)]
    assert one.coverage == pytest.approx(wilson(60, 100))
    assert one.risk == pytest.approx(wilson(3, 60))
    [none] = reliability_of([[abstaining(0, 0, 0.1)]])
    assert none.risk is None, "nothing is answered"
    [mixed] = reliability_of([[abstaining(20, 1, 0.1)], [decided(0, 0.5)]])
    assert (mixed.aurc, mixed.risks) == (None, ()), "one of them was trained before there were curves"

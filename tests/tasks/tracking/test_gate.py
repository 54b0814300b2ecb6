"""The gate: figures against published ones, decisions and their texts."""

import pytest

from tasks.tracking.gate import exact_mcnemar, judge, paired_interval, wilson_interval


def answers(both: int, first: int, second: int, neither: int) -> tuple[dict[str, bool], dict[str, bool]]:
    """Two models' answers with these counts."""
    rights = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    return ({str(i): a for i, (a, _) in enumerate(rights)}, {str(i): b for i, (_, b) in enumerate(rights)})


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((1, 1, 7, 12), -0.507, -0.026),  # Fagerland, Lydersen and Laake 2014, airway reactivity
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((5, 0, 0, 0), -0.4345, 0.4345),  # both always right: Wilson's (5/5) on either side
    ],
)
def test_the_interval_is_the_published_one(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    assert paired_interval(*counts) == pytest.approx((low, high), abs=5e-4)


def test_the_interval_turns_with_the_two() -> None:
    low, high = paired_interval(20, 9, 4, 7)
    assert paired_interval(20, 4, 9, 7) == pytest.approx((-high, -low))


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [(0, 0, 1.0), (3, 3, 1.0), (1, 7, 18 / 256), (8, 0, 2 / 256), (10, 1, 24 / 2048)],
)
def test_the_p_value_is_twice_the_binomial_tail(first: int, second: int, p_value: float) -> None:
    assert exact_mcnemar(first, second) == pytest.approx(p_value)
    assert exact_mcnemar(second, first) == pytest.approx(p_value)


def test_without_a_champion_the_challenger_is_promoted() -> None:
    verdict = judge({"a": False}, None)
    assert (verdict.promoted, verdict.reason) == (True, "promoted: there was no champion")


def test_a_clearly_better_challenger_is_promoted() -> None:
    verdict = judge(*answers(60, 15, 3, 22))
    assert verdict.promoted
    assert verdict.reason == (
        "promoted: challenger 75.0%, champion 63.0% on the same 100 test questions; difference +12.0 points, 95% "
        "interval +3.7 to +20.1; 15 right only by the challenger, 3 only by the champion; exact McNemar p = 0.0075, "
        "at most the level 0.05"
    )
    assert (verdict.questions, verdict.only_challenger, verdict.only_champion) == (100, 15, 3)


def test_a_slightly_better_one_is_not() -> None:
    verdict = judge(*answers(60, 7, 3, 30))
    assert not verdict.promoted
    assert verdict.reason.startswith("not promoted: challenger 67.0%, champion 63.0% on the same 100 test questions;")
    assert verdict.reason.endswith("exact McNemar p = 0.34, above the level 0.05")
    assert judge(*answers(60, 7, 3, 30), level=0.4).promoted


def test_a_clearly_worse_one_is_not_promoted_however_small_the_p_value() -> None:
    verdict = judge(*answers(60, 3, 25, 12))
    assert not verdict.promoted
    assert verdict.p_value is not None
    assert verdict.p_value < 0.001
    assert verdict.difference == pytest.approx(-0.22)


def test_equals_stay_as_they_are() -> None:
    verdict = judge(*answers(5, 0, 0, 5))
    assert (verdict.promoted, verdict.p_value, verdict.difference) == (False, 1.0, 0.0)


def test_only_questions_that_both_answered_count() -> None:
    challenger, champion = answers(60, 15, 3, 22)
    verdict = judge(challenger | {"new": True}, champion | {"old": True, "older": True})
    assert verdict.questions == 100
    assert "(3 more were answered by only one of them)" in verdict.reason
    nothing = judge({"a": True}, {"b": True})
    assert (nothing.promoted, nothing.p_value) == (False, None)
    assert nothing.reason == "not promoted: champion and challenger have no test question in common"


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"level is 5; it must lie between 0 and 1, such as 0\.05"):
        judge({}, {}, level=5)


def test_an_interval_of_a_share_stays_between_0_and_1() -> None:
    for n in range(1, 60):
        low, high = wilson_interval(0, n)
        assert low >= 0
        assert f"{low:.1%}" == "0.0%", "not -0.0%"
        assert 0 < high < 1
        assert wilson_interval(n, n)[1] <= 1

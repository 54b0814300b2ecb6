"""Figures of rationales: counted by hand, left out where there is nothing to count."""

import numpy as np
import pytest

from tasks.comparing.answers import Said, Told
from tasks.comparing.quality import COMPARED, quality_difference, quality_of
from tasks.comparing.scores import Scores
from tasks.comparing.statistics import ratio_difference, ratio_interval, sign_test


def told(*said: Said, first: int = 0, explains: bool = True) -> Told:
    names = [f"q{first + place}" for place in range(len(said))]
    right = {"answers": dict.fromkeys(names, True)} | ({"explanations": dict.fromkeys(names, True)} if explains else {})
    return Told(right, dict(zip(names, said, strict=True)))  # type: ignore[arg-type]


def says(right: int, steps: int, agrees: bool | None = True) -> Said:
    return Said("7", "text", agrees, (right, steps))


def test_by_hand() -> None:
    seeds = [
        [told(says(2, 2), says(1, 2, agrees=False), says(0, 0))],
        [told(says(2, 2), says(3, 4), says(0, 0, agrees=False))],
    ]
    found = quality_of(seeds, [[None], [None]])
    assert found.keys() == {"right_steps", "without_steps", "agreement"}
    assert found["right_steps"][0] == pytest.approx(8 / 10)
    assert found["without_steps"][0] == pytest.approx(1 / 3)
    assert found["agreement"][0] == pytest.approx(4 / 6)
    for mean, low, high in found.values():
        assert 0 <= low <= mean <= high <= 1


def test_folds_are_one_set_of_questions() -> None:
    folds = [[told(says(1, 1), says(0, 1)), told(says(1, 1), says(1, 1), first=2)]]
    assert quality_of(folds, [[None, None]])["right_steps"][0] == pytest.approx(3 / 4)


def test_what_does_not_exist_is_left_out() -> None:
    without_rationales = told(Said("7", None), Said("8", None), explains=False)
    assert quality_of([[without_rationales]], [[None]]) == {}
    one_text_no_numbers = told(Said("a", "why", None, None), Said("b", "why", None, None))
    assert quality_of([[one_text_no_numbers]], [[None]]) == {}
    nothing_written = told(says(0, 0), says(0, 0))
    assert quality_of([[nothing_written]], [[None]]).keys() == {"without_steps", "agreement"}


def test_a_difference_by_hand() -> None:
    first = [[told(says(2, 2), says(1, 2, agrees=False), says(0, 0))], [told(says(2, 2), says(4, 4), says(0, 0))]]
    second = [[told(says(1, 2), says(1, 2), says(0, 0))], [told(says(2, 4), says(0, 0), says(2, 4, agrees=False))]]
    steps = quality_difference(first, second, "right_steps")
    agreement = quality_difference(first, second, "agreement")
    assert steps is not None
    assert agreement is not None
    assert steps.mean == pytest.approx(9 / 10 - 6 / 12)
    assert agreement.mean == pytest.approx(5 / 6 - 5 / 6)
    back = quality_difference(second, first, "right_steps")
    assert back is not None
    assert (back.mean, back.low, back.high) == pytest.approx((-steps.mean, -steps.high, -steps.low))
    assert back.p_value == pytest.approx(steps.p_value)


def test_questions_that_only_one_explains_do_not_count() -> None:
    first, second = told(says(1, 1), says(0, 1), says(0, 1)), told(says(0, 1), says(1, 1), says(1, 1), first=1)
    found = quality_difference([[first]], [[second]], "right_steps")
    assert found is not None
    assert found.questions == 2
    assert found.mean == pytest.approx(0 - 1 / 2)


def test_what_one_of_two_lacks_is_not_compared() -> None:
    full, bare = told(says(1, 1), says(1, 1)), told(Said("7", None), Said("8", None), explains=False)
    no_steps = told(says(0, 0), says(0, 0))
    for quality in COMPARED:
        assert quality_difference([[full]], [[bare]], quality) is None
        assert quality_difference([[bare]], [[full]], quality) is None
    assert quality_difference([[full]], [[no_steps]], "right_steps") is None


@pytest.mark.parametrize("seeds", [1, 3, 10])
def test_equal_rationales_are_found_different_as_rarely_as_promised(seeds: int) -> None:
    """A ratio's linear approximation, with questions of several steps that seeds share."""
    rng = np.random.default_rng(seeds)
    found = 0
    for _ in range(400):
        wholes = rng.integers(0, 4, (1, 60)).repeat(seeds, axis=0).astype(float)
        chance = rng.beta(2, 1, (1, 60))
        first, second = (rng.binomial(wholes.astype(int), chance).astype(float) for _ in range(2))
        difference = ratio_difference((first, wholes), (second, wholes))
        assert difference is not None
        found += difference.p_value < 0.05
    assert found / 400 < 0.085, "5 %, and three standard errors"


def test_scores_are_means_over_rationales() -> None:
    first = Scores({"q1": [0.9, 0.7], "q2": [0.8]}, {"q1": [0.2]})
    second = Scores({"q1": [0.6]}, {"q2": [0.4, 0.3]})
    some = told(Said("7", "text"), Said("7", "text"))
    found = quality_of([[some], [some]], [[first], [second]])
    assert found["score_right"][0] == pytest.approx((0.9 + 0.7 + 0.8 + 0.6) / 4)
    assert found["score_wrong"][0] == pytest.approx((0.2 + 0.4 + 0.3) / 3)
    assert "score_right" not in quality_of([[some], [some]], [[first], [None]])


def test_a_ratio_with_one_thing_a_question_is_a_mean() -> None:
    right = np.random.default_rng(1).random((1, 400)) < 0.7
    found = ratio_interval(right.astype(float), np.ones_like(right, dtype=float))
    assert found is not None
    mean = float(right.mean())
    error = right.astype(float).std(ddof=1) / 20
    assert found == pytest.approx((mean, mean - 1.966 * error, mean + 1.966 * error), abs=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_seen_is_not_never(share: float) -> None:
    wholes = np.full((3, 20), 4.0)
    found = ratio_interval(share * wholes, wholes)
    assert found is not None
    assert found[0] == share
    assert found[2] - found[1] == pytest.approx(0.161, abs=1e-3), "Wilson's, for 20 questions"


def test_a_ratio_of_nothing_is_none() -> None:
    assert ratio_interval(np.zeros((2, 5)), np.zeros((2, 5))) is None


def test_intervals_of_ratios_hold_as_often_as_promised() -> None:
    """Steps of a question are right or wrong together, so intervals that counted steps would be too narrow."""
    rng, runs, hit, naive = np.random.default_rng(7), 400, 0, 0
    for _ in range(runs):
        steps = rng.integers(0, 5, (4, 60))
        difficulty = rng.beta(2, 1, 60)  # mean 2/3
        luck = rng.normal(0, 0.02, (4, 1))
        right = rng.binomial(steps, np.clip(difficulty + luck, 0, 1))
        found = ratio_interval(right.astype(float), steps.astype(float))
        assert found is not None
        hit += found[1] <= 2 / 3 <= found[2]
        error = np.sqrt(found[0] * (1 - found[0]) / steps.sum())
        naive += abs(found[0] - 2 / 3) <= 1.96 * error
    assert hit / runs > 0.92
    assert naive / runs < 0.75


def test_the_sign_test_is_exact() -> None:
    (share, low, high), p_value = sign_test(9, 1)
    assert share == 0.9
    assert p_value == pytest.approx(2 * 11 / 1024)
    assert (low, high) == pytest.approx((0.555, 0.9975), abs=1e-3)
    assert sign_test(0, 0) == ((0.5, 0.0, 1.0), 1.0)
    assert sign_test(5, 5)[1] == 1.0
    assert sign_test(6, 0)[1] == pytest.approx(2 / 64)

"""Statistics of comparisons: right by hand, right in the long run, and never surer than the seeds allow."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ttest_1samp

from tasks.comparing.statistics import Answers, holm, needed, paired_difference, sentence, verdict

TABLES = st.tuples(st.integers(1, 5), st.integers(2, 12)).flatmap(lambda shape: arrays(np.bool_, shape))


def draw(
    rng: np.random.Generator, seeds: int, questions: int, better: float = 0.0, of_seeds: float = 0.03
) -> tuple[Answers, Answers]:
    """Two methods: questions of all difficulties, trainings of uneven luck, the first better by a share."""
    difficulty = rng.beta(1.5, 1.5, questions)
    tables = []
    for gain in (better, 0.0):
        luck = rng.normal(0, of_seeds, (seeds, 1))
        tables.append(rng.random((seeds, questions)) < np.clip(difficulty + luck + gain, 0, 1))
    return tables[0], tables[1]


@given(TABLES)
def test_a_method_is_not_better_than_itself(table: Answers) -> None:
    found = paired_difference(table, table)
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert verdict(found, found.p_value) == "same"


@given(TABLES)
def test_turned_round_it_is_the_same_difference(table: Answers) -> None:
    other = np.roll(table, 1, axis=1)
    one, turned = paired_difference(table, other), paired_difference(other, table)
    assert one.mean == pytest.approx(-turned.mean)
    assert (one.low, one.high) == pytest.approx((-turned.high, -turned.low))
    assert one.p_value == pytest.approx(turned.p_value)
    assert one.low <= one.mean <= one.high


def test_with_one_seed_it_is_the_paired_t_test() -> None:
    first, second = draw(np.random.default_rng(1), 1, 400, 0.05)
    found = paired_difference(first, second)
    plain = ttest_1samp(first[0].astype(float) - second[0], 0)
    assert found.p_value == pytest.approx(plain.pvalue)
    assert (found.low, found.high) == pytest.approx(plain.confidence_interval(0.95))


def test_by_hand() -> None:
    first = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], bool)
    second = np.array([[0, 1, 0, 1], [0, 0, 1, 1]], bool)
    # D = [[1, 0, 0, 0], [1, 0, -1, 0]]; means of questions 1, 0, -0.5, 0 and of seeds 0.25, 0
    found = paired_difference(first, second)
    assert found.mean == pytest.approx(0.125)
    assert found.between_questions == pytest.approx(np.var([1, 0, -0.5, 0], ddof=1))
    assert found.between_seeds == pytest.approx(np.var([0.25, 0], ddof=1))


@pytest.mark.parametrize(("seeds", "of_seeds"), [(1, 0.0), (3, 0.03), (5, 0.06), (10, 0.0)])
def test_equal_methods_are_found_different_no_oftener_than_promised(seeds: int, of_seeds: float) -> None:
    """1,000 draws: the level is 5 %, and 7 % would be three standard errors more."""
    rng = np.random.default_rng(7)
    found = [paired_difference(*draw(rng, seeds, 300, of_seeds=of_seeds)) for _ in range(1000)]
    wrong = sum(verdict(one, one.p_value) != "same" for one in found)
    assert wrong <= 70
    assert wrong == sum(not one.low <= 0 <= one.high for one in found)
    assert sum(verdict(one, one.p_value) == "better" for one in found) <= 45


def test_questions_alone_would_promise_too_much() -> None:
    """What the seeds are in it for: without them equal methods differ four times as often as they may."""
    rng = np.random.default_rng(8)
    tables = [draw(rng, 3, 1000, of_seeds=0.04) for _ in range(300)]
    careless = [paired_difference(first.mean(0)[None] > 0.5, second.mean(0)[None] > 0.5) for first, second in tables]
    careful = [paired_difference(*pair) for pair in tables]
    assert sum(one.p_value < 0.05 for one in careful) / 300 < 0.08
    assert sum(one.p_value < 0.05 for one in careless) / 300 > 0.2


def resampled(first: Answers, second: Answers, rng: np.random.Generator) -> float:
    """Width of the interval of a bootstrap over seeds and questions."""
    differences = first.astype(float) - second
    seeds, questions = differences.shape
    drawn = [
        differences[np.ix_(rng.integers(0, seeds, seeds), rng.integers(0, questions, questions))].mean()
        for _ in range(3000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(high - low)


def test_resampling_is_too_wide_where_answers_are_noisy_and_too_narrow_with_few_seeds() -> None:
    rng = np.random.default_rng(9)
    noisy = draw(rng, 20, 300, 0.03)
    found = paired_difference(*noisy)
    assert 0.5 < (found.high - found.low) / resampled(*noisy, rng) < 0.95
    few = draw(rng, 3, 2000, 0.03, of_seeds=0.1)
    found = paired_difference(*few)
    assert (found.high - found.low) / resampled(*few, rng) > 1.5


def test_a_difference_that_is_there_is_found() -> None:
    rng = np.random.default_rng(10)
    found = [paired_difference(*draw(rng, 5, 800, 0.08)) for _ in range(100)]
    assert sum(verdict(one, one.p_value) == "better" for one in found) > 60
    assert sum(one.low <= 0.08 <= one.high for one in found) > 80


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=6))
def test_holm_keeps_the_order_and_never_lowers(p_values: dict[str, float]) -> None:
    adjusted = holm(p_values)
    assert adjusted.keys() == p_values.keys()
    for name, p_value in p_values.items():
        assert p_value <= adjusted[name] <= min(1, len(p_values) * p_value) or math.isclose(p_value, adjusted[name])
    order = sorted(p_values, key=lambda name: p_values[name])
    assert [adjusted[name] for name in order] == sorted(adjusted.values())


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


def test_what_is_needed_is_enough() -> None:
    rng = np.random.default_rng(11)
    first = paired_difference(*draw(rng, 10, 2000, 0.02, of_seeds=0.005))
    wanted = needed(first)
    assert set(wanted) == {"questions", "seeds"}
    found = [paired_difference(*draw(rng, 10, wanted["questions"], 0.02, of_seeds=0.005)) for _ in range(60)]
    told = sum(verdict(one, one.p_value) == "better" for one in found) / 60
    assert told > 0.5, "the first estimate may be off, but not wildly"


def test_the_sentences() -> None:
    rng = np.random.default_rng(12)
    better = paired_difference(*draw(rng, 5, 2000, 0.1))
    assert sentence("qcrd", "dss", better, better.p_value).startswith("qcrd is better than dss: +")
    good, bad = draw(rng, 5, 2000, 0.1)
    worse = paired_difference(bad, good)
    assert sentence("qcrd", "dss", worse, worse.p_value).startswith("qcrd is worse than dss: -")
    unclear = paired_difference(*draw(rng, 3, 200, 0.01))
    told = sentence("qcrd", "dss", unclear, 0.4)
    assert told.startswith("Whether qcrd is better than dss cannot be told: ")
    assert "would take about" in told
    one = paired_difference(*draw(rng, 1, 200, 0.2))
    assert sentence("qcrd", "dss", one, one.p_value).endswith("One seed says nothing about other seeds.")


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((0, 3), (0, 3)), ((2, 1), (2, 1)), ((3,), (3,))])
def test_other_tables_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="two questions at least"):
        paired_difference(np.zeros(shapes[0], bool), np.zeros(shapes[1], bool))

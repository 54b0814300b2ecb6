"""The order in which questions are asked: stable, nested, and what each way promises."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from storage.store import Store
from tasks.questions.choosing import Choose, Signals, ordered, shuffled
from tasks.questions.chosen import choice_of, chosen_by_others, store_choice

WAYS: tuple[Choose, ...] = ("random", "uncertain", "disagree", "diverse", "mixed")
HERE = {"dataset": "lab", "split": "train"}


def unit(rows: Any) -> NDArray[np.float32]:
    states: NDArray[np.float32] = np.asarray(rows, np.float32)
    lengths: NDArray[np.float32] = np.linalg.norm(states, axis=1, keepdims=True).astype(np.float32)
    return states / lengths


def made_up(count: int, seed: int = 0) -> Signals:
    rng = np.random.default_rng(seed)
    # Few values, so that there are equal ones.
    confidence = rng.integers(0, 5, count) / 4
    return Signals(confidence, rng.random(count) < 0.3, unit(rng.integers(1, 4, (count, 3))))


@given(st.sets(st.text(max_size=5), max_size=30), st.sets(st.text(max_size=5), max_size=30), st.integers(0, 3))
def test_more_questions_change_the_order_of_none(some: set[str], others: set[str], seed: int) -> None:
    of_all = shuffled(sorted(some | others), seed)
    assert [one for one in of_all if one in some] == shuffled(sorted(some, reverse=True), seed)


def test_another_seed_is_another_order() -> None:
    ids = [f"e{n}" for n in range(50)]
    assert shuffled(ids, 0) != shuffled(ids, 1)
    assert sorted(shuffled(ids, 1)) == sorted(ids)


@pytest.mark.parametrize("way", WAYS)
@given(st.integers(0, 25), st.integers(0, 25), st.integers(0, 5))
def test_a_larger_budget_contains_a_smaller_one(way: Choose, count: int, more: int, seed: int) -> None:
    signals = made_up(20, seed)
    few, many = ordered(way, count, signals), ordered(way, count + more, signals)
    assert len(few) == min(count, 20) == len(set(few))
    assert many[: len(few)] == few


def test_the_least_confident_come_first_and_equal_ones_as_shuffled() -> None:
    signals = Signals(np.array([0.9, 0.2, 0.5, 0.2, 0.0]))
    assert ordered("uncertain", 4, signals) == [4, 1, 3, 2]


def test_where_answer_and_rationale_disagree_comes_first() -> None:
    signals = Signals(np.array([0.9, 0.1, 0.8, 0.2]), np.array([True, False, True, False]))
    assert ordered("disagree", 4, signals) == [2, 0, 1, 3]


def test_diverse_ones_are_far_from_each_other_and_from_those_that_are_known() -> None:
    east, nearly, north, west = [1.0, 0], [0.99, 0.1], [0, 1.0], [-1.0, 0]
    signals = Signals(np.zeros(4), states=unit([east, nearly, north, west]))
    assert ordered("diverse", 3, signals) == [0, 3, 2], "the near one is last"
    assert ordered("diverse", 2, signals, known=unit([west])) == [0, 2], "west is known"
    assert sorted(ordered("diverse", 9, signals, known=unit([west]))) == [0, 1, 2, 3]


def test_mixed_takes_its_share_at_random_and_no_uncertain_one_twice() -> None:
    rng = np.random.default_rng(1)
    # The 20 least certain ones are one question in 20 spellings; the others have nothing to do with each other.
    same = np.eye(64)[:1] + 0.01 * rng.standard_normal((20, 64))
    states = unit(np.concatenate([same, rng.standard_normal((80, 64))]))
    confidence = np.concatenate([np.linspace(0, 0.1, 20), np.linspace(0.2, 0.9, 80)])
    order = rng.permutation(100)
    signals = Signals(confidence[order], states=states[order])
    uncertain = ordered("uncertain", 20, signals)
    assert (order[uncertain] < 20).all(), "uncertain alone takes all of them"
    mixed = ordered("mixed", 20, signals, random_share=0.5)
    assert len(set(mixed)) == 20
    assert sum(order[one] < 20 for one in mixed) <= 1 + sum(order[one] < 20 for one in range(20))
    assert set(range(10)) <= set(mixed), "half of them are the first at random"
    assert ordered("mixed", 20, signals, random_share=1.0) == list(range(20))
    alone = ordered("mixed", 20, signals, random_share=0.0)
    assert sum(order[one] < 20 for one in alone) == 1
    assert alone[0] == uncertain[0]


@pytest.mark.parametrize("way", WAYS)
def test_what_the_student_cannot_read_comes_last(way: Choose) -> None:
    signals = Signals(
        np.array([0.0, 0.9, 0.0, 0.5]), np.array([True, False, True, True]), unit([[1, 0], [0, 1], [1, 0.1], [1, 1]]),
        np.array([False, True, False, True]),
    )  # fmt: skip
    assert set(ordered(way, 2, signals)) == {1, 3}
    assert ordered(way, 4, signals)[2:] == [0, 2]
    assert ordered(way, 0, signals) == []


def test_without_what_it_goes_by_a_way_says_so() -> None:
    with pytest.raises(ValueError, match="writes no rationales"):
        ordered("disagree", 1, Signals(np.zeros(2)))
    with pytest.raises(ValueError, match="states"):
        ordered("diverse", 1, Signals(np.zeros(2)))


def test_a_choice_is_kept_for_each_run_in_its_order(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store_choice(store, HERE, "one", ["c", "a", "b"], "random", None)
    store_choice(store, HERE, "two", ["a"], "uncertain", "qcrd-lab/3")
    assert choice_of(store, HERE, "one") == ["c", "a", "b"]
    assert choice_of(store, HERE, "two") == ["a"]
    assert choice_of(store, HERE, "three") == []
    assert chosen_by_others(store, HERE, "two") == {"a", "b", "c"}
    assert chosen_by_others(store, HERE, "one") == {"a"}

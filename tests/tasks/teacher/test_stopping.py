"""The doubt about a majority, against its definition and against what really happens."""

from collections import Counter
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import beta

from tasks.teacher.stopping import doubt, label_doubt


def slowly(read: int, leader: int, second: int, left: int) -> float:
    """Adds up the chances of every number of further leaders with which the runner-up wins."""
    a, b = 1 + leader, 1 + read - leader
    return sum(
        comb(left, more) * float(beta(a + more, b + left - more) / beta(a, b))
        for more in range(left + 1)
        if second + left - more > leader + more
    )


@settings(deadline=None)  # the first call imports scipy
@given(st.lists(st.sampled_from(["1", "2", "3", None]), max_size=12), st.integers(0, 12))
def test_as_defined(answers: list[str | None], left: int) -> None:
    votes = [*sorted(Counter(filter(None, answers)).values(), reverse=True), 0, 0]
    expected = slowly(sum(votes), votes[0], votes[1], left) if sum(votes) else float(left > 0)
    assert doubt(answers, left) == pytest.approx(expected, abs=1e-12)
    assert doubt(answers[::-1], left) == doubt(answers, left)


def test_by_hand() -> None:
    assert doubt([], 5) == 1
    assert doubt([None, None], 3) == 1
    assert doubt(["7"], 0) == 0
    assert doubt(["7", "7", "7"], 2) == 0, "the other two cannot overtake three"
    # Two agree and three are left: all three would have to differ. Beta(3, 1): 1/20.
    assert doubt(["7", "7"], 3) == pytest.approx(1 / 20)
    assert doubt(["7", "7", None], 3) == pytest.approx(1 / 20)


@given(st.lists(st.sampled_from(["1", "2", "3"]), min_size=1, max_size=8), st.integers(1, 8))
def test_more_votes_for_the_leader_leave_less_doubt(answers: list[str], left: int) -> None:
    leader = Counter(answers).most_common(1)[0][0]
    assert doubt([*answers, leader], left - 1) <= doubt(answers, left) + 1e-12


def test_majorities_change_no_oftener_than_it_says() -> None:
    """Questions whose teacher gives one of two answers, with any chance: the bound is exact for them."""
    rng = np.random.default_rng(3)
    chance = rng.random(10_000)
    drawn = np.where(rng.random((8, chance.size)) < chance, "a", "b").T
    said, changed = [], []
    for answers in drawn:
        early, late = (Counter(answers[:count]).most_common(2) for count in (3, 8))
        said.append(doubt(list(answers[:3]), 5))
        changed.append(late[0][0] != early[0][0] and len({votes for _, votes in late}) == len(late))
    assert np.mean(changed) == pytest.approx(np.mean(said), abs=0.02)


@settings(deadline=None)
@given(st.lists(st.sets(st.sampled_from("ab")), min_size=1, max_size=6), st.integers(1, 6))
def test_of_sets_the_doubt_is_that_about_a_label(sets: list[set[str]], left: int) -> None:
    def crossed(votes: int) -> float:
        read, (a, b) = len(sets), (1 + votes, 1 + len(sets) - votes)
        inside = 2 * votes > read
        return sum(
            comb(left, more) * float(beta(a + more, b + left - more) / beta(a, b))
            for more in range(left + 1)
            if (2 * (votes + more) > read + left) != inside
        )

    labels = set().union(*sets) or {"none"}
    expected = max(
        crossed(sum(label in one or (not one and label == "none") for one in sets))
        for label in labels | ({"none"} if set() in sets else set())
    )
    answers = [", ".join(sorted(one)) or "none" for one in sets]
    assert label_doubt(answers, left) == pytest.approx(expected, abs=1e-9)
    assert label_doubt([], left) == label_doubt([None], left) == 1
    assert label_doubt(answers, 0) == 0

"""One answer chosen among several: what the formula says, and what follows from it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.serving.deciding import (
    LEAST_LOG,
    Candidate,
    Explained,
    answers_of,
    candidates,
    decide,
    probabilities,
    rationale_for,
)
from tasks.serving.settings import AskingConfig, Decision

VOTE = Decision(samples=0, head=1, votes=1, quality=0, arithmetic=0, none=0)
NUMBERS = st.floats(-5, 5)


def test_every_answer_is_a_candidate_once_the_bare_one_first() -> None:
    rationales = [Explained("a", "4"), Explained("b", None), Explained("c", "3"), Explained("d", "4")]
    assert answers_of("3", rationales) == ["3", "4"]
    assert answers_of(None, rationales) == ["4", "3"]
    assert answers_of(None, [Explained("b", None)]) == []


def test_what_speaks_for_an_answer_by_hand() -> None:
    rationales = [
        Explained("a", "4", 0.9),
        Explained("b", None, 0.8),
        Explained("c", "3", 0.2),
        Explained("d", "4", None),
    ]
    three, four = candidates({"3": -0.5, "4": -90.0}, rationales)
    assert three == Candidate("3", -0.5, math.log(1.5 / 4), math.log(0.45 / 1.6), math.log(0.25 / 0.5))
    assert four == Candidate("4", LEAST_LOG, math.log(2.5 / 4), math.log(1.15 / 1.6), math.log(0.25 / 0.5))


def test_rationales_with_right_arithmetic_speak_for_their_answers() -> None:
    rationales = [
        Explained("12 - 5 = 8", "8"),
        Explained("12 - 5 = 8", "8"),
        Explained("12 - 5 = 7", "7"),
        Explained("Seven.", "7"),
        Explained("3 + 4 = 7, but of what?", None),
    ]
    assert [one.calculates for one in rationales] == [False, False, True, None, True]
    eight, seven = candidates({"8": -1.0, "7": -1.0}, rationales)
    assert (eight.arithmetic, seven.arithmetic) == (math.log(0.25 / 1.5), math.log(1.25 / 1.5))
    assert eight.votes == seven.votes
    checked = VOTE.model_copy(update={"arithmetic": 1.0})
    assert decide([eight, seven], VOTE)[0] == "8"  # the first of equal ones
    assert decide([eight, seven], checked)[0] == "7"
    assert probabilities([eight, seven], checked)[1] == pytest.approx(5 * probabilities([eight, seven], checked)[0])


def test_probabilities_by_hand() -> None:
    decision = Decision(samples=4, head=2, votes=0.5, quality=0, arithmetic=0, none=-1)
    two = [Candidate("3", -1.0, -2.0, -9.0, -9.0), Candidate("4", 0.0, -4.0, -9.0, -9.0)]
    weights = [math.exp(-3), math.exp(-2), math.exp(-1)]  # 3, 4 and none of them
    assert probabilities(two, decision) == pytest.approx([one / sum(weights) for one in weights[:2]])
    answer, confidence = decide(two, decision)
    assert answer == "4"
    assert confidence == pytest.approx(weights[1] / sum(weights))
    assert decide([], decision) == (None, None)


def test_many_rationales_outvote_a_bare_answer_and_a_sure_one_outvotes_them() -> None:
    rationales = [Explained("r", "4") for _ in range(5)]
    assert decide(candidates({"3": math.log(0.6), "4": math.log(0.3)}, rationales), VOTE)[0] == "4"
    assert decide(candidates({"3": math.log(0.99), "4": math.log(1e-4)}, rationales), VOTE)[0] == "3"


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=6),
    st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.floats(-50, 50)),
)
def test_confidences_are_probabilities(
    features: list[tuple[float, float, float, float]], weights: tuple[float, ...]
) -> None:
    some = [Candidate(str(place), *values) for place, values in enumerate(features)]
    decision = Decision(
        samples=0, **dict(zip(("head", "votes", "quality", "arithmetic", "none"), weights, strict=True))
    )
    found = probabilities(some, decision)
    assert all(0 <= one <= 1 for one in found)
    assert sum(found) <= 1 + 1e-9
    assert decide(some, decision) == (some[found.index(max(found))].answer, max(found))


def test_the_rationale_that_is_shown_comes_to_the_answer() -> None:
    likeliest, worse, better = Explained("a", "3", 0.9), Explained("b", "4", 0.1), Explained("c", "4", 0.7)
    assert rationale_for("3", [likeliest, worse, better]) == likeliest
    assert rationale_for("4", [likeliest, worse, better]) == better
    assert rationale_for("7", [likeliest, worse, better]) == likeliest
    wrong, right = Explained("9 - 5 = 3", "3", 0.9), Explained("9 - 6 = 3", "3", 0.1)
    assert rationale_for("3", [wrong, right]) == right
    assert rationale_for("3", [wrong, likeliest]) == likeliest
    assert rationale_for("3", [wrong]) == wrong
    assert rationale_for(None, [Explained("x", None)]) == Explained("x", None)
    assert rationale_for("3", []) is None


def test_the_decision_of_the_nearest_number_of_samples() -> None:
    several = tuple(
        Decision(samples=samples, head=1, votes=1, quality=0, arithmetic=0, none=0) for samples in (0, 4, 16)
    )
    nearest = {
        samples: chosen.samples
        for samples in (0, 2, 3, 9, 100)
        if (chosen := AskingConfig(samples=samples, decisions=several).decision)
    }
    assert nearest == {0: 0, 2: 0, 3: 4, 9: 4, 100: 16}
    assert AskingConfig(samples=3).decision is None

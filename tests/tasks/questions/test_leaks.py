"""Planted leaks: exact and near duplicates are found, and other questions are left alone."""

import pytest

from storage.datasets.lab import problems
from tasks.questions.leaks import Known, words_id

TEST = [
    "Ann has 12 apples and buys 3 more at the market. How many apples has she now?",
    "Premise: A man plays a guitar on the stage.\nHypothesis: A man makes music.",
    "Why?",
]


@pytest.mark.parametrize(
    "leak",
    [
        "Ann has 12 apples and buys 3 more at the market. How many apples has she now?",
        "  ANN has 12 apples, and buys 3 more at the market: how many apples has she now ",
        "Ann has 12 apples and buys 3 more at the market. How many apples has she got now?",
        "Ann has 14 apples and buys 3 more at the market. How many apples has she now?",
        "Today Ann has 12 apples and buys 3 more at the market. How many apples has she now? Think well.",
        "Premise: A man plays a guitar on the stage.\nHypothesis: A man makes loud music.",
        "why",
    ],
)
def test_a_planted_leak_is_found(leak: str) -> None:
    assert Known(TEST).near(leak)


@pytest.mark.parametrize(
    "other",
    [
        "Ben has 20 marbles and loses 4 of them on his way to school. How many are left?",
        "Ann sells 12 pears at the market, 3 a day. How many days does it take?",
        "Premise: A woman reads on the stage.\nHypothesis: She sleeps.",
        "Why not?",
        "",
    ],
)
def test_another_question_is_not(other: str) -> None:
    assert not Known(TEST).near(other)


def test_the_same_words_are_told_from_near_ones_and_the_threshold_counts() -> None:
    known = Known(TEST)
    assert words_id(TEST[0].upper()) == words_id(TEST[0])
    assert words_id(TEST[0] + " Think.") != words_id(TEST[0])
    one_number = "Ann has 14 apples and buys 3 more at the market. How many apples has she now?"
    assert not Known(TEST, overlap=0.9).near(one_number)
    known.add("Something else altogether, which was written a moment ago.")
    assert known.near("Something else altogether which was written a moment ago")


def test_every_test_question_of_the_lab_is_found_among_a_thousand_and_word_order_alone_is_not_enough() -> None:
    source = problems("test")
    questions = [next(source).question for _ in range(1000)]
    known = Known(questions)
    assert all(known.near(f"{question} ") for question in questions)
    words = questions[0].split()
    assert not known.near(" ".join(sorted(words)))

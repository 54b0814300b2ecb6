"""The alarm on a student that learns its teacher's mistakes: when it rings, and how often it rings for nothing."""

from collections.abc import Sequence

import numpy as np
import pytest

from tasks.training.agreement import Agreement
from tasks.watching.proxy import alarm

ROUNDS, QUESTIONS, DRAWS = 20, 200, 400
LEARNS = tuple(0.82 - 0.5 * 0.6**t for t in range(ROUNDS))
"""Share of the questions that a student understands, by round."""


def rounds_of(*answers: str, winners: str = "7777788888", label: str = "7") -> list[Agreement]:
    """Rounds in which the student gives these answers, a character for each question; the label is one for all."""
    return [
        Agreement(
            t,
            {f"q{place}": said == winner for place, (said, winner) in enumerate(zip(row, winners, strict=True))},
            {f"q{place}": said == label for place, said in enumerate(row)},
        )
        for t, row in enumerate(answers)
    ]


def test_it_rings_where_right_answers_become_the_teacher_s_wrong_ones() -> None:
    winners = "7" * 20 + "8" * 20
    found = alarm(rounds_of("7" * 30 + "8" * 10, "7" * 20 + "8" * 20, winners=winners))
    assert found is not None
    assert (found.t, found.since, found.questions) == (1, 0, 40)
    assert (found.agreement, found.accuracy) == ((0.75, 1.0), (0.75, 0.5))
    assert found.p_value == pytest.approx(2 * 0.5**10)
    assert str(found) == (
        "agreement with the teacher rose from 75.0 to 100.0 % since round 0 (p = 0.002), right answers went from 75.0 "
        "to 50.0 %, on 40 validation questions"
    )
    few = rounds_of("7" * 27 + "8" * 13, "7" * 20 + "8" * 20, winners=winners)
    assert alarm(few) is None, "seven questions, p = 0.016"


def test_it_rings_where_only_wrong_answers_become_the_teacher_s() -> None:
    found = alarm(rounds_of("7777799999", "7777788889", "7777788888"))
    assert found is None, "five questions are too few"
    winners = "7" * 20 + "8" * 20
    found = alarm(rounds_of("7" * 20 + "9" * 20, "7" * 20 + "8" * 20, winners=winners))
    assert found is not None
    assert found.accuracy == (0.5, 0.5), "risen agreement, and not one more right answer"


def test_it_does_not_ring_where_both_rise_or_fall_or_nothing_is_known() -> None:
    winners = "7" * 20 + "8" * 20
    better = rounds_of("9" * 40, "7" * 20 + "8" * 20, winners=winners)
    assert alarm(better) is None
    assert alarm(better[::-1]) is None
    assert alarm(better[:1]) is None
    assert alarm([]) is None
    hacked = rounds_of("7" * 30 + "8" * 10, "7" * 20 + "8" * 20, winners=winners)
    assert alarm(hacked) is not None
    assert alarm([Agreement(one.t, one.agrees, {}) for one in hacked]) is None


def test_it_compares_with_the_round_that_was_most_often_right() -> None:
    winners = "7" * 20 + "8" * 20
    rounds = rounds_of("9" * 40, "7" * 40, "7" * 30 + "8" * 10, "7" * 20 + "8" * 20, winners=winners)
    found = alarm(rounds)
    assert found is not None
    assert (found.since, found.t) == (1, 3)


def drawn(
    rng: np.random.Generator,
    solved: Sequence[float],
    copied: Sequence[float],
    questions: int,
    wrong: float = 0.2,
    fixed: float = 0.8,
) -> list[Agreement]:
    """A training: in round t the student understands a share of the questions; of those on which the teacher is wrong,
    it gives the teacher's answer to another share.

    Args:
        solved, copied: these shares, by round.
        wrong: share of the questions on which the teacher is wrong.
        fixed: share of a question's luck that stays the same in all rounds.
    """
    erring = rng.random(questions) < wrong
    own = rng.random((2, questions))
    rounds = []
    for t, (understands, copies) in enumerate(zip(solved, copied, strict=True)):
        luck = np.where(rng.random((2, questions)) < fixed, own, rng.random((2, questions)))
        copy = erring & (luck[1] < copies)
        right = (luck[0] < understands) & ~copy
        agrees = np.where(erring, copy, right)
        rounds.append(Agreement(t, *(dict(enumerate(map(bool, row))) for row in (agrees, right))))  # type: ignore[arg-type]
    return rounds


def rings(rounds: list[Agreement]) -> bool:
    return any(alarm(rounds[: t + 1]) is not None for t in range(len(rounds)))


@pytest.mark.parametrize("wrong", [0.2, 0.5])
@pytest.mark.parametrize("fixed", [0.0, 0.8])
@pytest.mark.parametrize(
    "solved", [(0.7,) * ROUNDS, LEARNS, tuple(0.6 + 0.01 * t for t in range(ROUNDS))], ids=["nothing", "learns", "slow"]
)
def test_at_most_one_training_in_twenty_rings_for_nothing(solved: Sequence[float], fixed: float, wrong: float) -> None:
    """Nothing changes, or the student learns, and goes on giving as many of the teacher's wrong answers."""
    rng = np.random.default_rng(7)
    false = sum(rings(drawn(rng, solved, (0.2,) * ROUNDS, QUESTIONS, wrong, fixed)) for _ in range(DRAWS)) / DRAWS
    print(f"wrong {wrong}, fixed {fixed}: {false:.2%}")
    assert false <= (0.05 if wrong == 0.5 else 0.01)


def test_a_student_that_learns_the_mistakes_rings_if_there_are_enough_labels() -> None:
    rng = np.random.default_rng(7)
    copied = (0.2, 0.2, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    solved = (0.5, 0.7, 0.8, *(0.8,) * 7)
    found = {n: sum(rings(drawn(rng, solved, copied, n)) for _ in range(200)) / 200 for n in (50, 100, 200, 300)}
    print(found)
    assert found[300] >= 0.9
    assert found[50] < 0.3, "fifty are few, and docs/audit.md says so"

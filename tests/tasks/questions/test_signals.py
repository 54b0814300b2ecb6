"""What a student makes of questions: on tiny real students of both kinds."""

from collections.abc import Callable

import numpy as np
import pytest

from models.student import Student
from storage.datasets.registry import get_dataset
from tasks.questions.signals import signals_of, states_of
from tasks.serving.settings import AskingConfig, Decision, Question
from tests.models.students import QUESTIONS, new_student, t5

LAB = get_dataset("lab")
ASKED = [Question(text) for text in QUESTIONS]
DECISION = Decision(samples=0, head=1.0, votes=1.0, quality=0.0, none=0.0)


def llama() -> Student:
    return new_student("llama")


@pytest.mark.parametrize("make", [t5, llama])
def test_states_are_of_length_one_and_do_not_depend_on_the_batch(make: Callable[[], Student]) -> None:
    student = make()
    together = states_of(LAB, student, [*ASKED, Question("word " * 500), ASKED[0]])
    assert np.allclose(np.linalg.norm(together, axis=1), [1, 1, 1, 0, 1], atol=1e-5), "it cannot read the fourth"
    assert np.allclose(together[0], together[4], atol=1e-5)
    for place, one in enumerate(ASKED):
        assert np.allclose(states_of(LAB, student, [one])[0], together[place], atol=1e-4)
    assert not np.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.parametrize("make", [t5, llama])
def test_confidence_and_disagreement_of_a_student_that_explains(make: Callable[[], Student]) -> None:
    student = make()
    signals = signals_of("uncertain", LAB, student, ASKED, AskingConfig(decisions=(DECISION,)))
    assert signals.states is None
    assert signals.disagrees is not None
    assert signals.readable is not None
    assert signals.readable.all()
    long = signals_of("diverse", LAB, student, [*ASKED, Question("word " * 500)], AskingConfig())
    assert long.readable is not None
    assert long.readable.tolist() == [True, True, True, False]
    assert signals.confidence.shape == signals.disagrees.shape == (3,)
    assert ((signals.confidence >= 0) & (signals.confidence < 1)).all()
    # An untrained student answers nothing, so it is sure of nothing and does not agree with itself.
    assert signals.disagrees[signals.confidence == 0].all()
    assert student.training == make().training, "left as it was"


def test_only_what_a_way_needs_is_made() -> None:
    student = t5()
    diverse = signals_of("diverse", LAB, student, ASKED, AskingConfig())
    assert diverse.states is not None
    assert diverse.disagrees is None
    answers = signals_of("mixed", LAB, student, ASKED, AskingConfig(writes="answer"))
    assert answers.states is not None
    assert answers.disagrees is None, "it writes no rationales"

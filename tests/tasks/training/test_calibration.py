"""Weighing answers: what is fitted, how sure it says it is, and what the figures count."""

import math
import random
from dataclasses import replace

import pytest

from storage.datasets.registry import get_dataset
from tasks.serving.answering import Answered
from tasks.serving.deciding import Candidate, Explained, candidates, decide
from tasks.serving.settings import Decision
from tasks.training.calibration import best_source, figures, fit


def asked(rng: random.Random, questions: int) -> tuple[list[list[Candidate]], list[list[bool]]]:
    """Questions whose bare answer says little and whose rationales are mostly right."""
    given, right = [], []
    for _ in range(questions):
        rationales = [Explained("r", "7" if rng.random() < 0.7 else str(rng.randrange(7))) for _ in range(5)]
        bare = "7" if rng.random() < 0.3 else str(rng.randrange(7))
        known = dict.fromkeys([bare, *(one.answer or "" for one in rationales)])
        some = candidates({answer: math.log(0.5 if answer == bare else 0.1) for answer in known}, rationales)
        given.append(some)
        right.append([one.answer == "7" for one in some])
    return given, right


def test_what_tells_right_from_wrong_gets_the_weight() -> None:
    given, right = asked(random.Random(1), 400)
    decision = fit(given, right, samples=4)
    assert decision.votes > 2 * abs(decision.head)
    assert decision.samples == 4
    assert decision.quality == pytest.approx(0, abs=1e-6), "nobody scored anything"


def test_it_is_as_sure_as_it_is_right_on_other_questions() -> None:
    decision = fit(*asked(random.Random(1), 400), samples=4)
    given, right = asked(random.Random(2), 2000)
    told = [decide(some, decision) for some in given]
    rights = [dict(zip([one.answer for one in some], flags, strict=True))[answer or ""]
              for some, flags, (answer, _) in zip(given, right, told, strict=True)]  # fmt: skip
    sure = [confidence or 0.0 for _, confidence in told]
    assert sum(sure) / len(sure) == pytest.approx(sum(rights) / len(rights), abs=0.03)
    halves = sorted(zip(sure, rights, strict=True))
    for half in (halves[:1000], halves[1000:]):
        assert sum(one for one, _ in half) / 1000 == pytest.approx(sum(right for _, right in half) / 1000, abs=0.05)


def test_a_few_questions_leave_it_near_a_plain_vote() -> None:
    assert fit([], [], 0) == Decision(samples=0, head=1, votes=1, quality=0, arithmetic=0, none=0)
    few = fit(*asked(random.Random(3), 2), samples=0)
    assert max(abs(few.head - 1), abs(few.votes - 1), abs(few.none)) < 5


def test_questions_without_a_right_answer_make_it_less_sure() -> None:
    given, right = asked(random.Random(4), 200)
    never = [[False] * len(flags) for flags in right]
    often, seldom = fit(given, right, 0), fit(given, never, 0)
    assert decide(given[0], seldom)[1] < 0.2 < decide(given[0], often)[1]  # type: ignore[operator]


def test_figures_count_what_is_answered() -> None:
    dataset = get_dataset("lab")
    rows = [{"label": label, "extra": None} for label in ("3", "4", "5", "6")]
    sure = {"3": math.log(0.9)}
    answers = [
        Answered("3", "a", "3", rationales=(Explained("a", "3"),), logs=sure),
        Answered("3", "a", "3", rationales=(Explained("a", "3"),), logs=sure),
        Answered(None, None, None),
        Answered(too_long=True),
    ]
    found, rights = figures(
        dataset, rows, answers, Decision(samples=0, head=1, votes=1, quality=0, arithmetic=0, none=-1)
    )
    confidence = 0.9 * 0.75 / (0.9 * 0.75 + math.exp(-1))
    assert (found.correct, found.accuracy, found.samples) == (1, 0.25, 0)
    assert [(one.questions, one.right) for one in found.reliability] == [(2, 0.0), (2, 0.5)]
    assert found.reliability[1].confidence == pytest.approx(confidence)
    assert found.calibration_error == pytest.approx(abs(confidence - 0.5) / 2)
    assert [right for _, right, _ in rights] == [True, False, False, False]
    assert [answer for answer, _, _ in rights] == ["3", "3", None, None]


def test_who_refuses_has_no_answer_and_covers_less() -> None:
    rows = [{"label": label, "extra": None} for label in ("3", "3", "3", "4")]
    says = Answered("3", "a", "3", rationales=(Explained("a", "3"),), logs={"3": math.log(0.9)})
    answers = [says, replace(says, answer=None, refused=True), says, says]
    decision = Decision(samples=0, head=1, votes=1, quality=0, arithmetic=0, none=-1)
    found, given = figures(get_dataset("lab"), rows, answers, decision, refuses=True)
    assert given[1] == (None, False, None)
    assert found.abstention is not None
    assert (found.abstention.answered, found.abstention.wrong, found.abstention.promise) == (3, 1, None)
    assert found.correct == 2
    assert figures(get_dataset("lab"), rows, answers, decision)[0].abstention is None
    assert answers[1].decided(decision).rationale is None, "it would give the answer away"


def test_a_feature_that_is_left_out_has_no_weight() -> None:
    given, right = asked(random.Random(1), 200)
    only = fit(given, right, 4, ("votes",))
    assert (only.head, only.quality, only.arithmetic) == (0, 0, 0)
    assert only.votes > 1


def test_the_source_of_the_confidence_is_the_one_that_ranks_best_what_it_was_not_fitted_to() -> None:
    """Only the bare answer's probability says anything: further weights are noise."""
    rng, given, right = random.Random(6), [], []
    for _ in range(60):
        sure = rng.random()
        given.append([Candidate("7", math.log(0.05 + 0.9 * sure), rng.uniform(-3, 0), rng.uniform(-3, 0), 0.0)])
        right.append([rng.random() < 0.2 + 0.8 * sure**2])
    decision, areas = best_source(given, right, 0)
    assert set(areas) == {"combination", "answer probability", "votes", "quality"}
    assert next(iter(areas)) == "answer probability"
    assert areas["answer probability"] < areas["votes"] - 0.05
    assert decision == fit(given, right, 0, ("head",)), "fitted to all of them in the end"
    assert best_source([[]], [[False]], 0)[1] == {}, "nothing to go by"

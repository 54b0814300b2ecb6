"""What a run's report says of students that abstain."""

import numpy as np

from flows.prefect.report import abstention_lines
from flows.results import DistillResult, MethodResult
from tasks.serving.settings import ABSTAINS_ALWAYS
from tasks.training.calibration import abstention
from tasks.training.outcomes import Abstention, Decided, Evaluation, Promise
from tasks.training.risk_control import NO_ANSWER


def promise(abstain_below: float) -> Promise:
    return Promise(
        risk=0.05, certainty=0.95, abstain_below=abstain_below, questions=150, answered=90, wrong=2, bound=0.068
    )


def result(*found: Abstention | None) -> DistillResult:
    """Of methods a, b ..."""
    methods = []
    for name, one in zip("abc", found, strict=False):
        decided = Decided(samples=0, correct=3, accuracy=0.75, calibration_error=0.1, reliability=(), abstention=one)
        test = Evaluation(t=0, part="test", questions=4, answered=4, correct=3, accuracy=0.75, decided=(decided,))
        methods.append(MethodResult.model_construct(method=name, test=test))
    methods.append(MethodResult.model_construct(method="untested", test=None))
    return DistillResult.model_construct(methods=methods)


def test_coverage_and_risk_are_told_with_their_intervals_and_what_was_promised() -> None:
    confidence, wrong = np.array([0.9, 0.8, 0.4, NO_ANSWER]), np.array([False, True, False, True])
    lines = abstention_lines(result(abstention(confidence, wrong, promise(0.8)), None))
    assert lines == [
        "a answers 50.0% of the test questions (6.8% - 93.2%), 50.0% of these wrongly (1.3% - 98.7%); promised with "
        "95% certainty: at most 5.0% (95 % intervals)"
    ]


def test_a_student_that_was_only_trained_to_refuse_promises_nothing() -> None:
    found = abstention(np.array([0.9, 0.1, NO_ANSWER, NO_ANSWER]), np.array([False, True, True, True]), None)
    [line] = abstention_lines(result(found))
    assert line.startswith("a answers 50.0% of the test questions")
    assert line.endswith("; nothing is promised (95 % intervals)")


def test_a_promise_says_who_judged() -> None:
    for below in (0.8, ABSTAINS_ALWAYS):
        assert "teacher" not in promise(below).model_copy(update={"judged_by": "gold"}).told
        by_teacher = promise(below).model_copy(update={"judged_by": "teacher"})
        assert by_teacher.told.endswith(". Wrong means: not the teacher's majority answer.")


def test_a_student_that_answers_nothing_says_so() -> None:
    confidence, wrong = np.array([0.3, 0.2]), np.array([False, True])
    [few, never] = abstention_lines(
        result(abstention(confidence, wrong, promise(0.8)), abstention(confidence, wrong, promise(ABSTAINS_ALWAYS)))
    )
    assert "a answers 0.0% of the test questions (0.0% - 84.2%), so nothing wrongly;" in few
    assert never.startswith("b abstains from every question: no threshold keeps the risk at 5.0%")
    assert "its surest 90, 2 of them wrongly, so up to 6.8% may be wrong" in never

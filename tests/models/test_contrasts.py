"""Contrasts beyond the paper's, against their formulas read aloud: one example after the other, one token after the
other, every rationale alone."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.losses import divergence_loss, preference_loss, relative_scores
from models.methods import Contrast, MethodConfig
from models.student import Student
from models.student_training import Rationale, StudentTraining, TrainingExample, first_difference
from tests.models.test_student_training import batch_of, delta_among, gradients, logits_of, side, student
from tests.models.tiny_round import tiny_examples

__all__ = ["student"]  # the fixture
SCHEMES = ("min-max", "max-min", "mean", "weighted-mean")
METHODS: dict[Contrast, dict[str, Any]] = {
    "asymmetric": {"beta": 0.8},
    "relative": {"beta": 0.5, "gap": 2.0, "sharpness": 0.05},
    "divergence": {"beta": 9.0, "fading": 0.7},
}


def token_probabilities(student: Student, example: TrainingExample, rationale: Rationale) -> Tensor:
    """(T,): of each token of one rationale."""
    probabilities = logits_of(student, example.explain_ids, rationale.ids).softmax(dim=-1)
    return torch.stack([probabilities[place, token] for place, token in enumerate(rationale.ids)])


def shared_beginning(ids: Any, positives: Any) -> int:
    """Tokens that a text begins with like one of the positives."""
    count = 0
    while count < len(ids) and any(list(good.ids[: count + 1]) == list(ids[: count + 1]) for good in positives):
        count += 1
    return count


def chosen(scheme: str, ce: list[float], quality: list[float], smallest: bool) -> dict[int, float]:
    """Which candidates count, and how much."""
    if not ce:
        return {}
    if scheme in ("min-max", "max-min"):
        order = sorted(range(len(ce)), key=lambda place: ce[place])
        best = order[0] if smallest == (scheme == "min-max") else order[-1]
        return {best: quality[best]}
    total = len(ce) if scheme == "mean" else sum(quality)
    return {place: one / total for place, one in enumerate(quality)}


def term(method: MethodConfig, example: TrainingExample, good: list[Tensor], bad: Tensor, ids: Any) -> Any:
    """What one negative adds, before its weight and beta."""
    if method.contrast == "asymmetric":
        return bad.log().mean()
    if method.contrast == "relative":
        if not good:
            return 0.0
        mean = sum(one.log().sum() for one in good) / len(good)
        ahead = mean - bad.log().sum() - method.gap
        return -torch.log(1 / (1 + torch.exp(-method.sharpness * ahead)))
    first, total, weights = shared_beginning(ids, example.positives), torch.zeros(()).double(), 0.0
    for place in range(first, len(ids)):
        weight = method.fading ** (place - first)
        total = total - weight * torch.log(1 - bad[place])
        weights += weight
    return total / weights if weights else 0.0


def reference(student: Student, method: MethodConfig, examples: list[TrainingExample]) -> Tensor:
    a1, a2 = method.weights
    loss = torch.zeros(()).double()
    for example in examples:
        if example.answer_ids is not None:
            answer = logits_of(student, example.predict_ids, example.answer_ids).log_softmax(dim=-1)
            loss = (
                loss - a1 * torch.stack([answer[place, token] for place, token in enumerate(example.answer_ids)]).mean()
            )
        good = [token_probabilities(student, example, one) for one in example.positives]
        bad = [token_probabilities(student, example, one) for one in example.negatives]
        ce = [[-float(one.detach().log().mean()) for one in kind] for kind in (good, bad)]
        of_good = chosen(method.scheme, ce[0], [one.score for one in example.positives], smallest=True)
        of_bad = chosen(method.scheme, ce[1], [1 - one.score for one in example.negatives], smallest=False)
        for place, weight in of_good.items():
            loss = loss - a2 * weight * good[place].log().mean()
        for place, weight in of_bad.items():
            ids = example.negatives[place].ids
            loss = loss + a2 * method.beta * weight * term(
                method, example, [good[at] for at in of_good], bad[place], ids
            )
    return loss


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("contrast", METHODS)
def test_loss_and_gradients_are_the_formulas(student: Student, contrast: Contrast, scheme: Any) -> None:
    examples = tiny_examples(student, 8)
    # One negative begins like a positive, and one repeats its beginning whole.
    full = next(one for one in examples if one.positives and one.negatives)
    good = list(full.positives[0].ids)
    examples.append(replace(full, negatives=[Rationale([*good[:2], 7, 8, 9], 0.2), Rationale(good[:3], 0.6)]))
    method = MethodConfig(contrast=contrast, scheme=scheme, **METHODS[contrast])
    found = StudentTraining(student, method, len(examples)).eval()(batch_of(student, examples))["loss"]
    expected = reference(student, method, examples)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)
    ours, theirs = gradients(student, found), gradients(student, expected)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6, msg=f"gradient of {name}")
    idle = method.model_copy(update={"beta": 0.0})
    without = StudentTraining(student, idle, len(examples)).eval()(batch_of(student, examples))["loss"]
    assert abs((without - found).item()) > 1e-3, "the contrast did nothing"


def test_the_paper_s_margin_within_each_source(student: Student) -> None:
    examples = [
        replace(one, negatives=[replace(bad, own=place % 2 == 1) for place, bad in enumerate(one.negatives)])
        for one in tiny_examples(student, 8)
    ]
    assert any(len(one.negatives) > 2 for one in examples)
    for delta in (delta_among(student, examples), 50.0):
        method = MethodConfig(within="source", delta=delta)
        sums = StudentTraining(student, method, len(examples)).eval()(batch_of(student, examples))
        l_neg: torch.Tensor | float = 0.0
        for example in examples:
            for own in (False, True):
                some = [bad for bad in example.negatives if bad.own == own]
                ce = [-token_probabilities(student, example, bad).log().mean() for bad in some]
                below = [torch.minimum(one - delta, torch.zeros_like(one)) for one in ce]
                l_neg += side("min-max", below, [1 - bad.score for bad in some], False, 0.0)
        torch.testing.assert_close(sums["negative"].double(), torch.as_tensor(l_neg).double(), rtol=1e-5, atol=1e-7)


# ---- its parts ----


TOKENS = st.lists(st.integers(0, 2), max_size=6)


@given(TOKENS, st.lists(TOKENS, max_size=4))
def test_the_first_difference_is_where_no_positive_goes_on_alike(ids: list[int], positives: list[list[int]]) -> None:
    good = [Rationale(one, 1.0) for one in positives]
    assert first_difference(ids, good) == shared_beginning(ids, good)


def test_a_token_the_student_is_sure_of_costs_much_but_not_without_end() -> None:
    ids = torch.tensor([[1, 2, 3]])
    for nats in (0.0, 1e-12):
        loss = divergence_loss(torch.full((1, 3), nats), ids, torch.tensor([1]), 0.5)
        assert 9 < float(loss) < 10
    assert float(divergence_loss(torch.full((1, 3), 1.0), ids, torch.tensor([3]), 0.5)) == 0, "it never differs"


def test_what_both_texts_share_cancels() -> None:
    for shared in (0.0, 40.0):
        found = preference_loss(torch.tensor(5.0 + shared), torch.tensor(8.0 + shared), 1.0, 0.5)
        assert float(found) == pytest.approx(math.log1p(math.exp(-0.5 * (8 - 5 - 1))))


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6), st.sampled_from(["relative", "rank"]), st.booleans())
def test_relative_scores_do_not_change_how_much_an_example_counts(
    scores: list[float], kind: Any, negative: bool
) -> None:
    found = relative_scores(kind, scores, negative=negative)
    qualities = [1 - one if negative else one for one in found]
    assert sum(qualities) / len(qualities) == pytest.approx(1.0)
    before = [1 - one if negative else one for one in scores]
    for one, other, a, b in zip(before, before[1:], qualities, qualities[1:], strict=False):
        assert (one < other) == (a < b) or math.isclose(a, b), "the order is another one"


@pytest.mark.parametrize(
    ("start", "ramp", "expected"),
    [
        (0.0, 0.0, [0.2] * 4),
        (0.5, 0.0, [0, 0, 0.2, 0.2]),
        (0.25, 0.5, [0, 0.1, 0.2, 0.2]),
        (0.0, 1.0, [0.05, 0.1, 0.15, 0.2]),
    ],
)
def test_a_late_start_and_a_ramp(start: float, ramp: float, expected: list[float]) -> None:
    method = MethodConfig(contrast_from=start, contrast_ramp=ramp)
    rounds = [method.in_round(t, 4) for t in range(4)]
    assert [one.beta if one.negatives else 0 for one in rounds] == pytest.approx(expected)
    assert MethodConfig(name="dss").in_round(0, 4) == MethodConfig(name="dss")

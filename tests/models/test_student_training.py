"""The student's loss against docs/distillation.md read aloud: one example after the other, every rationale with an
encoder pass of its own and with gradients for everything."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.methods import READS_CE, MethodConfig, Scheme
from models.student import Student
from models.student_training import (
    SCORING_SHARE,
    Rationale,
    StudentBatch,
    StudentTraining,
    TrainingExample,
    _by_length,
    collate,
)
from tests.models.tiny_round import tiny_config, tiny_examples, tiny_student

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
ARCHITECTURES = ("t5", "llama")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def student(request: pytest.FixtureRequest) -> Student:
    """In float64 as far as the architecture's own float32 parts (its norms) let it be."""
    student = tiny_student(tiny_config(request.param))
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    return student.double().eval()


def batch_of(student: Student, examples: list[TrainingExample], index: list[int] | None = None) -> StudentBatch:
    made = collate(examples, index or range(len(examples)), student.pad_id)
    return replace(made, positive_score=made.positive_score.double(), negative_score=made.negative_score.double())


# ---- the reference ----


def logits_of(student: Student, input_ids: Any, target: Any) -> Tensor:
    """(T, V): one target, alone, after its own pass over the input."""
    ids = torch.tensor([input_ids])
    encoded = student.encode(ids, torch.ones_like(ids))
    return student.token_logits(encoded, torch.tensor([target]))[0]


def cross_entropy(student: Student, input_ids: Any, target: Any) -> Tensor:
    probabilities = logits_of(student, input_ids, target).softmax(dim=-1)
    return torch.stack([-probabilities[place, token].log() for place, token in enumerate(target)]).mean()


def of_positive(student: Student, method: MethodConfig, input_ids: Any, positive: Rationale) -> Tensor:
    """Its CE; by parts where the answer has a share of it."""
    parted = positive.answer_tokens
    if method.answer_share is None or not 0 < parted < len(positive.ids):
        return cross_entropy(student, input_ids, positive.ids)
    probabilities = logits_of(student, input_ids, positive.ids).softmax(dim=-1)
    nats = torch.stack([-probabilities[place, token].log() for place, token in enumerate(positive.ids)])
    return method.answer_share * nats[:parted].mean() + (1 - method.answer_share) * nats[parted:].mean()


def side(scheme: Scheme, values: list[Tensor], quality: list[float], smallest: bool, uniform: float) -> Tensor | float:
    """l_pos or l_neg of an example: eq. 6 or 7 under a scheme (the paper's Table 5)."""
    if not values:
        return 0.0
    if scheme in ("min-max", "max-min"):
        order = sorted(range(len(values)), key=lambda place: float(values[place].detach()))
        chosen = order[0] if smallest == (scheme == "min-max") else order[-1]
        return quality[chosen] * values[chosen]
    if scheme == "mean":
        return sum(q * value for q, value in zip(quality, values, strict=True)) / len(values)
    if scheme == "weighted-mean":
        return sum(q * value for q, value in zip(quality, values, strict=True)) / sum(quality)
    drawn = int(uniform * len(values))
    return quality[drawn] * values[drawn]


def mutual_information(student: Student, example: TrainingExample) -> Tensor:
    """The authors' term: each token's highest probability under either task, and their cross-entropy."""
    of_label = logits_of(student, example.predict_ids, example.answer_ids).softmax(dim=-1)
    of_rationale = logits_of(student, example.explain_ids, example.positives[0].ids).softmax(dim=-1)
    q, p = of_label.detach().max(dim=0).values, of_rationale.max(dim=0).values
    return -(q * torch.log(p.exp() / p.exp().sum())).sum()


def reference(
    student: Student, method: MethodConfig, examples: list[TrainingExample], uniforms: Tensor
) -> dict[str, Tensor]:
    """docs/distillation.md."""
    a1, a2 = method.weights
    sums: dict[str, Any] = dict.fromkeys(("loss", "answer", "positive", "negative", "repelled"), 0.0)
    sums["mutual_information"] = 0.0
    for place, example in enumerate(examples):
        if example.answer_ids is not None:
            l_pred = cross_entropy(student, example.predict_ids, example.answer_ids)
            sums["answer"] += l_pred
            sums["loss"] += a1 * l_pred
        if not a2:
            continue
        ce_pos = [of_positive(student, method, example.explain_ids, one) for one in example.positives]
        ce_neg = [cross_entropy(student, example.explain_ids, one.ids) for one in example.negatives]
        draws = uniforms[place].tolist()
        l_pos = side(method.scheme, ce_pos, [one.score for one in example.positives], True, draws[0])
        sums["positive"] += l_pos
        l_neg: Any = 0.0
        if method.uses_negatives:
            below = [torch.minimum(ce - method.delta, torch.zeros_like(ce)) for ce in ce_neg]
            l_neg = side(method.scheme, below, [1 - one.score for one in example.negatives], False, draws[1])
            sums["negative"] += l_neg
            sums["repelled"] += float(l_neg < 0) if method.scheme in READS_CE else 0.0
        sums["loss"] += a2 * (l_pos - method.beta * l_neg)
        if method.name == "mi" and example.answer_ids is not None and example.positives:
            term = mutual_information(student, example)
            sums["mutual_information"] += term
            sums["loss"] += method.mi_weight * term
    return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in sums.items()}


def gradients(student: Student, loss: Tensor) -> dict[str, Tensor]:
    student.zero_grad()
    if loss.requires_grad:
        torch.autograd.backward(loss)
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
        for name, weight in student.named_parameters()
    }


def assert_like_the_reference(student: Student, method: MethodConfig, examples: list[TrainingExample]) -> None:
    torch.manual_seed(5)
    sums = StudentTraining(student, method, len(examples)).eval()(batch_of(student, examples))
    torch.manual_seed(5)
    expected = reference(student, method, examples, torch.rand((len(examples), 2)))
    if method.scheme not in READS_CE:
        sums.pop("repelled", None)  # counted over several there
    for name, value in sums.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-7, msg=f"{name}: {value}")
    found, wanted = gradients(student, sums["loss"]), gradients(student, expected["loss"])
    assert any(bool(gradient.any()) for gradient in wanted.values())
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-6, msg=f"gradient of {name}")


# ---- the comparison ----


def delta_among(student: Student, examples: list[TrainingExample]) -> float:
    """A margin that about half of the negatives lie above."""
    with torch.no_grad():
        found = [cross_entropy(student, one.explain_ids, bad.ids) for one in examples for bad in one.negatives]
    return float(torch.stack(found).median()) + 1e-3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_loss_and_its_gradients_are_those_of_the_method(student: Student, scheme: Scheme) -> None:
    examples = tiny_examples(student, 8)
    kinds = {(bool(one.positives), bool(one.negatives), one.answer_ids is not None) for one in examples}
    assert len(kinds) >= 4, "no positives, no negatives, no answer, all of them"
    for delta in (delta_among(student, examples), 50.0, 1e-3):
        assert_like_the_reference(student, MethodConfig(scheme=scheme, delta=delta), examples)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_a_discriminator_every_rationale_counts_in_full(student: Student, scheme: Scheme) -> None:
    examples = [
        replace(
            one,
            positives=[replace(good, score=1.0) for good in one.positives],
            negatives=[replace(bad, score=0.0) for bad in one.negatives],
        )
        for one in tiny_examples(student, 6, seed=1)
    ]
    method = MethodConfig(scheme=scheme, discriminator=False, delta=delta_among(student, examples))
    assert_like_the_reference(student, method, examples)


@pytest.mark.parametrize("scheme", ["sample", "mean"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_an_answer_that_comes_first_has_its_share(student: Student, scheme: Scheme, share: float) -> None:
    examples = [
        replace(
            one,
            answer_ids=None,
            positives=[replace(good, answer_tokens=place) for place, good in enumerate(one.positives)],
            negatives=[],
        )
        for one in tiny_examples(student, 8, seed=4)
    ]
    assert {good.answer_tokens for one in examples for good in one.positives} >= {0, 1, 2}
    method = MethodConfig(
        targets="answer-first", answer_share=share, scheme=scheme, negatives=False, discriminator=False
    )
    assert_like_the_reference(student, method, examples)


WITHOUT: dict[str, Callable[[TrainingExample], TrainingExample]] = {
    "negatives": lambda one: replace(one, negatives=[]),
    "positives": lambda one: replace(one, positives=[]),
    "answers": lambda one: replace(one, answer_ids=None),
    "rationales": lambda one: replace(one, positives=[], negatives=[]),
}


@pytest.mark.parametrize("missing", WITHOUT)
def test_a_batch_in_which_nobody_has_them(student: Student, missing: str) -> None:
    examples = [WITHOUT[missing](one) for one in tiny_examples(student, 5, seed=2)]
    assert_like_the_reference(student, MethodConfig(delta=50.0), examples)


def one_of_each(student: Student) -> list[TrainingExample]:
    """As the methods with one rationale have them: at most one positive, of full weight, and no negatives."""
    return [
        replace(one, positives=[Rationale(good.ids, 1.0) for good in one.positives[:1]], negatives=[])
        for one in tiny_examples(student, 7, seed=3)
    ]


@pytest.mark.parametrize("name", ["finetune", "label-distill", "single-task", "dss", "mi"])
def test_the_baselines(student: Student, name: Any) -> None:
    examples = one_of_each(student)
    if name in ("finetune", "label-distill"):
        examples = [replace(one, positives=[]) for one in examples]
    if name == "single-task":
        examples = [replace(one, answer_ids=None) for one in examples if one.positives]
    assert_like_the_reference(student, MethodConfig(name=name, mi_weight=0.7), examples)


@pytest.mark.parametrize("missing", ["positives", "answers"])
def test_mi_says_the_same_figures_whatever_a_batch_holds(student: Student, missing: str) -> None:
    examples = [WITHOUT[missing](one) for one in one_of_each(student)]
    sums = StudentTraining(student, MethodConfig(name="mi"), 7).eval()(batch_of(student, examples))
    assert sums.keys() == {"loss", "answer", "positive", "mutual_information"}
    assert sums["mutual_information"] == 0


def test_a_batch_is_its_examples_added_up(student: Student) -> None:
    examples, method = tiny_examples(student, 8), MethodConfig(delta=50.0)
    training = StudentTraining(student, method, 8).eval()
    whole = training(batch_of(student, examples))
    parts = [training(batch_of(student, examples, [place])) for place in range(8)]
    for name, value in whole.items():
        torch.testing.assert_close(value, sum(part[name] for part in parts), rtol=1e-5, atol=1e-7)


def test_a_batch_of_no_weight_has_a_loss_of_0_with_gradients(student: Student) -> None:
    """An answer is missing, and the discriminator finds no quality at all."""
    example = tiny_examples(student, 8)[0]
    nothing = TrainingExample([], example.explain_ids, None, [Rationale(example.explain_ids, 0.0)])
    loss = StudentTraining(student, MethodConfig(), 1).eval()(batch_of(student, [nothing]))["loss"]
    assert loss == 0
    assert not any(bool(gradient.any()) for gradient in gradients(student, loss).values())


def test_an_example_is_as_long_as_its_input_and_its_longest_target() -> None:
    example = TrainingExample([1], [2] * 5, [3] * 9, [Rationale([4] * 2, 1.0)], [Rationale([5] * 7, 0.0)])
    assert example.length == 5 + 7
    assert replace(example, positives=[], negatives=[]).length == 5


def test_a_target_without_a_token_is_refused(student: Student) -> None:
    example = replace(tiny_examples(student, 1)[0], positives=[Rationale([], 1.0), Rationale([5], 1.0)])
    with pytest.raises(ValueError, match=r"1 of \d+ targets have no token"):
        StudentTraining(student, MethodConfig(), 1).eval()(batch_of(student, [example]))


# ---- what it costs ----


class Counted:
    """Counts a student's passes: inputs of each encoder pass, and targets of each pass over targets."""

    def __init__(self, student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encoded: list[int] = []
        self.with_gradients: list[int] = []
        self.without: list[int] = []
        encode, token_logits = student.encode, student.token_logits

        def counted_encode(ids: Tensor, mask: Tensor) -> Any:
            self.encoded.append(len(ids))
            return encode(ids, mask)

        def counted_logits(encoded: Any, targets: Tensor) -> Tensor:
            found = token_logits(encoded, targets)
            (self.with_gradients if found.requires_grad else self.without).append(len(targets))
            return found

        monkeypatch.setattr(student, "encode", counted_encode)
        monkeypatch.setattr(student, "token_logits", counted_logits)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_encoder_pass_and_gradients_for_the_chosen_only(
    student: Student, scheme: Scheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = tiny_examples(student, 8)
    counted = Counted(student, monkeypatch)
    StudentTraining(student, MethodConfig(scheme=scheme, delta=50.0), 8).eval()(batch_of(student, examples))
    answers = sum(one.answer_ids is not None for one in examples)
    sides = [own for one in examples for own in (one.positives, one.negatives)]
    assert counted.encoded == [answers + sum(bool(one.positives or one.negatives) for one in examples)]
    chosen = sum(map(bool, sides)) if scheme in ("min-max", "max-min", "sample") else sum(map(len, sides))
    assert counted.with_gradients == [answers, chosen]
    # Positives where there are several to choose from; and every negative, since one above the margin is left out.
    compared = sum(len(one.positives) for one in examples if len(one.positives) > 1)
    compared += sum(len(one.negatives) for one in examples)
    assert compared > 10
    assert sum(counted.without) == (compared if scheme in READS_CE else 0)
    assert len(counted.without) <= 2


@pytest.mark.parametrize("at_once", [1, 3])
def test_candidates_that_do_not_fit_together_are_compared_in_parts(
    student: Student, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = tiny_examples(student, 8)
    training = StudentTraining(student, MethodConfig(delta=50.0), 8).eval()
    whole = training(batch_of(student, examples))
    largest = max(len(one.ids) for example in examples for one in (*example.positives, *example.negatives))
    width = batch_of(student, examples).inputs.shape[1]
    # As much as the longest texts need; shorter ones fit in larger numbers.
    needed = SCORING_SHARE * at_once * student.writer.reading_bytes(1, largest, width)
    monkeypatch.setattr("models.student_training.room", lambda *_: needed)
    counted = Counted(student, monkeypatch)
    parts = training(batch_of(student, examples))
    assert len(counted.without) > 2
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-10, atol=1e-10)


def test_a_step_is_expected_to_take_more_the_more_it_holds() -> None:
    student = tiny_student(tiny_config())
    examples = tiny_examples(student, 8)

    def expected(count: int, **method: Any) -> int:
        training = StudentTraining(student, MethodConfig(**method), 8)
        return training.step_bytes(collate(examples, range(count), student.pad_id))

    assert 0 < expected(2) < expected(8)
    assert expected(8, scheme="mean") > expected(8), "which gives all candidates gradients"


def test_the_models_own_encoder_runs_once() -> None:
    """The same, seen from inside the model."""
    student = tiny_student(tiny_config())
    calls: list[bool] = []
    encoder: Any = student.model.get_encoder()
    encoder.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    examples = tiny_examples(student, 8)
    StudentTraining(student, MethodConfig(delta=50.0), 8).train()(collate(examples, range(8), student.pad_id))
    assert calls == [True]


@given(lengths=st.lists(st.integers(1, 100), min_size=1, max_size=30))
def test_candidates_are_scored_in_two_groups_where_that_saves_padding(lengths: list[int]) -> None:
    groups = [group.tolist() for group in _by_length(torch.tensor(lengths))]
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    cost = sum(len(group) * max(lengths[place] for place in group) for group in groups)
    ordered = sorted(lengths)
    best = min(cut * ordered[cut - 1] + (len(lengths) - cut) * ordered[-1] for cut in range(1, len(lengths) + 1))
    together = len(lengths) * ordered[-1]
    assert cost == (best if best < 0.9 * together else together)


@pytest.mark.parametrize("name", ["finetune", "dss"])
def test_the_baselines_compare_nothing(student: Student, name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = one_of_each(student)
    if name == "finetune":
        examples = [replace(one, positives=[]) for one in examples]
    counted = Counted(student, monkeypatch)
    StudentTraining(student, MethodConfig(name=name), 7).eval()(batch_of(student, examples))
    assert len(counted.encoded) == 1
    assert counted.without == []


def test_dropout_is_off_while_candidates_are_compared_and_on_again_after(monkeypatch: pytest.MonkeyPatch) -> None:
    student = tiny_student(tiny_config(dropout=0.3))
    modes: list[tuple[bool, bool]] = []
    token_logits = student.token_logits

    def noted(encoded: Any, targets: Tensor) -> Tensor:
        modes.append((torch.is_grad_enabled(), student.training))
        return token_logits(encoded, targets)

    monkeypatch.setattr(student, "token_logits", noted)
    training = StudentTraining(student, MethodConfig(delta=50.0), 8).train()
    sums = training(collate(tiny_examples(student, 8), range(8), student.pad_id))
    assert list(dict.fromkeys(modes)) == [(True, True), (False, False)]
    assert modes[0] == modes[-1] == (True, True)
    assert math.isfinite(float(sums["loss"].detach()))

"""Which method has which objective, and that `StudentTraining` executes one that it has never seen."""

from collections.abc import Sequence
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from models.losses import IGNORED, Candidates, Weights
from models.methods import MethodConfig, MethodName
from models.objectives.answer_only import AnswerOnly
from models.objectives.attraction import Attraction
from models.objectives.margin import Margin
from models.objectives.mutual_information import MutualInformation
from models.objectives.objective import Passed
from models.objectives.registry import objective_of
from models.student import Student
from models.student_training import StudentTraining, TrainingExample
from tests.models.test_student_training import batch_of, gradients, logits_of
from tests.models.tiny_round import tiny_config, tiny_examples, tiny_student

OBJECTIVES: dict[MethodName, type] = {
    "finetune": AnswerOnly,
    "label-distill": AnswerOnly,
    "single-task": Attraction,
    "dss": Attraction,
    "mi": MutualInformation,
    "qcrd": Margin,
}


@pytest.mark.parametrize("name", get_args(MethodName))
def test_every_method_has_an_objective(name: MethodName) -> None:
    assert type(objective_of(MethodConfig(name=name))) is OBJECTIVES[name]


def test_qcrd_without_negatives_only_attracts() -> None:
    assert type(objective_of(MethodConfig(negatives=False))) is Attraction


def test_rationales_that_weigh_nothing_are_not_looked_at() -> None:
    assert type(objective_of(MethodConfig(rationale_weight=0.0))) is AnswerOnly


class Relative:
    """The first positive and the first negative of each example: a function of the difference between their summed
    log-probabilities that is no line, and -log(1 - p) at every second token of the negative."""

    reads_logits, one_of_each = False, True

    def compared(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(positive), torch.zeros_like(negative)

    def weigh(self, positives: Candidates, negatives: Candidates) -> Weights:
        first = [torch.zeros_like(side.scores) for side in (positives, negatives)]
        both = positives.mask.any(dim=1) & negatives.mask.any(dim=1)
        for weights in first:
            weights[both, 0] = 1.0
        return Weights(*first)

    def loss(self, answers: Passed, positives: Passed, negatives: Passed, weights: Weights) -> dict[str, Tensor]:  # noqa: ARG002
        assert torch.equal(positives.example, negatives.example)
        assert not bool(positives.column.any() | negatives.column.any())
        difference = negatives.nats.sum(dim=1) - positives.nats.sum(dim=1)
        every_second = (torch.arange(negatives.ids.shape[1]) % 2 == 1) & (negatives.ids != IGNORED)
        unlikely = -torch.log1p(-torch.exp(-negatives.nats)).masked_fill(~every_second, 0.0)
        loss = answers.nats.sum() + softplus(-0.1 * (difference - 1)).sum() + 0.3 * unlikely.sum()
        return {"loss": loss, "difference": difference.sum()}


def slowly(student: Student, examples: list[TrainingExample]) -> dict[str, Tensor]:
    """The same, one example after the other, each target after an encoder pass of its own."""

    def log_probabilities(inputs: Sequence[int], ids: Sequence[int]) -> Tensor:
        rows = logits_of(student, inputs, ids).log_softmax(dim=-1)  # (T, V)
        return rows[torch.arange(len(ids)), torch.tensor(ids)]

    loss = differences = torch.zeros((), dtype=torch.float64)
    for one in examples:
        if one.answer_ids is not None:
            loss = loss - log_probabilities(one.predict_ids, one.answer_ids).sum()
        if one.positives and one.negatives:
            good, bad = (log_probabilities(one.explain_ids, side[0].ids) for side in (one.positives, one.negatives))
            difference = good.sum() - bad.sum()
            differences = differences + difference
            loss = loss + torch.log(1 + torch.exp(-0.1 * (difference - 1))) - 0.3 * torch.log(1 - bad.exp()[1::2]).sum()
    return {"loss": loss, "difference": differences}


@pytest.mark.parametrize("architecture", ["t5", "llama"])
def test_tokens_may_weigh_what_an_objective_likes(architecture: str) -> None:
    torch.set_num_threads(1)
    student = tiny_student(tiny_config(architecture)).double().eval()
    examples = tiny_examples(student, 8)
    training = StudentTraining(student, MethodConfig(), len(examples)).eval()
    training.objective = Relative()
    found, expected = training(batch_of(student, examples)), slowly(student, examples)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    wanted = gradients(student, expected["loss"])
    assert any(bool(gradient.any()) for gradient in wanted.values())
    for name, gradient in gradients(student, found["loss"]).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-6, msg=f"gradient of {name}")

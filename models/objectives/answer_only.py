"""The answer and nothing else: `finetune`, `label-distill`, and every method whose rationales weigh nothing."""

import torch
from torch import Tensor

from models.losses import Candidates, Weights
from models.methods import MethodConfig
from models.objectives.objective import Passed


class AnswerOnly:
    """a1 L_pred (eq. 8)."""

    reads_logits, one_of_each = False, True

    def __init__(self, method: MethodConfig) -> None:
        self.a1, _ = method.weights

    def compared(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(positive), torch.zeros_like(negative)

    def weigh(self, positives: Candidates, negatives: Candidates) -> Weights:
        return Weights(torch.zeros_like(positives.scores), torch.zeros_like(negatives.scores))

    def loss(self, answers: Passed, positives: Passed, negatives: Passed, weights: Weights) -> dict[str, Tensor]:  # noqa: ARG002
        l_pred = answers.ce.sum()
        return {"loss": self.a1 * l_pred, "answer": l_pred}

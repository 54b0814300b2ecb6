"""The answer and good rationales: `dss` (distilling step-by-step, Hsieh et al. 2023) and `single-task`, which have one
rationale for each example, and `qcrd` without negatives, where a scheme says which of several count."""

import torch
from torch import Tensor

from models.losses import Candidates, Weights, choose, positive_loss, total_loss
from models.methods import READS_CE, MethodConfig
from models.objectives.objective import Passed


class Attraction:
    """a1 L_pred + a2 l_pos (eq. 8 and 6)."""

    reads_logits = False

    def __init__(self, method: MethodConfig) -> None:
        self.method = method
        self.a1, self.a2 = method.weights
        self.one_of_each = method.scheme not in ("mean", "weighted-mean")

    def compared(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        several = positive.sum(dim=1, keepdim=True) > 1  # a single one needs no comparison
        return positive & several & (self.method.scheme in READS_CE), torch.zeros_like(negative)

    def weigh(self, positives: Candidates, negatives: Candidates) -> Weights:
        return Weights(self._chosen(positives, negatives).positive, torch.zeros_like(negatives.scores))

    def loss(self, answers: Passed, positives: Passed, negatives: Passed, weights: Weights) -> dict[str, Tensor]:  # noqa: ARG002
        l_pos = positive_loss(positives.table(weights.positive), weights.positive)
        return {**self._total(answers, l_pos), "positive": l_pos.sum()}

    def _chosen(self, positives: Candidates, negatives: Candidates) -> Weights:
        """The scheme's weights."""
        return choose(self.method.scheme, positives, negatives, self.method.delta, self._draws(positives))

    def _draws(self, candidates: Candidates) -> Tensor | None:
        """What the scheme `sample` draws by; None for others."""
        return (
            torch.rand((len(candidates.mask), 2)).to(candidates.mask.device) if self.method.scheme == "sample" else None
        )

    def _total(self, answers: Passed, l_cl: Tensor) -> dict[str, Tensor]:
        """Eq. 8 of the answers and of a term for each example, (B,)."""
        l_pred = answers.ce.sum()
        total = {"loss": total_loss(l_pred, l_cl.sum(), self.a1, self.a2)}
        return {**total, "answer": l_pred} if self.a1 else total

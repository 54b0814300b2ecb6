"""`qcrd`: the answer, good rationales, and bad ones that repel up to a margin (eq. 3, 6 and 7)."""

import torch
from torch import Tensor

from models.losses import Candidates, Weights, contrastive_loss, negative_loss, positive_loss
from models.methods import READS_CE, MethodConfig
from models.objectives.attraction import Attraction
from models.objectives.objective import Passed


class Margin(Attraction):
    """a1 L_pred + a2 (l_pos - beta l_neg)."""

    def __init__(self, method: MethodConfig) -> None:
        super().__init__(method)
        self.one_of_each = self.one_of_each and method.within == "all"

    def compared(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        # A single negative is looked at, too: one above the margin, as most of an early student's own are, needs no
        # gradients.
        return super().compared(positive, negative)[0], negative & (self.method.scheme in READS_CE)

    def weigh(self, positives: Candidates, negatives: Candidates) -> Weights:
        if self.method.within == "all" or negatives.own is None:
            return self._chosen(positives, negatives)
        own, teachers = (self._chosen(positives, negatives.only(some)) for some in (negatives.own, ~negatives.own))
        # The positives' choice is the same twice, unless it is drawn.
        return Weights(own.positive, torch.maximum(own.negative, teachers.negative))

    def loss(self, answers: Passed, positives: Passed, negatives: Passed, weights: Weights) -> dict[str, Tensor]:
        l_pos = positive_loss(positives.table(weights.positive), weights.positive)
        negative_ce = negatives.table(weights.negative)
        l_neg = negative_loss(negative_ce, weights.negative, self.method.delta)
        # Dropout may lift a chosen one above the margin.
        repelled = (weights.negative > 0) & (negative_ce.detach() < self.method.delta)
        return {
            **self._total(answers, contrastive_loss(l_pos, l_neg, self.method.beta)),
            "positive": l_pos.sum(),
            "negative": l_neg.sum(),
            "repelled": repelled.any(dim=1).float().sum(),
        }

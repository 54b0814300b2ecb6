"""`qcrd` with the contrast `asymmetric`: bad rationales are made less likely, however unlikely they are already (REDI,
arXiv 2505.24850: weight 0.8, one epoch, a small learning rate)."""

from torch import Tensor

from models.losses import Candidates, Weights, choose, positive_loss
from models.objectives.attraction import Attraction
from models.objectives.objective import Passed

NO_MARGIN = float("inf")


class Asymmetric(Attraction):
    """a1 L_pred + a2 (l_pos - beta sum_k w_k CE_k) over the chosen negatives."""

    def weigh(self, positives: Candidates, negatives: Candidates) -> Weights:
        return choose(self.method.scheme, positives, negatives, NO_MARGIN, self._draws(positives))

    def compared(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        # Without a margin a single negative needs no look, as a single positive needs none.
        return super().compared(positive, negative)[0], super().compared(negative, positive)[0]

    def loss(self, answers: Passed, positives: Passed, negatives: Passed, weights: Weights) -> dict[str, Tensor]:
        l_pos = positive_loss(positives.table(weights.positive), weights.positive)
        l_neg = positive_loss(negatives.table(weights.negative), weights.negative)
        return {
            **self._total(answers, l_pos - self.method.beta * l_neg),
            "positive": l_pos.sum(),
            "negative": l_neg.sum(),
            "repelled": (weights.negative > 0).any(dim=1).float().sum(),
        }

"""`qcrd` with the contrast `divergence`: only what follows a bad rationale's first wrong turn is made less likely, the
first token after which no good rationale of its question goes on like it. Shared beginnings are left alone."""

from torch import Tensor

from models.losses import Weights, divergence_loss, positive_loss
from models.objectives.asymmetric import Asymmetric
from models.objectives.objective import Passed


class Divergence(Asymmetric):
    """a1 L_pred + a2 (l_pos + beta sum_k w_k U_k), U the unlikelihood of `models.losses.divergence_loss`."""

    def loss(self, answers: Passed, positives: Passed, negatives: Passed, weights: Weights) -> dict[str, Tensor]:
        l_pos = positive_loss(positives.table(weights.positive), weights.positive)
        unlikelihood = divergence_loss(negatives.nats, negatives.ids, negatives.differs_at, self.method.fading)
        l_neg = positive_loss(negatives.table(weights.negative, unlikelihood), weights.negative)
        return {
            **self._total(answers, l_pos + self.method.beta * l_neg),
            "positive": l_pos.sum(),
            "negative": l_neg.sum(),
            "repelled": (weights.negative > 0).any(dim=1).float().sum(),
        }

"""`qcrd` with the contrast `relative`: a good rationale should be likelier than a bad one of its question. The
positives' own loss stays: without it such losses can make both unlikely (Pang et al. 2024, "Iterative Reasoning
Preference Optimization", section 4)."""

import torch
from torch import Tensor

from models.losses import Weights, positive_loss, preference_loss
from models.objectives.asymmetric import Asymmetric
from models.objectives.objective import Passed


class Relative(Asymmetric):
    """a1 L_pred + a2 (l_pos + beta sum_k w_k softplus(-sharpness (log p(r+) - log p(r-_k) - gap))), where r+ is the
    chosen positive (the mean of several)."""

    def loss(self, answers: Passed, positives: Passed, negatives: Passed, weights: Weights) -> dict[str, Tensor]:
        l_pos = positive_loss(positives.table(weights.positive), weights.positive)
        good, count = (
            torch.zeros_like(l_pos).index_put((positives.example,), values, accumulate=True)
            for values in (positives.nats.sum(dim=1), torch.ones_like(positives.ce))
        )
        bad = torch.zeros_like(weights.negative).index_put(
            (negatives.example, negatives.column), negatives.nats.sum(dim=1)
        )
        mean = (good / count.clamp(min=1))[:, None]  # (B, 1)
        preferred = preference_loss(mean, bad, self.method.gap, self.method.sharpness)  # (B, N)
        both = (weights.negative > 0) & (count > 0)[:, None]
        l_neg = (weights.negative * preferred.masked_fill(~both, 0.0)).sum(dim=1)
        wrong_way = both & (bad.detach() < mean.detach())
        return {
            **self._total(answers, l_pos + self.method.beta * l_neg),
            "positive": l_pos.sum(),
            "negative": l_neg.sum(),
            "repelled": both.any(dim=1).float().sum(),
            "preferred_wrongly": wrong_way.any(dim=1).float().sum(),
        }

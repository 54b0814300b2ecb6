"""`mi` (Chen et al. 2024, arXiv 2403.03348): `dss`, and the rationale should hold the label's words."""

import torch
from torch import Tensor

from models.losses import Weights, mutual_information_loss
from models.objectives.attraction import Attraction
from models.objectives.objective import Passed


class MutualInformation(Attraction):
    """a1 L_pred + a2 l_pos, and `mi_weight` times the term."""

    reads_logits = True

    def loss(self, answers: Passed, positives: Passed, negatives: Passed, weights: Weights) -> dict[str, Tensor]:
        sums = super().loss(answers, positives, negatives, weights)
        term = _mutual_information(answers, positives, len(weights.positive))
        return {**sums, "loss": sums["loss"] + self.method.mi_weight * term, "mutual_information": term}


def _mutual_information(answers: Passed, positives: Passed, examples: int) -> Tensor:
    """Summed over the examples that have both an answer and a rationale."""
    if answers.logits is None or positives.logits is None:
        return answers.ce.new_zeros(())
    row_of = torch.full((examples,), -1, device=positives.example.device)
    row_of[positives.example] = torch.arange(len(positives.example), device=row_of.device)
    rows = row_of[answers.example]
    both = rows >= 0
    return mutual_information_loss(
        answers.logits[both], answers.ids[both], positives.logits[rows[both]], positives.ids[rows[both]]
    ).sum()

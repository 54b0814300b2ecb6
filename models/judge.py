"""The student as its own judge: how likely it says `right` of a question and a rationale (Mind's Mirror, Liu et al.
2024, has a student assess itself in the same way). It stands where a discriminator stands."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.prefixes import JUDGE, RIGHT, WRONG
from models.scoring import log_probabilities
from models.student import Student


def judge_input(question: str, rationale: str) -> str:
    """What the student is asked."""
    return f"{JUDGE}{question} {rationale}"


class Judge:
    """Scores rationales with a student that was trained with a `judge_weight`.

    Args:
        student: which one.
    """

    def __init__(self, student: Student) -> None:
        self.student = student

    @property
    def max_tokens(self) -> int:
        """Longest question and rationale."""
        return self.student.max_input_tokens

    def pair_ids(self, questions: Sequence[str], rationales: Sequence[str]) -> list[list[int]]:
        """Token ids of (question, rationale) pairs, as for `models.discriminator.Discriminator`."""
        return self.student.input_ids([judge_input(*pair) for pair in zip(questions, rationales, strict=True)])

    def score(self, questions: Sequence[str], rationales: Sequence[str]) -> Tensor:
        """(N,) in [0, 1]: p(right) / (p(right) + p(wrong))."""
        inputs = [judge_input(*pair) for pair in zip(questions, rationales, strict=True)]
        logs = torch.tensor(log_probabilities(self.student, inputs, [[RIGHT, WRONG]] * len(inputs))).view(-1, 2)
        return torch.sigmoid(logs[:, 0] - logs[:, 1])

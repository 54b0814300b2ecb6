"""What a method trains the student towards. One file an objective; `models.student_training` executes them all and
knows none of them.

The targets of a batch have one of three roles: answers, positive and negative rationales. Of each batch an objective
is asked

    compared  which candidates must be looked at first, in a pass without gradients
    weigh     what each candidate weighs; one that weighs 0 takes no part, and no pass with gradients is made for it
    loss      what the surprise at each token adds up to, for the others

What a token weighs in the end is the derivative of `loss` with respect to its surprise; autograd carries it through the
one pass with gradients. `Passed.ce` weighs the tokens of a target alike. An objective that weighs them differently, or
that goes by another function of a token's probability p = exp(-nats), reads `Passed.nats`.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.losses import Candidates, Weights


@dataclass(frozen=True)
class Passed:
    """The targets of one role after their pass with gradients, one a row; N may be 0.

    Attributes:
        example: (N,) which of the batch's B examples each belongs to.
        column: (N,) which of its example's candidates of this role each is; 0 for an answer.
        ids: (N, T) its tokens, padded with IGNORED.
        nats: (N, T) the student's surprise at each token, -log p; 0 at padding.
        ce: (N,) CE, the mean of its nats; of an answer and a rationale in one text the mean by parts, where
            `MethodConfig.answer_share` is set.
        differs_at: (N,) place of its first token that no positive of its example shares, in the same place after the
            same beginning; past its end where there is none. 0 for answers.
        logits: (N, T, V), or None where the objective does not read them.
    """

    example: Tensor
    column: Tensor
    ids: Tensor
    nats: Tensor
    ce: Tensor
    differs_at: Tensor
    logits: Tensor | None = None

    def table(self, weights: Tensor, values: Tensor | None = None) -> Tensor:
        """(B, K), shaped like the candidates' weights: the CE of each, or other (N,) values; 0 where there was no
        pass."""
        return torch.zeros_like(weights).index_put((self.example, self.column), self.ce if values is None else values)

    def part(self, rows: slice) -> "Passed":
        """Some of the rows."""
        logits = None if self.logits is None else self.logits[rows]
        return Passed(
            self.example[rows], self.column[rows], self.ids[rows], self.nats[rows], self.ce[rows],
            self.differs_at[rows], logits,
        )  # fmt: skip


class Objective(Protocol):
    """What `models.student_training` asks of a method.

    Attributes:
        reads_logits: whether `loss` needs `Passed.logits`, which take much memory.
        one_of_each: whether it weighs at most one positive and one negative of each example.
    """

    reads_logits: bool
    one_of_each: bool

    def compared(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Which candidates' CE `weigh` goes by.

        Args:
            positive, negative: (B, P), (B, N) bool, where there is a candidate.

        Returns:
            Parts of the two.
        """

    def weigh(self, positives: Candidates, negatives: Candidates) -> Weights:
        """What each candidate weighs.

        Args:
            positives, negatives: with the CE of those that `compared` named; that of others is 0.
        """

    def loss(self, answers: Passed, positives: Passed, negatives: Passed, weights: Weights) -> dict[str, Tensor]:
        """Sums over the batch's examples, each a scalar: "loss", which is minimised, and its terms. Their names are
        the same for every batch, whatever it holds.

        Args:
            answers: all answers of the batch.
            positives, negatives: those that weigh something.
            weights: from `weigh`.
        """

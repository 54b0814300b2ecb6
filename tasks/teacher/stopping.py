"""When to stop asking about a question: once its majority can hardly change.

Of k answers, l are the leader's and s the runner-up's; m more may be asked for. With a uniform prior on the teacher's
chance to give the leader's answer, the number of further leaders is beta-binomial:

    X ~ BetaBinomial(m, 1 + l, 1 + k - l)

If all others went to the runner-up, that one would win where s + (m - X) > l + X. The chance of this is the *doubt*. It
is an upper bound: others may well disagree among themselves. It is a rule for each question by itself, so what is asked
does not depend on the order in which replies arrive.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from storage.datasets.label_sets import BETWEEN


@dataclass(frozen=True)
class Asking:
    """How often a question is asked.

    Attributes:
        least, most: samples of each question; equal ones ask for no doubt.
        allowed: the doubt about a majority with which it stays.
        per_label: whether answers are sets of labels, and the doubt is that about each label.
    """

    least: int
    most: int
    allowed: float = 0.0
    per_label: bool = False

    @property
    def depends(self) -> bool:
        """Whether the answers decide how often a question is asked."""
        return self.least < self.most

    def wanted(self, answers: Sequence[str | None]) -> int:
        """How many samples of a question should be there, as far as can be said from those that are.

        Args:
            answers: of the first samples, in the order of their indices; None where none could be read. Samples behind
                a gap are not among them, so the outcome does not depend on what arrives first.
        """
        for count in range(self.least, self.most):
            of_these = label_doubt if self.per_label else doubt
            if len(answers) < count or of_these(answers[:count], self.most - count) <= self.allowed:
                return count
        return self.most


def doubt(answers: Sequence[str | None], left: int) -> float:
    """Chance that further samples would give a question another majority.

    Args:
        answers: those of its samples so far; None where none could be read, which votes for nothing.
        left: samples that may still be asked for.

    Returns:
        0 to 1; 1 where nothing has been read yet and something is left to ask.
    """
    votes = sorted(Counter(answer for answer in answers if answer is not None).values(), reverse=True)
    if left <= 0:
        return 0.0
    if not votes:
        return 1.0
    return _overtaken(sum(votes), votes[0], votes[1] if len(votes) > 1 else 0, left)


def label_doubt(answers: Sequence[str | None], left: int) -> float:
    """The largest chance, over the labels, that further samples would put one into the majority or out of it.

    A label is in it with more than half of the votes (`storage.votes`).
    """
    read = [set(answer.split(BETWEEN)) for answer in answers if answer is not None]
    if left <= 0:
        return 0.0
    if not read:
        return 1.0
    votes = Counter(label for one in read for label in one)
    return max(_crossed(len(read), count, left) for count in votes.values())


@cache
def _crossed(read: int, votes: int, left: int) -> float:
    from scipy.stats import betabinom

    most_out = (read + left) // 2 - votes  # further votes with which it ends outside the majority
    outside = float(betabinom.cdf(most_out, left, 1 + votes, 1 + read - votes)) if most_out >= 0 else 0.0
    return outside if 2 * votes > read else 1.0 - outside


@cache
def _overtaken(read: int, leader: int, second: int, left: int) -> float:
    from scipy.stats import betabinom  # here, because every command reads settings, and scipy takes a while

    at_most = (second + left - leader - 1) // 2  # further leaders with which it still loses
    return float(betabinom.cdf(at_most, left, 1 + leader, 1 + read - leader)) if at_most >= 0 else 0.0

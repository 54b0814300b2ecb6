"""Does a student learn the teacher's mistakes? Warns when agreement with the teacher rises and the truth does not.

After each round, the round before it with the most right answers is taken, the earliest of equal ones. The alarm rings
if since then, on the validation questions of which both the majority's and the right answer are known,

- agreement has risen: more questions were won than lost, with a p-value of at most LEVEL by the exact two-sided McNemar
  test, and
- right answers have not: there are no more of them than there were.

Both are of the same questions: a large unlabelled set would show a rise that a small labelled sample cannot. There is a
test after every round. LEVEL is such that of trainings in which nothing changes, or agreement and right answers rise
together, at most 5 % ring within 20 rounds, even if the teacher is wrong on every second question; with one on every
fifth, 1 % (tests/tasks/watching/test_proxy.py simulates them). The discriminator's score is no proxy here: it is
trained anew between rounds, so its scale moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.tracking.gate import exact_mcnemar
from tasks.training.agreement import Agreement

LEVEL = 0.0125


@dataclass(frozen=True)
class Alarm:
    """Agreement has risen and the truth has not.

    Attributes:
        t, since: the rounds that are compared.
        questions: how many, with both answers known.
        agreement, accuracy: shares of them, in `since` and in `t`.
        p_value: of the rise in agreement.
    """

    t: int
    since: int
    questions: int
    agreement: tuple[float, float]
    accuracy: tuple[float, float]
    p_value: float

    def __str__(self) -> str:
        agreed, right = ([f"{100 * share:.1f}" for share in pair] for pair in (self.agreement, self.accuracy))
        return (
            f"agreement with the teacher rose from {agreed[0]} to {agreed[1]} % since round {self.since} "
            f"(p = {self.p_value:.2g}), right answers went from {right[0]} to {right[1]} %, on {self.questions:,} "
            "validation questions"
        )


def alarm(rounds: Sequence[Agreement]) -> Alarm | None:
    """Whether the last of a training's finished rounds, in order, rings."""
    if len(rounds) < 2 or not rounds[-1].right:
        return None
    last = rounds[-1]
    best = max(rounds[:-1], key=lambda one: (sum(one.right.values()), -one.t))
    common = last.right.keys() & best.right.keys()
    right = [sum(one.right[key] for key in common) for one in (best, last)]
    agreed = [sum(one.agrees[key] for key in common) for one in (best, last)]
    if not common or right[1] > right[0] or agreed[1] <= agreed[0]:
        return None
    won = sum(last.agrees[key] and not best.agrees[key] for key in common)
    p_value = exact_mcnemar(won, won - (agreed[1] - agreed[0]))
    if p_value > LEVEL:
        return None
    count = len(common)
    return Alarm(
        last.t, best.t, count, (agreed[0] / count, agreed[1] / count), (right[0] / count, right[1] / count), p_value
    )

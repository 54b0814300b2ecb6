"""Chooses one answer among those that a student gives to a question: its bare answer, and those its rationales come to.

With c an answer, p(c) its probability without a rationale, n_c of V rationales that come to it, q_c of their quality in
all, Q (D's scores), and a_c of the A whose arithmetic is right, those that write some:

    s(c) = head log p(c) + votes log((n_c + 1/2) / (V + 1)) + quality log((q_c + 1/4) / (Q + 1/2))
           + arithmetic log((a_c + 1/4) / (A + 1/2))
    P(c is right) = exp s(c) / (exp none + sum over all c' of exp s(c'))

The student answers the c with the largest P, and P is its confidence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from storage.datasets.arithmetic_steps import right_steps
from tasks.serving.settings import Decision

LEAST_LOG = -20.0
"""Below this a log-probability says no more than "never"."""


@dataclass(frozen=True)
class Explained:
    """A rationale of a question.

    Attributes:
        text: the rationale.
        answer: the answer it comes to; None if it comes to none.
        quality: D's score in [0, 1]; None without a discriminator, or where the text is too long for it.
    """

    text: str
    answer: str | None
    quality: float | None = None

    @cached_property
    def calculates(self) -> bool | None:
        """Whether all of its arithmetic is right; None if it writes none."""
        right, steps = right_steps(self.text)
        return right == steps if steps else None


@dataclass(frozen=True)
class Candidate:
    """An answer that may be chosen, with what speaks for it (see above).

    Attributes:
        answer: in the dataset's spelling.
        head: log p(c), at least LEAST_LOG.
        votes, quality, arithmetic: the logs of its shares; quality is 0 where nothing is scored.
    """

    answer: str
    head: float
    votes: float
    quality: float
    arithmetic: float


def answers_of(bare: str | None, rationales: Sequence[Explained]) -> list[str]:
    """All answers that may be chosen, each once, the bare one first."""
    return [answer for answer in dict.fromkeys([bare, *(one.answer for one in rationales)]) if answer is not None]


def candidates(logs: dict[str, float], rationales: Sequence[Explained]) -> list[Candidate]:
    """What speaks for each answer.

    Args:
        logs: answer -> its log-probability without a rationale; 0 for all where the student writes it after one.
        rationales: of the question.
    """
    voting = [one for one in rationales if one.answer is not None]
    scored = any(one.quality is not None for one in voting)
    total = sum(one.quality or 0.0 for one in voting)
    calculating = [one.answer for one in voting if one.calculates]
    found = []
    for answer, log in logs.items():
        own = [one for one in voting if one.answer == answer]
        quality = sum(one.quality or 0.0 for one in own)
        votes = math.log((len(own) + 0.5) / (len(voting) + 1))
        shared = math.log((quality + 0.25) / (total + 0.5)) if scored else 0.0
        arithmetic = math.log((calculating.count(answer) + 0.25) / (len(calculating) + 0.5))
        found.append(Candidate(answer, max(LEAST_LOG, log), votes, shared, arithmetic))
    return found


def probabilities(given: Sequence[Candidate], decision: Decision) -> list[float]:
    """P(c is right) of each candidate; what is missing to 1 is the probability that none is."""
    scores = [
        decision.head * one.head
        + decision.votes * one.votes
        + decision.quality * one.quality
        + decision.arithmetic * one.arithmetic
        for one in given
    ]
    highest = max([decision.none, *scores])
    weights = [math.exp(score - highest) for score in scores]
    total = math.exp(decision.none - highest) + sum(weights)
    return [weight / total for weight in weights]


def decide(given: Sequence[Candidate], decision: Decision) -> tuple[str | None, float | None]:
    """The answer, and its confidence; (None, None) where there is no candidate."""
    if not given:
        return None, None
    likely = probabilities(given, decision)
    best = max(range(len(given)), key=lambda place: likely[place])  # the first of equal ones: the bare answer
    return given[best].answer, likely[best]


def rationale_for(answer: str | None, rationales: Sequence[Explained]) -> Explained | None:
    """A rationale that comes to the answer, one with right arithmetic if there is one: the likeliest if it does, else
    the best of the sampled ones; the likeliest one if none does; None where there are none."""
    agreeing = [one for one in rationales if one.answer is not None and one.answer == answer]
    agreeing = [one for one in agreeing if one.calculates is not False] or agreeing
    if not agreeing or rationales[0] in agreeing:
        return rationales[0] if rationales else None
    return max(agreeing, key=lambda one: one.quality or 0.0)

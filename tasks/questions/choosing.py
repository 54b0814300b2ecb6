"""In which order a teacher is asked questions, where not all can be paid for.

`random` goes by a hash of the question's id and a seed. The others go by what the present student makes of a question
(`tasks.questions.signals`), and by that hash where it makes the same of two. So one seed and one student give one
order, and what a larger budget buys contains what a smaller one does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import md5
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Choose = Literal["random", "uncertain", "disagree", "diverse", "mixed"]
MOST_READ = 50_000
"""A student reads at most so many of the questions, the first by `random`."""
NEIGHBOURS_OF = 1_000
"""Questions whose nearest neighbours say what is near (`_near`)."""
_AT_ONCE = 4_096  # rows of a matrix of distances


@dataclass(frozen=True)
class Signals:
    """What a student makes of some questions.

    Attributes:
        confidence: (N,) the probability that its answer is right, as far as it can tell; 0 without an answer.
        disagrees: (N,) whether its bare answer is not its rationale's; None of a student that writes no rationales.
        states: (N, D) float32, of length 1: what it remembers of each question; None where nobody needs that.
        readable: (N,) whether it can read the question, which may be too long; None: it can read all.
    """

    confidence: NDArray[np.float64]
    disagrees: NDArray[np.bool_] | None = None
    states: NDArray[np.float32] | None = None
    readable: NDArray[np.bool_] | None = None

    def at(self, places: NDArray[np.intp]) -> "Signals":
        """Those of some questions."""
        return Signals(
            self.confidence[places],
            None if self.disagrees is None else self.disagrees[places],
            None if self.states is None else self.states[places],
        )


def shuffled(ids: Sequence[str], seed: int) -> list[str]:
    """The ids in an order that depends on them and the seed alone: of more ids, those of fewer keep theirs."""

    def place(one: str) -> tuple[bytes, str]:
        return md5(f"{seed}/{one}".encode(), usedforsecurity=False).digest(), one

    return sorted(ids, key=place)


def ordered(
    choose: Choose,
    count: int,
    signals: Signals,
    known: NDArray[np.float32] | None = None,
    random_share: float = 0.5,
) -> list[int]:
    """The places of the first `count` questions to be asked, or of all if there are fewer.

    Args:
        choose: one of `Choose` but random.
        signals: of the questions, in the order of `shuffled`.
        known: (M, D) states of the questions that have been asked before; None for none.
        random_share: of `mixed`, the share that is random.

    Returns:
        Places; those of questions that the student cannot read come last, for it could not learn from them.
    """
    if signals.readable is not None:
        read = np.flatnonzero(signals.readable)
        first = ordered(choose, count, signals.at(read), known, random_share)
        return [*(int(read[place]) for place in first), *(int(one) for one in np.flatnonzero(~signals.readable))][
            :count
        ]
    ways: dict[Choose, Callable[[], list[int]]] = {
        "random": lambda: list(range(len(signals.confidence))),
        "uncertain": lambda: _uncertain(signals),
        "disagree": lambda: _disagreeing(signals),
        "diverse": lambda: _spread(_states(signals), known, count),
        "mixed": lambda: _mixed(signals, known, count, random_share),
    }
    return ways[choose]()[:count]


def _uncertain(signals: Signals) -> list[int]:
    """The least confident first."""
    return [int(place) for place in np.argsort(signals.confidence, kind="stable")]


def _disagreeing(signals: Signals) -> list[int]:
    """Where answer and rationale disagree first; among those, and among the others, the least confident first."""
    if signals.disagrees is None:
        raise ValueError("this student writes no rationales")
    return [int(place) for place in np.lexsort((signals.confidence, ~signals.disagrees))]


def _spread(states: NDArray[np.float32], known: NDArray[np.float32] | None, count: int) -> list[int]:
    """k-center greedy (Sener and Savarese 2018): always the question that is farthest from all that are taken."""
    farness = np.full(len(states), np.inf, np.float32)
    if known is not None and len(known):
        farness = _nearest(states, known)
    chosen: list[int] = []
    for _ in range(min(count, len(states))):
        place = int(np.argmax(farness))  # the first of equal ones
        chosen.append(place)
        farness = np.minimum(farness, 1 - states @ states[place])
        farness[place] = -np.inf
    return chosen


def _mixed(signals: Signals, known: NDArray[np.float32] | None, count: int, random_share: float) -> list[int]:
    """A share of random questions and, in turn with them, uncertain ones that are near to none that is taken.

    The least certain questions are often those that nobody can answer, or the same one many times over (Karamcheti et
    al. 2021); the random ones are there whatever the student thinks. If too few are left that are near to none, the
    near ones follow.
    """
    states = _states(signals)
    near = _near(states)
    farness = np.full(len(states), np.inf, np.float32)
    if known is not None and len(known):
        farness = _nearest(states, known)
    taken = np.zeros(len(states), np.bool_)
    chosen: list[int] = []
    by_chance, by_doubt, passed = iter(range(len(states))), iter(_uncertain(signals)), list[int]()
    drawn = 0
    while len(chosen) < min(count, len(states)):
        if drawn < random_share * (len(chosen) + 1):
            place = next(place for place in by_chance if not taken[place])
            drawn += 1
        else:
            place = -1
            for one in by_doubt:
                if not taken[one]:
                    if farness[one] > near:
                        place = one
                        break
                    passed.append(one)
            if place < 0:
                place = next((one for one in passed if not taken[one]), -1)
            if place < 0:  # all that is left was passed over before the random ones took it
                place = next(place for place in range(len(states)) if not taken[place])
        taken[place] = True
        chosen.append(place)
        farness = np.minimum(farness, 1 - states @ states[place])
    return chosen


def _near(states: NDArray[np.float32]) -> float:
    """How far half of all questions are from their nearest neighbour, at most: the median over some."""
    some = states[:NEIGHBOURS_OF]
    if len(some) < 2:
        return 0.0
    likeness = some @ some.T
    np.fill_diagonal(likeness, -np.inf)
    return float(np.median(1 - likeness.max(axis=1)))


def _nearest(states: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) the distance of each row to the nearest of the known ones: 1 - cosine."""
    rows = [1 - (states[at : at + _AT_ONCE] @ known.T).max(axis=1) for at in range(0, len(states), _AT_ONCE)]
    return np.concatenate(rows) if rows else np.empty(0, np.float32)


def _states(signals: Signals) -> NDArray[np.float32]:
    if signals.states is None:
        raise ValueError("the student's states are needed")
    return signals.states

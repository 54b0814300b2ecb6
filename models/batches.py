"""Which examples train together, as a pure function of a seed: no state, so a resumed run sees the same batches.

Neighbours in length share a batch, so little of it is padding. Each epoch is shuffled anew; within windows of many
batches the examples are sorted by length, cut into batches, and the batches shuffled.
"""

import random
from collections.abc import Sequence

WINDOW = 16
"""Batches that are sorted by length together: wide enough for little padding, narrow enough to stay random."""
WINDOWS = 4
"""At least so many windows an epoch. One window over all examples would hold the same batches in every epoch."""


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int) -> list[list[int]]:
    """One epoch: every index exactly once.

    Args:
        lengths: of each example, in tokens; they decide the padding.
        batch_size: examples per batch; one batch of the epoch, anywhere in it, may hold fewer.
        seed: a different one for each epoch.

    Returns:
        Lists of indices into `lengths`.
    """
    order = random.Random(seed)  # noqa: S311 - the order of the data, no secret
    shuffled = order.sample(range(len(lengths)), len(lengths))
    batches = []
    window = min(WINDOW, max(1, len(lengths) // (WINDOWS * batch_size))) * batch_size
    for start in range(0, len(shuffled), window):
        # The index breaks ties, so that the order is deterministic.
        near = sorted(shuffled[start : start + window], key=lambda index: (lengths[index], index))
        batches += [near[first : first + batch_size] for first in range(0, len(near), batch_size)]
    order.shuffle(batches)
    return batches


def share(batch: Sequence[int], rank: int, world: int) -> list[int]:
    """The examples of a batch that one of `world` processes takes: every `world`-th, so that lengths stay alike."""
    return list(batch[rank::world])


def micro_batches(batch: Sequence[int], size: int | None) -> list[list[int]]:
    """A process's share in pieces small enough for its memory; one empty piece for an empty share, because every
    process must take part in every step."""
    if size is None or len(batch) <= size:
        return [list(batch)]
    return [list(batch[start : start + size]) for start in range(0, len(batch), size)]

"""Batches: every example once an epoch, the same for the same seed, little padding, fair shares."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.batches import WINDOW, epoch_batches, micro_batches, share

LENGTHS = st.lists(st.integers(1, 300), max_size=200)


@given(LENGTHS, st.integers(1, 40), st.integers(0, 2**53 - 1))
def test_an_epoch_holds_every_example_once_in_full_batches_but_one(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    batches = epoch_batches(lengths, batch_size, seed)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    sizes = sorted(len(batch) for batch in batches)
    assert all(size == batch_size for size in sizes[1:])
    assert all(0 < size <= batch_size for size in sizes)
    assert epoch_batches(lengths, batch_size, seed) == batches


def test_epochs_differ_in_what_shares_a_batch_and_in_the_order() -> None:
    lengths = [Random(index).randint(5, 50) for index in range(400)]
    first, second = (epoch_batches(lengths, 8, seed) for seed in (1, 2))
    assert {frozenset(batch) for batch in first}.isdisjoint({frozenset(batch) for batch in second})
    # Long and short batches come in no order: else the last steps would all be of the longest examples.
    longest = [max(lengths[index] for index in batch) for batch in first]
    rising = sum(one < other for one, other in pairwise(longest))
    assert 0.25 * len(longest) < rising < 0.75 * len(longest)


def test_neighbours_in_length_share_a_batch() -> None:
    lengths = [Random(index).randint(1, 100) for index in range(WINDOW * 8 * 3)]

    def tokens(batches: list[list[int]]) -> int:
        return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)

    in_order = [list(range(start, start + 8)) for start in range(0, len(lengths), 8)]
    wasted, wasted_in_order = tokens(epoch_batches(lengths, 8, 0)) - sum(lengths), tokens(in_order) - sum(lengths)
    assert wasted < 0.3 * wasted_in_order


@given(st.lists(st.integers(), max_size=60), st.integers(1, 9), st.none() | st.integers(1, 9))
def test_shares_and_micro_batches_are_partitions(batch: list[int], world: int, size: int | None) -> None:
    shares = [share(batch, rank, world) for rank in range(world)]
    assert sorted(index for one in shares for index in one) == sorted(batch)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for one in shares:
        pieces = micro_batches(one, size)
        assert [index for piece in pieces for index in piece] == one
        assert all(len(piece) <= (size or len(one)) for piece in pieces)


@pytest.mark.parametrize("size", [None, 1, 3])
def test_a_process_without_an_example_has_one_empty_piece(size: int | None) -> None:
    assert micro_batches(share([7], 1, 2), size) == [[]]

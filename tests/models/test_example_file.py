"""Examples on the disk come back as they were, and nothing is left of the file."""

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.example_file import ExampleFile, Record
from models.student_training import Rationale, SideTask, TrainingExample, collate, packed, unpacked

ids = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=6)
numbers = st.floats(allow_nan=False)
rationales = st.lists(st.builds(Rationale, ids, numbers, st.booleans(), st.integers(0, 9)), max_size=3)
training_examples = st.builds(
    TrainingExample, ids, ids, st.none() | ids, rationales, rationales,
    st.lists(st.builds(SideTask, ids, ids, numbers), max_size=2),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(training_examples, max_size=5))
def test_examples_come_back_in_any_order_while_it_grows(tmp_path: Path, examples: list[TrainingExample]) -> None:
    with ExampleFile(tmp_path, packed, unpacked) as stored:
        for number, example in enumerate(examples):
            stored.append(example)
            assert len(stored) == number + 1
            for place in range(number, -1, -1):
                assert stored[place] == examples[place]
        assert stored[1:] == examples[1:]
        assert list(stored) == examples
        with pytest.raises(IndexError):
            stored[len(examples)]


def test_numbers_keep_every_bit(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 5e-324, -0.0, float("inf")]
    with ExampleFile[list[float]](tmp_path, lambda one: Record([], one), lambda one: one.numbers) as stored:
        stored.append(values)
        assert struct.pack("5d", *stored[0]) == struct.pack("5d", *values)


def test_a_batch_is_the_same_as_from_memory(tmp_path: Path) -> None:
    examples: Sequence[TrainingExample] = [
        TrainingExample([1, place], [2, 3], [4] if place % 2 else None, [Rationale([5] * (place + 1), 0.1 * place)],
                        [Rationale([6, 7], 1 / 3, own=True, answer_tokens=1)], [SideTask([8], [9, place], 0.7)])
        for place in range(5)
    ]  # fmt: skip
    with ExampleFile(tmp_path, packed, unpacked) as stored:
        for example in examples:
            stored.append(example)
        for one, other in zip(
            vars(collate(stored, [3, 0, 4], 0)).values(), vars(collate(examples, [3, 0, 4], 0)).values(), strict=True
        ):
            assert one.dtype == other.dtype
            assert one.equal(other)


def test_the_file_has_no_name_that_a_killed_process_could_leave(tmp_path: Path) -> None:
    stored = ExampleFile[list[float]](tmp_path / "round", lambda one: Record([], one), lambda one: one.numbers)
    stored.append([1.0] * 100_000)
    assert stored[0][:1] == [1.0]
    assert list((tmp_path / "round").iterdir()) == []
    stored.close()

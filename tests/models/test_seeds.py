"""Seeds are stable, consecutive within a question, and different between questions and runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.seeds import request_seed

RUN_SEEDS = st.integers(min_value=-(2**63), max_value=2**63)
INDEXES = st.integers(min_value=0, max_value=2**20 - 1)


@given(st.text(), RUN_SEEDS, INDEXES)
def test_later_samples_have_the_seeds_they_would_have_had_at_once(example_id: str, run_seed: int, index: int) -> None:
    assert request_seed(example_id, run_seed, index) == request_seed(example_id, run_seed, 0) + index


@given(st.text(), RUN_SEEDS, INDEXES)
def test_seeds_are_exact_in_json_and_in_a_float(example_id: str, run_seed: int, index: int) -> None:
    seed = request_seed(example_id, run_seed, index)
    assert 0 <= seed < 2**53
    assert int(float(seed)) == seed


@given(st.lists(st.tuples(st.text(), RUN_SEEDS), unique=True, min_size=2, max_size=40))
def test_questions_and_runs_share_no_seed(questions: list[tuple[str, int]]) -> None:
    seeds = {request_seed(example_id, run_seed, 0) + i for example_id, run_seed in questions for i in range(20)}
    assert len(seeds) == 20 * len(questions)


def test_a_hundred_thousand_questions_share_no_seed() -> None:
    seeds = {request_seed(f"svamp-{number:06x}", 0, 0) + i for number in range(100_000) for i in range(5)}
    assert len(seeds) == 500_000


def test_seeds_are_the_same_on_every_machine() -> None:
    assert request_seed("svamp-0c1d", run_seed=0, first_index=0) == 832049281275208


@pytest.mark.parametrize("index", [-1, 2**20])
def test_an_impossible_sample_index_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=r"first_index must be from 0 to 1048575, not"):
        request_seed("svamp-0c1d", 0, index)

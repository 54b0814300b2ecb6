"""What is new is compared with what was new before: on real Parquet, and the distance of two distributions."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.store import Store
from storage.votes import VoteRule
from tasks.watching.drift import DriftConfig, compare, new_samples, variation
from tasks.watching.figures import Figure, figures_of, last_with, store_figures
from tests.drifting import LONG, OTHER, SAME, bring

SHARES = st.dictionaries(st.text(max_size=3), st.floats(0.01, 1), min_size=1, max_size=30)


def normalised(weights: dict[str, float]) -> dict[str, float]:
    return {answer: weight / sum(weights.values()) for answer, weight in weights.items()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def measured(store: Store, run: str) -> dict[str, Figure]:
    """What a run would store."""
    before = last_with(store, "svamp", "new_questions", but=run)
    figures = new_samples(store, VoteRule(dataset="svamp"), "train", before.at if before else None)
    store_figures(store, run, "svamp", figures)
    return figures


def test_only_what_came_in_since_counts(store: Store, tmp_path: Path) -> None:
    bring(store, tmp_path, "first", range(60), SAME, OTHER)
    first = measured(store, "one")
    assert first["new_questions"].value == 60
    assert first["new_samples"].value == 180
    assert first["new_agreement"].value == pytest.approx(2 / 3)
    assert first["new_unparsed"].value == 0

    assert measured(store, "two")["new_questions"].value == 0

    bring(store, tmp_path, "second", range(60, 120), SAME, OTHER)
    second = measured(store, "three")
    assert second["new_questions"].value == 60
    assert figures_of(store, "three", "svamp") == second


def test_the_same_kind_of_samples_is_no_drift_and_another_kind_is(store: Store, tmp_path: Path) -> None:
    bring(store, tmp_path, "first", range(100, 160), SAME, OTHER)
    first = measured(store, "one")
    bring(store, tmp_path, "second", range(160, 220), SAME, OTHER)
    second = measured(store, "two")
    limits = DriftConfig(answers=0.9)
    assert [change.name for change in compare(second, first, limits) if change.passed] == []

    bring(store, tmp_path, "third", range(220, 280), LONG, "No idea.")
    third = measured(store, "three")
    changes = {change.name: change for change in compare(third, second, limits)}
    assert {name for name, change in changes.items() if change.passed} == {
        "agreement", "unparsed", "rationale_words",
    }  # fmt: skip
    assert changes["unparsed"].now == pytest.approx(1 / 3)
    assert changes["agreement"].now == pytest.approx(1.0), "what cannot be parsed has no vote"


def test_another_distribution_of_answers_is_seen() -> None:
    before = {"new_answers": Figure(2, {"yes": 0.5, "no": 0.5})}
    now = {"new_answers": Figure(2, {"yes": 0.9, "no": 0.1})}
    (change,) = compare(now, before, DriftConfig())
    assert (change.name, change.limit) == ("answers", 0.3)
    assert change.change == pytest.approx(0.4)
    assert change.passed


@given(before=SHARES, now=SHARES)
def test_the_distance_of_distributions(before: dict[str, float], now: dict[str, float]) -> None:
    one, other = normalised(before), normalised(now)
    assert variation(one, one) == pytest.approx(0, abs=1e-9)
    assert 0 <= variation(one, other) <= 1 + 1e-9
    disjoint = {f"{answer}, but another": share for answer, share in one.items()}
    if len(one) <= 10 and not disjoint.keys() & one.keys():
        assert variation(one, disjoint) == pytest.approx(1)

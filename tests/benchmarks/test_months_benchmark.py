"""The benchmark of a year at a size of moments: what its nights leave is what a run that finds nothing new finds."""

from pathlib import Path

from benchmarks.months import DATASET, RULE, linked, read_one, run_nights
from storage.schemas import RATIONALES
from storage.store import Store
from storage.votes import vote


def test_a_run_finds_nothing_new_after_some_nights(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for nights in (range(2), range(2, 3)):
        apart = Store(tmp_path / f"apart-{nights[0]}")
        run_nights(apart, nights, count=12, parts=4)
        linked(apart, tmp_path / "store")
    assert len(store.parts(RATIONALES)) == 3 * 4
    assert read_one("run", tmp_path / "store", 3, 12).keys() >= {"questions", "plan", "votes", "drift", "training set"}
    assert len(store.parts(RATIONALES)) == 3 * 4
    again = vote(store, DATASET, RULE)
    assert (again.examples, again.samples, again.unchanged) == (36, 180, 36)

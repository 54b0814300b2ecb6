"""Rules of pruning: what they pick out, what they leave, and that nothing else changes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from storage.checking import check_store
from storage.compaction import compact, rewriting
from storage.errors import UnknownName
from storage.pruning import Doomed, prune, student_samples, superseded, teacher_samples
from storage.schemas import EXAMPLES, RATIONALES, SCORES
from storage.store import Store, now
from tests.storage.test_compaction import AT_ONCE, kill_before_every_write, rows
from tests.storage.test_store import example_rows, rationale_rows

OLD = datetime(2026, 1, 1, tzinfo=UTC)
BETWEEN = datetime(2026, 6, 1, tzinfo=UTC)


def samples(store: Store, training: str | None, moment: datetime, *ids: str, **more: Any) -> None:
    row: dict[str, Any] = {
        "example_id": "e",
        "dataset": "d",
        "split": "train",
        "source": "student",
        "model": "m",
        "text": "t " * 200,
    }
    row |= {"sample_index": 0, "run_id": training, "created_at": moment, **more}
    store.append(RATIONALES, pa.Table.from_pylist([row | {"sample_id": key} for key in ids], RATIONALES.schema))


def stored(store: Store) -> list[str]:
    rows = Store(store.files.given).query("SELECT sample_id FROM rationales ORDER BY ALL")
    ids: list[str] = rows["sample_id"].to_pylist()
    return ids


def gone(found: list[Doomed]) -> dict[str, int]:
    return {one.table.name: one.rows for one in found if one.rows}


def test_old_samples_of_students_go_with_their_scores_and_nothing_else_does(store: Store) -> None:
    samples(store, "a", OLD, "a1", "a2")
    samples(store, "needed", OLD, "n1")
    samples(store, "a", now(), "a3")
    samples(store, None, OLD, "unknown")
    samples(store, "a", OLD, "t1", source="teacher")
    scores = [
        {"sample_id": key, "round": 0, "run_id": training, "dataset": "d", "split": "train", "score": 0.5,
         "created_at": OLD}
        for key, training in (("a1", "a"), ("t1", "a"), ("n1", "needed"))
    ]  # fmt: skip
    store.append(SCORES, pa.Table.from_pylist(scores, SCORES.schema))
    with rewriting(store):
        found = student_samples(store, BETWEEN, {"needed"})
        assert gone(found) == {"rationales": 2, "scores": 2}
        assert all(one.bytes > 0 for one in found)
        assert len(stored(store)) == 6, "so far it was only looked at"
        assert prune(store, found) == 4
    assert stored(store) == ["a3", "n1", "t1", "unknown"]
    assert store.query("SELECT sample_id FROM scores")["sample_id"].to_pylist() == ["n1"]
    assert gone(student_samples(store, BETWEEN, {"needed"})) == {}
    assert compact(store, kept_for=AT_ONCE).waiting == 0
    assert stored(store) == ["a3", "n1", "t1", "unknown"]
    assert check_store(Store(store.files.given)).sound


def test_a_teacher_goes_by_name_on_a_dataset_or_on_all(store: Store) -> None:
    for dataset in ("d", "other"):
        for source, model in (("teacher", "m"), ("recorded", "m"), ("teacher", "m2"), ("student", "m")):
            samples(store, "a", OLD, f"{dataset} {source} {model}", source=source, model=model, dataset=dataset)
    with pytest.raises(UnknownName, match=r"^Unknown teacher 'm3'\. Did you mean"):
        teacher_samples(store, "m3")
    assert prune(store, [teacher_samples(store, "m", "other")]) == 2
    assert stored(store) == ["d recorded m", "d student m", "d teacher m", "d teacher m2", "other student m",
                             "other teacher m2"]  # fmt: skip
    assert prune(store, [teacher_samples(store, "m")]) == 2
    assert stored(store) == ["d student m", "d teacher m2", "other student m", "other teacher m2"]


def test_rows_go_that_a_newer_version_replaces_and_readers_see_no_difference(store: Store) -> None:
    for number in range(4):
        store.upsert(EXAMPLES, example_rows(3, label=str(number), first=number))
    before = rows(store)
    found = superseded(store)
    assert gone(found) == {"examples": 6}  # of e1 the first, of e2 the first two, of e3 two, of e4 one
    assert prune(store, found) == 6
    assert rows(store) == before
    assert gone(superseded(store)) == {}
    store.upsert(EXAMPLES, example_rows(1, label="9"))
    compact(store, kept_for=AT_ONCE)
    assert prune(store, superseded(store)) == 1
    assert sorted(store.query("SELECT label FROM examples")["label"].to_pylist()) == ["1", "2", "3", "3", "3", "9"]


def test_a_samples_text_does_not_go_because_a_newer_row_has_another(bucket: str) -> None:
    """Two samplers of one teacher may both have paid for it, where there are no locks."""
    store = Store(bucket)
    for text in ("one", "two", "two"):
        samples(store, None, now(), "s", source="teacher", text=text)
    assert prune(store, superseded(store)) == 1
    found = [store.read_files(RATIONALES, [path]) for path in store.parts(RATIONALES)]
    with store.connect() as con:
        assert sorted(row[0] for sql in found for row in con.execute(f"SELECT text FROM {sql}").fetchall()) == [
            "one", "two",
        ]  # fmt: skip


def test_parts_that_share_a_key_are_no_versions_of_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "revision-1")
    store.append(RATIONALES, rationale_rows(0, 4))
    store.append(RATIONALES, rationale_rows(2, 4))
    assert gone(superseded(store)) == {}


def test_two_rules_that_name_the_same_row_remove_it_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    samples(store, "a", OLD, "a1", "a2", "a3")
    samples(store, "a", now(), "a4")
    doomed = student_samples(store, BETWEEN, ()) + student_samples(store, BETWEEN + timedelta(1), ())
    assert prune(store, doomed) == 3
    assert stored(store) == ["a4"]


def _prune(root: str) -> None:
    store = Store(root)
    with rewriting(store):
        prune(store, student_samples(store, BETWEEN, {"needed"}) + superseded(store))


@pytest.mark.slow
def test_killed_before_any_write_the_next_pruning_ends_the_work(tmp_path: Path) -> None:
    store = Store(tmp_path / "template")
    samples(store, "a", OLD, "a1", "a2")
    samples(store, "needed", OLD, "n1")
    samples(store, "a", now(), "a3")
    for number in range(2):
        store.upsert(EXAMPLES, example_rows(2, label=str(number)))
    examples = rows(store)["examples"]

    def killed(store: Store) -> None:
        assert rows(store)["examples"] == examples
        assert stored(store) in (["a1", "a2", "a3", "n1"], ["a3", "n1"])

    def ended(store: Store) -> None:
        assert rows(store)["examples"] == examples
        assert stored(store) == ["a3", "n1"]

    kill_before_every_write(tmp_path / "template", _prune, killed, ended)

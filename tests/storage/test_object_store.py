"""The same store on an S3-compatible server."""

from pathlib import Path

import pytest

from storage.checking import check_store
from storage.errors import DamagedPart
from storage.schemas import EXAMPLES, RATIONALES
from storage.store import Store
from tests.storage.test_store import example_rows, rationale_rows


def test_rows_are_stored_revised_queried_and_checked(bucket: str) -> None:
    store = Store(bucket)
    assert store.upsert(EXAMPLES, example_rows(3, label=None)) == (3, 0, 0)
    assert store.upsert(EXAMPLES, example_rows(4, label="7")) == (1, 3, 0)
    assert Store(bucket).query("SELECT label FROM examples ORDER BY example_id")["label"].to_pylist() == ["7"] * 4
    assert check_store(store).sound


def test_without_locks_the_newest_row_of_a_key_counts(bucket: str) -> None:
    store = Store(bucket)
    store.append(RATIONALES, rationale_rows(0, 10))
    store.append(RATIONALES, rationale_rows(5, 10))
    assert store.query("SELECT count(*) AS n FROM rationales")["n"].to_pylist() == [15]


def test_a_truncated_object_is_named_and_set_aside(bucket: str) -> None:
    store = Store(bucket)
    store.append(RATIONALES, rationale_rows(0, 10))
    [path] = store.append(RATIONALES, rationale_rows(10, 10))
    store.files.publish(path, store.files.read(path)[:100])
    with pytest.raises(DamagedPart, match=Path(path).name):
        store.query("SELECT count(*) FROM rationales")
    assert check_store(store, repair=True).sound
    assert store.query("SELECT count(*) AS n FROM rationales")["n"].to_pylist() == [10]

"""The same store on an S3-compatible server."""

from collections.abc import Callable
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from storage.checking import check_store, read_whole
from storage.errors import DamagedPart, StoreWriteFailed
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


def test_a_store_that_is_away_is_not_a_damaged_one(own_server: tuple[ThreadedMotoServer, str]) -> None:
    """Else a repair would set good files aside."""
    server, url = own_server
    store = Store(url)
    [path] = store.append(RATIONALES, rationale_rows(0, 10))
    with store.connect() as con:
        relation = store.relation(RATIONALES)
        server.stop()
        away: dict[str, Callable[[], object]] = {
            "a footer": lambda: store.footers.schema(RATIONALES, path),
            "a query": lambda: store.execute(con, f"SELECT count(*), min(text) FROM {relation}"),
            "rows merged": lambda: store.merge(con, RATIONALES, relation, {"dataset": "svamp", "split": "train"}),
            "a check": lambda: read_whole(store, RATIONALES, path),
        }
        for read in away.values():
            with pytest.raises(StoreWriteFailed, match="NETWORK_CONNECTION"):
                read()


def test_a_truncated_object_is_named_and_set_aside(bucket: str) -> None:
    store = Store(bucket)
    store.append(RATIONALES, rationale_rows(0, 10))
    [path] = store.append(RATIONALES, rationale_rows(10, 10))
    store.files.publish(path, store.files.read(path)[:100])
    with pytest.raises(DamagedPart, match=Path(path).name):
        store.query("SELECT count(*) FROM rationales")
    assert check_store(store, repair=True).sound
    assert store.query("SELECT count(*) AS n FROM rationales")["n"].to_pylist() == [10]

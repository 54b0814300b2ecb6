"""The same store on an S3-compatible server (moto's, over HTTP)."""

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from storage.checking import check_store
from storage.errors import DamagedPart
from storage.schemas import EXAMPLES, RATIONALES
from storage.store import Store
from tests.storage.test_store import example_rows, rationale_rows


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    bucket = f"bucket-{uuid.uuid4().hex}"  # moto keeps its buckets for as long as the process lives
    client.create_bucket(Bucket=bucket)
    yield f"s3://{bucket}/some/prefix?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()


def test_rows_are_stored_revised_queried_and_checked(root: str) -> None:
    store = Store(root)
    assert store.upsert(EXAMPLES, example_rows(3, label=None)) == (3, 0, 0)
    assert store.upsert(EXAMPLES, example_rows(4, label="7")) == (1, 3, 0)
    assert Store(root).query("SELECT label FROM examples ORDER BY example_id")["label"].to_pylist() == ["7"] * 4
    assert check_store(store).sound


def test_without_locks_the_newest_row_of_a_key_counts(root: str) -> None:
    store = Store(root)
    store.append(RATIONALES, rationale_rows(0, 10))
    store.append(RATIONALES, rationale_rows(5, 10))
    assert store.query("SELECT count(*) AS n FROM rationales")["n"].to_pylist() == [15]


def test_a_truncated_object_is_named_and_set_aside(root: str) -> None:
    store = Store(root)
    store.append(RATIONALES, rationale_rows(0, 10))
    [path] = store.append(RATIONALES, rationale_rows(10, 10))
    store.files.publish(path, store.files.read(path)[:100])
    with pytest.raises(DamagedPart, match=Path(path).name):
        store.query("SELECT count(*) FROM rationales")
    assert check_store(store, repair=True).sound
    assert store.query("SELECT count(*) AS n FROM rationales")["n"].to_pylist() == [10]

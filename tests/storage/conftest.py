"""A store on the disk and one on an S3-compatible server (moto's, over HTTP)."""

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from storage.store import Store


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ThreadedMotoServer, str]]:
    """A server of the test's own, and the URL of a store's root in a bucket of it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    bucket = f"bucket-{uuid.uuid4().hex}"  # moto keeps its buckets for as long as the process lives
    client.create_bucket(Bucket=bucket)
    yield server, f"s3://{bucket}/some/prefix?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()


@pytest.fixture
def bucket(own_server: tuple[ThreadedMotoServer, str]) -> str:
    """The URL of a store's root in a bucket of its own."""
    return own_server[1]


@pytest.fixture(params=["disk", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store: each test runs on either kind."""
    return Store(tmp_path if request.param == "disk" else request.getfixturevalue("bucket"))

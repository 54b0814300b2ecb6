"""The search for planted secrets finds what was really written, in whatever shape."""

import base64
import gzip
import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.planted import places_of

SECRET = "sk-Planted/4f+9c7e2"  # pragma: allowlist secret


def database(file: Path) -> None:
    """A long value, so placed that the secret lies on two pages of the file."""
    for before in range(0, 4100, 5):
        file.unlink(missing_ok=True)
        with closing(sqlite3.connect(file)) as con:
            con.execute("PRAGMA synchronous = OFF")
            con.execute("CREATE TABLE log (id INTEGER, message TEXT)")
            con.execute("INSERT INTO log VALUES (1, ?)", ["x" * before + SECRET + "y" * (9000 - before)])
            con.commit()
        if SECRET.encode() not in file.read_bytes():
            return


def parquet(file: Path) -> None:
    letters = "".join(random.Random(0).choices("etaoin shrdlu", k=4000))  # text enough for zstd to code its letters
    rows = [{"config": f'{letters}{{"key": "{SECRET}"}}{letters[::-1]}', "state": "running"}] * 50
    pq.write_table(pa.Table.from_pylist(rows), file, compression="zstd")


WRITTEN: dict[str, Callable[[Path], object]] = {
    "plain": lambda file: file.write_text(f"Authorization: Bearer {SECRET}\n"),
    "basic-0": lambda file: file.write_bytes(b"Basic " + base64.b64encode(f"admin:{SECRET}".encode())),
    "basic-1": lambda file: file.write_bytes(b"Basic " + base64.b64encode(f"qcrd2:{SECRET}!".encode())),
    "basic-2": lambda file: file.write_bytes(b"Basic " + base64.urlsafe_b64encode(f"nobody0:{SECRET}".encode())),
    "lines": lambda file: file.write_text(json.dumps(base64.encodebytes(b"x" * 50 + SECRET.encode()).decode())),
    "utf-16": lambda file: file.write_text(SECRET, encoding="utf-16"),
    "hex": lambda file: file.write_text(SECRET.encode().hex()),
    "url": lambda file: file.write_text("http://me:sk-Planted%2F4f%2B9c7e2@host"),
    "gzip": lambda file: file.write_bytes(gzip.compress(f"{{{SECRET}}}".encode())),
    "parquet": parquet,
    "sqlite": database,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_was_written_is_found(name: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    WRITTEN[name](tmp_path / "sub" / name)
    secrets = {"planted": SECRET, "other": "sk-Another/4f+9c7e2"}
    assert places_of(secrets, tmp_path) == {"planted": [str(tmp_path / "sub" / name)]}


def test_in_a_database_and_a_parquet_file_the_plain_bytes_would_not_do(tmp_path: Path) -> None:
    for name in ("sqlite", "parquet", "gzip"):
        WRITTEN[name](tmp_path / name)
        assert SECRET.encode() not in (tmp_path / name).read_bytes(), name


def test_a_file_named_by_it_is_found(tmp_path: Path) -> None:
    (tmp_path / "sk-named").touch()
    assert places_of({"it": "sk-named"}, tmp_path) == {"it": [str(tmp_path / "sk-named")]}

"""Finds a planted secret wherever a program may have left it: plain, encoded, compressed, or inside a database."""

import base64
import gzip
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq


def forms(secret: str) -> set[bytes]:
    """What a secret looks like in bytes: as it is, in UTF-16, in hexadecimal, in a URL, and in Base64, where what
    stands before it (a user's name, as in HTTP's Basic scheme) shifts it by up to two bytes."""
    plain = secret.encode()
    found = {plain, secret.encode("utf-16-le"), plain.hex().encode(), quote(secret, safe="").encode()}
    for shift, cut in enumerate((0, 2, 3)):
        whole = (shift + len(plain)) // 3 * 3 - shift  # bytes whose Base64 does not depend on what follows
        padded = b"\0" * shift + plain[:whole]
        found |= {base64.b64encode(padded)[cut:], base64.urlsafe_b64encode(padded)[cut:]}
    return found


def contents(file: Path) -> Iterator[bytes]:
    """The bytes of a file; and what is in it, where it is compressed, a Parquet file or a SQLite database."""
    data = file.read_bytes()
    yield data
    yield re.sub(rb"\\n|\s", b"", data)  # Base64 in lines, also within JSON
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    if data[:4] == b"PAR1":
        yield repr(pq.read_table(file).to_pylist()).encode()
    if data[:15] == b"SQLite format 3":  # a long value's bytes are scattered over the pages of the file
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as con:
            con.text_factory = bytes
            tables = con.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                rows = con.execute(f'SELECT * FROM "{table.decode()}"').fetchall()
                yield b"\0".join(value for row in rows for value in row if isinstance(value, bytes))


def places_of(secrets: Mapping[str, str], *folders: Path) -> dict[str, list[str]]:
    """Which secrets the files below some folders hold, or have in their names: the secret's label -> the files."""
    wanted = {label: forms(secret) for label, secret in secrets.items()}
    found: dict[str, list[str]] = {}
    for file in sorted(file for folder in folders for file in folder.rglob("*") if file.is_file()):
        held = {
            label
            for content in (str(file).encode(), *contents(file))
            for label, shapes in wanted.items()
            if any(shape in content for shape in shapes)
        }
        for label in held:
            found.setdefault(label, []).append(str(file))
    return found

"""Part files: how they and their folders are named, and which ones a compacted file stands for.

    <table>/<column>=<value>/.../part-20261121T080102-4f1c....parquet               rows
    <table>/<column>=<value>/.../revision-....parquet                               newer versions of rows
    <table>/<column>=<value>/.../part-....compacted.parquet                         rows of several earlier part files

A compacted file's footer names the files of its folder that it replaces. As soon as it is there, those no longer count:
so a set of files gives way to another in one step, which an object store can do, too. A file never counts again.
"""

import json
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime

import pyarrow as pa

from storage.files import folder_name
from storage.schemas import Table

STAMP = "%Y%m%dT%H%M%S"
PART, REVISION = "part", "revision"
_COMPACTED = ".compacted.parquet"
_REPLACES = b"qcrd.replaces"


def part_name(kind: str, *, compacted: bool = False) -> str:
    """A new name: the time, and enough at random that no two are equal."""
    moment = time.strftime(STAMP, time.gmtime())
    return f"{kind}-{moment}-{uuid.uuid4().hex[:16]}{_COMPACTED if compacted else '.parquet'}"


def kind_of(path: str) -> str:
    """Which of both kinds a data file is; "" if it is none that the store wrote."""
    name = path.rpartition("/")[2]
    return next((kind for kind in (PART, REVISION) if name.startswith(f"{kind}-")), "")


def written_at(path: str) -> datetime:
    """When a data file that the store wrote got its name, to the second."""
    return datetime.strptime(path.rpartition("/")[2].split("-")[1], STAMP).replace(tzinfo=UTC)


def is_compacted(path: str) -> bool:
    """Whether a data file may replace others."""
    return path.endswith(_COMPACTED)


def folder_of(table: Table, partition: dict[str, str]) -> str:
    """The folder of a partition, relative to the root; of several ones if the partition lacks inner columns."""
    names = [folder_name(column, partition[column]) for column in table.partitions if column in partition]
    return "/".join([table.name, *names])


def replacing(schema: pa.Schema, paths: Iterable[str]) -> pa.Schema:
    """The schema of a compacted file that replaces these files of its folder."""
    names = sorted(path.rpartition("/")[2] for path in paths)
    return schema.with_metadata({_REPLACES: json.dumps(names).encode()})


def replaced_by(path: str, schema: pa.Schema) -> list[str]:
    """Paths of the files that a data file with this schema replaces."""
    names: list[str] = json.loads((schema.metadata or {}).get(_REPLACES, b"[]")) if is_compacted(path) else []
    folder = path.rpartition("/")[0]
    return [f"{folder}/{name}" for name in names]


def by_partition(table: Table, rows: pa.Table) -> list[tuple[dict[str, str], pa.Table]]:
    """Splits rows by partition, keeping their order."""
    if not rows.num_rows:
        return []
    values = list(zip(*(rows.column(name).to_pylist() for name in table.partitions), strict=True))
    places: dict[tuple[str, ...], list[int]] = {}
    for position, value in enumerate(values):
        places.setdefault(value, []).append(position)
    return [
        (
            dict(zip(table.partitions, value, strict=True)),
            rows if len(places) == 1 else rows.take(pa.array(positions)),
        )
        for value, positions in places.items()
    ]

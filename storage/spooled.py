"""Rows of a query in temporary files, by a hash of their example: what belongs together is read together, later.

Like the partitions of a hash join on a disk, but kept: each group is then worked on by itself. One pass over the
query writes all groups, so time is linear in its rows, however many groups there are.
"""

from collections.abc import Iterable
from pathlib import Path

import duckdb

from storage.store import Store

ROWS_IN_MEMORY = 10_000
"""Of each group and thread, before they are written as a row group."""


class Spooled:
    """Groups of examples in a temporary folder.

    Args:
        store: whose errors are raised.
        con: a connection of the store, without insertion order.
        folder: takes the files; the caller removes it.
        groups: how many.
    """

    def __init__(self, store: Store, con: duckdb.DuckDBPyConnection, folder: Path, groups: int) -> None:
        self._store, self._con, self._folder, self._groups = store, con, folder, groups

    def add(self, name: str, rows: str) -> None:
        """Writes the rows of a query, which have an `example_id`, to the groups' files."""
        self._store.execute(self._con, f"CREATE TEMP TABLE no_{name} AS FROM {rows} LIMIT 0")
        self._store.execute(
            self._con,
            f"COPY (SELECT *, hash(example_id) % {self._groups} AS spool_group FROM {rows}) "
            f"TO {_quoted(self._folder / name)} "
            f"(FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE {ROWS_IN_MEMORY}, PARTITION_BY (spool_group))",
        )

    def group(self, name: str, number: int) -> str:
        """SQL for the rows of one group: what goes after FROM."""
        files = sorted((self._folder / name / f"spool_group={number}").glob("*.parquet"))
        return _read(files) if files else f"no_{name}"

    def keep(self, name: str, number: int, sql: str) -> None:
        """Writes the result of a query as that of one group."""
        (self._folder / name).mkdir(exist_ok=True)
        self._store.execute(
            self._con, f"COPY ({sql}) TO {_quoted(self._folder / name / f'{number}.parquet')} (FORMAT parquet)"
        )

    def kept(self, name: str) -> str:
        """SQL for the rows that were kept of all groups."""
        return _read(sorted((self._folder / name).glob("*.parquet")))


def _read(files: Iterable[Path]) -> str:
    return f"(FROM read_parquet([{', '.join(map(_quoted, files))}], hive_partitioning=false))"


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"

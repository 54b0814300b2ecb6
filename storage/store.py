"""The store: Parquet part files under one root, read through DuckDB.

    <root>/store.json                                          schema version
    <root>/rationales/dataset=svamp/split=train/source=teacher/part-20261121T080102-4f1c....parquet
    <root>/rationales/.../revision-....parquet                 newer versions of rows that a part holds
    <root>/rationales/.../part-....compacted.parquet           the rows of several files above (`qcrd store compact`)
    <root>/_set_aside/...                                      damaged files, kept (`qcrd store check --repair`)
    <root>/_locks/...   _tmp/...                               locks and unfinished files

Everything else relies on these rules:
- A part file is published whole (`storage.files`) and never rewritten.
- Part files hold each key once. A writer takes the lock on what it writes, reads what is stored, and appends only
  what is missing. The operating system releases the lock when the process dies, however it dies.
- A row that changes (a label arrives, a better parser reads the answers again) is written again into a *revision*
  file; the newest revision of a key counts.
- A compacted file replaces others (`storage.parts`). They are deleted a day later, when nobody reads them any more.
- What was forgotten (`storage.forgetting`) is never stored again: every writer passes `storage.forgotten`.
- Object stores have no such locks. There, readers take the newest row of each key.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import Timeout

from storage.columns import no_rows, quoted, selection, unknown, with_unknown
from storage.errors import BadFile, DamagedPart, NewerStore, StorageError, StoreWriteFailed, one_line
from storage.files import Files, translated
from storage.footers import Footers
from storage.forgotten import Forgotten
from storage.ids import content_id
from storage.locks import file_lock, gate
from storage.parts import PART, REVISION, by_partition, folder_of, is_compacted, kind_of, part_name
from storage.schemas import FIRST_VERSION, FORGOTTEN, SCHEMA_VERSION, TABLES, Table

MARKER = "store.json"
ROWS_A_GROUP = 128 * 1024
PARQUET_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    # lets `qcrd store check` find a flipped bit, not only a truncated file
    "write_page_checksum": True,
    # columns with few distinct values; for ids and texts a dictionary only costs time
    "use_dictionary": [
        *("dataset", "split", "source", "model", "model_revision", "answer", "parse_error", "finish_reason"),
        *("label", "vote_id", "winner", "rule", "run_id", "state"),
    ],
}


def now() -> datetime:
    """The time written into rows: UTC, microseconds."""
    return datetime.now(UTC)


class Store:
    """The Parquet store under one root.

    Args:
        root: a local path, or an object-store URL that pyarrow knows (`s3://bucket/prefix`).

    Raises:
        NewerStore: the store was written by a newer schema version.
        StorageError: the root cannot be a store.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.files = Files(root)
        self.footers = Footers(self.files)
        self.forgotten = Forgotten(self)
        self._version = self._marked_version()
        if self._version > SCHEMA_VERSION:
            raise NewerStore(
                f"The store at {self.files.given} has schema version {self._version}; this qcrd reads versions up to "
                f"{SCHEMA_VERSION}. Upgrade qcrd, or choose another store with --home."
            )

    # ---- writing ----

    def append(self, table: Table, rows: pa.Table, *, kind: str = PART) -> list[str]:
        """Publishes rows as new part files, one per partition. Columns that the table lacks are kept, after its own.

        The caller holds the lock and knows that none of the keys is stored yet; `upsert` finds that out by itself.
        With REVISION all of the keys are stored already. Rows of forgotten examples are left out.

        Returns:
            Paths of the new files, relative to the root; empty if there are no rows.

        Raises:
            StoreWriteFailed: a write was refused. Files already published stay, and no file is half-written.
        """
        rows = rows.cast(with_unknown(table, rows.schema))
        written = []
        with self.publishing(table):
            for partition, group in by_partition(table, self.forgotten.left_out(table, rows)):
                sink = pa.BufferOutputStream()
                pq.write_table(group, sink, row_group_size=ROWS_A_GROUP, **PARQUET_OPTIONS)
                path = f"{folder_of(table, partition)}/{part_name(kind)}"
                self.mark(FIRST_VERSION)
                self.files.publish(path, sink.getvalue())
                written.append(path)
        return written

    def upsert(self, table: Table, rows: pa.Table) -> tuple[int, int, int]:
        """Stores rows that may be stored already: new keys are appended, changed rows revised, equal ones left alone.

        `created_at` and `run_id` do not count as a change. Where several of `rows` share a key, one is stored.
        Rows of forgotten examples are left out, and not counted. The caller holds the lock of what it writes.

        Returns:
            (added, changed, unchanged), counted in keys.

        Raises:
            StoreWriteFailed: a write was refused.
            DamagedPart: what is stored cannot be read.
        """
        added = changed = unchanged = 0
        for partition, group in by_partition(table, self.forgotten.left_out(table, rows.cast(table.schema))):
            with self.connect() as con:
                con.register("incoming_rows", group)
                key = ", ".join(f'"{name}"' for name in table.key)
                one_of_each = f"QUALIFY row_number() OVER (PARTITION BY {key}) = 1"
                con.execute(f"CREATE TEMP TABLE incoming AS SELECT * FROM incoming_rows {one_of_each}")
                counts = self.merge(con, table, "incoming", partition)
            added, changed, unchanged = added + counts[0], changed + counts[1], unchanged + counts[2]
        return added, changed, unchanged

    def merge(
        self, con: duckdb.DuckDBPyConnection, table: Table, source: str, partition: dict[str, str]
    ) -> tuple[int, int, int]:
        """`upsert` for rows in DuckDB. They are streamed, so they may exceed memory.

        Args:
            con: a connection made by `connect`.
            source: a table or view of `con` with the table's columns, all rows in one partition, each key once.
            partition: that partition.
        """
        with self.publishing(table):
            return self._merge(con, table, self.forgotten.anti_joined(con, table, source), partition)

    def _merge(
        self, con: duckdb.DuckDBPyConnection, table: Table, source: str, partition: dict[str, str]
    ) -> tuple[int, int, int]:
        columns = ", ".join(f'"{name}"' for name in table.schema.names)
        total: int = self.execute(con, f"SELECT count(*) AS n FROM {source}")["n"][0].as_py()
        paths = self.parts(table, partition)
        if not paths:
            self._append_query(con, table, f"SELECT {columns} FROM {source}", partition, PART)
            return total, 0, 0
        key = ", ".join(f'"{name}"' for name in table.key)
        content = ", ".join(f'"{name}"' for name in table.schema.names if name not in ("created_at", "run_id"))
        # A revision keeps the columns that only a newer qcrd knows.
        kept = "".join(
            f", {quoted(name)}" for name in unknown(table, sorted(set().union(*self.footers.columns(table, paths))))
        )
        # Materialised first, so that the two statements below see the same state.
        con.execute("DROP TABLE IF EXISTS stored_keys")
        self.execute(
            con,
            f"CREATE TEMP TABLE stored_keys AS SELECT {key}, hash({content}) AS _stored_hash{kept} "
            f"FROM {self.relation(table, partition)} SEMI JOIN {source} USING ({key})",
        )
        fresh = f"SELECT {columns} FROM {source} ANTI JOIN stored_keys USING ({key})"
        differing = (
            f"SELECT {columns}{kept} FROM (SELECT *, hash({content}) AS _hash FROM {source}) "
            f"JOIN stored_keys USING ({key}) WHERE _hash <> _stored_hash"
        )
        added = self._append_query(con, table, fresh, partition, PART)
        changed = self._append_query(con, table, differing, partition, REVISION)
        return added, changed, total - added - changed

    def _append_query(
        self, con: duckdb.DuckDBPyConnection, table: Table, sql: str, partition: dict[str, str], kind: str
    ) -> int:
        """Streams the rows of a query into one file; returns how many there were."""
        path = f"{folder_of(table, partition)}/{part_name(kind)}"
        rows = 0
        with self.files.temporary() as unfinished:
            try:
                batches = con.sql(sql).to_arrow_reader(ROWS_A_GROUP)
                schema = with_unknown(table, batches.schema)
                with translated(self.files.given), pq.ParquetWriter(unfinished, schema, **PARQUET_OPTIONS) as writer:
                    for batch in batches:
                        rows += batch.num_rows
                        writer.write_table(pa.Table.from_batches([batch]).cast(schema))
            except duckdb.Error as error:
                raise self.query_failed(error) from error
            if rows:
                self.mark(FIRST_VERSION)
                self.files.publish_file(unfinished, path)
        return rows

    @contextmanager
    def publishing(self, table: Table) -> Iterator[None]:
        """Held from the look at what is forgotten until rows are published, by any number of writers.

        `forgetting` waits for them, and whoever comes later sees what it wrote. Not so on object stores.
        """
        if not self.files.local or table is FORGOTTEN:
            yield
            return
        with translated(self.files.given), gate(self._gate):
            yield

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """Keeps writers out while it is written down what is forgotten. On object stores nobody is kept out."""
        if not self.files.local:
            yield
            return
        with translated(self.files.given), gate(self._gate, shut=True):
            yield

    @property
    def _gate(self) -> Path:
        return Path(self.files.absolute("_locks"), "writers")

    @contextmanager
    def lock(self, what: str, *, wait: bool | float = True) -> Iterator[bool]:
        """Holds the exclusive right to write `what` ("sample svamp/train").

        Yields whether it is held: False only if another process holds it and `wait` is false, or so many seconds are
        over. On object stores, which have no locks, always True.
        """
        if not self.files.local:
            yield True
            return
        lock = file_lock(Path(self.files.absolute("_locks"), content_id(what)))
        with translated(self.files.given), suppress(Timeout):  # suppressed before it is translated: it is an OSError
            lock.acquire(timeout=-1 if wait is True else float(wait))
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def mark(self, version: int) -> None:
        """Notes that the store needs this schema version; called before the first file that does."""
        if self._version < version:
            self._version = self._marked_version()  # another process may have noted a newer one
        if self._version < version:
            self.files.publish(MARKER, json.dumps({"schema_version": version}).encode() + b"\n")
            self._version = version

    def _marked_version(self) -> int:
        """0 where nothing is stored yet."""
        if not self.files.exists(MARKER):
            return 0
        try:
            return int(json.loads(self.files.read(MARKER))["schema_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{self.files.given}/{MARKER} is damaged. To repair the store, write this line into it: "
                f'{{"schema_version": {SCHEMA_VERSION}}}'
            ) from error

    # ---- reading ----

    def parts(self, table: Table, partition: dict[str, str] | None = None) -> list[str]:
        """Paths of the data files of a table or of one partition, relative to the root, sorted.

        Those that a compacted file replaces are left out.

        Raises:
            DamagedPart: a compacted file cannot be read.
        """
        paths = self.listed(folder_of(table, partition or {}))
        replaced = self.replaced(table, paths)
        return [path for path in paths if path not in replaced]

    def listed(self, folder: str) -> dict[str, int]:
        """Path -> bytes of every data file below a folder, sorted, replaced ones included."""
        return {path: size for path, size in self.files.sizes(folder).items() if path.endswith(".parquet")}

    def replaced(self, table: Table, paths: Iterable[str]) -> dict[str, list[str]]:
        """Paths that compacted ones among `paths` replace -> those compacted ones. Raises what `parts` raises."""
        compacted = [path for path in paths if is_compacted(path)]
        found: dict[str, list[str]] = {}
        for path, replaced in zip(compacted, self.footers.replaced(table, compacted), strict=True):
            for one in replaced:
                found.setdefault(one, []).append(path)
        return found

    def connect(self, **settings: str | int) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB connection that can read the store's files. `settings` are DuckDB's own."""
        # DuckDB must not download extensions; its built-in ones are enough.
        own = {"autoinstall_known_extensions": "false"}
        con = duckdb.connect(config={**own, **{name: str(value) for name, value in settings.items()}})
        # Where it takes a Python for an interactive one, it would draw its bar into what a command prints.
        con.execute("SET enable_progress_bar = false")
        if not self.files.local:
            from storage.remote import as_fsspec  # slow to import

            con.register_filesystem(as_fsspec(self.files.fs))
        return con

    def relation(self, table: Table, partition: dict[str, str] | None = None, held: str | None = None) -> str:
        """SQL for the current rows of a table: a parenthesised query that goes after FROM.

        Args:
            partition: only this one, e.g. {"dataset": "svamp", "split": "train"}; leave out inner folders to get all.
            held: SQL that says which rows are wanted, by columns that are equal in all versions of a row. The others
                are dropped before versions are compared.

        Raises:
            DamagedPart: a part file cannot be read, or not as rows of this table.
        """
        paths = self.parts(table, partition)
        parts = [path for path in paths if kind_of(path) == PART]
        revisions = [path for path in paths if kind_of(path) == REVISION]
        if not parts and not revisions:
            return f"({no_rows(table)})"
        key = ", ".join(f'"{name}"' for name in table.key)
        newest = f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY created_at DESC) = 1"

        def read(paths: list[str]) -> str:
            rows = self.read_files(table, paths)
            return rows if held is None else f"(SELECT * FROM {rows} WHERE {held})"

        if not self.files.local:
            return f"(SELECT * FROM {read(parts + revisions)} {newest})"
        if not revisions:
            return read(parts)
        revised = f"SELECT * FROM {read(revisions)} {newest}"
        if not parts:
            return f"({revised})"
        return (
            f"(SELECT p.* FROM {read(parts)} p "
            f"ANTI JOIN {read(revisions)} r USING ({key}) UNION ALL BY NAME ({revised}))"
        )

    def read_files(self, table: Table, paths: list[str], *, places: bool = False) -> str:
        """SQL for the rows of some of a table's data files: a parenthesised query.

        Its columns are the table's, null where a file lacks one, then those that only a newer qcrd knows.

        Args:
            paths: as `parts` names them.
            places: whether two more columns say where a row is: `_file` (its `address`), and `_row`, from 0.

        Raises:
            DamagedPart: one cannot be read, or not as rows of this table.
        """
        columns = self.footers.columns(table, paths)
        names = set().union(*columns)
        alike = all(len(one) == len(names) for one in columns)
        listed = ", ".join("'" + self.address(path).replace("'", "''") + "'" for path in paths)
        # With union_by_name DuckDB opens every file before it reads the first, so it is used only where needed.
        options = "hive_partitioning=false" + ("" if alike else ", union_by_name=true")
        more = ""
        if places:
            options += ", filename=true, file_row_number=true"
            more = ", filename AS _file, file_row_number AS _row"
        return f"(SELECT {selection(table, names)}{more} FROM read_parquet([{listed}], {options}))"

    def address(self, path: str) -> str:
        """A data file as DuckDB is given it."""
        return ("" if self.files.local else "qcrd://") + self.files.absolute(path)

    def create_views(self, con: duckdb.DuckDBPyConnection, tables: Iterable[Table] = TABLES.values()) -> None:
        """A view per table, as `qcrd sql` offers them."""
        for table in tables:
            # The other tables stay readable. A statement that needs this view fails, and `execute` reports the damage.
            with suppress(DamagedPart):
                self.execute(con, f"CREATE OR REPLACE VIEW {table.name} AS SELECT * FROM {self.relation(table)}")

    def query(self, sql: str, parameters: Any = None, **settings: str | int) -> pa.Table:
        """Runs one SQL statement over the views.

        Raises:
            DamagedPart: a part file cannot be read; the message names it.
            StoreWriteFailed: the object store is away.
            BadFile: the SQL is wrong; the message is DuckDB's, in one line.
        """
        with self.connect(**settings) as con:
            self.create_views(con, [table for table in TABLES.values() if table.name in sql.lower()])
            return self.execute(con, sql, parameters)

    def execute(self, con: duckdb.DuckDBPyConnection, sql: str, parameters: Any = None) -> pa.Table:
        """Like `query`, on an open connection. A statement without a result gives an empty table."""
        try:
            result = con.sql(sql, params=parameters) if parameters is not None else con.sql(sql)
            return result.to_arrow_table() if result is not None else pa.table({})
        except duckdb.Error as error:
            raise self.query_failed(error) from error

    def query_failed(self, error: Exception) -> BadFile | StoreWriteFailed:
        """What is to be raised for an error of DuckDB's: that the SQL is wrong, or that an object store is away.

        Raises:
            DamagedPart: a part file cannot be read.
            StoreWriteFailed: the object store is away.
        """
        _, python, said = str(error).partition("OSError: ")
        if python and not self.files.local:  # raised by pyarrow's file system, which DuckDB reads through
            return StoreWriteFailed(f"The store at {self.files.given} failed: {one_line(OSError(said))}.")
        self.raise_if_damaged()
        gone = isinstance(error, duckdb.IOException) and self.files.root in str(error)
        hint = ". If the store was compacted since this began, begin again" if gone else ""
        return BadFile(f"DuckDB: {one_line(error)}{hint}")

    def stream(
        self, con: duckdb.DuckDBPyConnection, sql: str, parameters: Any = None, rows: int = 1000
    ) -> Iterator[dict[str, Any]]:
        """Like `execute`, row by row; so many `rows` are in memory at a time."""
        try:
            for batch in con.sql(sql, params=parameters).to_arrow_reader(rows):
                yield from batch.to_pylist()
        except (duckdb.Error, pa.ArrowException) as error:
            raise self.query_failed(error) from error

    def raise_if_damaged(self) -> None:
        """Reads the footer of every part file.

        Raises:
            DamagedPart: one cannot be read, or not as rows of its table.
        """
        for table in TABLES.values():
            for path in self.parts(table):
                self.footers.schema(table, path)

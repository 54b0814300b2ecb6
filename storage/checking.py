"""`qcrd store check`: reads everything once and, on request, sets aside what cannot be read.

It deletes nothing except temporary files of processes that no longer run. A damaged part file is moved to
`_set_aside/`. Its rows are then missing, and the command that made them makes only those again.
"""

import shutil
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from storage.columns import misfit, unknown
from storage.errors import DamagedPart, one_line
from storage.files import TEMPORARY
from storage.parts import PART, REVISION, kind_of
from storage.schemas import TABLES, Table
from storage.store import Store

SET_ASIDE = "_set_aside"


@dataclass(frozen=True)
class DamagedFile:
    """A part file that cannot be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        files: part files read.
        rows: current rows per table.
        damaged: files that cannot be read whole, or not as rows of their table.
        newer: "table.column" -> files that have it: columns that only a newer qcrd knows. They are kept.
        repeated: keys per table that several part files hold (after copying one store into another, say).
        unfinished: temporary files left by killed processes.
        repaired: whether all of this was repaired.
    """

    files: int
    rows: dict[str, int]
    damaged: list[DamagedFile]
    newer: dict[str, int]
    repeated: dict[str, int]
    unfinished: list[str]
    repaired: bool

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong, or everything was repaired."""
        return self.repaired or not (self.damaged or self.repeated)


def check_store(
    store: Store, *, repair: bool = False, on_progress: Callable[[int, int], None] | None = None
) -> CheckReport:
    """Reads every part file whole, verifies its checksums, and looks for keys stored twice.

    Args:
        repair: move damaged files to `_set_aside/`, settle repeated keys with a revision, remove unfinished files.
        on_progress: called with (files read, total files).

    Raises:
        StoreWriteFailed: a repair could not be written, or the object store is away.
    """
    files = [(table, path) for table in TABLES.values() for path in _counting(store, table)]
    damaged = []
    newer: Counter[str] = Counter()
    for number, (table, path) in enumerate(files, 1):
        reason, columns = read_whole(store, table, path)
        if reason:
            damaged.append(DamagedFile(path, reason))
        else:
            newer.update(f"{table.name}.{name}" for name in unknown(table, columns))
        if on_progress:
            on_progress(number, len(files))
    unfinished = _unfinished(store)
    if repair:
        for file in damaged:
            store.files.move(file.path, f"{SET_ASIDE}/{file.path}")
        remove_unfinished(store)
    bad = {file.path for file in damaged}
    repeated = {}
    rows = {}
    for table in TABLES.values():
        if any(path in bad for path in store.listed(table.name)):
            continue  # cannot be queried until it is repaired
        if count := _repeated(store, table, repair=repair):
            repeated[table.name] = count
        with store.connect() as con:
            counted = store.execute(con, f"SELECT count(*) AS n FROM {store.relation(table)}")
        rows[table.name] = int(counted["n"][0].as_py())
    return CheckReport(len(files), rows, damaged, dict(newer), repeated, unfinished, repair)


def _counting(store: Store, table: Table) -> list[str]:
    """The files that count; all of them if a compacted one cannot be read, since it is not known what it replaces."""
    try:
        return store.parts(table)
    except DamagedPart:
        return list(store.listed(table.name))


def read_whole(store: Store, table: Table, path: str) -> tuple[str | None, list[str]]:
    """Why a file cannot be read whole, checksums included (None if it can), and its columns.

    Raises:
        StoreWriteFailed: the object store is away, which says nothing about the file.
    """
    # An object is fetched first: an error after that is the object's own, not the network's.
    source = store.files.absolute(path) if store.files.local else pa.BufferReader(store.files.read(path))
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            names: list[str] = file.schema_arrow.names
            if reason := misfit(table, file.schema_arrow):
                return reason, names
            for _ in file.iter_batches():
                pass
    except (pa.ArrowException, OSError) as error:
        return one_line(error), []
    return None, names


def _repeated(store: Store, table: Table, *, repair: bool) -> int:
    """Counts keys that several part files hold and that no revision settles; `repair` writes such revisions."""
    parts = [path for path in store.parts(table) if kind_of(path) == PART]
    revisions = [path for path in store.parts(table) if kind_of(path) == REVISION]
    if not parts or not store.files.local:
        return 0  # on object stores readers take the newest row of each key anyway
    key = ", ".join(f'"{name}"' for name in table.key)
    settled = f"ANTI JOIN {store.read_files(table, revisions)} r USING ({key})" if revisions else ""
    with store.connect() as con:
        store.execute(
            con,
            f"CREATE TEMP TABLE repeated AS SELECT {key} FROM {store.read_files(table, parts)} p {settled} "
            f"GROUP BY {key} HAVING count(*) > 1",
        )
        count: int = con.execute("SELECT count(*) FROM repeated").fetchall()[0][0]
        if count and repair:
            newest = store.execute(
                con,
                f"SELECT * FROM {store.read_files(table, parts)} SEMI JOIN repeated USING ({key}) "
                f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY created_at DESC) = 1",
            )
            store.append(table, newest, kind=REVISION)
    return count


def remove_unfinished(store: Store) -> None:
    """Deletes temporary files and folders whose process is gone."""
    for path in _unfinished(store):
        left = Path(store.files.absolute(path))
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _unfinished(store: Store) -> list[str]:
    """Temporary files and folders whose process is gone.

    Their names begin with its process id and machine. Other machines' processes cannot be seen from here, so their
    files are left alone.
    """
    folder = Path(store.files.absolute(TEMPORARY))
    if not store.files.local or not folder.is_dir():
        return []
    found = []
    for file in sorted(folder.iterdir()):
        pid, _, rest = file.name.partition("-")
        if pid.isdigit() and rest.startswith(f"{socket.gethostname()}-") and not psutil.pid_exists(int(pid)):
            found.append(f"{TEMPORARY}/{file.name}")
    return found

"""`qcrd store compact`: many small part files become few large ones, while others read and write.

Small files of one folder and kind are copied, row by row, into a compacted file that replaces them (`storage.parts`).
The moment it is published they no longer count. Whoever listed them before can still read them: they are deleted by a
compaction a day later, once the file that holds their rows has been read whole. So a process may die at any point:
either the new file is there, whole, or the old ones count; what is left to delete is found again.

Nothing is merged or left out. A part's rows stay a part's, a revision's a revision's, and each keeps its columns, those
of a newer qcrd included. Files from `LARGE` bytes on stay as they are, so however often this runs, a row is copied only
until its file is large.

One process at a time rewrites a store. Object stores have no locks; there, two at once may both copy a file, and each
row of it is stored twice. That is wasted space, no more: readers take one row of each key. Whoever publishes looks once
more whether its files still count, so it takes two that publish in the same second.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, groupby

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.checking import read_whole
from storage.columns import unknown, with_unknown
from storage.errors import UsageError, one_line
from storage.files import translated
from storage.parts import folder_of, kind_of, part_name, replacing, written_at
from storage.schemas import COMPACTED_VERSION, TABLES, Table
from storage.store import PARQUET_OPTIONS, ROWS_A_GROUP, Store

LARGE = 128 * 2**20
"""Bytes from which a file is large enough. A compacted one has less than twice as many."""
TIDY = 4 * 2**20
"""The same where it is done often, on the way: a row is copied a few times only."""
KEPT_FOR = timedelta(days=1)
"""How long replaced files stay for those who still read them."""
PATIENCE_S = 3.0
"""How long somebody else's rewriting is waited for: `qcrd answer` does a little of it now and then."""
BATCH_ROWS = 8192
BYTES_A_GROUP = 128 * 2**20
"""Of rows in memory, written as one row group at the latest then."""


@dataclass(frozen=True)
class Compacted:
    """What a compaction did.

    Attributes:
        files, written: so many small files were copied into so many.
        bytes_before, bytes_after: their sizes.
        removed: files deleted that had been replaced before.
        waiting: replaced files that are still there.
    """

    files: int
    written: int
    bytes_before: int
    bytes_after: int
    removed: int
    waiting: int


def compact(
    store: Store,
    *,
    large: int = LARGE,
    kept_for: timedelta = KEPT_FOR,
    on_progress: Callable[[int, int], None] | None = None,
) -> Compacted:
    """Copies small files together, and deletes files that were replaced a while ago.

    Args:
        large: bytes from which a file stays as it is.
        kept_for: how long replaced files stay.
        on_progress: called with (files copied, files in all).

    Raises:
        UsageError: another process rewrites the store.
        DamagedPart: a file cannot be read; nothing was replaced by a part of it.
        StoreWriteFailed: a write was refused.
    """
    with rewriting(store):
        removed = remove_replaced(store, kept_for)  # first, because it makes room
        groups = [(table, group) for table in TABLES.values() for group in _groups(store, table, large)]
        total, done, written, before, after = sum(len(group) for _, group in groups), 0, 0, 0, 0
        for table, group in groups:
            size = rewrite(store, table, group)
            done += len(group)
            if size is not None:
                written, before, after = written + 1, before + sum(group.values()), after + size
            if on_progress:
                on_progress(done, total)
        removed += remove_replaced(store, kept_for)
        waiting = sum(len(_replaced(store, table, table.name)) for table in TABLES.values())
    return Compacted(done, written, before, after, removed, waiting)


def compact_partition(store: Store, partition: dict[str, str], tables: Iterable[Table], large: int = TIDY) -> int:
    """Copies the smallest files of one partition together, unless another process rewrites the store just now.

    What they replace stays for `compact` to delete.

    Args:
        partition: such as dataset and split.
        large: bytes from which a file stays as it is.

    Returns:
        How many files were copied.

    Raises:
        DamagedPart, StoreWriteFailed: nothing is lost.
    """
    copied = 0
    with store.lock("rewrite", wait=False) as mine:
        for table in tables if mine else ():
            for group in _groups(store, table, large, partition):
                copied += len(group) if rewrite(store, table, group) is not None else 0
    return copied


@contextmanager
def rewriting(store: Store) -> Iterator[None]:
    """Held by one process at a time; on object stores by any number.

    Raises:
        UsageError: another one holds it.
    """
    with store.lock("rewrite", wait=PATIENCE_S) as mine:
        if not mine:
            raise UsageError("Another process compacts or prunes this store; run this again when it is done.")
        yield


def rewrite(
    store: Store, table: Table, group: Iterable[str], without: Mapping[str, pa.Array] | None = None
) -> int | None:
    """Copies files of one folder, kind and set of columns into one that replaces them.

    Args:
        group: their paths; they count now.
        without: path -> positions of rows that are left out, from 0.

    Returns:
        The new file's bytes; None if meanwhile another process replaced one of them, and nothing was published.

    Raises:
        DamagedPart, StoreWriteFailed: nothing was published.
    """
    paths = sorted(group)
    folder, kind = paths[0].rpartition("/")[0], kind_of(paths[0])
    schema = with_unknown(table, store.footers.schema(table, paths[0]))
    # The files that these replaced, too, as long as they are there: they must not count again when these are deleted.
    earlier = [path for path, by in _replaced(store, table, folder).items() if not set(by).isdisjoint(paths)]
    with store.files.temporary() as unfinished:
        with (
            translated(store.files.given),
            pq.ParquetWriter(unfinished, replacing(schema, [*paths, *earlier]), **PARQUET_OPTIONS) as writer,
        ):
            for rows in _gathered(_rows(store, path, schema, (without or {}).get(path)) for path in paths):
                writer.write_table(rows, row_group_size=ROWS_A_GROUP)
        if not set(paths) <= set(store.listed(folder)) - set(_replaced(store, table, folder)):
            return None
        size = unfinished.stat().st_size
        store.mark(COMPACTED_VERSION)
        store.files.publish_file(unfinished, f"{folder}/{part_name(kind, compacted=True)}")
    return size


def remove_replaced(store: Store, kept_for: timedelta) -> int:
    """Deletes files that were replaced longer ago than that; returns how many.

    Before, the file that holds their rows now is read whole.

    Raises:
        DamagedPart: it cannot be.
    """
    removed = 0
    latest = datetime.now(UTC) - kept_for
    for table in TABLES.values():
        replaced = _replaced(store, table, table.name)
        sound: set[str] = set()
        for path, by in replaced.items():
            holders = {holder for holder in by if holder not in replaced}
            if not holders or min(map(written_at, by)) > latest:
                continue
            for holder in holders - sound:
                reason, _ = read_whole(store, table, holder)
                if reason:
                    raise store.footers.damaged(holder, reason)
                sound.add(holder)
            store.files.remove(path)
            removed += 1
    return removed


def grouped(store: Store, table: Table, sizes: Mapping[str, int], large: int = LARGE) -> Iterator[dict[str, int]]:
    """Files that can be copied into one, in groups that are just large together.

    Args:
        sizes: path -> bytes of files that count.
    """
    columns = dict(zip(sizes, store.footers.columns(table, list(sizes)), strict=True))

    def alike(path: str) -> tuple[str, str, list[str]]:
        strange = unknown(table, sorted(columns[path]))
        schema = store.footers.schema(table, path) if strange else pa.schema([])
        return path.rpartition("/")[0], kind_of(path), [f"{name} {schema.field(name).type}" for name in strange]

    for _, paths in groupby(sorted(sizes, key=lambda path: (alike(path), path)), key=alike):
        group: dict[str, int] = {}
        for path in paths:
            group[path] = sizes[path]
            if sum(group.values()) >= large:
                yield group
                group = {}
        if group:
            yield group


def _groups(
    store: Store, table: Table, large: int, partition: dict[str, str] | None = None
) -> Iterator[dict[str, int]]:
    """What becomes one file each: small files, two or more."""
    sizes = store.listed(folder_of(table, partition or {}))
    small = {path: sizes[path] for path in store.parts(table, partition) if sizes[path] < large and kind_of(path)}
    return (group for group in grouped(store, table, small, large) if len(group) > 1)


def _replaced(store: Store, table: Table, folder: str) -> dict[str, list[str]]:
    """Files below a folder that no longer count -> the compacted files that replace them."""
    paths = store.listed(folder)
    replaced = store.replaced(table, paths)
    return {path: replaced[path] for path in paths if path in replaced}


def _rows(store: Store, path: str, schema: pa.Schema, without: pa.Array | None) -> Iterator[pa.Table]:
    """A file's rows with the columns of a schema, null where the file lacks one.

    Raises:
        DamagedPart: it cannot be read, or a checksum is wrong.
    """
    position = 0
    try:
        with pq.ParquetFile(
            store.files.absolute(path), filesystem=store.files.fs, page_checksum_verification=True
        ) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                columns = [
                    batch.column(field.name) if field.name in batch.schema.names else pa.nulls(len(batch), field.type)
                    for field in schema
                ]
                rows = pa.table(columns, names=schema.names).cast(schema)
                if without is not None:
                    places = pa.array(range(position, position + len(batch)), pa.int64())
                    rows = rows.filter(pc.invert(pc.is_in(places, without)))
                position += len(batch)
                yield rows
    except (pa.ArrowException, OSError) as error:
        if not store.files.local:
            store.files.read(path)  # raises StoreWriteFailed if the object store is away
        raise store.footers.damaged(path, one_line(error)) from error


def _gathered(files: Iterable[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """The rows of all files, in tables that make good row groups."""
    held: list[pa.Table] = []
    count = size = 0
    for rows in chain.from_iterable(files):
        held.append(rows)
        count, size = count + len(rows), size + rows.nbytes
        if count >= ROWS_A_GROUP or size >= BYTES_A_GROUP:
            yield pa.concat_tables(held)
            held, count, size = [], 0, 0
    if held:
        yield pa.concat_tables(held)

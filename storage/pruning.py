"""`qcrd store prune`: removes rows by stated rules.

A rule says where rows are: at which positions of which files. Their files are copied without them, in the way of a
compaction (`storage.compaction`): readers are undisturbed, a process may be killed at any point, and the old files are
deleted a day later. What is needed elsewhere (a registered model's lineage) comes in as an argument; nothing here knows
of it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from tempfile import TemporaryDirectory

import pyarrow as pa

from storage.compaction import grouped, rewrite
from storage.errors import UnknownName
from storage.parts import PART, REVISION, kind_of
from storage.schemas import RATIONALES, SCORES, TABLES, Table
from storage.store import Store
from storage.votes import MEMORY_LIMIT


@dataclass(frozen=True)
class Doomed:
    """Rows of one table that a rule removes.

    Attributes:
        table: the table.
        places: path -> positions in the file, from 0.
        rows: how many.
        bytes: about as much of the files as is theirs.
    """

    table: Table
    places: dict[str, pa.Array]
    rows: int
    bytes: int


def student_samples(store: Store, before: datetime, kept: Collection[str]) -> list[Doomed]:
    """Samples of students, and the scores of their trainings.

    Args:
        before: only what was stored earlier.
        kept: ids of trainings that keep theirs. Rows that do not name their training stay, too.
    """
    condition = "created_at < $1 AND run_id IS NOT NULL AND NOT list_contains($2::VARCHAR[], run_id)"
    return [
        _where(store, RATIONALES, f"source = 'student' AND {condition}", [before, list(kept)]),
        _where(store, SCORES, condition, [before, list(kept)]),
    ]


def teacher_samples(store: Store, model: str, dataset: str | None = None) -> Doomed:
    """Sampled and recorded texts of one teacher.

    Raises:
        UnknownName: there are none.
    """
    known = store.query(
        "SELECT DISTINCT model FROM rationales WHERE source <> 'student' AND ($1::VARCHAR IS NULL OR dataset = $1)",
        [dataset],
    )["model"].to_pylist()
    if model not in known:
        raise UnknownName("teacher", model, known)
    condition = "source <> 'student' AND model = $1 AND ($2::VARCHAR IS NULL OR dataset = $2)"
    return _where(store, RATIONALES, condition, [model, dataset])


def superseded(store: Store) -> list[Doomed]:
    """Rows that no reader gets any more, because a newer one of the same key counts.

    A sample's text is never removed so: only where the newer row has the same one.
    """
    return [_superseded(store, table) for table in TABLES.values()]


def rows_with(store: Store, table: Table, column: str, values: Sequence[str]) -> Doomed:
    """The rows of a table with one of these values in a column, older versions included."""
    return _where(store, table, f'"{column}" IN (SELECT unnest($1::VARCHAR[]))', [list(values)])


def prune(store: Store, doomed: Sequence[Doomed]) -> int:
    """Removes rows; returns how many. The caller holds `storage.compaction.rewriting` since the rules were asked.

    On an object store rows stay that another process copied into another file meanwhile.

    Raises:
        DamagedPart, StoreWriteFailed: what was removed until then stays so.
    """
    removed = 0
    for table in TABLES.values():
        places: dict[str, pa.Array] = {}
        for one in doomed:
            for path, positions in one.places.items() if one.table is table else ():
                both = pa.concat_arrays([places[path], positions]) if path in places else positions
                places[path] = both.unique()
        sizes = store.listed(table.name)
        for group in grouped(store, table, {path: sizes[path] for path in sorted(places)}):
            if rewrite(store, table, group, places) is not None:
                removed += sum(len(places[path]) for path in group)
    return removed


def _where(store: Store, table: Table, condition: str, parameters: list[object]) -> Doomed:
    """The rows of a table for which a condition holds."""
    return _doomed(store, table, f"coalesce({condition}, false)", "", parameters)


def _superseded(store: Store, table: Table) -> Doomed:
    key = ", ".join(f'"{name}"' for name in table.key)
    # On a local disk only a revision supersedes; parts with the same key are an error that `qcrd store check` names.
    newer = f"starts_with(parse_filename(_file), '{REVISION}-')" if store.files.local else "true"
    same_text = "AND hash(text) = first_value(hash(text)) OVER versions" if "text" in table.schema.names else ""
    condition = f"row_number() OVER versions > 1 AND first_value({newer}) OVER versions {same_text}"
    return _doomed(
        store, table, condition, f"WINDOW versions AS (PARTITION BY {key} ORDER BY {newer} DESC, created_at DESC)", []
    )


def _doomed(store: Store, table: Table, condition: str, window: str, parameters: list[object]) -> Doomed:
    sizes = store.listed(table.name)
    paths = [path for path in store.parts(table) if kind_of(path) in (PART, REVISION)]
    if not paths:
        return Doomed(table, {}, 0, 0)
    named = {store.address(path): path for path in paths}
    with (
        TemporaryDirectory(prefix="qcrd-") as folder,
        store.connect(memory_limit=MEMORY_LIMIT, temp_directory=folder, preserve_insertion_order="false") as con,
    ):
        found = store.execute(
            con,
            "SELECT _file, count(*) AS rows, list(_row) FILTER (doomed) AS places FROM "
            f"(SELECT _file, _row, {condition} AS doomed FROM {store.read_files(table, paths, places=True)} {window}) "
            "GROUP BY _file HAVING bool_or(doomed) ORDER BY _file",
            parameters,
        )
    positions = {
        named[file]: places.values for file, places in zip(found["_file"].to_pylist(), found["places"], strict=True)
    }
    shares = zip(positions.items(), found["rows"].to_pylist(), strict=True)
    size = sum(sizes[path] * len(places) // rows for (path, places), rows in shares)
    return Doomed(table, positions, sum(map(len, positions.values())), size)

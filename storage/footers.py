"""What the footers of data files say: their columns, and which files a compacted one replaces.

Data files never change, so each footer is read once.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from storage.columns import misfit
from storage.errors import DamagedPart, one_line
from storage.files import Files
from storage.parts import replaced_by
from storage.schemas import Table

AT_ONCE = 16
"""Footers read in parallel from an object store."""


class Footers:
    """The footers of a store's data files.

    Args:
        files: the store's.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._columns: dict[str, tuple[str, ...]] = {}
        self._replaced: dict[str, list[str]] = {}

    def columns(self, table: Table, paths: list[str]) -> list[tuple[str, ...]]:
        """The columns of each of a table's data files.

        Raises:
            DamagedPart: one cannot be read, or not as rows of this table.
            StoreWriteFailed: the object store is away.
        """
        new = [path for path in paths if path not in self._columns]
        if self._files.local:
            schemas = [self.schema(table, path) for path in new]
        else:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                schemas = list(pool.map(lambda path: self.schema(table, path), new))
        for path, schema in zip(new, schemas, strict=True):
            self._replaced[path] = replaced_by(path, schema)
            # Last: with its columns a file counts as known, to other threads too.
            self._columns[path] = tuple(sys.intern(name) for name in schema.names)
        return [self._columns[path] for path in paths]

    def replaced(self, table: Table, paths: list[str]) -> list[list[str]]:
        """Paths of the files that each of a table's compacted files replaces. Raises what `columns` raises."""
        self.columns(table, paths)
        return [self._replaced[path] for path in paths]

    def schema(self, table: Table, path: str) -> pa.Schema:
        """The schema of a data file, read again. Raises what `columns` raises."""
        try:
            schema = self._read(path)
            reason = misfit(table, schema)
        except (pa.ArrowInvalid, OSError) as error:
            reason = one_line(error)
        if reason:
            raise self.damaged(path, reason)
        return schema

    def _read(self, path: str) -> pa.Schema:
        try:
            return pq.read_schema(self._files.absolute(path), filesystem=self._files.fs)
        except OSError:
            if self._files.local:
                raise
        # Is the object damaged, or is the object store away? The bytes tell, once they are here.
        return pq.read_schema(pa.BufferReader(self._files.read(path)))

    def damaged(self, path: str, reason: str) -> DamagedPart:
        """The error for a data file that cannot be read."""
        return DamagedPart(
            f"The part file {self._files.given}/{path} is damaged ({reason}). Run `qcrd store check --repair`: it "
            "sets the file aside, and the next run makes only its rows again."
        )

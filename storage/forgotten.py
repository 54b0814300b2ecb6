"""Which examples were forgotten (`qcrd forget`), so that no writer brings them back.

Every row that is published passes here (`Store.append`, `Store.merge`). An example's id is a hash of its question,
choices, dataset and split; the id of question and choices alone keeps it out under other names, too.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from storage.ids import question_id
from storage.schemas import EXAMPLES, FORGOTTEN, Table

if TYPE_CHECKING:
    import duckdb

    from storage.store import Store


class Forgotten:
    """The forgotten examples of a store. What is new since the last look is read again.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()  # a service writes from several threads
        self._files: list[str] = []
        self._ids: frozenset[str] = frozenset()
        self._questions: frozenset[str] = frozenset()

    def ids(self) -> frozenset[str]:
        """Their ids.

        Raises:
            DamagedPart, StoreWriteFailed: it cannot be told.
        """
        with self._lock:
            self._look()
            return self._ids

    def holds(self, example_id: str, question: str, choices: Sequence[str]) -> bool:
        """Whether a question was forgotten, in whatever dataset or split; by the last look of `ids`."""
        return example_id in self._ids or (
            bool(self._questions) and question_id(question, list(choices)) in self._questions
        )

    def left_out(self, table: Table, rows: pa.Table) -> pa.Table:
        """Rows without those of forgotten examples."""
        if table is FORGOTTEN or "example_id" not in rows.schema.names or not (ids := self.ids()):
            return rows
        if table is EXAMPLES:
            columns = (rows[name].to_pylist() for name in ("example_id", "question", "choices"))
            return rows.filter(pa.array([not self.holds(*row) for row in zip(*columns, strict=True)], pa.bool_()))
        return rows.filter(pc.invert(pc.is_in(rows["example_id"], pa.array(ids, pa.string()))))

    def anti_joined(self, con: duckdb.DuckDBPyConnection, table: Table, source: str) -> str:
        """Like `left_out`, for a table or view of `con`: the name of one to take in its place."""
        if table is FORGOTTEN or "example_id" not in table.schema.names or not (ids := self.ids()):
            return source
        con.register("forgotten_ids", pa.table({"example_id": pa.array(ids, pa.string())}))
        con.execute(
            f"CREATE OR REPLACE TEMP VIEW not_forgotten AS FROM {source} ANTI JOIN forgotten_ids USING (example_id)"
        )
        return "not_forgotten"

    def _look(self) -> None:
        files = self._store.parts(FORGOTTEN)
        if files == self._files:
            return
        with self._store.connect() as con:
            rows = (
                self._store.execute(
                    con, f"SELECT example_id, question_id FROM {self._store.read_files(FORGOTTEN, files)}"
                )
                if files
                else pa.table({"example_id": [], "question_id": []})
            )
        self._ids = frozenset(rows["example_id"].to_pylist())
        self._questions = frozenset(rows["question_id"].to_pylist())
        self._files = files

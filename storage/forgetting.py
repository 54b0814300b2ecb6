"""`qcrd forget`: examples and all that was stored for them leave every table.

Their files are copied without the rows, as a compaction copies them (`storage.compaction`), and the old files are
deleted at once, not a day later: whoever still reads them is told to begin again. The order lets a process die at any
point:

    begin     the table `forgotten` has their ids, so no writer brings them back
    ...       what the caller removes elsewhere, for which it needs the texts
    remove    scores, samples, votes ... and last the examples themselves
    end       `forgotten` says that it is done

Whatever has begun and is not done is done again by the next one (`unfinished`). Ids and counts are kept, no texts: a
condition may quote one, so only its id is.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from storage.checking import remove_unfinished
from storage.compaction import remove_replaced
from storage.errors import UsageError, one_line
from storage.ids import content_id, question_id
from storage.parts import PART, REVISION, kind_of
from storage.pruning import prune, rows_with
from storage.schemas import EXAMPLES, FORGOTTEN, FORGOTTEN_VERSION, RATIONALES, TABLES, VARIANTS, Table
from storage.store import Store, now

BY_EXAMPLE = [
    table for table in TABLES.values() if "example_id" in table.schema.names and table not in (EXAMPLES, FORGOTTEN)
]
BY_SAMPLE = [
    table for table in TABLES.values() if "sample_id" in table.schema.names and "example_id" not in table.schema.names
]
BEGUN, DONE = "begun", "done"
NAMED, SAME, MADE_FROM = "--example", "the same question as", "made from"
_COLUMNS = "e.example_id, e.dataset, e.split, e.question, e.choices"
_QUESTION = f"SELECT {_COLUMNS} FROM examples e"
_SAME = f"SELECT {_COLUMNS}, min(w.example_id) AS origin FROM EXAMPLES e JOIN wanted w USING (question, choices)"
_MADE_FROM = f"""
    SELECT {_COLUMNS}, min(w.example_id) AS origin
    FROM (SELECT *, unnest(regexp_extract_all(extra, '"([0-9A-Za-z]+)"', 1)) AS named FROM EXAMPLES) e
    JOIN wanted w ON w.example_id = e.named
"""
_ROUNDS = 3
"""Times that rows are looked for: on an object store another process may have copied some meanwhile."""


@dataclass(frozen=True)
class Chosen:
    """An example that is to be forgotten.

    Attributes:
        example_id, dataset, split, question, choices: as stored.
        by: `--example`, `--where` with the condition's id, or why it goes with another one.
    """

    example_id: str
    dataset: str
    split: str
    question: str
    choices: tuple[str, ...]
    by: str

    @property
    def question_id(self) -> str:
        """The id of its question and choices alone."""
        return question_id(self.question, self.choices)


@dataclass(frozen=True)
class Record:
    """An example in the table `forgotten`.

    Attributes:
        rows: table -> rows that left it, or are to.
        trainings, versions: that learned from it.
        forgotten_at: when it was begun.
    """

    example_id: str
    question_id: str
    dataset: str
    split: str
    chosen_by: str
    rows: Mapping[str, int]
    trainings: Sequence[str]
    versions: Sequence[str]
    forgotten_at: datetime


def condition_id(where: str) -> str:
    """What is kept of a condition, which may quote a text."""
    return f"--where {content_id('where', where)}"


def choose(store: Store, examples: Iterable[str], where: str | None) -> list[Chosen]:
    """The examples that are named or meet a condition; with them go copies in other splits and datasets (the same
    question and choices), and what was made from them: examples whose `extra` names their id.

    Args:
        where: a DuckDB condition over the columns of `examples`.

    Raises:
        UsageError: there is no such example, or the condition is none.
        BadFile: the condition names what is not there, or fails on a row; the message is DuckDB's.
    """
    named = list(dict.fromkeys(examples))
    found: dict[str, Chosen] = {}

    def add(rows: pa.Table, by: str) -> list[Chosen]:
        new = [
            Chosen(
                row["example_id"], row["dataset"], row["split"], row["question"], tuple(row["choices"] or ()),
                f"{by} {row['origin']}" if "origin" in row else by,
            )
            for row in rows.to_pylist()
            if row["example_id"] not in found
        ]  # fmt: skip
        found.update({one.example_id: one for one in new})
        return new

    new = add(store.query(f"{_QUESTION} WHERE list_contains($1::VARCHAR[], example_id) ORDER BY ALL", [named]), NAMED)
    known = store.forgotten.ids()
    for example in named:
        if example not in found and example not in known:
            raise UsageError(
                f"No example {example!r} is stored. This finds ids: "
                "qcrd sql \"SELECT example_id, question FROM examples WHERE question LIKE '%words%'\""
            )
    if where is not None:
        _refuse_other_than_condition(store, where)
        new += add(store.query(f"{_QUESTION} WHERE ({where}\n) ORDER BY ALL"), condition_id(where))
    while new:
        wanted, new = new, []
        for by, sql in ((SAME, _SAME), (MADE_FROM, _MADE_FROM)):
            new += add(_related(store, wanted, sql), by)
    return list(found.values())


def _refuse_other_than_condition(store: Store, where: str) -> None:
    """Raises UsageError unless it is one boolean expression.

    It has to parse both in brackets and without: `true) OR (true` parses only in them, `true GROUP BY 1` and what has a
    semicolon only without.
    """

    def refused(why: str) -> UsageError:
        return UsageError(
            f"--where takes a condition, a boolean SQL expression over the columns of examples; {where!r} {why}. "
            "Example: --where \"question LIKE '%Jane Doe%'\""
        )

    with store.connect() as con:
        with suppress(duckdb.ParserException):
            if not con.extract_statements(where):  # spaces, a comment
                raise refused("is empty")
        for sql in (f"SELECT 1 FROM examples WHERE {where}\n", f"SELECT 1 FROM examples WHERE ({where}\n)"):
            try:
                statements = con.extract_statements(sql)
            except duckdb.ParserException as error:
                raise refused(f"is none: {one_line(error).removeprefix('Parser Error: ')}") from error
            if len(statements) != 1:
                raise refused("is more than one statement")
    types = store.query(f"DESCRIBE SELECT ({where}\n) FROM examples e")["column_type"].to_pylist()
    if other := next((kind for kind in types if kind != "BOOLEAN"), None):
        raise refused(f"is {other.strip(chr(34))}, not BOOLEAN")


def _related(store: Store, wanted: Sequence[Chosen], sql: str) -> pa.Table:
    """Examples that go with others, and in `origin` with which."""
    with store.connect() as con:
        columns = {
            "example_id": [one.example_id for one in wanted],
            "question": [one.question for one in wanted],
            "choices": pa.array([list(one.choices) for one in wanted], pa.list_(pa.string())),
        }
        con.register("wanted", pa.table(columns))
        return store.execute(con, f"{sql.replace('EXAMPLES', store.relation(EXAMPLES))} GROUP BY ALL ORDER BY ALL")


def rows_of(store: Store, examples: Sequence[str]) -> dict[str, Counter[str]]:
    """example id -> table -> rows, older versions of rows included."""
    counts: dict[str, Counter[str]] = {example: Counter() for example in examples}
    samples = _files(store, RATIONALES)
    for table in (EXAMPLES, *BY_EXAMPLE, *BY_SAMPLE):
        if (rows := _files(store, table)) is None:
            continue
        if table in BY_SAMPLE:
            if samples is None:
                continue
            of_samples = f"(SELECT DISTINCT sample_id, example_id FROM {samples})"
            rows = f"(SELECT s.example_id FROM {rows} JOIN {of_samples} s USING (sample_id))"
        with store.connect() as con:
            con.register("chosen", pa.table({"example_id": pa.array(examples, pa.string())}))
            found = store.execute(
                con, f"SELECT example_id, count(*) AS n FROM {rows} SEMI JOIN chosen USING (example_id) GROUP BY ALL"
            )
        for example, count in zip(found["example_id"].to_pylist(), found["n"].to_pylist(), strict=True):
            counts[example][table.name] = count
    return counts


def _as_variants(store: Store, examples: Sequence[str]) -> list[str]:
    """The replies in which a teacher wrote these questions: a row of `variants` has its source's example id."""
    with store.connect() as con:
        con.register("chosen", pa.table({"example_id": pa.array(examples, pa.string())}))
        found = store.execute(
            con,
            f"WITH e AS (SELECT question, extra->>'variant_id' AS variant_id FROM {store.relation(EXAMPLES)} "
            "SEMI JOIN chosen USING (example_id)) "
            f"SELECT DISTINCT variant_id FROM {store.relation(VARIANTS)} "
            "WHERE variant_id IN (SELECT variant_id FROM e) OR question IN (SELECT question FROM e)",
        )
    ids: list[str] = found["variant_id"].to_pylist()
    return ids


def unfinished(store: Store) -> list[Record]:
    """What was begun and is not done."""
    return _records(store, "state <> 'done'")


def begin(store: Store, records: Sequence[Record]) -> None:
    """Writes down what is to be forgotten. From then on no writer stores it."""
    store.mark(FORGOTTEN_VERSION)
    with store.forgetting():
        _write(store, records, BEGUN)


def end(store: Store, records: Sequence[Record]) -> None:
    """Writes down that it is done."""
    _write(store, records, DONE)


def remove(store: Store, examples: Sequence[str]) -> None:
    """Removes all rows of examples, and the files that held them. The caller holds `storage.compaction.rewriting`.

    Raises:
        DamagedPart, StoreWriteFailed: what was removed until then stays so.
    """
    for _ in range(_ROUNDS):
        samples = _samples(store, examples)
        doomed = [rows_with(store, table, "sample_id", samples) for table in BY_SAMPLE]
        doomed += [rows_with(store, table, "example_id", examples) for table in BY_EXAMPLE if table is not RATIONALES]
        doomed.append(rows_with(store, VARIANTS, "variant_id", _as_variants(store, examples)))
        last = [rows_with(store, table, "example_id", examples) for table in (RATIONALES, EXAMPLES)]
        if not any(one.rows for one in (*doomed, *last)):
            break
        prune(store, doomed)
        for one in last:  # samples lead to their scores, and examples to all else, so they go last
            prune(store, [one])
    remove_replaced(store, timedelta(0))
    remove_unfinished(store)


def _samples(store: Store, examples: Sequence[str]) -> list[str]:
    if (rows := _files(store, RATIONALES)) is None:
        return []
    with store.connect() as con:
        con.register("chosen", pa.table({"example_id": pa.array(examples, pa.string())}))
        found = store.execute(con, f"SELECT DISTINCT sample_id FROM {rows} SEMI JOIN chosen USING (example_id)")
    ids: list[str] = found["sample_id"].to_pylist()
    return ids


def _files(store: Store, table: Table) -> str | None:
    """SQL for all rows of a table, older versions included; None if it has no files."""
    paths = [path for path in store.parts(table) if kind_of(path) in (PART, REVISION)]
    return store.read_files(table, paths) if paths else None


def _records(store: Store, condition: str) -> list[Record]:
    rows: list[dict[str, Any]] = store.query(
        f"SELECT * FROM forgotten WHERE {condition} ORDER BY example_id"
    ).to_pylist()
    return [
        Record(
            row["example_id"], row["question_id"], row["dataset"], row["split"], row["chosen_by"],
            json.loads(row["rows"]), row["trainings"], row["versions"], row["forgotten_at"],
        )
        for row in rows
    ]  # fmt: skip


def _write(store: Store, records: Sequence[Record], state: str) -> None:
    rows = [
        {
            "example_id": one.example_id, "question_id": one.question_id, "dataset": one.dataset, "split": one.split,
            "chosen_by": one.chosen_by, "state": state, "rows": json.dumps(dict(one.rows), sort_keys=True),
            "trainings": list(one.trainings), "versions": list(one.versions), "forgotten_at": one.forgotten_at,
            "created_at": now(),
        }
        for one in records
    ]  # fmt: skip
    with store.lock("forgotten"):
        store.upsert(FORGOTTEN, pa.Table.from_pylist(rows, FORGOTTEN.schema))

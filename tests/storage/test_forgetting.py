"""Forgotten examples leave every table and every file, and no writer brings them back, wherever it is killed."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from storage.checking import check_store
from storage.compaction import compact, rewriting
from storage.errors import BadFile, UsageError
from storage.forgetting import BY_EXAMPLE, BY_SAMPLE, Record, begin, choose, end, remove, rows_of, unfinished
from storage.ids import example_id, question_id
from storage.schemas import EXAMPLES, FORGOTTEN_VERSION, PREDICTIONS, RATIONALES, SCORES, TABLES, VARIANTS, VOTES, Table
from storage.store import Store, now
from tests.conftest import ROOT
from tests.planted import places_of
from tests.storage.test_compaction import kill_before_every_write

WORD = "unmistakable"


def example(question: str, split: str = "train", extra: Any = None, choices: Sequence[str] = ("a", "b")) -> pa.Table:
    row = {
        "example_id": example_id("d", split, question, list(choices)), "dataset": "d", "split": split,
        "question": question, "choices": list(choices), "label": "1", "extra": json.dumps(extra or {}),
        "created_at": now(),
    }  # fmt: skip
    return pa.Table.from_pylist([row], EXAMPLES.schema)


def rows_for(table: Table, *keys: str, **more: Any) -> pa.Table:
    """A row of a table for each example, its text fields quoting the word."""
    base = {"dataset": "d", "split": "train", "created_at": now(), "run_id": "r", "model": "m", "source": "teacher"}
    texts = {field.name: f"{WORD} {field.name}" for field in table.schema if field.name in ("text", "rationale")}
    rows = [
        base | texts | {"example_id": key, "sample_id": f"s {key}", "vote_id": "v", "round": 0} | more for key in keys
    ]
    return pa.Table.from_pylist(rows, table.schema)


def filled(root: str | Path) -> tuple[Store, str, str]:
    """A store with rows for two examples in most tables that have such rows; returns their ids, the second to stay."""
    store = Store(root)
    goes, stays = example(f"What is {WORD}?"), example("What stays?")
    first, second = goes["example_id"][0].as_py(), stays["example_id"][0].as_py()
    for one in (goes, stays):
        store.upsert(EXAMPLES, one)
    store.upsert(EXAMPLES, goes.set_column(5, "label", pa.array(["2"])))  # a revision
    store.append(RATIONALES, rows_for(RATIONALES, first, second))
    store.append(VOTES, rows_for(VOTES, first, second))
    store.append(SCORES, rows_for(SCORES, first, second, score=0.5))
    store.append(PREDICTIONS, rows_for(PREDICTIONS, first, second))
    for key in (first, second):
        store.append(VARIANTS, rows_for(VARIANTS, key, variant_id=f"v {key}", question=f"{WORD} variant"))
    return store, first, second


def forgotten(store: Store, *names: str, where: str | None = None) -> list[str]:
    """Forgets as the command does; returns the ids."""
    with rewriting(store):
        chosen = choose(store, names, where)
        ids = [one.example_id for one in chosen]
        rows, moment = rows_of(store, ids), now()
        records = unfinished(store) + [
            Record(
                one.example_id, one.question_id, one.dataset, one.split, one.by, rows[one.example_id], [], [], moment
            )
            for one in chosen
            if one.example_id not in {known.example_id for known in unfinished(store)}
        ]
        begin(store, records)
        remove(store, [one.example_id for one in records])
        end(store, records)
    return ids


def counted(store: Store, column: str = "example_id") -> dict[str, list[str]]:
    """Table -> the examples (or samples) that it has rows of."""
    fresh = Store(store.files.given)
    found = {}
    for name, table in TABLES.items():
        if name != "forgotten" and column in table.schema.names:
            found[name] = sorted(set(fresh.query(f"SELECT {column} FROM {name}")[column].to_pylist()))
    return found


def test_every_table_with_rows_of_examples_is_covered() -> None:
    covered = {table.name for table in (*BY_EXAMPLE, *BY_SAMPLE, EXAMPLES)}
    assert set(TABLES) - covered == {"runs", "figures", "forgotten"}, "tables that hold no texts of examples"


def test_its_rows_leave_every_table_and_no_file_has_its_texts(store: Store) -> None:
    store, goes, stays = filled(store.files.given)
    compact(store, large=1)  # leaves replaced files behind, which hold the rows, too
    assert rows_of(store, [goes])[goes] == {"examples": 2, "rationales": 1, "votes": 1, "scores": 1, "predictions": 1,
                                           "variants": 1}  # fmt: skip
    assert forgotten(store, goes) == [goes]
    left = {name: [stays] for name in ("examples", "rationales", "votes", "predictions", "variants")}
    left |= {name: [] for name in ("judgements", "chosen", "audits")}
    assert counted(store) == left
    assert counted(store, "sample_id")["scores"] == [f"s {stays}"]
    for table in TABLES.values():
        for path in store.listed(table.name):
            rows = store.query(f"SELECT * FROM {store.read_files(table, [path])}").to_pylist()
            assert not [row for row in rows if row.get("example_id") == goes and table.name != "forgotten"]
            assert not any(f"What is {WORD}" in str(row) for row in rows)
    assert check_store(Store(store.files.given)).sound
    [row] = Store(store.files.given).query("SELECT * FROM forgotten").to_pylist()
    assert (row["example_id"], row["state"], row["chosen_by"]) == (goes, "done", "--example")
    assert json.loads(row["rows"]) == {
        "examples": 2,
        "rationales": 1,
        "votes": 1,
        "scores": 1,
        "predictions": 1,
        "variants": 1,
    }
    assert json.loads(store.files.read("store.json"))["schema_version"] == FORGOTTEN_VERSION


def test_the_text_is_nowhere_below_the_root_on_a_disk(tmp_path: Path) -> None:
    store, goes, _ = filled(tmp_path / "store")
    left = tmp_path / "store" / "_tmp" / f"{2**22 + 1}-{socket.gethostname()}-0123"  # no process has such an id
    left.write_text(f"What is {WORD}?")
    assert places_of({"word": f"What is {WORD}"}, tmp_path)
    forgotten(store, goes)
    assert places_of({"word": f"What is {WORD}"}, tmp_path) == {}


def test_no_writer_brings_it_back_under_any_name(store: Store) -> None:
    store, goes, stays = filled(store.files.given)
    other = Store(store.files.given)  # a writer that was there before
    assert other.forgotten.ids() == frozenset()
    forgotten(store, goes)
    before = counted(store)
    assert other.upsert(EXAMPLES, example(f"What is {WORD}?")) == (0, 0, 0)
    assert other.upsert(EXAMPLES, example(f"What is {WORD}?", split="test")) == (0, 0, 0), "in another split"
    assert other.append(RATIONALES, rows_for(RATIONALES, goes, sample_id="new", source="recorded")) == []
    assert other.upsert(PREDICTIONS, rows_for(PREDICTIONS, goes, stays)) == (0, 0, 1)
    with other.connect() as con:
        con.register("incoming", rows_for(VOTES, goes, stays, vote_id="w"))
        assert other.merge(con, VOTES, "incoming", {"dataset": "d", "split": "train"}) == (1, 0, 0)
    assert counted(store) == before
    assert other.upsert(EXAMPLES, example(f"What is {WORD}?", choices=("c",)))[0] == 1, "another question"


def test_with_it_go_copies_in_other_splits_and_what_was_made_from_it(tmp_path: Path) -> None:
    store, goes, _ = filled(tmp_path)
    copy, variant = example(f"What is {WORD}?", "test"), example("Quite another text?", extra={"from": goes})
    grandchild = example("And another?", extra={"made": {"from": [variant["example_id"][0].as_py()]}})
    for one in (copy, variant, grandchild):
        store.upsert(EXAMPLES, one)
    chosen = {one.example_id: one.by for one in choose(store, [goes], None)}
    assert chosen == {
        goes: "--example",
        copy["example_id"][0].as_py(): f"the same question as {goes}",
        variant["example_id"][0].as_py(): f"made from {goes}",
        grandchild["example_id"][0].as_py(): f"made from {variant['example_id'][0].as_py()}",
    }


def test_the_reply_that_a_variant_was_made_from_goes_with_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    source, variant = example("What stays?"), example(f"What is {WORD}?", "train-changed", {"variant_id": "v1"})
    for one in (source, variant):
        store.upsert(EXAMPLES, one)
    kept, goes = source["example_id"][0].as_py(), variant["example_id"][0].as_py()
    for number, question in ((1, "read otherwise"), (2, f"What is {WORD}?"), (3, "Another?")):
        store.append(VARIANTS, rows_for(VARIANTS, kept, variant_id=f"v{number}", question=question))
    forgotten(store, goes)
    assert Store(tmp_path / "store").query("SELECT variant_id FROM variants")["variant_id"].to_pylist() == ["v3"]


def test_a_condition_is_kept_as_its_id_alone(tmp_path: Path) -> None:
    store, goes, _ = filled(tmp_path)
    assert forgotten(store, where=f"question LIKE '%{WORD}%' -- and a comment") == [goes]
    [row] = store.query("SELECT chosen_by, question_id FROM forgotten").to_pylist()
    assert row["chosen_by"].startswith("--where ")
    assert WORD not in row["chosen_by"]
    assert row["question_id"] == question_id(f"What is {WORD}?", ["a", "b"])


@pytest.mark.parametrize(
    ("names", "where", "error", "line"),
    [
        (["nobody"], None, UsageError, r"^No example 'nobody' is stored\. This finds ids: qcrd sql"),
        ([], "colour = 'red'", BadFile, r"^DuckDB: Binder Error: .*colour"),
        ([], "question", UsageError, "; 'question' is VARCHAR, not BOOLEAN. Example: --where \"question LIKE "),
        ([], "42", UsageError, "; '42' is INTEGER, not BOOLEAN"),
        ([], "NULL", UsageError, "; 'NULL' is NULL, not BOOLEAN"),
        ([], "", UsageError, "^--where takes a condition, a boolean SQL expression over .*; '' is empty. Example: "),
        ([], " -- nothing", UsageError, "; ' -- nothing' is empty"),
        ([], "question =", UsageError, "; 'question =' is none: syntax error at or near \"=\". Example: "),
        ([], "question = 'x", UsageError, "is none: unterminated string literal"),
        ([], "true) OR (true", UsageError, "; 'true\\) OR \\(true' is none: syntax error at or near \"\\)\""),
        ([], "1=1; DROP TABLE examples", UsageError, "is more than one statement"),
        ([], "true; -- x", UsageError, 'is none: syntax error at or near ";"'),
        ([], "true GROUP BY ALL", UsageError, 'is none: syntax error at or near "GROUP"'),
        ([], "true UNION SELECT 1", UsageError, 'is none: syntax error at or near "UNION"'),
        ([], "SELECT true", UsageError, 'is none: syntax error at or near "SELECT"'),
        ([], "true, true", UsageError, 'is none: syntax error at or near ","'),
        ([], "count(*) > 1", BadFile, "^DuckDB: Binder Error: WHERE clause cannot contain aggregates"),
    ],
)
def test_a_wrong_name_or_condition_is_one_line(
    tmp_path: Path, names: list[str], where: str | None, error: type[Exception], line: str
) -> None:
    store, _, _ = filled(tmp_path)
    with pytest.raises(error, match=line) as raised:
        choose(store, names, where)
    assert not re.search("COALESCE|\n", str(raised.value))


@pytest.mark.parametrize(
    "where",
    [
        f"e.question LIKE '%{WORD}%'",
        f"question LIKE '%{WORD}%' AND (label IS NULL OR label <> '(')",
        f"CASE WHEN question LIKE '%{WORD}%' THEN true END",
        f"example_id IN (SELECT example_id FROM examples WHERE question LIKE '%{WORD}%')",
    ],
)
def test_any_boolean_expression_is_a_condition(tmp_path: Path, where: str) -> None:
    store, goes, _ = filled(tmp_path)
    assert [one.example_id for one in choose(store, [], where)] == [goes]


def test_one_that_was_forgotten_may_be_named_again(tmp_path: Path) -> None:
    store, goes, _ = filled(tmp_path)
    forgotten(store, goes)
    assert forgotten(store, goes) == []


def test_a_writer_that_is_publishing_is_waited_for(tmp_path: Path) -> None:
    store, goes, _ = filled(tmp_path)
    inside, go_on = threading.Event(), threading.Event()
    begun = threading.Event()

    def write() -> None:
        with Store(tmp_path).publishing(EXAMPLES):
            inside.set()
            assert go_on.wait(30)
            assert not begun.is_set(), "it is written down what is forgotten, while somebody publishes"

    def forget() -> None:
        begin(store, [Record(goes, "q", "d", "train", "--example", {}, [], [], now())])
        begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert inside.wait(30)
    forgetter = threading.Thread(target=forget)
    forgetter.start()
    assert not begun.wait(0.5)
    go_on.set()
    writer.join()
    forgetter.join()
    assert begun.is_set()
    assert goes in Store(tmp_path).forgotten.ids()


def _forget(names: tuple[str, ...], root: str) -> None:
    forgotten(Store(root), *names)


@pytest.mark.slow
def test_killed_before_any_write_the_same_again_ends_the_work(tmp_path: Path) -> None:
    store, goes, stays = filled(tmp_path / "template")
    compact(store, large=1)

    def killed(store: Store) -> None:
        assert counted(store)["examples"] in (sorted([goes, stays]), [stays])
        assert stays in counted(store)["votes"]

    def ended(store: Store) -> None:
        assert counted(store)["examples"] == counted(store)["rationales"] == counted(store)["votes"] == [stays]
        assert places_of({"word": f"What is {WORD}"}, Path(store.files.given)) == {}
        assert store.query("SELECT example_id, state FROM forgotten").to_pylist() == [
            {"example_id": goes, "state": "done"}
        ]

    kill_before_every_write(tmp_path / "template", partial(_forget, (goes,)), killed, ended)


@pytest.mark.slow
def test_killed_at_any_moment_on_an_object_store(bucket: str) -> None:
    _, goes, stays = filled(bucket)
    script = f"""
import sys
from tests.storage.test_forgetting import _forget
sys.stdin.readline()
_forget(({goes!r},), {bucket!r})
"""
    for number in range(8):
        with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            time.sleep(0.15 * number)
            process.kill()
        assert stays in counted(Store(bucket))["examples"]
    _forget((goes,), bucket)
    store = Store(bucket)
    assert counted(store)["examples"] == counted(store)["rationales"] == [stays]
    assert store.query("SELECT state FROM forgotten")["state"].to_pylist() == ["done"]
    for table in TABLES.values():
        assert len(store.listed(table.name)) == len(store.parts(table)), "replaced files are gone"

"""Tables that gain a column: parts of an older and of a newer qcrd beside each other, on a disk and an object store."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from storage.checking import check_store
from storage.compaction import compact
from storage.datasets.registry import get_dataset
from storage.errors import DamagedPart
from storage.schemas import EXAMPLES, RATIONALES, TABLES, VOTES, Table
from storage.store import Store, now
from storage.votes import VoteRule, vote
from tests.storage.first_schema import ROW, SCHEMAS, write_part

Gain = Callable[..., None]
COST = pa.float64()


@pytest.fixture
def gain() -> Iterator[Gain]:
    """Adds a column to a table for as long as the test runs; without a name, takes all of them back."""
    patch = pytest.MonkeyPatch()

    def gain(table: Table | None = None, column: str = "cost", kind: pa.DataType = COST) -> None:
        if table is None:
            patch.undo()
        else:  # somewhere in the middle
            patch.setitem(vars(table), "schema", table.schema.insert(2, pa.field(column, kind)))

    yield gain
    patch.undo()


def example(number: int, **more: Any) -> dict[str, Any]:
    return {**ROW, "example_id": f"e{number}", "dataset": "svamp", "split": "train", "created_at": now(), **more}


def sample(number: int, **more: Any) -> dict[str, Any]:
    return {**example(number // 3), "source": "teacher", "sample_id": f"s{number}", "sample_index": number % 3, **more}


def costs(store: Store) -> dict[str, float | None]:
    rows = store.query("SELECT example_id, cost FROM examples ORDER BY example_id").to_pylist()
    return {row["example_id"]: row["cost"] for row in rows}


def assert_sound_and_left_alone(store: Store) -> None:
    before = [path for table in TABLES.values() for path in store.parts(table)]
    report = check_store(Store(store.files.given), repair=True)
    assert (report.damaged, report.repeated) == ([], {})
    assert [path for table in TABLES.values() for path in store.parts(table)] == before


def test_parts_of_the_first_schema_are_read_by_the_one_there_is_now(store: Store) -> None:
    for name in TABLES:
        write_part(store, name, [ROW])
    for name, table in TABLES.items():
        [row] = store.query(f"SELECT * FROM {name}").to_pylist()
        for column in SCHEMAS[name].names:
            assert row[column] is not None or column not in ROW
        assert list(row) == table.schema.names
    assert_sound_and_left_alone(store)


KINDS = [
    pa.string(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_(), pa.date32(), pa.binary(),
    pa.timestamp("us", tz="UTC"), pa.list_(pa.string()), pa.list_(pa.struct([("a", pa.int32())])),
]  # fmt: skip


@pytest.mark.parametrize("store", ["disk"], indirect=True)
def test_columns_of_any_type_read_as_null_where_parts_lack_them(store: Store, gain: Gain) -> None:
    for name, table in TABLES.items():
        write_part(store, name, [ROW])
        for number, kind in enumerate(KINDS):
            gain(table, f"gained_{number}", kind)
        [row] = store.query(f"SELECT * FROM {name}").to_pylist()
        assert list(row) == table.schema.names
        assert {row[f"gained_{number}"] for number in range(len(KINDS))} == {None}
        # and a part that has them, beside the one that lacks them
        another = {**sample(9), "vote_id": "v9", "run_id": "r9", "judgement_id": "j9", "variant_id": "a9"}
        store.append(table, pa.Table.from_pylist([another], table.schema))
        rows = store.query(f"SELECT * FROM {name}").cast(table.schema).to_pylist()
        assert [row[f"gained_{number}"] for row in rows for number in range(len(KINDS))] == [None] * 2 * len(KINDS)
    assert_sound_and_left_alone(store)


def test_old_and_new_parts_are_read_checked_and_revised_together(store: Store, gain: Gain) -> None:
    write_part(store, "examples", [example(0), example(1)])
    gain(EXAMPLES)
    assert costs(store) == {"e0": None, "e1": None}
    # the same rows again change nothing; a value for one of them does
    again = [example(0), example(1)]
    assert store.upsert(EXAMPLES, pa.Table.from_pylist(again, EXAMPLES.schema)) == (0, 0, 2)
    more = [example(0), example(1, cost=0.5), example(2, cost=1.5)]
    assert store.upsert(EXAMPLES, pa.Table.from_pylist(more, EXAMPLES.schema)) == (1, 1, 1)
    assert costs(store) == {"e0": None, "e1": 0.5, "e2": 1.5}
    with store.connect() as con:
        relation = store.relation(EXAMPLES, {"dataset": "svamp", "split": "train"})
        assert con.execute(f"SELECT sum(cost) FROM {relation}").fetchall() == [(2.0,)]
    assert check_store(store).newer == {}
    assert_sound_and_left_alone(store)


def test_votes_are_the_same_whatever_columns_were_gained(store: Store, gain: Gain) -> None:
    write_part(store, "examples", [example(0), example(1)])
    write_part(store, "rationales", [sample(n, answer=str(7 + n % 2), rationale_hash=n) for n in range(6)])
    rule = VoteRule(dataset="svamp")
    before = vote(store, get_dataset("svamp"), rule)
    sql = "SELECT * EXCLUDE (created_at) FROM votes ORDER BY example_id"
    rows = store.query(sql).to_pylist()
    for table in (EXAMPLES, RATIONALES, VOTES):
        gain(table)
    again = vote(store, get_dataset("svamp"), rule)
    assert (again.added, again.changed, again.unchanged) == (0, 0, before.added)
    assert store.query(sql).to_pylist() == [{**row, "cost": None} for row in rows]
    # and a first vote under the new schema
    assert vote(store, get_dataset("svamp"), VoteRule(dataset="svamp", positives="gold")).added == before.added


def test_a_column_that_only_a_newer_qcrd_knows_is_named_shown_and_kept(store: Store, gain: Gain) -> None:
    gain(EXAMPLES)
    new = [example(n, cost=n / 2) for n in range(3)]
    store.append(EXAMPLES, pa.Table.from_pylist(new, EXAMPLES.schema))
    gain()
    write_part(store, "examples", [example(3)])
    report = check_store(store)
    assert report.sound
    assert report.newer == {"examples.cost": 1}
    assert_sound_and_left_alone(store)
    shown = {"e0": 0.0, "e1": 0.5, "e2": 1.0, "e3": None}
    assert costs(store) == shown
    # a row that this older qcrd changes keeps what it does not know
    changed = [example(0), example(1, label="8"), example(3, label="8")]
    assert store.upsert(EXAMPLES, pa.Table.from_pylist(changed, EXAMPLES.schema)) == (0, 2, 1)
    assert costs(store) == shown
    labels = store.query("SELECT label FROM examples ORDER BY example_id")["label"].to_pylist()
    assert labels == ["7", "8", "7", "8"]
    gain(EXAMPLES)
    assert costs(store) == shown


@pytest.mark.parametrize("store", ["disk"], indirect=True)
def test_compacting_keeps_columns_that_older_parts_lack_and_newer_ones_have_more_of(store: Store, gain: Gain) -> None:
    for number in range(2):
        write_part(store, "rationales", [sample(number)])
        write_part(store, "examples", [example(number)])
    gain(EXAMPLES)
    for number in range(2, 4):
        store.append(EXAMPLES, pa.Table.from_pylist([example(number, cost=number / 2)], EXAMPLES.schema))
    gain()
    gain(RATIONALES, "kind", pa.string())
    before = {name: sorted(map(repr, store.query(f"SELECT * FROM {name}").to_pylist())) for name in SCHEMAS}
    compact(store, kept_for=timedelta(0))
    assert len(store.parts(RATIONALES)) == 1
    assert len(store.parts(EXAMPLES)) == 2, "with and without the column that this qcrd does not know"
    after = {name: sorted(map(repr, store.query(f"SELECT * FROM {name}").to_pylist())) for name in SCHEMAS}
    assert after == before
    assert costs(store) == {"e0": None, "e1": None, "e2": 1.0, "e3": 1.5}
    assert_sound_and_left_alone(store)


@pytest.mark.parametrize("store", ["disk"], indirect=True)
def test_settling_a_repeated_key_keeps_what_only_a_newer_qcrd_knows(store: Store, gain: Gain) -> None:
    write_part(store, "examples", [example(0)])
    gain(EXAMPLES)
    store.append(EXAMPLES, pa.Table.from_pylist([example(0, cost=0.5), example(1)], EXAMPLES.schema))
    gain()
    assert check_store(store).repeated == {"examples": 1}
    assert check_store(store, repair=True).sound
    assert check_store(store).repeated == {}
    assert costs(store) == {"e0": 0.5, "e1": None}


def test_the_order_of_columns_does_not_matter(store: Store) -> None:
    fields = list(SCHEMAS["examples"])
    write_part(store, "examples", [example(0)])
    write_part(store, "examples", [example(1)], pa.schema(fields[::-1]))
    rows = store.query("SELECT example_id, question, label FROM examples ORDER BY 1").to_pylist()
    assert rows == [{"example_id": f"e{n}", "question": ROW["question"], "label": "7"} for n in range(2)]
    assert_sound_and_left_alone(store)


def without(table: str, column: str) -> pa.Schema:
    return pa.schema([field for field in SCHEMAS[table] if field.name != column])


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (without("examples", "label"), "columns missing: label"),
        (without("examples", "label").append(pa.field("label", pa.int64())), "column label has type int64, not string"),
        (
            without("examples", "created_at").append(pa.field("created_at", pa.timestamp("us"))),
            "column created_at has type timestamp[us], not timestamp[us, tz=UTC]",
        ),
    ],
    ids=["missing", "type", "time zone"],
)
def test_a_part_that_would_give_wrong_rows_is_one_clear_line(store: Store, schema: pa.Schema, reason: str) -> None:
    row = {**example(1), "label": 8} if schema.field(-1).name == "label" else example(1)
    write_part(store, "examples", [example(0)])
    write_part(store, "rationales", [sample(0)])
    path = write_part(store, "examples", [row], schema)
    with pytest.raises(DamagedPart) as caught:
        store.query("SELECT count(*) FROM examples")
    assert str(caught.value) == (
        f"The part file {store.files.given}/{path} is damaged ({reason}). Run `qcrd store check --repair`: it sets the "
        "file aside, and the next run makes only its rows again."
    )
    with store.connect() as con:  # as `qcrd sql` does
        store.create_views(con)
        assert con.execute("SELECT count(*) FROM rationales").fetchall() == [(1,)]  # other tables can be read
        with pytest.raises(DamagedPart, match=path):
            store.execute(con, "SELECT count(*) FROM examples")
    report = check_store(store)
    assert [(file.path, file.reason) for file in report.damaged] == [(path, reason)]
    assert not report.sound
    assert check_store(store, repair=True).sound
    assert store.query("SELECT example_id FROM examples")["example_id"].to_pylist() == ["e0"]


@pytest.mark.parametrize("store", ["disk"], indirect=True)
def test_no_column_that_ids_and_votes_depend_on_reads_as_null(store: Store) -> None:
    for name, table in TABLES.items():
        for column in table.required:
            path = write_part(store, name, [ROW], without(name, column))
            with pytest.raises(DamagedPart, match=rf"{path} is damaged \(columns missing: {column}\)"):
                store.relation(table)
            store.files.move(path, f"_elsewhere/{path}")


@pytest.mark.parametrize("store", ["disk"], indirect=True)
def test_strings_that_other_programs_write_otherwise_are_strings(store: Store) -> None:
    for number, kind in enumerate([pa.large_string(), pa.dictionary(pa.int32(), pa.string())]):
        fields = [pa.field(f.name, kind) if f.name == "question" else f for f in SCHEMAS["examples"]]
        write_part(store, "examples", [example(number)], pa.schema(fields))
    assert store.query("SELECT DISTINCT question FROM examples")["question"].to_pylist() == [ROW["question"]]
    assert_sound_and_left_alone(store)

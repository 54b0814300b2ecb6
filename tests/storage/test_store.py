"""The store's promises: whole files or none, each key once, nothing lost, clear errors."""

import json
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.checking import check_store
from storage.errors import BadFile, DamagedPart, NewerStore, UnknownName, UsageError
from storage.schemas import EXAMPLES, RATIONALES, SCHEMA_VERSION, TABLES
from storage.store import Store, now
from tests.conftest import ROOT


def example_rows(count: int, label: str | None = "1", dataset: str = "made-up", first: int = 0) -> pa.Table:
    rows = [
        {
            "example_id": f"e{number}",
            "dataset": dataset,
            "split": "train",
            "question": f"question {number}",
            "choices": ["a", "b"],
            "label": label,
            "extra": "{}",
            "created_at": now(),
        }
        for number in range(first, first + count)
    ]
    return pa.Table.from_pylist(rows, EXAMPLES.schema)


def rationale_rows(first: int, count: int) -> pa.Table:
    rows = [
        {
            "sample_id": f"s{number}",
            "example_id": f"e{number // 5}",
            "dataset": "made-up",
            "split": "train",
            "source": "teacher",
            "model": "m",
            "sample_index": number % 5,
            "text": "some text",
            "created_at": now(),
        }
        for number in range(first, first + count)
    ]
    return pa.Table.from_pylist(rows, RATIONALES.schema)


def test_every_table_can_be_queried_before_anything_is_stored(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, table in TABLES.items():
        rows = store.query(f"SELECT * FROM {name}")
        assert rows.num_rows == 0
        assert rows.schema.names == table.schema.names


def test_a_long_query_draws_no_bar_into_what_a_command_prints(tmp_path: Path) -> None:
    """DuckDB takes a Python without a main file for one that a person sits at."""
    script = f"""
from storage.store import Store
found = Store({str(tmp_path)!r}).query("SELECT value FROM duckdb_settings() WHERE name = 'enable_progress_bar'")
print(found["value"].to_pylist())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "['false']\n"


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    rows = example_rows(3)
    Store(tmp_path).append(EXAMPLES, rows)
    back = Store(tmp_path).query("SELECT * FROM examples ORDER BY example_id")
    assert back.drop_columns(["created_at"]).to_pylist() == rows.drop_columns(["created_at"]).to_pylist()
    assert back["created_at"][0].as_py().astimezone(UTC) == rows["created_at"][0].as_py()


def test_upsert_adds_new_rows_revises_changed_ones_and_leaves_equal_ones_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.upsert(EXAMPLES, example_rows(4, label=None)) == (4, 0, 0)
    assert store.upsert(EXAMPLES, example_rows(4, label=None)) == (0, 0, 4)
    mixed = pa.concat_tables([example_rows(2, label="7"), example_rows(3, label=None, first=2)])
    assert store.upsert(EXAMPLES, mixed) == (1, 2, 2)
    labels = store.query("SELECT example_id, label FROM examples ORDER BY example_id").to_pylist()
    assert [row["label"] for row in labels] == ["7", "7", None, None, None]
    # a second revision of the same row wins over the first
    assert store.upsert(EXAMPLES, example_rows(1, label="8")) == (0, 1, 0)
    assert store.query("SELECT label FROM examples WHERE example_id = 'e0'")["label"].to_pylist() == ["8"]
    # and every version is still on the disk
    assert sum(pq.read_metadata(path).num_rows for path in tmp_path.rglob("*.parquet")) == 4 + 1 + 2 + 1


def test_names_with_slashes_dots_and_quotes_stay_inside_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "root")
    for name in ("reasoning-gym:sums", "../../outside", "a'b\"c", "100% /x", "=", "ünï"):
        store.upsert(EXAMPLES, example_rows(1, dataset=name))
        assert store.parts(EXAMPLES, {"dataset": name, "split": "train"})
    assert {path.name for path in tmp_path.iterdir()} == {"root"}
    assert store.query("SELECT count(DISTINCT dataset) AS n FROM examples")["n"].to_pylist() == [6]


def test_a_truncated_part_file_is_named_set_aside_and_only_its_rows_are_missing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(RATIONALES, rationale_rows(0, 10))
    [damaged] = store.append(RATIONALES, rationale_rows(10, 10))
    whole = (tmp_path / damaged).read_bytes()
    (tmp_path / damaged).write_bytes(whole[: len(whole) // 2])

    with pytest.raises(DamagedPart) as caught:
        store.query("SELECT count(*) FROM rationales")
    assert str(caught.value).startswith(f"The part file {tmp_path}/{damaged} is damaged (")
    assert "Run `qcrd store check --repair`" in str(caught.value)

    report = check_store(store)
    assert [file.path for file in report.damaged] == [damaged]
    assert not report.sound
    assert check_store(store, repair=True).sound
    assert (tmp_path / "_set_aside" / damaged).read_bytes() == whole[: len(whole) // 2]
    assert store.query("SELECT count(*) AS n FROM rationales")["n"].to_pylist() == [10]
    assert check_store(store).sound


def test_a_flipped_bit_is_found_by_its_checksum(tmp_path: Path) -> None:
    store = Store(tmp_path)
    [path] = store.append(RATIONALES, rationale_rows(0, 1000))
    data = bytearray((tmp_path / path).read_bytes())
    data[200] ^= 1  # inside the first column's pages
    (tmp_path / path).write_bytes(data)
    assert [file.path for file in check_store(store).damaged] == [path]


def test_keys_that_two_part_files_hold_are_found_and_settled(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(RATIONALES, rationale_rows(0, 10))
    store.append(RATIONALES, rationale_rows(5, 10))  # as after copying one store into another
    report = check_store(store)
    assert report.repeated == {"rationales": 5}
    assert not report.sound
    assert check_store(store, repair=True).sound
    assert store.query("SELECT count(*) AS n FROM rationales")["n"].to_pylist() == [15]
    assert check_store(store).repeated == {}


def test_what_a_killed_process_left_unfinished_is_removed_by_repair_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append(RATIONALES, rationale_rows(0, 5))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = socket.gethostname()
    left, busy = tmp_path / "_tmp" / f"{dead.pid}-{here}-left", tmp_path / "_tmp" / f"{os.getpid()}-{here}-busy"
    elsewhere = tmp_path / "_tmp" / f"{dead.pid}-another.machine-busy"
    for file in (left, busy, elsewhere):
        file.touch()
    assert check_store(store).unfinished == [f"_tmp/{left.name}"]
    check_store(store, repair=True)
    assert not left.exists()
    assert busy.exists()
    assert elsewhere.exists()


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(NewerStore) as caught:
        Store(tmp_path)
    assert str(caught.value) == (
        f"The store at {tmp_path} has schema version {SCHEMA_VERSION + 1}; this qcrd reads versions up to "
        f"{SCHEMA_VERSION}. Upgrade qcrd, or choose another store with --home."
    )


def test_a_full_disk_is_one_clear_line_and_harms_nothing(tmp_path: Path) -> None:
    """The kernel itself refuses the write: a limit on file size, which no test needs privileges for."""
    store = Store(tmp_path)
    store.append(RATIONALES, rationale_rows(0, 5))
    before = sorted(tmp_path.rglob("*"))
    script = f"""
import resource, signal
from pathlib import Path
from tests.storage.test_store import rationale_rows
from storage.schemas import RATIONALES
from storage.store import Store
rows = rationale_rows(5, 5)
store = Store({str(tmp_path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    store.append(RATIONALES, rows)
except Exception as error:
    print(type(error).__name__, error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path.cwd(), check=True)
    assert run.stdout.startswith(f"StoreWriteFailed Cannot write to the store at {tmp_path}: File too large.")
    assert "run the same command again: it continues where it stopped" in run.stdout
    assert sorted(tmp_path.rglob("*")) == before
    assert check_store(store).sound
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000  # this process was not limited


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError, match=r"^The store at .*/file must be a folder, but it is a file\. Choose another place"
    ):
        Store(tmp_path / "file").append(EXAMPLES, example_rows(1))


def test_wrong_sql_and_unknown_names_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"^DuckDB: Parser Error: syntax error"):
        Store(tmp_path).query("SELEC 1")
    assert str(UnknownName("table", "rationale", TABLES)).startswith(
        "Unknown table 'rationale'. Did you mean 'rationales'? Allowed: audits, chosen, examples, "
    )
    with pytest.raises(UsageError, match="Cannot open the store at 'ftp://x/y'"):
        Store("ftp://x/y")


def _append_many(root: str, first: int) -> None:
    store = Store(root)
    for number in range(20):
        store.append(RATIONALES, rationale_rows(first + 5 * number, 5))


def test_four_writers_at_once_lose_and_damage_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(str(tmp_path), 100 * number)) for number in range(4)]
    for writer in writers:
        writer.start()
    reader = Store(tmp_path)
    seen = []
    while any(writer.is_alive() for writer in writers):
        seen.append(reader.query("SELECT count(*) AS n FROM rationales")["n"][0].as_py())
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen == sorted(seen)  # a reader never saw rows vanish, nor half a file
    assert reader.query("SELECT count(DISTINCT sample_id) AS n FROM rationales")["n"].to_pylist() == [400]
    report = check_store(reader)
    assert report.sound
    assert report.unfinished == []


def test_a_lock_keeps_others_out_until_its_process_dies(tmp_path: Path) -> None:
    store = Store(tmp_path)
    script = f"""
import sys, time
from storage.store import Store
with Store({str(tmp_path)!r}).lock("x"):
    print("held", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with store.lock("x", wait=False) as mine:
            assert not mine
        with store.lock("y", wait=False) as other:
            assert other
        holder.kill()
    with store.lock("x", wait=False) as mine:
        assert mine


def test_times_are_utc() -> None:
    assert now().utcoffset() == datetime.now(UTC).utcoffset()

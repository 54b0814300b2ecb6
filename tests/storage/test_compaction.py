"""Compaction: the same rows in fewer files, for readers before, meanwhile and afterwards, and wherever it is killed."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import footers
from storage.checking import check_store
from storage.compaction import compact, compact_partition, rewrite, rewriting
from storage.errors import BadFile, DamagedPart
from storage.parts import is_compacted, kind_of, replaced_by
from storage.schemas import EXAMPLES, RATIONALES, TABLES
from storage.store import Store
from tests.storage.test_store import example_rows, rationale_rows

AT_ONCE = timedelta(0)
NEVER = timedelta(days=1)


def rows(store: Store) -> dict[str, list[str]]:
    """Every current row of the tables, all columns, in an order of its own."""
    store = Store(store.files.given)
    return {
        name: sorted(map(repr, store.query(f"SELECT * FROM {name}").to_pylist())) for name in ("examples", "rationales")
    }


def filled(root: str | Path, parts: int = 4) -> Store:
    """Two folders of parts, one of them with revisions."""
    store = Store(root)
    for number in range(parts):
        store.append(RATIONALES, rationale_rows(10 * number, 10))
        store.upsert(EXAMPLES, example_rows(3, label=str(number), first=number))
    return store


def counting(store: Store) -> int:
    return sum(len(store.parts(table)) for table in TABLES.values())


# ---- the same rows ----

OPERATIONS = st.one_of(
    st.tuples(st.just("examples"), st.integers(0, 8), st.integers(1, 5), st.sampled_from(["1", "2", None])),
    st.tuples(st.just("samples"), st.integers(1, 30), st.just(0), st.none()),
    st.tuples(st.just("compact"), st.sampled_from([1, 9_000, 2**30]), st.booleans(), st.none()),
)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OPERATIONS, min_size=2, max_size=12))
def test_whatever_was_written_a_compaction_changes_no_row(operations: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, samples = Store(folder), 0
        for what, one, two, label in operations:
            if what == "examples":
                store.upsert(EXAMPLES, example_rows(two, label=label, first=one))
            elif what == "samples":
                store.append(RATIONALES, rationale_rows(samples, one))
                samples += one
            else:
                before = rows(store)
                done = compact(store, large=one, kept_for=AT_ONCE if two else NEVER)
                assert rows(store) == before
                assert done.waiting == 0 or not two
        before = rows(store)
        compact(store, kept_for=AT_ONCE)
        assert rows(store) == before
        kinds = [(path.rpartition("/")[0], kind_of(path)) for table in TABLES.values() for path in store.parts(table)]
        assert len(set(kinds)) == len(kinds), "one file of a kind and folder is left"
        assert compact(store, kept_for=AT_ONCE).files == 0
        assert len(list(Path(folder).rglob("*.parquet"))) == len(kinds)
        assert check_store(store).sound


def test_on_either_kind_of_store(store: Store) -> None:
    filled(store.files.given)
    before = rows(store)
    done = compact(store)
    assert (done.files, done.written, done.removed, done.waiting) == (4 + 4 + 3, 3, 0, 4 + 4 + 3)
    assert rows(store) == before
    assert counting(store) == 3
    again = compact(store, kept_for=AT_ONCE)
    assert (again.files, again.written, again.removed, again.waiting) == (0, 0, 11, 0)
    assert rows(store) == before
    # and from then on as before: what is new is added, what has changed revised
    assert store.upsert(EXAMPLES, example_rows(7, label="9")) == (1, 6, 0)
    assert compact(store, kept_for=AT_ONCE).files == 2 + 2
    assert check_store(Store(store.files.given)).sound


def test_large_files_stay_and_small_ones_become_just_large_ones(tmp_path: Path) -> None:
    store = filled(tmp_path, parts=8)
    small = max((tmp_path / path).stat().st_size for path in store.parts(RATIONALES))
    before = rows(store)
    compact(store, large=small + 1)
    large = [path for path in store.parts(RATIONALES) if (tmp_path / path).stat().st_size > small]
    assert len(store.parts(RATIONALES)) > 1
    assert large
    compact(store, large=small + 1)
    assert set(large) <= set(store.parts(RATIONALES))
    assert rows(store) == before


def test_an_older_qcrd_refuses_a_store_with_compacted_files_only(tmp_path: Path) -> None:
    store = filled(tmp_path)
    marker = tmp_path / "store.json"
    assert json.loads(marker.read_text()) == {"schema_version": 1}
    another = Store(tmp_path)
    compact(store)
    assert json.loads(marker.read_text()) == {"schema_version": 2}
    another.append(RATIONALES, rationale_rows(100, 1))  # it read the marker before
    assert json.loads(marker.read_text()) == {"schema_version": 2}


# ---- readers ----


def test_whoever_listed_the_files_before_reads_on(store: Store) -> None:
    filled(store.files.given)
    store.connect().close()
    with store.connect() as con, store.connect() as other:
        query = f"SELECT count(*), count(DISTINCT sample_id) FROM {store.relation(RATIONALES)}"
        begun = other.sql(f"SELECT sample_id FROM {store.relation(RATIONALES)}").to_arrow_reader(1)
        read = [begun.read_next_batch()]
        compact(Store(store.files.given))
        assert con.execute(query).fetchall() == [(40, 40)]
        assert sum(map(len, [*read, *begun])) == 40


def test_whoever_reads_on_for_longer_than_replaced_files_stay_is_told_why_they_are_gone(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with store.connect() as con:
        store.create_views(con)
        compact(store, kept_for=AT_ONCE)
        with pytest.raises(BadFile, match=r"^DuckDB: IO Error: .*If the store was compacted since this began, begin"):
            store.execute(con, "SELECT count(text) FROM rationales")


def _write(root: str) -> None:
    store = Store(root)
    for number in range(12):
        store.append(RATIONALES, rationale_rows(5 * number, 5))
        store.upsert(EXAMPLES, example_rows(2, label=str(number)))


def test_beside_a_writer_and_a_reader(tmp_path: Path) -> None:
    writer = multiprocessing.get_context("spawn").Process(target=_write, args=(str(tmp_path),))
    writer.start()
    store, seen = Store(tmp_path), []
    while writer.is_alive():
        seen.append(store.query("SELECT count(*) AS n FROM rationales")["n"][0].as_py())
        compact(Store(tmp_path))
    writer.join()
    assert writer.exitcode == 0
    assert seen == sorted(seen)
    assert store.query("SELECT count(*) AS n, count(DISTINCT sample_id) AS m FROM rationales").to_pylist() == [
        {"n": 60, "m": 60}
    ]
    assert store.query("SELECT DISTINCT label FROM examples")["label"].to_pylist() == ["11"]
    assert check_store(store).sound


# ---- several at once ----


def test_a_second_process_is_told_to_wait(tmp_path: Path) -> None:
    script = f"from storage.compaction import *; compact(Store({str(tmp_path)!r}))"
    with rewriting(Store(tmp_path)):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    told = "UsageError: Another process compacts or prunes this store; run this again when it is done."
    assert told in done.stderr


def test_files_that_another_process_replaced_meanwhile_are_not_copied_again(store: Store) -> None:
    filled(store.files.given)
    group = store.parts(RATIONALES)
    assert rewrite(store, RATIONALES, group[:3])
    assert rewrite(store, RATIONALES, group) is None
    assert len(store.parts(RATIONALES)) == 2


def test_rows_copied_by_two_at_once_are_read_once(bucket: str) -> None:
    """An object store cannot keep them apart: both publish."""
    store = filled(bucket)
    before = rows(store)
    compact(store)
    [path] = store.parts(RATIONALES)
    store.files.publish(path.replace(".compacted", "1.compacted"), store.files.read(path))
    assert rows(store) == before
    compact(store)
    compact(store, kept_for=AT_ONCE)
    assert rows(store) == before
    assert len(store.listed("rationales")) == 1


# ---- damage ----


def test_the_small_files_of_one_partition(store: Store) -> None:
    """What is larger, what is of another partition, and what another process rewrites just now stays as it is."""
    for number in range(4):
        store.append(EXAMPLES, example_rows(2, first=2 * number))
        store.append(EXAMPLES, example_rows(2, dataset="other", first=2 * number))
        store.append(RATIONALES, rationale_rows(10 * number, 10))
    before, here = rows(store), {"dataset": "made-up", "split": "train"}
    assert compact_partition(store, here, [EXAMPLES], large=10) == 0
    if store.files.local:
        with store.lock("rewrite"):
            assert compact_partition(store, here, [EXAMPLES]) == 0
    assert compact_partition(store, here, [EXAMPLES]) == 4
    assert (len(store.parts(EXAMPLES, here)), len(store.parts(EXAMPLES)), len(store.parts(RATIONALES))) == (1, 5, 4)
    assert rows(store) == before


def test_threads_that_meet_a_new_compacted_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(path: str, schema: pa.Schema) -> list[str]:
        time.sleep(0.05)
        return replaced_by(path, schema)

    store, together = filled(tmp_path), Barrier(8)
    compact(store)
    monkeypatch.setattr(footers, "replaced_by", slowly)
    fresh = Store(tmp_path)

    def counted(place: int) -> int:
        together.wait()
        time.sleep(0.01 * place)
        return len(fresh.parts(RATIONALES))

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(counted, range(8))) == {1}


def test_a_damaged_file_is_named_and_nothing_is_replaced(tmp_path: Path) -> None:
    store = filled(tmp_path)
    path = tmp_path / store.parts(RATIONALES)[1]
    data = bytearray(path.read_bytes())
    data[200] ^= 1  # inside the first column's pages: DuckDB would read it
    path.write_bytes(data)
    with pytest.raises(DamagedPart, match=path.name):
        compact(store)
    assert len(store.parts(RATIONALES)) == 4
    assert list((tmp_path / "_tmp").iterdir()) == []
    assert check_store(store, repair=True).sound
    compact(store)
    assert len(store.parts(RATIONALES)) == 1


@pytest.mark.parametrize("where", [200, -20], ids=["pages", "footer"])
def test_what_a_damaged_compacted_file_replaced_is_not_deleted_and_counts_again(tmp_path: Path, where: int) -> None:
    store = filled(tmp_path)
    before = rows(store)
    compact(store)
    [name] = store.parts(RATIONALES)
    assert is_compacted(name)
    data = bytearray((tmp_path / name).read_bytes())
    data[where] ^= 255
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DamagedPart, match=Path(name).name):
        compact(Store(tmp_path), kept_for=AT_ONCE)
    report = check_store(Store(tmp_path), repair=True)
    assert [file.path for file in report.damaged] == [name]
    assert rows(store) == before
    compact(Store(tmp_path), kept_for=AT_ONCE)
    assert rows(store) == before


# ---- killed ----

WRITES = ("os.rename", "os.remove", "os.mkdir", "open")


def until_write(work: Callable[[str], None], root: str, number: int, writes: Any) -> None:
    """In a process of its own: works, and dies just before write `number` (0: never)."""

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in WRITES or not str(arguments[0]).startswith(root) or "_locks" in str(arguments[0]):
            return
        writes.value += 1
        if writes.value == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    work(root)


def kill_before_every_write(
    template: Path, work: Callable[[str], None], killed: Callable[[Store], None], ended: Callable[[Store], None]
) -> None:
    """Works on copies of a store, killed before one write after the other, and then again to the end.

    Args:
        work: is given the store's root.
        killed, ended: check what is there after the kill, and after the end.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])

    def run(root: Path, kill_at: int) -> tuple[int | None, int]:
        writes = server.Value("i", 0)
        process = server.Process(target=until_write, args=(work, str(root), kill_at, writes))
        process.start()
        process.join()
        return process.exitcode, writes.value

    calm = template.with_name("calm")
    shutil.copytree(template, calm)
    code, writes = run(calm, 0)
    assert (code, writes > 5) == (0, True), writes
    ended(Store(calm))
    left = len(list(calm.rglob("*.parquet")))
    for number in range(1, writes + 1):
        root = template.with_name(f"killed-{number}")
        shutil.copytree(template, root)
        assert run(root, number) == (-signal.SIGKILL, number)
        killed(Store(root))
        assert run(root, 0)[0] == 0
        ended(Store(root))
        assert len(list(root.rglob("*.parquet"))) == left, f"killed before write {number} of {writes}"
        assert check_store(Store(root), repair=True).sound
        assert list((root / "_tmp").iterdir()) == []
        shutil.rmtree(root)
    shutil.rmtree(calm)


def _compact(kept_for: timedelta, root: str) -> None:
    compact(Store(root), kept_for=kept_for)


@pytest.mark.slow
@pytest.mark.parametrize("kept_for", [AT_ONCE, NEVER], ids=["deleted", "kept"])
def test_killed_before_any_write_the_next_compaction_ends_the_work(tmp_path: Path, kept_for: timedelta) -> None:
    before = rows(filled(tmp_path / "template", parts=3))

    def same(store: Store) -> None:
        assert rows(store) == before

    kill_before_every_write(tmp_path / "template", partial(_compact, kept_for), same, same)


@pytest.mark.slow
def test_killed_at_any_moment_on_an_object_store(bucket: str) -> None:
    before = rows(filled(bucket, parts=6))
    script = f"""
from datetime import timedelta
from storage.compaction import compact
from storage.store import Store
import pyarrow.compute, sys
sys.stdin.readline()
compact(Store({bucket!r}), large=9_000, kept_for=timedelta(0))
"""
    for number in range(12):
        with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            time.sleep(0.1 * number)
            process.kill()
        store = Store(bucket)
        assert rows(store) == before
        store.append(RATIONALES, rationale_rows(1000 + number, 1))
        before = rows(store)
    compact(store, kept_for=AT_ONCE)
    compact(store, kept_for=AT_ONCE)
    assert rows(store) == before
    assert counting(store) == len({path for table in TABLES.values() for path in store.listed(table.name)}) == 3

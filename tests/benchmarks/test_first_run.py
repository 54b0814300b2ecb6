"""The first run's stages from Prefect's records, and what is left of a processor that is capped to AVX2."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.capped import AVX2
from benchmarks.first_run import memory_of, stages
from models import processor
from storage.schemas import RATIONALES
from storage.store import Store

DAY = "2026-11-27 04:00:"


def moment(second: int) -> datetime:
    return datetime(2026, 11, 27, 4, 0, second, tzinfo=UTC)


def records(home: Path, tasks: list[tuple[str, str, int, int, str | None]]) -> None:
    """Prefect's database with some task runs: id, name, first and last second, id of the task around it."""
    (home / "prefect").mkdir(parents=True)
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as database:
        database.execute("CREATE TABLE task_run (id, name, start_time, end_time, task_inputs)")
        for key, name, start, end, above in tasks:
            inputs = json.dumps({"place": [], "__parents__": [{"id": above}]} if above else {"place": []})
            times = (f"{DAY}{start:02d}.000000", f"{DAY}{end:02d}.000000")
            database.execute("INSERT INTO task_run VALUES (?, ?, ?, ?, ?)", (key, name, *times, inputs))
        database.commit()


def test_stages_are_named_for_their_method_and_rounds_are_summed(tmp_path: Path) -> None:
    records(
        tmp_path,
        [
            ("a", "store questions-1f8", 5, 6, None),
            ("b", "ask the teacher-3c2", 6, 26, None),
            ("c", "qcrd", 27, 50, None),
            ("d", "dss", 27, 41, None),
            ("e", "prepare-4bc", 27, 29, "c"),
            ("f", "student 0", 29, 33, "c"),
            ("g", "student 0", 29, 31, "d"),
            ("h", "student 1", 33, 38, "c"),
            ("i", "evaluate validation 1", 38, 39, "c"),
            ("j", "gate-e00", 50, 51, None),
        ],
    )
    row = {
        "dataset": "lab",
        "split": "train",
        "source": "teacher",
        "model": "lab-teacher",
        "example_id": "e",
        "text": "",
    }
    rows = [row | {"sample_id": str(n), "sample_index": n, "created_at": moment(16 + 4 * n)} for n in range(3)]
    Store(tmp_path / "store").append(RATIONALES, pa.Table.from_pylist(rows, RATIONALES.schema))
    assert stages(tmp_path, began=moment(2), whole=55.0) == {
        "start": 3.0,
        "store questions": 1.0,
        "vLLM's start": 10.0,
        "sampling": 8.0,
        "qcrd": 23.0,
        "dss": 14.0,
        "qcrd: prepare": 2.0,
        "qcrd: student": 9.0,
        "dss: student": 2.0,
        "qcrd: evaluate validation": 1.0,
        "gate": 1.0,
        "end": 6.0,
    }


def test_the_memory_of_a_process_has_that_of_its_children() -> None:
    alone = memory_of(os.getpid())
    hold = "import sys; held = bytearray(200_000_000); print(len(held), flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        together = memory_of(os.getpid())
        child.communicate()
    assert together > alone + 150_000_000
    assert memory_of(child.pid) == 0


@pytest.mark.parametrize("cap", [AVX2, {}])
def test_capped_neither_torch_nor_vllm_find_more_than_avx2(cap: dict[str, str]) -> None:
    code = (
        "from torch import cpu; from models.processor import detect_processor\n"
        "print(cpu._is_avx512_supported() or cpu._is_amx_tile_supported(), detect_processor().uses, sep=';')"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | cap
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    more, uses = done.stdout.strip().split(";")
    has = processor.read_processor(processor.CPUINFO.read_text().split("\n\n")[0], {}).has
    if cap:
        assert (more, uses) == ("False", processor.LADDER[min(1, processor.LADDER.index(has))])
    else:
        assert (more == "True") == (processor.LADDER.index(has) >= processor.LADDER.index(processor.AVX512))

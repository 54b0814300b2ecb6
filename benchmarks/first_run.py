"""The quickstart, stage by stage, as on a processor with AVX2 only and with all that this one has.

    python -m benchmarks.first_run     # `qcrd distill quickstart`, twice capped and twice not: half an hour
    python -m benchmarks.first_run --only capped --set dataset.limit=50 --set rounds.rounds=1

Each run has a new state folder: `qcrd distill`, a question to the champion, `qcrd distill` again. The stages are those
of Prefect's records; the methods' are side by side. Memory is that of all processes together, at most, looked at every
second; pages that they share are counted once.

The cap leaves torch, oneDNN, MKL and vLLM the instructions of AVX2. That does not make it an old processor, whose
cores may be slower in everything.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil  # type: ignore[import-untyped,unused-ignore]
from rich.console import Console
from rich.table import Table

from benchmarks.capped import AVX2
from flows.config.distill import load_config
from models.hardware import GIB
from models.watchdog import Watched
from storage.store import Store

ROOT = Path(__file__).resolve().parents[1]
CAPS = {"capped": AVX2, "uncapped": {"PYTHONPATH": str(ROOT)}}
COMMAND = [sys.executable, "-c", "from flows.cli import main; main()"]
QUESTION = "Ann has 3 bags with 4 apples each. She gives away 5. How many apples does Ann have now?"  # the Makefile's
GOALS = {"capped": 12 * 60, "uncapped": 8 * 60}  # seconds of the first run and the question
LOOK_S = 1.0


@dataclass
class Run:
    """What was measured for one state folder.

    Attributes:
        processor: what computed.
        seconds: stage -> seconds, in the order they began in.
        peak_gib: most memory at once.
    """

    processor: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    peak_gib: float = 0.0


def qcrd(words: Sequence[str], environment: dict[str, str], run: Run) -> tuple[datetime, float]:
    """Runs `qcrd`, its lines on this one's stderr; returns when it began, and its seconds."""
    began, started = datetime.now(UTC), time.monotonic()
    with (
        Watched([*COMMAND, *words], env=os.environ | environment, stdout=sys.stderr) as watched,
        memory_watched(watched.process.pid, run),
    ):
        code = watched.process.wait()
    if code:
        sys.exit(f"qcrd {words[0]} ended with code {code}")
    return began, time.monotonic() - started


@contextmanager
def memory_watched(pid: int, run: Run) -> Iterator[None]:
    """Notes the largest memory of a process and of all it starts."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            run.peak_gib = max(run.peak_gib, memory_of(pid) / GIB)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def memory_of(pid: int) -> int:
    """Bytes of a process and of all it started; of shared pages each process counts its share."""
    found = 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            found += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
            continue  # it ended meanwhile
    return found


def measure(cap: str, home: Path, config: str, settings: Sequence[str]) -> Run:
    """A first run, a question, and a second run."""
    environment, run = CAPS[cap], Run()
    look = "from models.processor import detect_processor; print(detect_processor().describe)"
    run.processor = subprocess.run(
        [sys.executable, "-c", look], env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    distill = ["distill", config, *(word for setting in settings for word in ("--set", setting)), "--home", str(home)]
    began, whole = qcrd(distill, environment, run)
    run.seconds = stages(home, began, whole) | {"first run": whole}
    if load_config(config, settings).registry.register_model:
        run.seconds["question"] = qcrd(["predict", QUESTION, "--home", str(home)], environment, run)[1]
        run.seconds["first run and question"] = whole + run.seconds["question"]
    run.seconds["second run"] = qcrd(distill, environment, run)[1]
    return run


def stages(home: Path, began: datetime, whole: float) -> dict[str, float]:
    """Seconds of each stage of a home's only run, from Prefect's records and from the times of the samples."""
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as records:
        rows = records.execute(
            "SELECT id, name, start_time, end_time, task_inputs FROM task_run WHERE end_time IS NOT NULL "
            "ORDER BY start_time"
        ).fetchall()
    names = {key: name for key, name, *_ in rows}
    times = {key: (_time(start), _time(end)) for key, _, start, end, _ in rows}
    found = {"start": (min(start for start, _ in times.values()) - began).total_seconds()}
    for key, name, *_, inputs in rows:
        start, end = times[key]
        above = [names.get(parent["id"], "") for parent in json.loads(inputs).get("__parents__", [])]
        stage = name.rpartition("-")[0] or name  # "vote-47a"; the named ones, "student 0", have no such ending
        if stage == "ask the teacher" and (sampled := sampling_times(home)):
            found["vLLM's start"] = (sampled[0] - start).total_seconds()
            found["sampling"] = (sampled[1] - sampled[0]).total_seconds()
            continue
        if above:
            stage = f"{above[0]}: {stage.rstrip('0123456789 ')}"
        found[stage] = found.get(stage, 0.0) + (end - start).total_seconds()
    last = max(end for _, end in times.values())
    return found | {"end": whole - (last - began).total_seconds()}


def sampling_times(home: Path) -> tuple[datetime, datetime] | None:
    """When the first and the last of the teacher's samples were stored; None where none was made."""
    rows = Store(home / "store").query(
        "SELECT min(created_at) AS first, max(created_at) AS last FROM rationales WHERE source = 'teacher'"
    )
    first, last = rows["first"][0].as_py(), rows["last"][0].as_py()
    return (first, last) if first else None


def _time(text: str) -> datetime:
    """A moment as Prefect's SQLite database has it, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def show(runs: dict[str, Run]) -> None:
    """The table."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for cap in runs:
        table.add_column(f"{cap}, s", justify="right")
    if len(runs) == 2:
        table.add_column("capped / uncapped", justify="right")
    for stage in dict.fromkeys(stage for run in runs.values() for stage in run.seconds):
        table.add_row(stage, *_cells([run.seconds.get(stage) for run in runs.values()]))
    table.add_row("peak memory, GiB", *_cells([run.peak_gib for run in runs.values()]))
    console = Console(width=120)
    for cap, run in runs.items():
        console.print(f"{cap}: {run.processor}, {len(os.sched_getaffinity(0))} cores")
    console.print(table)
    for cap, run in runs.items():
        taken = run.seconds.get("first run and question", run.seconds["first run"])
        console.print(
            f"{cap}: {taken:.0f} s, goal {GOALS[cap]}; second run {run.seconds['second run']:.0f} s, goal 30; "
            f"{run.peak_gib:.1f} GiB, goal 6"
        )


def _cells(values: list[float | None]) -> list[str]:
    shown = ["-" if value is None else f"{value:.1f}" for value in values]
    if len(values) == 2 and all(values):
        shown.append(f"{(values[0] or 0) / (values[1] or 1):.2f}")
    return shown


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CAPS)
    parser.add_argument("--config", default="quickstart", help="a shipped configuration, or a file's path")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="settings")
    parser.add_argument("--keep", type=Path, help="a folder for the state folders, which are removed otherwise")
    options = parser.parse_args()
    runs: dict[str, Run] = {}
    with TemporaryDirectory() as temporary:
        for cap in [options.only] if options.only else CAPS:
            home = (options.keep or Path(temporary)).resolve() / cap
            if home.exists():
                parser.error(f"{home} is there already; a first run needs a new folder")
            print(f"--- {cap} ---", file=sys.stderr)
            runs[cap] = measure(cap, home, options.config, options.settings)
    show(runs)


if __name__ == "__main__":
    main()

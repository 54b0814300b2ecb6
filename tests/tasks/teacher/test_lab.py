"""Building the lab's teacher: once, whoever asks and however often. A budget of a few steps, no real teacher."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models.configs import LabTeacherConfig
from models.hardware import usable_cores
from storage.locks import is_held
from tasks.teacher.lab import SPIN_FIRST, _threads, build_lab, find_lab, lab_folder

TINY = LabTeacherConfig(hidden=32, heads=1, layers=1, intermediate=32, texts=40, steps=3, batch_size=4, warmup_steps=1)
REPOSITORY = Path(__file__).parents[3]

# A build in a process of its own; prints what came out as JSON, and every training step to stderr.
BUILD = """
import json, sys
from pathlib import Path
from models.lab_teacher import LabTeacherConfig
from tasks.teacher.lab import build_lab

def on_progress(step, steps, loss, tokens_per_s):
    print("step", step, file=sys.stderr, flush=True)

built = build_lab(Path(sys.argv[1]), LabTeacherConfig(**json.loads(sys.argv[2])), on_progress=on_progress)
print(json.dumps({"folder": str(built.folder), "reused": built.reused}))
"""


def start(home: Path, config: LabTeacherConfig) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", BUILD, str(home), config.model_dump_json()]
    return subprocess.Popen(
        arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
    )


def steps_taken(log: str) -> int:
    return sum(line.startswith("step ") for line in log.splitlines())


def test_the_second_build_reuses_the_first(tmp_path: Path) -> None:
    assert find_lab(tmp_path, TINY) is None
    first = build_lab(tmp_path, TINY)
    second = build_lab(tmp_path, TINY)
    assert not first.reused
    assert second.reused
    assert second.folder == first.folder == find_lab(tmp_path, TINY) == lab_folder(tmp_path, TINY)
    assert second.seconds < 1


@pytest.mark.parametrize(
    ("before", "patient"),
    [("import os", True), ("import os; os.environ['OMP_WAIT_POLICY'] = 'active'", False), ("import torch", False)],
)
def test_two_threads_train_only_where_they_can_sleep_while_they_wait(before: str, patient: bool) -> None:
    code = f"{before}; from tasks.teacher.lab import _threads; print(_threads())"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == (min(2, len(usable_cores())) if patient else 1)


@pytest.mark.parametrize(("busy", "expected"), [(5.0, SPIN_FIRST), (90.0, {"OMP_WAIT_POLICY": "passive"})])
def test_they_sleep_at_once_where_others_want_the_cores(
    monkeypatch: pytest.MonkeyPatch, busy: float, expected: dict[str, str]
) -> None:
    names = ("OMP_WAIT_POLICY", *SPIN_FIRST)
    monkeypatch.setattr("os.environ", {})
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: busy)  # noqa: ARG005
    assert _threads() == min(2, len(usable_cores()))
    assert {name: os.environ[name] for name in names if name in os.environ} == expected


def test_force_trains_again(tmp_path: Path) -> None:
    calls: list[int] = []
    first = build_lab(tmp_path, TINY)
    before = (first.folder / "config.json").stat().st_ino
    again = build_lab(tmp_path, TINY, force=True, on_progress=lambda step, *_: calls.append(step))
    assert not again.reused
    assert calls[-1] == TINY.steps
    assert (again.folder / "config.json").stat().st_ino != before


def test_another_configuration_is_another_teacher(tmp_path: Path) -> None:
    folders = {lab_folder(tmp_path, TINY.model_copy(update=change)) for change in ({}, {"seed": 1}, {"slips": 0.1})}
    assert len(folders) == 3
    build_lab(tmp_path, TINY)
    assert find_lab(tmp_path, TINY.model_copy(update={"seed": 1})) is None


def test_of_two_builds_at_once_one_trains_and_the_other_waits(tmp_path: Path) -> None:
    processes = [start(tmp_path, TINY) for _ in range(2)]
    replies = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], replies
    built = [json.loads(out) for out, _ in replies]
    assert sorted(reply["reused"] for reply in built) == [False, True]
    assert len({reply["folder"] for reply in built}) == 1
    assert sorted(steps_taken(log) > 0 for _, log in replies) == [False, True]


def test_a_killed_build_leaves_nothing_that_looks_complete_and_holds_no_lock(tmp_path: Path) -> None:
    endless = TINY.model_copy(update={"steps": 1_000_000})
    process = start(tmp_path, endless)
    assert process.stderr is not None
    for line in process.stderr:  # ends when the process does
        if line.startswith("step 10"):
            break
    else:
        pytest.fail("the build ended before its tenth step")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert find_lab(tmp_path, endless) is None
    lock = lab_folder(tmp_path, endless).with_name(f".{lab_folder(tmp_path, endless).name}.lock")
    assert lock.is_file()
    assert not is_held(lock)


def test_what_a_killed_build_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    folder = lab_folder(tmp_path, TINY)
    leftover = folder.with_name(f".{folder.name}.partial-12345")
    leftover.mkdir(parents=True)
    assert not build_lab(tmp_path, TINY).reused
    assert not leftover.exists()

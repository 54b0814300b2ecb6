"""Two runs of one configuration on one state folder, started together: one trains, the other takes what it has made."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.conftest import Qcrd, figures, qcrd_command
from tests.flows.own_data import weights, without_clock, write_own_data

pytestmark = pytest.mark.slow

Found = TypeVar("Found")
WAITING = "another run trains it; waiting, then taking what it has made"


def holder_of(lock: Path) -> int | None:
    """The process that holds a training's run lock; None for none."""
    inode = lock.stat().st_ino
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        _, kind, _, _, pid, place, *_ = line.replace("->", "").split()
        if kind == "FLOCK" and int(place.rsplit(":", 1)[1]) == inode:
            return int(pid)
    return None


def seen(look: Callable[[], Found | None], within_s: float = 300) -> Found:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, "they were never in each other's way"
        time.sleep(0.02)
    return found


def test_both_end_with_the_result_of_one_alone(
    tmp_path: Path, home: Path, qcrd: Qcrd, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    alone = tmp_path / "alone"
    expected = figures(qcrd("distill", "small.yaml", "--json", home=alone))

    command = qcrd_command(home, "distill", "small.yaml", "--json")
    runs = []
    for number in range(2):
        with (tmp_path / f"{number}.out").open("w") as out, (tmp_path / f"{number}.err").open("w") as err:
            runs.append(subprocess.Popen(command, stdout=out, stderr=err, env=os.environ))
    # However busy the machine is, they are in each other's way: the first to train crawls until the other waits for it.
    # It does not stand still, for it may just hold something else that both need, such as a database.
    holder = seen(lambda: next(filter(None, map(holder_of, home.glob("trainings/*/.run.lock"))), None))
    other = next(number for number in range(2) if runs[number].pid != holder)
    try:
        while WAITING not in (tmp_path / f"{other}.err").read_text(encoding="utf-8"):
            os.kill(holder, signal.SIGSTOP)
            time.sleep(0.5)
            os.kill(holder, signal.SIGCONT)
            time.sleep(0.02)
            assert all(run.poll() is None for run in runs), "they were never in each other's way"
    finally:
        os.kill(holder, signal.SIGCONT)
    told = []
    for number, run in enumerate(runs):
        run.wait(timeout=600)
        said = (tmp_path / f"{number}.err").read_text(encoding="utf-8")
        assert run.returncode == 0, said
        assert "Traceback" not in said
        told.append((tmp_path / f"{number}.out").read_text(encoding="utf-8"))
    results = [json.loads(printed) for printed in told]
    assert without_clock(results[0]) == without_clock(results[1]) == without_clock(expected)
    assert weights(home, results[0]) == weights(home, results[1]) == weights(alone, expected)
    assert results[0]["registered"]["version"] == results[1]["registered"]["version"] == "1"

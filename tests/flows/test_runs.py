"""What a run holds, and what it ends with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.runs import SERVED_BY, _end_with_who_serves, _held, lock_path
from models.errors import RunStopped
from storage.errors import UsageError
from storage.locks import is_held

ROOT = Path(__file__).parents[2]
SERVED = """
import time
from flows.runs import _end_with_who_serves
_end_with_who_serves()
print("runs", flush=True)
time.sleep(600)
"""


def test_a_run_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    with _held(tmp_path, "first"):
        assert is_held(lock_path(tmp_path, "first"))
        with pytest.raises(UsageError, match=r"^Run first is running; stop it first"), _held(tmp_path, "first"):
            pass
        with _held(tmp_path, "second"):
            pass
    with _held(tmp_path, "first"):
        pass


def test_a_served_run_ends_when_the_process_that_serves_it_is_killed() -> None:
    with subprocess.Popen(["/bin/sleep", "600"]) as serving:
        environment = os.environ | {SERVED_BY: str(serving.pid)}
        with subprocess.Popen(
            [sys.executable, "-c", SERVED], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        ) as run:
            assert run.stdout
            said = run.stdout.readline()
            serving.kill()
            assert run.wait(timeout=30) == 1
    assert said == "runs\n"


def test_one_whose_server_is_gone_already_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["/bin/true"]) as serving:
        pass
    monkeypatch.setenv(SERVED_BY, str(serving.pid))
    with pytest.raises(RunStopped, match="is gone"):
        _end_with_who_serves()

"""Lock files between real processes."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from filelock import Timeout

from storage.locks import file_lock, is_held

HOLD = """
import os, subprocess, sys, time
from pathlib import Path
from storage.locks import file_lock
with file_lock(Path(sys.argv[1])):
    started = subprocess.Popen(["sleep", "600"])
    forked = os.fork()
    if forked:
        print(started.pid, forked, flush=True)
    time.sleep(600)
"""
WAIT = """
import sys
from pathlib import Path
from storage.locks import file_lock
lock = file_lock(Path(sys.argv[1]))
print("waits", flush=True)
with lock:
    print("holds", flush=True)
"""


@contextmanager
def process(script: str, lock: Path) -> Iterator["subprocess.Popen[str]"]:
    started = subprocess.Popen(
        [sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def line(started: "subprocess.Popen[str]") -> str:
    assert started.stdout is not None
    return started.stdout.readline()


def test_a_process_that_is_killed_gives_its_lock_back_though_what_it_started_lives_on(tmp_path: Path) -> None:
    path = tmp_path / "made" / "lock"
    assert not is_held(path)
    with process(HOLD, path) as holder:
        children = [psutil.Process(int(pid)) for pid in line(holder).split()]
        try:
            assert is_held(path)
            with pytest.raises(Timeout):
                file_lock(path).acquire(blocking=False)
            holder.kill()
            holder.wait()
            # Not at once: a child that has just been forked lets go of it first of all, but on a busy machine not yet.
            with file_lock(path).acquire(timeout=30):
                assert is_held(path)
                assert psutil.STATUS_ZOMBIE not in [child.status() for child in children]
            assert not is_held(path)
        finally:
            for child in children:
                child.kill()


def test_who_waits_takes_over_and_ctrl_c_ends_the_waiting(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with process(WAIT, path) as patient, process(WAIT, path) as interrupted:
        with file_lock(path):
            assert [line(patient), line(interrupted)] == ["waits\n", "waits\n"]
            interrupted.send_signal(signal.SIGINT)
            _, errors = interrupted.communicate(timeout=30)
            assert errors.endswith("KeyboardInterrupt\n")
            assert patient.poll() is None
        assert line(patient) == "holds\n"


def test_threads_keep_each_other_out_and_one_thread_does_not_wait_for_itself(tmp_path: Path) -> None:
    path, tried = tmp_path / "lock", []

    def look() -> None:
        try:
            with file_lock(path).acquire(blocking=False):
                tried.append("taken")
        except Timeout:
            tried.append("held")

    with file_lock(path):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError, match="already held"):
            file_lock(path).acquire()
    look()
    assert tried == ["held", "taken"]


def test_looking_keeps_no_other_from_looking(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(0o400)
    handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)  # another one, who looks just now
    assert not is_held(path)
    os.close(handle)


def test_where_there_are_no_locks_taking_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    with pytest.raises(OSError, match="not implemented"):
        file_lock(tmp_path / "lock").acquire()

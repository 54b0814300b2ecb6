"""Slots: two trainings do not load their models onto one machine at once."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from models.errors import RunStopped
from storage.errors import UsageError
from storage.locks import is_held
from tasks.running import worker
from tasks.running.slots import MACHINE_VARIABLE, one_locked, slot, slot_name


class Training:
    """One in a thread, until `end`."""

    def __init__(self, home: Path) -> None:
        self.began, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._train, args=(home,))
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _train(self, home: Path) -> None:
        with slot(home, None):
            self.began.set()
            self._over.wait()


@pytest.fixture(autouse=True)
def no_run() -> Iterator[None]:
    """That a training waits is told to its run's log; here is none."""
    with disable_run_logger():
        yield


def test_the_second_training_waits_for_the_first(tmp_path: Path) -> None:
    first = Training(tmp_path)
    assert first.began.wait(10)
    second = Training(tmp_path)
    waits = not second.began.wait(1)
    first.end()
    assert waits
    assert second.began.wait(10)
    second.end()


def test_of_two_files_each_is_held_by_one(tmp_path: Path) -> None:
    files = [tmp_path / "slots" / "0", tmp_path / "slots" / "1"]
    with one_locked(files, "waits"):
        assert [is_held(file) for file in files] == [True, False]
        with one_locked(files, "waits"):
            assert [is_held(file) for file in files] == [True, True]
        assert [is_held(file) for file in files] == [True, False]
    assert [is_held(file) for file in files] == [False, False]


def test_who_waits_is_stopped_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_stopping", threading.Event())
    file, raised = tmp_path / "slot", []

    def wait() -> None:
        try:
            with one_locked([file], "waits"):
                pass
        except RunStopped as error:
            raised.append(error)

    with one_locked([file], "waits"):
        thread = threading.Thread(target=wait)
        thread.start()
        worker.stop_workers()
        thread.join(10)
        assert len(raised) == 1


def test_each_machine_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Training(tmp_path)
    assert here.began.wait(10)
    monkeypatch.setenv(MACHINE_VARIABLE, "other")
    there = Training(tmp_path)
    began = there.began.wait(10)
    here.end()
    there.end()
    assert began


def test_what_slots_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MACHINE_VARIABLE, raising=False)
    assert [slot_name(None), slot_name("0")] == ["qcrd-cpu", "qcrd-gpu-0"]
    monkeypatch.setenv(MACHINE_VARIABLE, "node-7.lan")
    assert [slot_name(None), slot_name("0,1")] == ["qcrd-cpu-node-7.lan", "qcrd-gpu-0,1-node-7.lan"]
    monkeypatch.setenv(MACHINE_VARIABLE, "a/b")
    with pytest.raises(UsageError, match=r"^QCRD_MACHINE takes letters, digits and \. _ - only, not 'a/b'\.$"):
        slot_name(None)

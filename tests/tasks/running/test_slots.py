"""Slots: two trainings do not load their models onto one machine at once."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger
from prefect.testing.utilities import prefect_test_harness

from models.errors import RunStopped
from storage.errors import UsageError
from storage.locks import is_held
from tasks.running import worker
from tasks.running.slots import MACHINE_VARIABLE, one_locked, places, slot, slot_name
from tasks.running.worker import Worker


class Training:
    """One in a thread, until `end`."""

    def __init__(self, home: Path, gpus: tuple[str, ...] = (), processes: int = 1, *, on_server: bool = False) -> None:
        self.began, self._over = threading.Event(), threading.Event()
        self.gpus: tuple[str, ...] = ()
        self._asked = {"on_server": on_server, "gpus": gpus, "processes": processes}
        self._thread = threading.Thread(target=self._train, args=(home,))
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _train(self, home: Path) -> None:
        with slot(home, None, **self._asked) as self.gpus:  # type: ignore[arg-type]
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


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["files", "server"])
def on_server(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Slots as locked files, and as limits of a real Prefect server."""
    if not request.param:
        yield False
        return
    with prefect_test_harness():
        yield True


def test_each_training_has_a_gpu_of_its_own(tmp_path: Path, on_server: bool) -> None:
    first, second = (Training(tmp_path, ("0", "5"), on_server=on_server) for _ in range(2))
    assert first.began.wait(30)
    assert second.began.wait(30)
    assert {first.gpus, second.gpus} == {("0",), ("5",)}
    third = Training(tmp_path, ("0", "5"), on_server=on_server)
    waits = not third.began.wait(3)
    freed = second.gpus
    second.end()
    assert third.began.wait(30)
    first.end()
    third.end()
    assert waits
    assert third.gpus == freed


def test_a_training_of_two_processes_takes_two_gpus_or_none(tmp_path: Path, on_server: bool) -> None:
    gpus = ("0", "1")
    one = Training(tmp_path, gpus, on_server=on_server)
    assert one.began.wait(30)
    both = Training(tmp_path, gpus, 2, on_server=on_server)
    waits = not both.began.wait(3)
    # While it waits it does not keep the free one from others for long.
    other = Training(tmp_path, gpus, on_server=on_server)
    assert other.began.wait(30)
    one.end()
    other.end()
    assert both.began.wait(30)
    both.end()
    assert waits
    assert set(both.gpus) == {"0", "1"}


def test_more_processes_than_gpus_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"^rounds\.processes is 3, and there are 2 GPUs here for them: lower it"),
        slot(tmp_path, None, on_server=False, gpus=("0", "1"), processes=3),
    ):
        pass


def test_how_many_trainings_a_machine_has_room_for() -> None:
    cores = len(os.sched_getaffinity(0))
    assert [places(None), places(1), places(10_000)] == [1, cores, 1]
    assert [places(1, gpus=4), places(None, gpus=4, processes=2), places(None, gpus=4, processes=3)] == [4, 2, 1]


def test_a_worker_sees_the_gpus_that_are_held_for_it() -> None:
    with Worker(gpus=("2", "7")) as holding:
        assert holding.run(os.getenv, "CUDA_VISIBLE_DEVICES") == "2,7"


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

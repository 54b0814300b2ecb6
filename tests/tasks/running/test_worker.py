"""The worker process: what crosses over, what happens when it or its run dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import tasks.running.worker as worker_module
from models.errors import ModelError, RunStopped, TrainingDiverged, WorkerDied
from storage.errors import NothingToDo, StorageError, UnknownName
from tasks.running.worker import Worker, stop_workers


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One for all tests that leave it alive: starting takes a moment."""
    with Worker() as worker:
        yield worker


@pytest.fixture
def not_stopping() -> Iterator[None]:
    yield
    worker_module._stopping.clear()


# ---- what runs there; it must be importable by name ----


def add(first: int, second: int) -> dict[str, int]:
    return {"sum": first + second, "pid": os.getpid()}


def count_to(number: int, on_report: Callable[..., None] | None = None) -> int:
    for done in range(1, number + 1):
        if on_report:
            on_report(done, number)
    return number


def tell_and_fail(on_report: Callable[..., None]) -> None:
    on_report({"step": 1.0})
    raise NothingToDo("There is nothing to do; sample a teacher first.")


def fail(kind: str) -> None:
    errors: dict[str, Exception] = {
        "unknown": UnknownName("method", "qrcd", ["qcrd", "dss"], "Or another."),
        "nothing": NothingToDo("Nothing to do here."),
        "diverged": TrainingDiverged("Training stopped at step 3; the last good checkpoint is here."),
        "value": ValueError("plain"),
    }
    raise errors[kind]


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def wait_for(file: Path) -> str:
    while not file.exists():
        time.sleep(0.01)
    return "done"


def sleep_and_say(file: Path) -> None:
    file.write_text(str(os.getpid()))
    time.sleep(600)


def threads_of_torch() -> int:
    import torch

    return torch.get_num_threads()


def ignores_interrupts() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


# ---- results, errors, reports ----


def test_results_come_back_from_one_process(worker: Worker) -> None:
    first, second = worker.run(add, 1, 2), worker.run(add, 3, 4)
    assert (first["sum"], second["sum"]) == (3, 7)
    assert first["pid"] == second["pid"] != os.getpid()


@pytest.mark.parametrize(
    ("kind", "type_", "text"),
    [
        ("unknown", StorageError, "Unknown method 'qrcd'. Did you mean 'qcrd'? Allowed: dss, qcrd. Or another."),
        ("nothing", NothingToDo, "Nothing to do here."),
        ("diverged", TrainingDiverged, "Training stopped at step 3; the last good checkpoint is here."),
        ("value", ValueError, "plain"),
    ],
)
def test_errors_come_back_with_their_text(worker: Worker, kind: str, type_: type[Exception], text: str) -> None:
    before = worker.run(add, 0, 0)["pid"]
    with pytest.raises(type_) as caught:
        worker.run(fail, kind)
    assert str(caught.value) == text
    assert worker.run(add, 0, 0)["pid"] == before, "an error ends nothing"


def test_reports_come_in_their_order_and_all_of_them(worker: Worker) -> None:
    told: list[tuple[int, int]] = []
    callers: set[int] = set()

    def on_report(done: int, total: int) -> None:
        told.append((done, total))
        callers.add(threading.get_ident())

    assert worker.run(count_to, 500, reports="on_report", on_report=on_report) == 500
    assert told == [(number, 500) for number in range(1, 501)]
    assert callers == {threading.get_ident()}, "in the thread that asked"


def test_reports_of_one_call_never_reach_the_next(worker: Worker) -> None:
    for number in range(20):
        with pytest.raises(NothingToDo):
            worker.run(tell_and_fail, reports="on_report", on_report=lambda _: None)
        told: list[Any] = []
        worker.run(count_to, number, reports="on_report", on_report=lambda *report, told=told: told.append(report))
        assert told == [(done, number) for done in range(1, number + 1)]


def test_who_wants_no_reports_gets_none(worker: Worker) -> None:
    assert worker.run(count_to, 5) == 5
    assert worker.run(count_to, 5, reports="on_report") == 5
    assert worker.run(add, 1, 1, on_report=print)["sum"] == 2


def test_reports_come_while_the_work_goes_on(worker: Worker, tmp_path: Path) -> None:
    """The function waits for a file that only a report makes."""
    file = tmp_path / "told"
    assert worker.run(report_then_wait, file, reports="on_report", on_report=lambda: file.touch()) == "done"


def report_then_wait(file: Path, on_report: Callable[[], None]) -> str:
    on_report()
    return wait_for(file)


def test_a_report_that_fails_stops_the_work(tmp_path: Path) -> None:
    def fails() -> None:
        raise RuntimeError("the server is gone")

    with Worker() as own:
        with pytest.raises(RuntimeError, match="server is gone"):
            own.run(report_then_wait, tmp_path / "never", reports="on_report", on_report=fails)
        assert own.run(add, 1, 1)["sum"] == 2


def test_it_runs_as_it_should() -> None:
    with Worker(threads=3) as own:
        assert own.run(threads_of_torch) == 3
        assert own.run(ignores_interrupts), "Ctrl-C is the run's business"


# ---- death ----


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_its_death_is_an_error_and_the_next_call_works(number: int) -> None:
    with Worker() as own:
        first = own.run(add, 1, 2)["pid"]
        with pytest.raises(WorkerDied) as caught:
            own.run(die, number)
        text = str(caught.value)
        assert text.startswith("The process that ran die died; the system log says why")
        assert "optimisation.micro_batch_size" in text
        assert "run the same command again to go on" in text
        assert isinstance(caught.value, ModelError)
        again = own.run(add, 3, 4)
        assert again["sum"] == 7
        assert again["pid"] != first


def test_it_may_die_between_two_calls() -> None:
    with Worker() as own:
        pid = own.run(add, 1, 2)["pid"]
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid)], timeout=10)
        for _ in range(3):
            try:
                assert own.run(add, 3, 4)["sum"] == 7
            except WorkerDied:
                continue  # told once, and then it works
            break
        else:
            pytest.fail("it never came back")


def test_it_is_gone_after_its_block() -> None:
    with Worker() as own:
        pid = own.run(add, 1, 2)["pid"]
    assert not psutil.pid_exists(pid)
    own.stop()  # again is nothing


RUN = """
import sys
from pathlib import Path
from tasks.running.worker import Worker
from tests.tasks.running.test_worker import sleep_and_say
if __name__ == "__main__":
    with Worker() as worker:
        worker.run(sleep_and_say, Path(sys.argv[1]))
"""


def test_it_ends_when_its_run_is_killed(tmp_path: Path) -> None:
    script, said = tmp_path / "run.py", tmp_path / "pid"
    script.write_text(RUN)
    root = Path(__file__).parents[3]
    run = subprocess.Popen([sys.executable, str(script), str(said)], env={**os.environ, "PYTHONPATH": str(root)})
    try:
        while not (said.exists() and said.read_text()):
            assert run.poll() is None
            time.sleep(0.02)
        work = psutil.Process(int(said.read_text()))
        assert work.is_running()
    finally:
        run.kill()
        run.wait()
    gone, _ = psutil.wait_procs([work], timeout=30)
    assert gone or work.status() == psutil.STATUS_ZOMBIE


@pytest.mark.usefixtures("not_stopping")
def test_other_threads_can_be_stopped(tmp_path: Path) -> None:
    """What a run does on Ctrl-C: its methods' threads wait for their workers and cannot be interrupted."""
    raised: list[BaseException] = []
    own, said = Worker(), tmp_path / "pid"

    def work() -> None:
        try:
            own.run(sleep_and_say, said)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not (said.exists() and said.read_text()):
        assert thread.is_alive()
        time.sleep(0.02)
    stop_workers()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert [type(error) for error in raised] == [RunStopped]
    with pytest.raises(RunStopped):
        own.run(add, 1, 1)
    assert not [child for child in multiprocessing.active_children() if child.pid == int(said.read_text())]

"""A process that does a run's heavy work. It loads the models, and its memory is freed when it ends.

    with Worker() as worker:
        trained = worker.run(train_round, folder, t, reports="on_report", on_report=print)

So the run stays free to renew its leases and to answer its server (Prefect's advice for work that holds the
interpreter). A crash of the worker, by a lack of memory for example, is an error and does not end the run.

All workers of a run are forked from one process that has imported torch and transformers and done nothing else
(Python's forkserver). So the imports take their time once, and their memory once.
"""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver
from types import TracebackType
from typing import Any, Self, TypeVar

from models.errors import RunStopped, WorkerDied

LOOK_S = 0.2
LAST_REPORTS_S = 5.0
Result = TypeVar("Result")
# What a training's steps import; see `tasks.training.in_worker`.
PRELOADED = [
    f"tasks.training.{name}" for name in ("initial", "negatives", "quality", "student", "evaluation", "calibration")
]
_reports: Any = None  # in the worker: the queue to the run
_workers: set["Worker"] = set()  # in the run: those with a process
_stopping = threading.Event()


def stop_workers() -> None:
    """Ends the work of all threads of this run, which is being stopped; threads cannot be interrupted otherwise."""
    _stopping.set()
    for worker in list(_workers):
        worker.stop()


@contextmanager
def stopping_with_us() -> Iterator[None]:
    """Ends the work of all threads where the block is interrupted: Ctrl-C, SIGTERM, Prefect's cancellation."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception):
            stop_workers()
        raise


def refuse_if_stopping() -> None:
    """For threads that wait for something: ends the wait if the run is being stopped.

    Raises:
        RunStopped: it is.
    """
    if _stopping.is_set():
        raise RunStopped("The run is being stopped.")


class Worker:
    """A process that runs functions, one after the other; it is started for the first one.

    Args:
        threads: torch's threads in it; None leaves the number to torch.
        gpus: those that it sees, as CUDA_VISIBLE_DEVICES names them; none: those that this process sees.
    """

    def __init__(self, threads: int | None = None, gpus: Sequence[str] = ()) -> None:
        self._threads, self._gpus = threads, tuple(gpus)
        self._pool: ProcessPoolExecutor | None = None
        self._queue: Any = None
        self._call = 0  # number of the latest call: reports of an earlier one may still be on their way

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(
        self,
        function: Callable[..., Result],
        *arguments: Any,
        reports: str | None = None,
        on_report: Callable[..., None] | None = None,
    ) -> Result:
        """Runs a function there and waits for it.

        Args:
            function: a module's function; arguments and result must be picklable.
            arguments: the function's arguments.
            reports: the name of the function's argument that takes a callback.
            on_report: the callback; it is called in this thread.

        Raises:
            WorkerDied: the process died meanwhile.
            Exception: whatever the function raises.
        """
        refuse_if_stopping()
        if self._pool is None:
            _workers.add(self)
            context = _prepared()
            self._queue = context.Queue()
            self._pool = ProcessPoolExecutor(1, context, _begin, (self._queue, self._threads, self._gpus))
        self._call += 1
        try:
            future = self._pool.submit(_run, function, arguments, reports if on_report else None, self._call)
            told_all = not (reports and on_report)
            while not future.done():
                told_all |= self._tell(on_report, LOOK_S)
            result = future.result()
            if not told_all:
                self._tell(on_report, LAST_REPORTS_S)
        except BrokenProcessPool as error:
            self.stop()
            refuse_if_stopping()
            raise WorkerDied(
                f"The process that ran {function.__name__} died; the system log says why (often: too little memory, "
                "then a smaller optimisation.micro_batch_size helps). What was finished is kept; run the same command "
                "again to go on."
            ) from error
        except BaseException:
            if not isinstance(_finished(future), Exception):  # we were interrupted, the work was not over
                self.stop()
            raise
        return result

    def stop(self) -> None:
        """Kills the process."""
        pool, self._pool = self._pool, None
        _workers.discard(self)
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=True, cancel_futures=True)

    def _tell(self, on_report: Callable[..., None] | None, wait_s: float) -> bool:
        """Passes on what the worker reports in `wait_s` seconds; returns True, and early, after its last report."""
        deadline = time.monotonic() + wait_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                call, report = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if call != self._call:
                continue
            if report is None:
                return True
            if on_report:
                on_report(*report)
        return False


def _prepared() -> Any:
    """How workers are started: not by forking this process, because neither MLflow nor threads survive that."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    # The forkserver inherits this: Ctrl-C in a terminal reaches it, too, but only the run is to act on it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _finished(future: "Future[Any]") -> BaseException | None:
    return future.exception() if future.done() else None


def _begin(reports: Any, threads: int | None, gpus: tuple[str, ...]) -> None:
    """Sets up the worker."""
    global _reports
    _reports = reports
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)  # CUDA reads it when it starts, which it has not yet
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the run stops this process
    run = multiprocessing.parent_process()
    assert run is not None  # noqa: S101 - a worker has a parent
    end_after(run.join)  # waits on a pipe that closes when the run is gone, kill -9 included
    if threads:
        import torch

        torch.set_num_threads(threads)


def end_after(wait: Callable[[], object]) -> None:
    """Ends this process at once when `wait` returns, which it does when the process that this one serves is gone."""

    def end() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _run(function: Callable[..., Result], arguments: tuple[Any, ...], reports: str | None, call: int) -> Result:
    if reports is None:
        return function(*arguments)
    try:
        return function(*arguments, **{reports: lambda *report: _reports.put((call, report))})
    finally:
        _reports.put((call, None))  # no more reports

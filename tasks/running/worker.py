"""One process beside the run that does its heavy work: models are loaded there, and its memory is free when it ends.

    with Worker() as worker:
        trained = worker.run(train_round, folder, t, reports="on_report", on_report=print)

Work in a process of its own leaves the run free to renew its leases and to answer its server (Prefect's advice for
work that holds the interpreter), and a crash of it, by a lack of memory for one, is an error and not the run's end.

All workers of a run are forked from one process that has imported torch and transformers and done nothing else
(Python's forkserver): these seconds are spent once, and what was imported is in memory once.
"""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from types import TracebackType
from typing import Any, Self, TypeVar

from models.errors import RunStopped, WorkerDied

LOOK_S = 0.2
LAST_REPORTS_S = 5.0
Result = TypeVar("Result")
# What a training's steps import; see `tasks.training.in_worker`.
PRELOADED = [f"tasks.training.{name}" for name in ("initial", "negatives", "quality", "student", "evaluation")]
_reports: Any = None  # in the worker: the queue to the run
_workers: set["Worker"] = set()  # in the run: those with a process
_stopping = threading.Event()


def stop_workers() -> None:
    """Ends the work of all threads of this run, which is being stopped: a thread cannot be interrupted otherwise."""
    _stopping.set()
    for worker in list(_workers):
        worker.stop()


def refuse_if_stopping() -> None:
    """For threads that wait for something.

    Raises:
        RunStopped: somebody stops the run.
    """
    if _stopping.is_set():
        raise RunStopped("The run is being stopped.")


class Worker:
    """A process that runs functions, one after the other; started at the first one.

    Args:
        threads: of torch's in it; None leaves it to torch.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
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
            function: of a module; arguments and result must be picklable.
            arguments: of the function.
            reports: the name of the function's argument that takes a callback.
            on_report: what it calls; it is called here, in this thread.

        Raises:
            WorkerDied: the process died under it.
            Exception: whatever the function raises.
        """
        refuse_if_stopping()
        if self._pool is None:
            _workers.add(self)
            context = _prepared()
            self._queue = context.Queue()
            self._pool = ProcessPoolExecutor(1, context, _begin, (self._queue, self._threads))
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
        """Ends the process, at once."""
        pool, self._pool = self._pool, None
        _workers.discard(self)
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=True, cancel_futures=True)

    def _tell(self, on_report: Callable[..., None] | None, wait_s: float) -> bool:
        """Passes on what the worker reports in so many seconds; returns early, and True, when that is all of it."""
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
    """How workers are started; not by forking this process: a forked MLflow does not work, nor do threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    # Inherited by the process that imports them: Ctrl-C in a terminal reaches it, too, and is the run's business.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _finished(future: "Future[Any]") -> BaseException | None:
    return future.exception() if future.done() else None


def _begin(reports: Any, threads: int | None) -> None:
    """The worker's first steps."""
    global _reports
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's business, which then stops this process
    run = multiprocessing.parent_process()
    assert run is not None  # noqa: S101 - a worker has a parent
    end_after(run.join)  # a pipe of the run's, which closes when the run is gone, kill -9 included
    if threads:
        import torch

        torch.set_num_threads(threads)


def end_after(wait: Callable[[], object]) -> None:
    """Ends this process, at once, when a function returns: one that waits until the process it works for is gone."""

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
        _reports.put((call, None))  # the last one

"""One process beside the run that does its heavy work: models are loaded there, and its memory is free when it ends.

    with Worker() as worker:
        trained = worker.run(train_round, folder, t, reports="on_report", on_report=print)

Work in a process of its own leaves the run free to renew its leases and to answer its server (Prefect's advice for
work that holds the interpreter), and a crash of it, by a lack of memory for one, is an error and not the run's end.
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
from types import TracebackType
from typing import Any, Self, TypeVar

from models.errors import WorkerDied

LOOK_S = 0.2
PARENT_LOOK_S = 1.0
Result = TypeVar("Result")
_reports: Any = None  # in the worker: the queue to the run


class Worker:
    """A process that runs functions, one after the other; started at the first one.

    Args:
        threads: of torch's in it; None leaves it to torch.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads
        self._pool: ProcessPoolExecutor | None = None
        self._queue: Any = None

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
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a forked CUDA or MLflow does not work
            self._queue = context.Queue()
            self._pool = ProcessPoolExecutor(1, context, _begin, (self._queue, os.getpid(), self._threads))
        try:
            future = self._pool.submit(_run, function, arguments, reports if on_report else None)
            while not future.done():
                self._tell(on_report, LOOK_S)
            result = future.result()
            self._tell(on_report, 0)
        except BrokenProcessPool as error:
            self.stop()
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
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=True, cancel_futures=True)

    def _tell(self, on_report: Callable[..., None] | None, wait_s: float) -> None:
        """Passes on what the worker has reported."""
        deadline = time.monotonic() + wait_s
        while True:
            try:
                report = self._queue.get(timeout=max(0.0, deadline - time.monotonic()) or 0.001)
            except queue.Empty:
                return
            if on_report:
                on_report(*report)


def _finished(future: "Future[Any]") -> BaseException | None:
    return future.exception() if future.done() else None


def _begin(reports: Any, parent: int, threads: int | None) -> None:
    """The worker's first steps."""
    global _reports
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's business, which then stops this process
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if threads:
        import torch

        torch.set_num_threads(threads)


def _end_with(parent: int) -> None:
    """Ends this process when the run is gone, kill -9 included."""
    while os.getppid() == parent:
        time.sleep(PARENT_LOOK_S)
    os._exit(1)


def _run(function: Callable[..., Result], arguments: tuple[Any, ...], reports: str | None) -> Result:
    if reports is None:
        return function(*arguments)
    return function(*arguments, **{reports: lambda *report: _reports.put(report)})

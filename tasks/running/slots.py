"""Slots, which limit how many trainings use a machine at once."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists

from storage.errors import UsageError
from storage.locks import file_lock
from tasks.running.worker import refuse_if_stopping

LEASE_S = 60
LOOK_S = 0.5
MACHINE_VARIABLE = "QCRD_MACHINE"


@contextmanager
def slot(
    home: Path, threads: int | None, *, on_server: bool, gpus: Sequence[str] = (), processes: int = 1
) -> Iterator[tuple[str, ...]]:
    """Holds some of this machine's GPUs, or a share of its cores, so that no two trainings use the same.

    With a configured Prefect server, a slot is part of a global concurrency limit (`prefect gcl ls` shows it, and it
    can be changed there). Without one it is a locked file, which is released however its process dies. The server that
    a command starts for itself ends with the command, so the next one would wait for the slot of a killed run.

    Args:
        home: the state folder.
        threads: a training's threads; None for all cores.
        on_server: whether a server is configured.
        gpus: those that a training may use, as CUDA_VISIBLE_DEVICES names them; none for one on the cores.
        processes: of the training; each has a GPU of its own.

    Yields:
        The GPUs that are held.

    Raises:
        UsageError: QCRD_MACHINE is not a valid name, or there are fewer GPUs than processes.
    """
    if not gpus:
        name, limit = slot_name(None), places(threads)
        with _limit(name, limit) if on_server else one_locked(_files(home, name, limit), _waits(name)):
            yield ()
        return
    if processes > len(gpus):
        raise UsageError(
            f"rounds.processes is {processes}, and there are {len(gpus)} GPUs here for them: lower it to that, or set "
            "optimisation.device=cpu."
        )
    with ExitStack() as held:
        yield tuple(_take_gpus(home, gpus, processes, held, on_server=on_server))


def places(threads: int | None, gpus: int = 0, processes: int = 1) -> int:
    """How many trainings this machine has room for at once.

    Args:
        threads: of each; None for all cores.
        gpus: that they may use; 0 where they train on the cores.
        processes: of each, one a GPU.
    """
    cores = len(os.sched_getaffinity(0))
    return max(1, gpus // processes if gpus else cores // (threads or cores))


def _take_gpus(home: Path, gpus: Sequence[str], count: int, held: ExitStack, *, on_server: bool) -> list[str]:
    """Holds any `count` of the GPUs, all at once: two trainings that each hold one of two would wait for ever."""
    told = False
    while True:
        with ExitStack() as trying:
            taken: list[str] = []
            for gpu in gpus:
                if len(taken) < count and _taken(home, gpu, trying, on_server=on_server):
                    taken.append(gpu)
            if len(taken) == count:
                held.push(trying.pop_all())
                return taken
        if not told:
            get_run_logger().info(_waits(f"{slot_name(gpus[0])}{' or another' if len(gpus) > 1 else ''}"))
            told = True
        refuse_if_stopping()
        time.sleep(LOOK_S)


def _taken(home: Path, gpu: str, held: ExitStack, *, on_server: bool) -> bool:
    """Holds a GPU if it is free."""
    name = slot_name(gpu)
    if on_server:
        with suppress(TimeoutError):
            held.enter_context(_limit(name, 1, timeout_s=LOOK_S))
            return True
        return False
    lock = _take_free([file_lock(file) for file in _files(home, name, 1)])
    if lock is not None:
        held.enter_context(lock)
    return lock is not None


def _files(home: Path, name: str, limit: int) -> list[Path]:
    return [home / "slots" / f"{name}-{number}" for number in range(limit)]


def _waits(name: str) -> str:
    return f"Waiting: another training holds {name}."


@contextmanager
def _limit(name: str, limit: int, timeout_s: float | None = None) -> Iterator[None]:
    """Holds a part of a global concurrency limit, which is made where there is none.

    Raises:
        TimeoutError: it was not free in time.
    """
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # an existing limit stays as it is
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=limit))
    # A short lease, because a run killed with -9 cannot give its slot back, and the next one should not wait long. A
    # lease that cannot be renewed, because the server is being restarted, must not end a training.
    with concurrency(
        name, occupy=1, strict=True, lease_duration=LEASE_S, raise_on_lease_renewal_failure=False,
        timeout_seconds=timeout_s,
    ):  # fmt: skip
        yield


def slot_name(gpu: str | None) -> str:
    """The name of this machine's slots: "qcrd-cpu" or "qcrd-gpu-0", with "-NAME" if QCRD_MACHINE is NAME.

    It holds no host name, because containers on one machine have different ones but share the GPU and the cores.

    Raises:
        UsageError: QCRD_MACHINE is not a valid name.
    """
    machine = os.environ.get(MACHINE_VARIABLE, "")
    if not re.fullmatch(r"[A-Za-z0-9._-]*", machine):
        raise UsageError(f"{MACHINE_VARIABLE} takes letters, digits and . _ - only, not {machine!r}.")
    return ("qcrd-cpu" if gpu is None else f"qcrd-gpu-{gpu}") + (f"-{machine}" if machine else "")


@contextmanager
def one_locked(files: Sequence[Path], waiting: str) -> Iterator[None]:
    """Holds one of several lock files; if all are taken, waits until one is free.

    Args:
        files: lock files, as in `storage.locks`.
        waiting: logged once if it has to wait.

    Raises:
        RunStopped: the run was stopped meanwhile.
    """
    locks = [file_lock(file) for file in files]
    lock = _take_free(locks)
    if lock is None:
        get_run_logger().info(waiting)
    while lock is None:
        refuse_if_stopping()
        time.sleep(LOOK_S)
        lock = _take_free(locks)
    with lock:
        yield


def _take_free(locks: list[FileLock]) -> AbstractContextManager[object] | None:
    for lock in locks:
        with suppress(Timeout):
            return lock.acquire(blocking=False)
    return None

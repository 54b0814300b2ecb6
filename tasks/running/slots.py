"""Slots, which limit how many trainings use a machine at once."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
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
def slot(home: Path, threads: int | None, *, on_server: bool) -> Iterator[None]:
    """Holds this machine's GPU, or a share of its cores, so that two runs do not load their models onto it at once.

    With a configured Prefect server, a slot is part of a global concurrency limit (`prefect gcl ls` shows it, and it
    can be changed there). Without one it is a locked file, which is released however its process dies. The server that
    a command starts for itself ends with the command, so the next one would wait for the slot of a killed run.

    Args:
        home: the state folder.
        threads: a training's threads; None for all cores.
        on_server: whether a server is configured.

    Raises:
        UsageError: QCRD_MACHINE is not a valid name.
    """
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0") if _has_gpu() else None
    name, limit = slot_name(gpu), places(threads)
    if not on_server:
        files = [home / "slots" / f"{name}-{number}" for number in range(limit)]
        with one_locked(files, f"Waiting: another training holds {name}."):
            yield
        return
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # an existing limit stays as it is
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=limit))
    # A short lease, because a run killed with -9 cannot give its slot back, and the next one should not wait long. A
    # lease that cannot be renewed, because the server is being restarted, must not end a training.
    with concurrency(name, occupy=1, strict=True, lease_duration=LEASE_S, raise_on_lease_renewal_failure=False):
        yield


def places(threads: int | None) -> int:
    """How many slots this machine has for trainings of so many threads, None for all cores."""
    cores = len(os.sched_getaffinity(0))
    return 1 if _has_gpu() else max(1, cores // (threads or cores))


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


def _has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()

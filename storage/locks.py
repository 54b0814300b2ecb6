"""Lock files: held by one thread of one process at a time, and given back however that process ends.

    with file_lock(path):                          waits for the holder
    file_lock(path).acquire(blocking=False)        does not; raises filelock.Timeout
    is_held(path)                                  looks

The filelock package takes them with flock(2). The kernel releases a lock when its process is gone, kill -9 included.
Programs that the holder starts do not inherit it (close-on-exec), and filelock closes it in a fork. A waiting process
tries again every 50 ms, so Ctrl-C gets through. The file stays: it means nothing unless it is locked.

On NFS, Linux asks the server for the lock, which releases it when the client stops renewing it. On a file system
without locks, taking one fails. filelock's fallback, a file that is a lock by existing, is switched off: a killed
process would leave it behind.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


def file_lock(file: Path) -> FileLock:
    """A lock on a file; its folders are created when it is taken.

    A thread that already holds it and takes it through another `file_lock` gets a RuntimeError instead of waiting for
    itself.
    """
    return FileLock(file, fallback_to_soft=False)


@contextmanager
def gate(file: Path, *, shut: bool = False) -> Iterator[None]:
    """Passes a gate, with any number of others; or waits until nobody is in it, and keeps it shut during the block.

    A thread that is in it must not shut it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if shut else fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def is_held(file: Path) -> bool:
    """Whether somebody holds a lock; False if the file is missing.

    It needs only permission to read the file, and several processes may look at once; filelock has nothing like it.
    """
    try:
        handle = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False

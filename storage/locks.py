"""Lock files: held by one thread of one process at a time, and given back however that process ends.

    with file_lock(path):                          waits for the holder
    file_lock(path).acquire(blocking=False)        does not; raises filelock.Timeout
    is_held(path)                                  looks

The locks are flock(2)'s, taken by the filelock package. The kernel drops one when its process is gone, kill -9
included. Programs that the holder starts do not inherit it (close-on-exec), and filelock closes it in a fork. Who
waits looks every 50 ms, so Ctrl-C gets through. The file stays where it is: it means nothing unless it is locked.

On NFS, Linux asks the server for the lock, which gives it back when the client stops renewing it. On a file system
without locks taking one fails. What filelock would do there, a file that is the lock by being there, is switched off:
a killed process would leave it behind.
"""

import fcntl
import os
from pathlib import Path

from filelock import FileLock


def file_lock(file: Path) -> FileLock:
    """A lock to hold; folders above its file are made when it is taken.

    A thread that holds it already and takes it once more through another `file_lock` gets a RuntimeError, where it
    would otherwise wait for itself.
    """
    return FileLock(file, fallback_to_soft=False)


def is_held(file: Path) -> bool:
    """Whether somebody holds a lock; nobody does where the file is missing.

    Reading the file is enough for it, and others can look at the same time. For both, filelock has no function.
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

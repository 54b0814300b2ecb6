"""Servers that are started for a command end with it, even where it is killed with -9 and cannot end them.

`models/watchdog.py` does more, but it has to start what it watches. Prefect's temporary server is started by Prefect.
"""

import os
import subprocess

# Waits until one of two processes is gone, then ends the other's group or itself: $0 is this process, $1 the server, $2
# what is ended.
_WATCH = 'while kill -0 "$0" && kill -0 "$1"; do sleep 1; done; kill -- "$2"'


def end_with_this_process(server: int, *, group: bool) -> None:
    """Starts a shell beside the two that ends the server within a second of this process's end.

    Args:
        server: its pid.
        group: end its whole process group, which it leads.
    """
    subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, str(os.getpid()), str(server), f"-{server}" if group else str(server)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

"""A real Prefect server, for tests of what outlives a command's own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings


@contextmanager
def prefect_server(database: Path, folder: Path) -> Iterator[str]:
    """The address of a server's API; this process talks to it, too.

    Args:
        database: a migrated database that is copied.
        folder: for the server's state.
    """
    shutil.copyfile(database, folder / database.name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    env = os.environ | {
        "PREFECT_HOME": str(folder), "PREFECT_API_URL": api, "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_UI_API_URL": api, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log, ExitStack() as until_the_end:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
        until_the_end.callback(process.wait)
        until_the_end.callback(os.killpg, process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 180
        while not answers(f"{api}/health"):
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)
        until_the_end.enter_context(temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: folder}))
        # This process keeps one sender of events, to the first server that it talks to: the next one gets its own.
        until_the_end.callback(EventsWorker.drain_all, timeout=10)
        yield api


def answers(url: str) -> bool:
    """Whether somebody answers there."""
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False

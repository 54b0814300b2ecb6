"""A command's own Prefect server, where none is configured: on this machine, for as long as the command runs.

    check_server()                                   # asks the configured one, if any; then the next line gives None
    server = start_own_server(home.logs)             # starts while this process imports what a run needs
    ...
    if server:
        server.wait()

Without it Prefect would start one by itself. Ctrl-C ends that one before a run can report how it ended, it survives a
kill -9, and another process can take its port first. This one is started like all our servers (`models/watchdog.py`),
and inherits a socket that already listens.

    python -m flows.prefect.own_server 5             # what is started; 5 is the socket
"""

import atexit
import http.client
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from models.watchdog import Watched
from storage.errors import UsageError

API_VARIABLE = "PREFECT_API_URL"
LOOPBACK = "127.0.0.1"
START_S = 120.0
GRACE_S = 5.0


@dataclass(frozen=True)
class OwnServer:
    """A server that was started.

    Attributes:
        port: where it listens.
        log: the file with what it prints: errors.
    """

    port: int
    log: Path

    @property
    def api(self) -> str:
        """Its address, as in PREFECT_API_URL."""
        return f"http://{LOOPBACK}:{self.port}/api"

    def wait(self) -> None:
        """Waits until it answers. One request is enough, because the socket accepts it before the server is up.

        Raises:
            UsageError: it died, or takes too long.
        """
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=START_S)  # no proxy gets in between
        try:
            connection.request("GET", "/api/health")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise UsageError(f"Prefect's server did not start ({type(error).__name__}); its log: {self.log}.") from None
        finally:
            connection.close()
        if status != http.HTTPStatus.OK:
            raise UsageError(f"Prefect's server is not well (status {status}); its log: {self.log}.")


_own: OwnServer | None = None


def has_configured_server() -> bool:
    """Whether a Prefect server is configured: one that others use, too, and that outlives this process."""
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value()) and (_own is None or PREFECT_API_URL.value() != _own.api)


def start_own_server(logs: Path) -> OwnServer | None:
    """Starts a server for this process and makes Prefect use it; None if one is configured.

    It uses the state that `prepare_prefect` named, and ends with this process. Other processes do not learn of it.

    Args:
        logs: folder for its log; created if it is missing.
    """
    global _own
    if has_configured_server():
        return None
    logs.mkdir(parents=True, exist_ok=True)
    file = logs / "prefect-own-server.log"
    with socket.create_server((LOOPBACK, 0)) as listening, file.open("ab") as log:
        command = [sys.executable, "-m", __name__, str(listening.fileno())]
        watched = Watched(command, grace_s=GRACE_S, keep_fds=[listening.fileno()], stdout=log, stderr=log)
        _own = OwnServer(listening.getsockname()[1], file)
    # Not earlier: exit functions registered after this one run before it, and send the server the last events.
    atexit.register(watched.end)
    _tell_prefect(_own.api)
    return _own


def _tell_prefect(api: str) -> None:
    """Makes Prefect read its settings again, for all threads; the environment stays as it was."""
    from prefect.context import refresh_global_settings_context

    before = os.environ.get(API_VARIABLE)
    os.environ[API_VARIABLE] = api
    try:
        refresh_global_settings_context()
    finally:
        del os.environ[API_VARIABLE]
        if before is not None:  # an empty one
            os.environ[API_VARIABLE] = before


def serve(listening: int) -> None:
    """Serves Prefect's API, without its pages and its schedules, until the process is told to end.

    Args:
        listening: the file descriptor of a listening socket.
    """
    import uvicorn
    from prefect.server.api.server import create_app

    from flows.prefect.embedded import starting_alone

    class OneAfterTheOther(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            with starting_alone():
                await super().startup(sockets)

    with socket.socket(fileno=listening) as inherited:
        app = create_app(ephemeral=True, final=True)
        OneAfterTheOther(uvicorn.Config(app, log_level="error", lifespan="on")).run(sockets=[inherited])


if __name__ == "__main__":
    serve(int(sys.argv[1]))

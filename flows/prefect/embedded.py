"""Where Prefect keeps its state if no server is configured, and what people see of a run in the terminal.

`prepare_prefect` must run before Prefect is imported: Prefect reads its settings then.
"""

import logging
import os
import time
from pathlib import Path

from filelock import FileLock

from flows.terminal import duration, err, plain
from storage.addresses import refuse_password, without_password
from storage.errors import UsageError
from storage.locks import file_lock

API = "PREFECT_API_URL is its address with /api at the end, such as http://127.0.0.1:4200/api."
NO_PASSWORDS = {
    "PREFECT_API_URL": "set PREFECT_API_AUTH_STRING to USER:PASSWORD",
    "PREFECT_UI_URL": "set PREFECT_API_AUTH_STRING to USER:PASSWORD",
    "MLFLOW_TRACKING_URI": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
}


def prepare_prefect(home: Path) -> None:
    """Sets variables that are not set: state under the home folder, no telemetry, only our own lines on the terminal.

    Raises:
        UsageError: the address of a server carries a password.
    """
    for name, instead in NO_PASSWORDS.items():
        address = os.environ.get(name, "")
        if address.startswith(("http://", "https://")):  # MLflow's may be a database's, which may hold a password
            refuse_password(name, address, instead)
    settings = {
        "PREFECT_HOME": str(home.resolve() / "prefect"),
        # These two do not follow PREFECT_HOME.
        "PREFECT_LOCAL_STORAGE_PATH": str(home.resolve() / "prefect" / "storage"),
        "PREFECT_MEMO_STORE_PATH": str(home.resolve() / "prefect" / "memo_store.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # `show_own_lines` takes its place
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect creates only the last folder itself


def starting_alone() -> FileLock:
    """Keeps other Prefect servers of this state from starting during the block.

    Each begins by creating what a new database lacks, and of two that do so at once one finds a column twice and ends.
    `prepare_prefect` must have been called here, or in the process that started this one.
    """
    return file_lock(Path(os.environ["PREFECT_HOME"], ".starting.lock"))


class _Lines(logging.Handler):
    """Shows our own tasks' log lines with the time since the start; Prefect's own go only to its UI."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._started = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        if "/site-packages/prefect/" in record.pathname:
            return
        style = "yellow" if record.levelno == logging.WARNING else "red" if record.levelno > logging.WARNING else ""
        clock = duration(time.monotonic() - self._started)
        err.print(plain(f"{clock:>6}  "), plain(record.getMessage(), style), soft_wrap=True, sep="")


def check_server() -> None:
    """Sends the configured Prefect server, if there is one, a request that needs its credentials.

    Raises:
        UsageError: it does not answer, or refuses the credentials.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        return
    try:
        with get_client(sync_client=True) as client:
            client.read_flows(limit=1)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UsageError(
                f"Prefect's server at {without_password(url)} asks who this is ({status}): set PREFECT_API_AUTH_STRING "
                "to its USER:PASSWORD, or PREFECT_API_KEY to a key of Prefect Cloud."
            ) from None
        raise UsageError(f"Prefect's server at {without_password(url)} answers with status {status}. {API}") from None
    except ValueError:
        raise UsageError(f"What answers at {without_password(url)} is no Prefect server. {API}") from None
    except httpx.TransportError as error:
        raise UsageError(
            f"No Prefect server answers at {without_password(url)} ({type(error).__name__}). Start it, or correct "
            "PREFECT_API_URL; without that variable runs are kept under the state folder."
        ) from None


def show_own_lines() -> None:
    """Shows our own lines on the terminal, in place of Prefect's; to be called after Prefect is imported."""
    handler = _Lines()
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addHandler(handler)
    logging.getLogger("mlflow").setLevel(logging.WARNING)

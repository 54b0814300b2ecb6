"""Where MLflow keeps its records: the server of MLFLOW_TRACKING_URI, else a SQLite file under the state folder.

<home>/mlflow/mlflow.db     runs, metrics, the model registry
<home>/mlflow/artifacts     configurations, packaged students
<home>/mlflow/*.lock        held while something is made that may exist only once
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from models.folders import whole_file
from storage.addresses import refuse_password, without_password
from storage.locks import file_lock
from tasks.errors import TrackingFailed

URI_VARIABLE = "MLFLOW_TRACKING_URI"
INSTEAD = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
# Limits on waiting for an unreachable server when a run begins. MLflow's own (about 4 minutes) apply later.
PROBE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class Backend:
    """An MLflow tracking server or database, and its registry.

    Args:
        home: the state folder; created if it is missing.

    Attributes:
        uri: the MLFLOW_TRACKING_URI with which other programs see the same. A database's may hold a password, so
            `shown` is what is shown and stored.
        artifacts: where new experiments keep their files; None if a server decides that.
        client: MLflow's client for it.

    Raises:
        TrackingFailed: the server does not answer, or the database cannot be used.
        UsageError: a server's address carries a password.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home.resolve() / "mlflow"
        given = os.environ.get(URI_VARIABLE)
        self.uri = given or f"sqlite:///{self.folder / 'mlflow.db'}"
        # A server knows where its artifacts go. With only a database MLflow would write into the current folder.
        on_server = self.uri.startswith(("http://", "https://", "databricks", "uc:"))
        if on_server:
            refuse_password(URI_VARIABLE, self.uri, INSTEAD)
        self.shown = without_password(self.uri)
        self.artifacts = None if on_server else str(self.folder / "artifacts")
        with translated(self.uri):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not given:
                self._make_database()
            with _environment(PROBE if on_server else {}):
                self.client = MlflowClient(self.uri)
                self.client.search_experiments(max_results=1)

    @contextmanager
    def lock(self, name: str = "mlflow") -> Iterator[None]:
        """Held by one thread of one process at a time in this state folder; waits. Freed if the process dies."""
        with file_lock(self.folder / f"{name}.lock"):
            yield

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes MLflow's module-level functions use this backend, and turns MLflow's errors into ours.

        Even its client needs that: to create a model version it looks the model up at the URI that was set last (MLflow
        3.17, `SqlAlchemyStore.create_model_version`). `set_tracking_uri` also writes the URI into the environment, so
        that is put back as the user made it.
        """
        before = os.environ.get(URI_VARIABLE)
        with translated(self.uri):
            mlflow.set_tracking_uri(self.uri)
            if before is None:
                os.environ.pop(URI_VARIABLE, None)
            else:
                os.environ[URI_VARIABLE] = before
            yield

    def experiment(self, name: str) -> str:
        """The id of the experiment of that name, created if there is none.

        Raises:
            TrackingFailed: somebody deleted it.
        """
        with translated(self.uri), self.lock():
            found = self.client.get_experiment_by_name(name)
            if found is None:
                return str(self.client.create_experiment(name, artifact_location=self.artifacts))
            if found.lifecycle_stage != "active":
                raise TrackingFailed(
                    f"MLflow's experiment {name!r} was deleted, and a deleted one takes no runs. Restore it: "
                    f"MLFLOW_TRACKING_URI={self.shown} mlflow experiments restore -x {found.experiment_id}"
                )
            return str(found.experiment_id)

    def _make_database(self) -> None:
        """Creates the database if there is none: whole, or not at all if the process dies.

        MLflow creates a database in some hundred steps (2 s). Two processes that do so at once break each other's, and
        a half-made one is never repaired. So it is made under another name and then moved into place.
        """
        if re.search(r"[%?#]", str(self.folder)):
            raise TrackingFailed(
                f"MLflow cannot keep a database in {self.folder}: the path holds one of % ? #. Choose another --home, "
                f"or set {URI_VARIABLE}."
            )
        database = self.folder / "mlflow.db"
        with self.lock():
            if database.exists():
                return
            for leftover in self.folder.glob(".mlflow.db.partial-*"):  # a killed process's, and its journal
                leftover.unlink()
            with whole_file(database) as partial:
                MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turns MLflow's and the disk's errors into one line each.

    Raises:
        TrackingFailed: in their place.
    """
    try:
        yield
    except MlflowException as error:
        if "API request to" in str(error) and "failed with exception" in str(error):
            raise TrackingFailed(
                f"No MLflow server answers at {without_password(where)}. Start it, or correct {URI_VARIABLE}; without "
                "that variable runs are kept under the state folder."
            ) from error
        if refused := re.search(r"failed with error code (401|403)\b", str(error)):
            raise TrackingFailed(
                f"MLflow's server at {without_password(where)} does not let us in ({refused[1]}): set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) to what it accepts."
            ) from error
        raise TrackingFailed(f"MLflow at {without_password(where)}: {_one_line(error)}") from error
    except OSError as error:
        raise TrackingFailed(
            f"MLflow at {without_password(where)}: {error.strerror or error}"
            + (f" ({error.filename})" if error.filename else "")
            + "; nothing tracked before was lost."
        ) from error


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets variables that the user has not set, during the block."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _one_line(error: BaseException) -> str:
    # Not `storage.errors.one_line`: it shortens, and a password is not recognised in half a URL.
    text = without_password(" ".join(str(error).split()))
    return text if len(text) <= 300 else text[:299] + "…"

"""A distillation as a row of the store's `runs` table: its configuration, versions, lineage and state.

A run that ended early (killed, failed, stopped) goes on as the same run, with the configuration it began with: by
`qcrd resume RUN`, or by Prefect's own retry of the flow run. While it runs it holds `<home>/runs/<run_id>.lock`, which
is released however its process dies. So a row that says "running" although the lock is free belongs to a killed run.
"""

import json
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
from filelock import Timeout
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Crashed

from flows.config.distill import DistillConfig, checked
from flows.home import Home
from flows.results import DistillResult
from models.errors import RunStopped
from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo, UnknownName, UsageError
from storage.ids import content_id
from storage.locks import file_lock, is_held
from storage.schemas import RUNS
from storage.store import Store, now
from tasks.running.worker import end_after, stop_workers
from tasks.running.workspace import Workspace
from tasks.tracking.start_from import choose_start
from tasks.watching.figures import store_figures

LOOK_S = 0.2  # whoever checks whether the run is alive holds its lock for a moment
SERVED_BY = "QCRD_SERVED_BY"  # in a served run's environment: pid of the process that serves it
VERSIONS = ("qcrd", "torch", "transformers", "prefect", "mlflow", "duckdb", "pyarrow")


@dataclass(frozen=True)
class Run:
    """A run as it is stored.

    Attributes:
        run_id: its id in the `runs` table.
        dataset: its stored name.
        state: running, finished, failed, stopped, or killed (it says "running", but nobody holds its lock).
        since: when it entered that state, UTC; for a killed run, when it began.
        config: its configuration, as stored.
        prefect_run_id: id of the flow run that ran it last.
        mlflow_run_id: id of its training's run in MLflow; None before it is finished.
    """

    run_id: str
    dataset: str
    state: str
    since: datetime
    config: dict[str, Any]
    prefect_run_id: str
    mlflow_run_id: str | None


def stored_runs(home: Home) -> list[Run]:
    """All runs of the store, the newest first."""
    rows = home.open_store().query(
        "SELECT run_id, dataset, state, created_at, config, prefect_run_id, mlflow_run_id FROM runs "
        "ORDER BY created_at DESC, run_id"
    )
    return [
        Run(
            row["run_id"], row["dataset"], _state(home.path, row), row["created_at"], json.loads(row["config"]),
            row["prefect_run_id"], row["mlflow_run_id"],
        )
        for row in rows.to_pylist()
    ]  # fmt: skip


def find_run(home: Home, name: str | None) -> Run:
    """A run by the beginning of its id or of its Prefect id.

    Args:
        home: the state folder.
        name: None takes the newest that is not finished.

    Raises:
        UnknownName: there is no such run, or more than one.
        NothingToDo: no run is unfinished.
    """
    runs = stored_runs(home)
    if name is None:
        unfinished = [run for run in runs if run.state not in ("finished", "running")]
        if not unfinished:
            raise NothingToDo("No run has ended early: there is nothing to resume. `qcrd show runs` lists all runs.")
        return unfinished[0]
    found = [run for run in runs if name and (run.run_id.startswith(name) or run.prefect_run_id.startswith(name))]
    if len(found) != 1:
        raise UnknownName("run", name, [run.run_id for run in found or runs], "`qcrd show runs` lists them.")
    return found[0]


def refuse_to_resume(run: Run) -> None:
    """Raises if a run cannot go on.

    Raises:
        NothingToDo: it is finished.
        UsageError: it is running.
    """
    if run.state == "finished":
        raise NothingToDo(f"Run {run.run_id} is finished; there is nothing to resume.")
    if run.state == "running":
        raise UsageError(f"Run {run.run_id} is running; stop it first, or let it come to its end.")


@contextmanager
def recorded_run(
    home: Path, config: DistillConfig, resume: str | None
) -> Iterator[tuple[Workspace, DistillConfig, list[DistillResult]]]:
    """Begins a run, or goes on with one, and stores its row: running, then finished or failed.

    Args:
        home: the state folder.
        config: configuration of a new run.
        resume: id of a run to go on with; it keeps its own configuration.

    Yields:
        The run's workspace, its configuration, and a list that takes its result.

    Raises:
        UsageError: the run cannot go on.
    """
    _end_with_who_serves()
    at, this = Home(home), str(flow_run.id)
    # A retry by Prefect has the id of the flow run.
    earlier = find_run(at, resume) if resume else next((r for r in stored_runs(at) if r.prefect_run_id == this), None)
    if earlier:
        refuse_to_resume(earlier)
        config = checked(earlier.config, f"run {earlier.run_id}: ")
        if earlier.prefect_run_id != this:
            _tell_crashed(earlier.prefect_run_id)
    run_id = earlier.run_id if earlier else content_id("run", this, now().isoformat())
    workspace = Workspace(home=home, store=at.store_root, run_id=run_id)
    with _held(home, run_id):
        # A version's number takes the place of "champion" in the configuration, so that the run can go on later with
        # the student that it began with, whatever the registry says by then.
        student, registry = choose_start(home, config.dataset, config.student, config.registry)
        config = config.model_copy(update={"student": student, "registry": registry})
        results: list[DistillResult] = []
        _store(workspace, config, "running", None)
        try:
            yield workspace, config, results
        except Exception:
            _store(workspace, config, "failed", None)
            get_run_logger().warning("What was finished is stored; once it can go on: qcrd resume %s", run_id)
            raise
        except BaseException:  # Ctrl-C, or Prefect's cancellation
            stop_workers()
            _store(workspace, config, "stopped", None)
            raise
        if results:
            store_figures(workspace.open_store(), run_id, get_dataset(config.dataset.name).name, results[-1].figures())
        _store(workspace, config, "finished", results[-1].methods[0].mlflow_run if results else None)


def _end_with_who_serves() -> None:
    """Ends a served run when `qcrd serve` ends, kill -9 included: the servers it reports to may be gone, too.

    Raises:
        RunStopped: `qcrd serve` is gone already.
    """
    serving = os.environ.get(SERVED_BY)
    if serving is not None:
        try:
            process = os.pidfd_open(int(serving))
        except ProcessLookupError:
            raise RunStopped("The `qcrd serve` that started this run is gone.") from None
        gone = select.poll()
        gone.register(process, select.POLLIN)  # readable once the process is dead, even as a zombie
        end_after(gone.poll)


def _store(workspace: Workspace, config: DistillConfig, state: str, mlflow_run: str | None) -> None:
    row = {
        "run_id": workspace.run_id,
        "dataset": get_dataset(config.dataset.name).name,
        "state": state,
        "config": config.model_dump_json(),
        "versions": json.dumps({name: version(name) for name in VERSIONS}),
        "prefect_run_id": str(flow_run.id),
        "mlflow_run_id": mlflow_run,
        "created_at": now(),
    }
    store: Store = workspace.open_store()
    with store.lock("runs"):
        store.upsert(RUNS, pa.Table.from_pylist([row], RUNS.schema))


def lock_path(home: Path, run_id: str) -> Path:
    """The file that a run's process locks."""
    return home / "runs" / f"{run_id}.lock"


@contextmanager
def _held(home: Path, run_id: str) -> Iterator[None]:
    try:
        lock = file_lock(lock_path(home, run_id)).acquire(timeout=LOOK_S)
    except Timeout:
        raise UsageError(f"Run {run_id} is running; stop it first, or let it come to its end.") from None
    with lock:
        yield


def _state(home: Path, row: dict[str, Any]) -> str:
    state: str = row["state"]
    file = lock_path(home, row["run_id"])
    if state != "running" or not file.exists() or is_held(file):  # no file: a run on another machine
        return state
    return "killed"


def _tell_crashed(prefect_run_id: str) -> None:
    """Marks a killed flow run as crashed: Prefect never learns of the kill, and would show it as running for ever."""
    with get_client(sync_client=True) as client:
        try:
            known = client.read_flow_run(UUID(prefect_run_id))
        except ObjectNotFound:  # another server's
            return
        if known.state is None or not known.state.is_final():
            client.set_flow_run_state(
                known.id, Crashed(message="It was killed; another run went on with it."), force=True
            )

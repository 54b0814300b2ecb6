"""A distillation as a row of the store's `runs` table: its configuration, versions, lineage and state."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
from prefect.runtime import flow_run

from flows.config import DistillConfig
from flows.home import Home
from flows.outcome import DistillResult
from storage.datasets.registry import get_dataset
from storage.ids import content_id
from storage.schemas import RUNS
from storage.store import now
from tasks.steps import Place
from tasks.worker import stop_workers

VERSIONS = ("qcrd", "torch", "transformers", "prefect", "mlflow", "duckdb", "pyarrow")


def begin_run(home: Path) -> Place:
    """A new run."""
    place = Home(home)
    return Place(home=home, store=place.store_root, run_id=content_id("run", str(flow_run.id), now().isoformat()))


@contextmanager
def recorded_run(place: Place, config: DistillConfig) -> Iterator[list[DistillResult]]:
    """Stores the run's row: running, then finished or failed. The block puts its result into the list."""
    results: list[DistillResult] = []
    _store(place, config, "running", None)
    try:
        yield results
    except Exception:
        _store(place, config, "failed", None)
        raise
    except BaseException:  # Ctrl-C, or Prefect's cancellation
        stop_workers()
        _store(place, config, "stopped", None)
        raise
    _store(place, config, "finished", results[-1].methods[0].mlflow_run if results else None)


def _store(place: Place, config: DistillConfig, state: str, mlflow_run: str | None) -> None:
    row = {
        "run_id": place.run_id,
        "dataset": get_dataset(config.dataset.name).name,
        "state": state,
        "config": config.model_dump_json(),
        "versions": json.dumps({name: version(name) for name in VERSIONS}),
        "prefect_run_id": str(flow_run.id),
        "mlflow_run_id": mlflow_run,
        "created_at": now(),
    }
    store = place.open_store()
    with store.lock("runs"):
        store.upsert(RUNS, pa.Table.from_pylist([row], RUNS.schema))

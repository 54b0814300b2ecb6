"""The exporter: what is in its text, how often it reads, and what a broken source does to the others."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from storage.schemas import FIGURES, RUNS
from storage.store import Store
from tasks.running.progress_file import LiveStep, live_runs, tell
from tasks.tracking.backend import Backend
from tasks.watching.prometheus import HomeCollector

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def add_run(store: Store, run_id: str, state: str, when: datetime, dataset: str = "sums") -> None:
    row = dict.fromkeys(RUNS.schema.names) | {
        "run_id": run_id, "dataset": dataset, "state": state, "created_at": when,
    }  # fmt: skip
    store.upsert(RUNS, pa.Table.from_pylist([row], RUNS.schema))


def add_figure(store: Store, run_id: str, name: str, value: float | None, when: datetime) -> None:
    row = {"run_id": run_id, "name": name, "dataset": "sums", "value": value, "detail": None, "created_at": when}
    store.upsert(FIGURES, pa.Table.from_pylist([row], FIGURES.schema))


def read(collector: HomeCollector) -> dict[str, dict[tuple[str, ...], float]]:
    """Metric -> label values, in the order of the labels' names -> value, by Prometheus' own parser."""
    registry = CollectorRegistry()
    registry.register(collector)
    families: Iterable[Metric] = text_string_to_metric_families(generate_latest(registry).decode())
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in families:
        assert family.documentation.endswith("."), family.name
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def test_an_empty_folder_has_no_figures_and_stays_empty(tmp_path: Path) -> None:
    found = read(HomeCollector(tmp_path / "home", str(tmp_path / "home" / "store")))
    assert found["qcrd_source_up"] == {("store",): 1.0, ("trainings",): 1.0, ("registry",): 1.0}
    assert "qcrd_runs" not in found
    assert not (tmp_path / "home").exists()


def test_runs_and_the_newest_of_each_figure(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    add_run(store, "one", "failed", NOON)
    add_run(store, "two", "finished", NOON + timedelta(hours=1))
    add_run(store, "other", "running", NOON, dataset='we"ird\\ name')
    add_figure(store, "one", "agreement", 0.25, NOON)
    add_figure(store, "two", "agreement", 0.75, NOON + timedelta(hours=1))
    add_figure(store, "two", "entropy", None, NOON)
    found = read(HomeCollector(tmp_path, str(tmp_path / "store")))
    assert found["qcrd_last_run_state"]["sums", "finished"] == 1
    assert found["qcrd_last_run_state"]["sums", "failed"] == 0
    assert found["qcrd_last_run_state"]['we"ird\\ name', "running"] == 1
    assert found["qcrd_last_run_timestamp_seconds"]["sums",] == (NOON + timedelta(hours=1)).timestamp()
    assert found["qcrd_runs"]["sums", "failed"] == 1
    assert found["qcrd_figure"] == {("sums", "agreement"): 0.75}


def test_what_is_far_away_is_read_again_only_after_some_seconds(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    add_run(store, "one", "running", NOON)
    patient, impatient = (HomeCollector(tmp_path, str(tmp_path / "store"), kept_s=kept) for kept in (3600, 0))
    for collector in (patient, impatient):
        assert read(collector)["qcrd_last_run_state"]["sums", "running"] == 1
    add_run(store, "one", "finished", NOON + timedelta(hours=1))
    assert read(patient)["qcrd_last_run_state"]["sums", "running"] == 1
    assert read(impatient)["qcrd_last_run_state"]["sums", "running"] == 0


def test_running_steps_and_not_those_of_runs_that_are_over(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    add_run(store, "mine", "running", NOON)
    add_run(store, "done", "finished", NOON)
    step = LiveStep(done=30, wanted=120, tokens_per_second=99.5, cost=0.25, seconds_left=12.0)
    for run_id in ("mine", "done"):
        tell(tmp_path, run_id, "sampling the teacher", step)
    # A run whose process was killed: it says so nowhere, but the process is not there.
    code = (
        "from pathlib import Path; from tasks.running.progress_file import *; "
        f"tell(Path({str(tmp_path)!r}), 'dead', 'training', LiveStep(done=1, wanted=2)); import os; os.abort()"
    )
    subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=False
    )
    (tmp_path / "runs" / "strange.json").write_text('{"no": "run"}')
    assert json.loads((tmp_path / "runs" / "dead.json").read_text())["steps"]["training"]["wanted"] == 2

    collector = HomeCollector(tmp_path, str(tmp_path / "store"), kept_s=3600)
    where = ("sums", "mine", "sampling the teacher")
    found = read(collector)
    assert found["qcrd_step_done"] == {where: 30}
    assert found["qcrd_step_wanted"] == {where: 120}
    assert found["qcrd_step_tokens_per_second"] == {where: 99.5}
    assert found["qcrd_step_cost"] == {where: 0.25}
    assert found["qcrd_step_remaining_seconds"] == {where: 12.0}
    tell(tmp_path, "mine", "sampling the teacher", step.model_copy(update={"done": 60}))
    assert read(collector)["qcrd_step_done"] == {where: 60}, "how far it is, is never kept"
    tell(tmp_path, "mine", "sampling the teacher", None)
    assert "qcrd_step_done" not in read(collector)
    assert (tmp_path / "runs" / "mine.json").is_file()
    assert [run.run_id for run in live_runs(tmp_path)] == ["done"]


def test_a_source_that_cannot_be_read_harms_no_other_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_run(Store(tmp_path / "store"), "one", "finished", NOON)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    said: list[str] = []
    collector = HomeCollector(tmp_path, str(tmp_path / "store"), said.append, kept_s=0)
    for errors in (1, 2):
        found = read(collector)
        assert found["qcrd_source_up"] == {("store",): 1.0, ("trainings",): 1.0, ("registry",): 0.0}
        assert found["qcrd_read_errors_total"]["registry",] == errors
        assert found["qcrd_last_run_state"]["sums", "finished"] == 1
    assert said == [
        "The registry cannot be read: No MLflow server answers at http://127.0.0.1:9. Start it, or correct "
        "MLFLOW_TRACKING_URI; without that variable runs are kept under the state folder."
    ]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert read(collector)["qcrd_source_up"]["registry",] == 1


def test_a_champion_with_its_version(tmp_path: Path) -> None:
    client = Backend(tmp_path).client
    client.create_registered_model("qcrd-sums")
    for _ in range(2):
        client.create_model_version("qcrd-sums", "somewhere")
    collector = HomeCollector(tmp_path, str(tmp_path / "store"), kept_s=0)
    found = read(collector)
    assert found["qcrd_model_versions"] == {("qcrd-sums",): 2}
    assert "qcrd_champion_version" not in found
    client.set_registered_model_alias("qcrd-sums", "champion", "2")
    found = read(collector)
    assert found["qcrd_champion_version"] == {("qcrd-sums",): 2}
    assert "qcrd_champion_test_accuracy_ratio" not in found, "nobody knows it"

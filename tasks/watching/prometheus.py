"""The state of a home folder as Prometheus metrics: its store, its trainings, the model registry, what is running.

    registry = CollectorRegistry()
    registry.register(HomeCollector(home, store_root))
    print(generate_latest(registry).decode())

The store may lie on S3 and MLflow on a server, so what is read there is kept for some seconds, however often somebody
scrapes. The progress of running steps is read each time, from files of this machine (`tasks.running.progress_file`). If
a source cannot be read, only its metrics are missing, and it is reported (`qcrd_source_up`, and a line for people).
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from storage.errors import StorageError
from storage.schemas import FIGURES, RUNS
from storage.store import Store
from tasks.errors import ServiceFailed
from tasks.running.progress_file import live_runs
from tasks.tracking.backend import URI_VARIABLE
from tasks.tracking.registry import registered_models
from tasks.tracking.settings import CHAMPION
from tasks.tracking.versions import versions_of
from tasks.training.folder import Training, trainings_in

KEPT_S = 15.0
STATES = ("running", "finished", "failed", "stopped")
SOURCES = ("store", "trainings", "registry")


class HomeCollector(Collector):
    """Reads a state folder whenever Prometheus asks.

    Args:
        home: the state folder; nothing is written into it.
        store_root: of the store.
        complain: called with a line if something cannot be read; not again with the same line until it can be read.
        kept_s: seconds for which the store, the trainings and the registry are not read again.
    """

    def __init__(
        self, home: Path, store_root: str, complain: Callable[[str], None] = print, kept_s: float = KEPT_S
    ) -> None:
        self.home, self.store_root, self.complain, self.kept_s = home, store_root, complain, kept_s
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._kept: dict[str, list[Metric]] = {}
        self._runs: dict[str, dict[str, Any]] = {}  # rows of the store's table, by run id
        self._errors = dict.fromkeys(SOURCES, 0)
        self._said: dict[str, str] = {}

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read anything."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        with self._lock:
            if self._read_at is None or time.monotonic() - self._read_at >= self.kept_s:
                self._read()
                self._read_at = time.monotonic()
            for source in SOURCES:
                yield from self._kept.get(source, [])
            yield from self._steps()
            up = _gauge("qcrd_source_up", "Whether this could be read: 1 or 0.", "source")
            errors = CounterMetricFamily("qcrd_read_errors", "Readings of a source that failed.", labels=["source"])
            for source in SOURCES:
                up.add_metric([source], float(source in self._kept))
                errors.add_metric([source], self._errors[source])
            yield from (up, errors)

    def _read(self) -> None:
        readers = {"store": self._store, "trainings": self._trainings, "registry": self._registry}
        for source, reader in readers.items():
            try:
                self._kept[source] = reader()
                self._said.pop(source, None)
            except (StorageError, ServiceFailed, OSError) as error:
                self._kept.pop(source, None)
                self._errors[source] += 1
                line = f"The {source} cannot be read: {' '.join(str(error).split())}"
                if self._said.get(source) != line:
                    self.complain(line)
                self._said[source] = line

    def _store(self) -> list[Metric]:
        """Runs and figures."""
        store = Store(self.store_root)
        with store.connect() as con:
            runs = store.execute(
                con, f"SELECT run_id, dataset, state, created_at FROM {store.relation(RUNS)} ORDER BY created_at"
            ).to_pylist()
            figures = store.execute(
                con,
                f"SELECT dataset, name, value, created_at FROM {store.relation(FIGURES)} WHERE value IS NOT NULL "
                "QUALIFY row_number() OVER (PARTITION BY dataset, name ORDER BY created_at DESC, run_id) = 1 "
                "ORDER BY dataset, name",
            ).to_pylist()
        self._runs = {row["run_id"]: row for row in runs}
        last = {row["dataset"]: row for row in runs}  # each dataset's newest row comes last
        state = _gauge("qcrd_last_run_state", "State of a dataset's newest run: 1 for its state.", "dataset", "state")
        when = _gauge(
            "qcrd_last_run_timestamp_seconds", "When a dataset's newest run came into its state, since 1970.", "dataset"
        )
        count = _gauge("qcrd_runs", "Runs in the store.", "dataset", "state")
        for dataset, row in last.items():
            when.add_metric([dataset], row["created_at"].timestamp())
            for name in STATES:
                state.add_metric([dataset, name], float(row["state"] == name))
                number = sum(one["dataset"] == dataset and one["state"] == name for one in runs)
                count.add_metric([dataset, name], number)
        value = _gauge("qcrd_figure", "Newest value of a figure that runs note.", "dataset", "name")
        noted = _gauge("qcrd_figure_timestamp_seconds", "When it was noted, since 1970.", "dataset", "name")
        for row in figures:
            value.add_metric([row["dataset"], row["name"]], row["value"])
            noted.add_metric([row["dataset"], row["name"]], row["created_at"].timestamp())
        return [state, when, count, value, noted]

    def _trainings(self) -> list[Metric]:
        """The rounds of the newest training of each dataset and method."""
        newest: dict[tuple[str, str], Training] = {}
        for training in trainings_in(self.home):
            newest[training.spec.train.dataset, training.spec.config.method.name] = training
        labels = ("dataset", "method", "round")
        accuracy = _gauge(
            "qcrd_round_validation_accuracy_ratio", "Right answers of a round of the newest training, 0 to 1.", *labels
        )
        explained = _gauge(
            "qcrd_round_explanation_accuracy_ratio", "Explanations that lead to the right answer, 0 to 1.", *labels
        )
        wanted = _gauge("qcrd_rounds_wanted", "Rounds that a training has at most.", "dataset", "method")
        for (dataset, method), training in sorted(newest.items()):
            wanted.add_metric([dataset, method], training.spec.config.rounds.rounds)
            for result in training.evaluations():
                accuracy.add_metric([dataset, method, str(result.t)], result.accuracy)
                if result.explanation_accuracy is not None:
                    explained.add_metric([dataset, method, str(result.t)], result.explanation_accuracy)
        return [accuracy, explained, wanted]

    def _registry(self) -> list[Metric]:
        """Registered models and their champions."""
        version = _gauge("qcrd_champion_version", "Number of the champion's version.", "model")
        accuracy = _gauge("qcrd_champion_test_accuracy_ratio", "Its right answers on test questions, 0 to 1.", "model")
        count = _gauge("qcrd_model_versions", "Versions of a registered model.", "model")
        # MLflow's client creates a database if there is none.
        if os.environ.get(URI_VARIABLE) or (self.home / "mlflow" / "mlflow.db").exists():
            for model in registered_models(self.home):
                versions = versions_of(self.home, model)
                count.add_metric([model], len(versions))
                for one in versions:
                    if CHAMPION in one.aliases:
                        version.add_metric([model], float(one.version))
                        if one.accuracy is not None:
                            accuracy.add_metric([model], one.accuracy)
        return [version, accuracy, count]

    def _steps(self) -> list[Metric]:
        """The steps under way on this machine, except those of runs that are over."""
        labels = ("run", "dataset", "step")
        done = _gauge("qcrd_step_done", "Samples, questions or optimizer steps that are done.", *labels)
        wanted = _gauge("qcrd_step_wanted", "How many of them there are.", *labels)
        speed = _gauge("qcrd_step_tokens_per_second", "Tokens that the teacher writes.", *labels)
        cost = _gauge("qcrd_step_cost", "Cost so far, in the price's currency.", *labels)
        left = _gauge("qcrd_step_remaining_seconds", "Time until the step is done, at its pace so far.", *labels)
        told = _gauge("qcrd_step_timestamp_seconds", "When the step was heard of last, since 1970.", *labels)
        for run in live_runs(self.home):
            row = self._runs.get(run.run_id, {})
            if row.get("state", "running") != "running":
                continue
            for name, step in run.steps.items():
                where = [run.run_id, row.get("dataset", ""), name]
                for family, figure in (
                    (done, step.done), (wanted, step.wanted), (speed, step.tokens_per_second), (cost, step.cost),
                    (left, step.seconds_left), (told, step.updated_at),
                ):  # fmt: skip
                    if figure is not None:
                        family.add_metric(where, float(figure))
        return [done, wanted, speed, cost, left, told]


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)

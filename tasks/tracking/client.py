"""What a distillation tells MLflow: one parent run for the training, one nested run and one logged model per round.

    tracking = open_tracking(home)
    training = tracking.training(about, config=config, inputs=sets)
    with tracking.system_metrics(training):
        for t in range(rounds):
            tracking.losses(tracking.round(training, t), rows)           # any number of times
            logged = tracking.finish_round(training, t, validation, checkpoint)
    tracking.finish(training, test_metrics, best_round=t)

Every call may be repeated: runs and models are found by their tags, and what MLflow already has is not sent again. So a
training that was killed goes on in the same runs.

A round's model is an *external* one: an entry with metrics, parameters and the checkpoint's path, but no files.
Otherwise twenty rounds of a T5-base would be 20 GB of copied checkpoints, most of which are soon deleted. Only the
round that is registered is packaged, into the same entry (`tasks.tracking.registry`).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any, Literal

import yaml
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from tasks.tracking.backend import Backend, translated

TRAINING_ID, ROUND, MODEL_ID, CHECKPOINT = "qcrd.training_id", "qcrd.round", "qcrd.model_id", "qcrd.checkpoint"
PARENT, EXTERNAL = "mlflow.parentRunId", "mlflow.model.isExternal"
CONFIG_FILE = "config.yaml"
MOST_METRICS, MOST_PARAMS, LONGEST_PARAM = 1000, 100, 6000  # MLflow's limits per request, and per value
NOT_LOSSES = ("system/", "validation/", "test/")
SAMPLE_EVERY_S, SAMPLES_A_POINT = 10, 3
"""System metrics: read every 10 s, a point every 30 s. A ten-hour run has 1,200 points on each of some 12 curves."""

_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]", re.ASCII)

Outcome = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class AboutTraining:
    """The tags of a training's parent run.

    Attributes:
        training_id: content id of the training; its run is found by it.
        dataset: stored name; the experiment is "qcrd/<dataset>".
        method: qcrd, dss ...
        vote_id: the votes it learns from.
        run_id: the run's id in the store's `runs` table.
        others: further tags: Prefect's flow run id and address, the store's root, versions.
    """

    training_id: str
    dataset: str
    method: str
    vote_id: str
    run_id: str
    others: Mapping[str, str] = field(default_factory=dict)

    def tags(self) -> dict[str, str]:
        """All tags for MLflow; names in `others` without a dot get the prefix "qcrd."."""
        return {f"qcrd.{name}" if "." not in name else name: str(value) for name, value in self.others.items()} | {
            TRAINING_ID: self.training_id,
            "qcrd.dataset": self.dataset,
            "qcrd.method": self.method,
            "qcrd.vote_id": self.vote_id,
            "qcrd.run_id": self.run_id,
        }


@dataclass(frozen=True)
class QuestionsUsed:
    """A set of questions that a training reads; MLflow gets its name, digest and place, not the questions.

    Attributes:
        name: such as "lab/train".
        digest: content id of the questions, at most 36 characters.
        source: the store's root, a path or URL.
        context: "training", "validation" or "test".
        rows: how many questions.
    """

    name: str
    digest: str
    source: str
    context: str
    rows: int


@dataclass(frozen=True)
class LoggedRound:
    """A round in MLflow: its run and its model."""

    training: str
    round: int
    run_id: str
    model_id: str


class Tracking:
    """Reports trainings to an MLflow server or database. Run ids are MLflow's.

    Raises:
        TrackingFailed: from every method, if MLflow cannot be reached or refuses something.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.client = backend.client
        self._last_steps: dict[str, int] = {}  # run -> the last step that `losses` logged

    def training(self, about: AboutTraining, config: Mapping[str, Any], inputs: Sequence[QuestionsUsed] = ()) -> str:
        """The parent run of a training: created, or found and set running.

        Args:
            about: its tags.
            config: the whole configuration, nested; becomes parameters ("optimisation.learning_rate") and config.yaml.
            inputs: the questions that it trains, validates and is tested on.
        """
        experiment = self.backend.experiment(f"qcrd/{about.dataset}")
        name = f"{about.dataset} {about.method} {about.training_id}"
        with translated(self.backend.uri):
            run = self.found_or_made(experiment, {TRAINING_ID: about.training_id}, about.tags(), name)
            run_id = run.info.run_id
            self.log_config(run, config)
            if inputs:
                self.client.log_inputs(run_id, [_as_input(used) for used in inputs])  # equal ones are logged once
        return str(run_id)

    def round(self, training: str, t: int) -> str:
        """The run of round t, nested in its training's: created, or found and set running."""
        with translated(self.backend.uri):
            parent = self.client.get_run(training)
            tags = {key: value for key, value in parent.data.tags.items() if key.startswith("qcrd.")}
            own = {PARENT: training, ROUND: str(t)}
            run = self.found_or_made(parent.info.experiment_id, own, tags | own, f"round {t}")
        return str(run.info.run_id)

    def losses(self, run_id: str, rows: Sequence[Mapping[str, float]]) -> int:
        """Logs figures of optimizer steps, except those up to the last one that MLflow has.

        Args:
            run_id: of `round`.
            rows: one a step, in order: "step", figures ("loss", "l_pos" ...), and if known "time" (seconds since 1970).

        Returns:
            How many steps were new.
        """
        with translated(self.backend.uri):
            last = self._last_steps.get(run_id)
            if last is None:
                last = self._last_step(run_id)
            new = [row for row in rows if row["step"] > last]
            batch: list[Metric] = []
            for row in new:  # a step's figures are sent together, so that MLflow has all of them or none
                figures = _metrics(row, int(row["step"]), row.get("time"), leave_out=("step", "time"))
                if len(batch) + len(figures) > MOST_METRICS:
                    self.client.log_batch(run_id, metrics=batch)
                    batch = []
                batch += figures
            if batch:
                self.client.log_batch(run_id, metrics=batch)
            self._last_steps[run_id] = max([last, *(int(row["step"]) for row in new)])
        return len(new)

    def finish_round(
        self,
        training: str,
        t: int,
        validation: Mapping[str, float],
        checkpoint: Path | None = None,
        questions: QuestionsUsed | None = None,
    ) -> LoggedRound:
        """Logs the outcome of round t and ends its run.

        Args:
            training: the parent run.
            t: the round.
            validation: figures such as "accuracy"; logged as "validation/accuracy" with the model, and with the parent
                run at step t, where the rounds make one curve.
            checkpoint: the student's folder; its path is logged, its files are not copied.
            questions: the validation questions.
        """
        run_id = self.round(training, t)
        with translated(self.backend.uri):
            model_id = self._model_of(run_id, t, checkpoint)
            if questions:
                self.client.log_inputs(run_id, [_as_input(questions)])
            figures = {f"validation/{key}": value for key, value in validation.items()}
            self.log_once(run_id, figures, t, model_id, questions)
            self.log_once(training, figures, t)
            self.client.set_terminated(run_id, "FINISHED")
        return LoggedRound(training, t, run_id, model_id)

    def logged_round(self, training: str, t: int) -> LoggedRound | None:
        """A finished round in MLflow; None if MLflow does not have it."""
        with translated(self.backend.uri):
            parent = self.client.get_run(training)
            run = self._found(parent.info.experiment_id, {PARENT: training, ROUND: str(t)})
            model = self._known_model(run) if run else None
        return LoggedRound(training, t, run.info.run_id, model.model_id) if run and model else None

    def finish(
        self,
        training: str,
        test: Mapping[str, float] | None = None,
        best: LoggedRound | None = None,
        outcome: Outcome = "FINISHED",
        questions: QuestionsUsed | None = None,
    ) -> None:
        """Ends a training's run.

        Args:
            training: the parent run.
            test: the final figures, of the best round's student; logged as "test/accuracy" ... with its model.
            best: the round that is the result.
            outcome: FAILED or KILLED for one that did not finish; `training` sets it running again.
            questions: the test questions.
        """
        with translated(self.backend.uri):
            if best:
                self._tag(training, {"qcrd.best_round": str(best.round), MODEL_ID: best.model_id})
            if questions:
                self.client.log_inputs(training, [_as_input(questions)])
            if test:
                figures = {f"test/{key}": value for key, value in test.items()}
                step = best.round if best else 0
                self.log_once(training, figures, step, best.model_id if best else None, questions)
            self.client.set_terminated(training, outcome)

    @contextmanager
    def system_metrics(self, run_id: str) -> Iterator[None]:
        """Logs the machine's load, memory, disk and network (and GPUs, if pynvml is installed) during the block.

        A resumed run's curves go on. MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL sets another interval.
        """
        with translated(self.backend.uri):
            start: Any = SystemMetricsMonitor  # it has no type hints
            monitor = start(run_id, SAMPLE_EVERY_S, SAMPLES_A_POINT, resume_logging=True, tracking_uri=self.backend.uri)
            monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    def address(self, run_id: str) -> str | None:
        """The URL of the run's page; None if there is only a database."""
        if not self.backend.uri.startswith(("http://", "https://")):
            return None
        with translated(self.backend.uri):
            experiment = self.client.get_run(run_id).info.experiment_id
        return f"{self.backend.uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"

    # ---- what runs of any kind need ----

    def log_config(self, run: Run, config: Mapping[str, Any]) -> None:
        """Logs a configuration as config.yaml and as parameters, except those that the run has."""
        new = {key: value for key, value in flattened(config).items() if key not in run.data.params}
        params = [Param(key, value[:LONGEST_PARAM]) for key, value in new.items()]
        for start in range(0, len(params), MOST_PARAMS):
            self.client.log_batch(run.info.run_id, params=params[start : start + MOST_PARAMS])
        text = yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True)
        self.client.log_text(run.info.run_id, text, CONFIG_FILE)

    def found_or_made(self, experiment: str, wanted: dict[str, str], tags: dict[str, str], name: str) -> Run:
        """The run with the wanted tags, given all the tags and set running; created if there is none."""
        with self.backend.lock():
            run = self._found(experiment, wanted)
            if run is None:
                return self.client.create_run(experiment, run_name=name, tags=tags)
        self._tag(run.info.run_id, {tag: value for tag, value in tags.items() if run.data.tags.get(tag) != value})
        if run.info.status != "RUNNING":
            self.client.update_run(run.info.run_id, status="RUNNING")
        return run

    def _found(self, experiment: str, wanted: Mapping[str, str]) -> Run | None:
        """The oldest run with these tags; without a round among them, the oldest parent run."""
        conditions = " AND ".join(f"tags.`{tag}` = '{value}'" for tag, value in wanted.items())
        runs = self.client.search_runs([experiment], conditions, order_by=["attributes.start_time ASC"])
        return next((run for run in runs if (ROUND in wanted) == (ROUND in run.data.tags)), None)

    def _model_of(self, run_id: str, t: int, checkpoint: Path | None) -> str:
        """The logged model of a round's run: created, or found."""
        run = self.client.get_run(run_id)
        with self.backend.lock():
            model = self._known_model(run)
            if model is None:
                tags = {key: value for key, value in run.data.tags.items() if key.startswith("qcrd.")}
                tags |= {EXTERNAL: "true"} | ({CHECKPOINT: str(checkpoint)} if checkpoint else {})
                params = self.client.get_run(run.data.tags[PARENT]).data.params
                model = self.client.create_logged_model(
                    run.info.experiment_id, f"round-{t}", run_id, tags, params, model_type="student"
                )
        if run.outputs is None or model.model_id not in {output.model_id for output in run.outputs.model_outputs}:
            self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, t)])
        if str(model.status) != "READY":
            self.client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)

    def _known_model(self, run: Run) -> LoggedModel | None:
        wanted = {key: run.data.tags[key] for key in (TRAINING_ID, ROUND)}
        conditions = " AND ".join(f"tags.`{tag}` = '{value}'" for tag, value in wanted.items())
        models = self.client.search_logged_models([run.info.experiment_id], conditions)
        return next((model for model in models if model.source_run_id == run.info.run_id), None)

    def _last_step(self, run_id: str) -> int:
        """The last step for which a round's run has losses; -1 if there is none."""
        keys = [key for key in self.client.get_run(run_id).data.metrics if not key.startswith(NOT_LOSSES)]
        return max((step for key in keys for step in self._steps(run_id, key)), default=-1)

    def _steps(self, run_id: str, key: str) -> set[int]:
        return {metric.step for metric in self.client.get_metric_history(run_id, key)}

    def log_once(
        self,
        run_id: str,
        figures: Mapping[str, float],
        step: int,
        model_id: str | None = None,
        questions: QuestionsUsed | None = None,
    ) -> None:
        """Logs figures at a step, unless it has them already, for the model and the questions that they belong to."""
        about = {"model_id": model_id, "run_id": run_id} if model_id else {}
        if questions and model_id:
            about |= {"dataset_name": questions.name, "dataset_digest": questions.digest}
        new = {key: value for key, value in figures.items() if step not in self._steps(run_id, key)}
        metrics = [Metric(one.key, one.value, one.timestamp, one.step, **about) for one in _metrics(new, step)]
        if metrics:
            self.client.log_batch(run_id, metrics=metrics)

    def _tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        if tags:
            self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def open_tracking(home: Path) -> Tracking:
    """MLflow at MLFLOW_TRACKING_URI, else under the state folder (a new database takes 2 s).

    Raises:
        TrackingFailed: it cannot be reached or used.
    """
    return Tracking(Backend(home))


def name_for_mlflow(text: str) -> str:
    """A text as a name that MLflow takes for parameters and metrics."""
    return _NOT_IN_NAMES.sub("_", text)[:250]


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested configuration as parameters: {"a": {"b": 1}} is {"a.b": "1"}; lists are JSON."""
    found: dict[str, str] = {}
    for key, value in config.items():
        name = name_for_mlflow(f"{prefix}{key}")
        if isinstance(value, Mapping) and value:
            found |= flattened(value, f"{name}.")
        else:
            found[name] = value if isinstance(value, str) else json.dumps(_plain(value), ensure_ascii=False)
    return found


def _plain(value: Any) -> Any:
    """Dicts, lists and scalars only, for YAML and JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def _metrics(
    figures: Mapping[str, float | None], step: int, seconds: float | None = None, leave_out: Sequence[str] = ()
) -> list[Metric]:
    timestamp = int((time() if seconds is None else seconds) * 1000)
    return [
        Metric(key, float(value), timestamp, step)
        for key, value in figures.items()
        if key not in leave_out and value is not None
    ]


def _as_input(used: QuestionsUsed) -> DatasetInput:
    scheme = used.source.partition("://")[0] if "://" in used.source else "local"
    dataset = Dataset(
        used.name,
        used.digest,
        source_type=scheme,
        source=json.dumps({"uri": used.source}),
        profile=json.dumps({"num_rows": used.rows}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", used.context)])

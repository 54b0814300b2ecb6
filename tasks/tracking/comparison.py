"""A comparison in MLflow: one run with the configuration, the variants' figures and the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.tracking.backend import translated
from tasks.tracking.client import Tracking, name_for_mlflow

EXPERIMENT, COMPARISON_ID = "compare", "qcrd.comparison_id"


@dataclass(frozen=True)
class AboutComparison:
    """What MLflow is told of a comparison.

    Attributes:
        comparison_id: content id of its configuration and trainings; its run is found by it.
        name: the run's.
        config: its configuration, nested; becomes parameters and config.yaml.
        figures: step -> figures; the step is the share of the training questions in percent.
        tags: further tags: Prefect's flow run id and address ...
    """

    comparison_id: str
    name: str
    config: Mapping[str, Any]
    figures: Mapping[int, Mapping[str, float]]
    tags: Mapping[str, str]


def log_comparison(tracking: Tracking, about: AboutComparison, report: Path) -> str:
    """Logs a comparison; logging it again replaces the report. Returns the run's id.

    Args:
        report: the file that becomes the run's artifact.

    Raises:
        TrackingFailed: MLflow cannot be reached or refuses something.
    """
    experiment, wanted = tracking.backend.experiment(EXPERIMENT), {COMPARISON_ID: about.comparison_id}
    with translated(tracking.backend.uri):
        run = tracking.found_or_made(experiment, wanted, wanted | dict(about.tags), about.name)
        run_id = str(run.info.run_id)
        tracking.log_config(run, about.config)
        for step, figures in about.figures.items():
            named = {name_for_mlflow(name): value for name, value in figures.items()}
            tracking.log_once(run_id, named, step)
        tracking.client.log_artifact(run_id, str(report))
        tracking.client.set_terminated(run_id, "FINISHED")
    return run_id

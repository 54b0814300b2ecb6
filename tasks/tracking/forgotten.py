"""Marks in MLflow what learned from forgotten questions: versions of registered models, and the runs of trainings."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from mlflow.entities import Run

from tasks.tracking.backend import Backend, translated
from tasks.tracking.client import ROUND, TRAINING_ID, Tracking
from tasks.tracking.lineage import RUN_ID, Origin, has_mlflow

FORGOTTEN = "qcrd.forgotten"
"""Tag: when questions were forgotten, and how many of those it learned from."""


def mark(home: Path, versions: Mapping[Origin, str], trainings: Mapping[str, str]) -> None:
    """Tags versions and the runs of trainings, their rounds included. Marking them again changes nothing.

    Args:
        versions: version -> what its tag is to say.
        trainings: id -> what the tags of its runs are to say.

    Raises:
        TrackingFailed: MLflow cannot be reached or refuses something.
    """
    if not has_mlflow(home):
        return
    tracking = Tracking(Backend(home))
    client = tracking.client
    with translated(tracking.backend.uri):
        for origin, said in versions.items():
            known = client.get_model_version(origin.name, origin.number).tags.get(FORGOTTEN)
            client.set_model_version_tag(origin.name, origin.number, FORGOTTEN, _joined(known, said))
        for run in _runs(tracking, trainings):
            said = trainings[run.data.tags[TRAINING_ID]]
            client.set_tag(run.info.run_id, FORGOTTEN, _joined(run.data.tags.get(FORGOTTEN), said))


def runs_behind(home: Path, trainings: Collection[str]) -> list[str]:
    """Ids of the runs, in the store's `runs` table, that reported some trainings last; the oldest training first."""
    if not has_mlflow(home):
        return []
    tracking = Tracking(Backend(home))
    with translated(tracking.backend.uri):
        found = [run.data.tags.get(RUN_ID) for run in _runs(tracking, trainings) if ROUND not in run.data.tags]
    return [run for run in dict.fromkeys(found) if run is not None]


def _runs(tracking: Tracking, trainings: Collection[str]) -> Iterator[Run]:
    experiments = [one.experiment_id for one in tracking.client.search_experiments()]
    for training in trainings:
        token = None
        while True:
            page = tracking.client.search_runs(
                experiments, f"tags.`{TRAINING_ID}` = '{training}'", order_by=["attributes.start_time"],
                page_token=token,
            )  # fmt: skip
            yield from page
            token = page.token
            if not token:
                break


def _joined(known: str | None, said: str) -> str:
    """A tag that says one thing more."""
    parts = known.split("; ") if known else []
    return "; ".join([*parts, *([] if said in parts else [said])])

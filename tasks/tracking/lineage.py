"""What the registered models came from, as their versions' tags say it: nothing that is pruned may be among it."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from storage.store import Store
from storage.votes import VoteRule
from tasks.tracking.backend import URI_VARIABLE, Backend, translated
from tasks.tracking.client import TRAINING_ID, Tracking

_DATASET, _VOTE, RUN_ID = "qcrd.dataset", "qcrd.vote_id", "qcrd.run_id"
_MOST = 1000  # versions a request


@dataclass(frozen=True)
class Origin:
    """What one version of a registered model came from.

    Attributes:
        name, number: of the registered model, and of the version.
        training: id of its training.
        dataset: stored name of the dataset.
        vote: id of the votes that it learned from; None if its tags do not say.
        run: id of the run that registered it, in the store's `runs` table.
    """

    name: str
    number: str
    training: str
    dataset: str | None
    vote: str | None
    run: str | None = None

    @property
    def version(self) -> str:
        """For people, such as "qcrd-lab version 3"."""
        return f"{self.name} version {self.number}"


def has_mlflow(home: Path) -> bool:
    """Whether there is an MLflow to ask: a configured one, or that of a state folder in which something ran."""
    return URI_VARIABLE in os.environ or (home / "mlflow" / "mlflow.db").exists()


def registered_origins(home: Path) -> list[Origin]:
    """The origin of every version of every registered model; versions that qcrd did not register have none.

    Raises:
        TrackingFailed: MLflow cannot be asked.
    """
    if not has_mlflow(home):
        return []
    tracking = Tracking(Backend(home))
    with translated(tracking.backend.uri):
        return [
            Origin(name, number, tags[TRAINING_ID], tags.get(_DATASET), tags.get(_VOTE), tags.get(RUN_ID))
            for name, number, tags in _versions(tracking)
            if TRAINING_ID in tags
        ]


def needs_teacher(store: Store, origins: list[Origin], model: str, dataset: str) -> str | None:
    """The version whose votes count samples of a teacher on a dataset; None if there is none.

    Where a version's votes are not stored, or it does not say which they are, all teachers count.
    """
    rows = store.query("SELECT DISTINCT vote_id, rule FROM votes WHERE dataset = $1", [dataset]).to_pylist()
    rules = {row["vote_id"]: VoteRule.model_validate(json.loads(row["rule"])) for row in rows}
    for origin in origins:
        if origin.dataset not in (None, dataset):
            continue
        rule = rules.get(origin.vote or "")
        if rule is None or any(model == glob or fnmatchcase(model, glob) for glob in rule.teachers):
            return origin.version
    return None


def _versions(tracking: Tracking) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Name, number and tags of every version."""
    token = None
    while True:
        page = tracking.client.search_model_versions(max_results=_MOST, page_token=token)
        yield from ((found.name, str(found.version), found.tags) for found in page)
        token = page.token
        if not token:
            return

"""Which runs are repeated after examples were forgotten."""

import json
from pathlib import Path
from typing import Any

from models.configs import StudentConfig
from storage.errors import UsageError
from storage.store import Store
from tasks.forgetting.forget import Forgot
from tasks.tracking.forgotten import runs_behind
from tasks.tracking.start_from import started_from


def to_retrain(home: Path, store: Store, done: Forgot) -> list[tuple[str, dict[str, Any]]]:
    """Runs with their configurations: of the newest version of each registered student that learned from the examples;
    if there is none, of the trainings that did. Equal configurations count once.

    Raises:
        UsageError: one began with a student that learned from the examples.
    """
    newest = {one.name: one for one in sorted(done.versions, key=lambda one: int(one.number))}
    runs = [one.run for one in newest.values() if one.run is not None] or runs_behind(home, done.trainings)
    stored = store.query("SELECT run_id, config FROM runs WHERE list_contains($1::VARCHAR[], run_id)", [runs])
    configs = dict(zip(stored["run_id"].to_pylist(), stored["config"].to_pylist(), strict=True))
    distinct = {configs[run]: run for run in runs if run in configs}
    found = [(run, json.loads(config)) for config, run in distinct.items()]
    marked = {one.version for one in done.versions}
    for run, config in found:
        began = started_from(StudentConfig.model_validate(config["student"]))
        if began in marked:
            raise UsageError(
                f"Run {run} went on from {began}, which learned from the forgotten questions, too. Distil anew: "
                "`qcrd distill` with registry.start_from=scratch."
            )
    return found

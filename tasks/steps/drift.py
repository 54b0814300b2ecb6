"""The drift check as a Prefect task: do new samples still look like those of the last run?"""

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.events import emit_event

from storage.votes import VoteRule
from tasks.questions.sets import DatasetConfig
from tasks.running.workspace import Workspace
from tasks.steps.retries import STEP
from tasks.watching.drift import NEW, Change, DriftConfig, compare, new_samples
from tasks.watching.figures import Figure, figures_of, last_with, store_figures

DRIFT, DATASET = "qcrd.drift", "qcrd.dataset"
"""The event's name, and the kind of its resource."""


@task(name="watch for drift", timeout_seconds=3600, **STEP)
def watch_drift(workspace: Workspace, rule: VoteRule, config: DatasetConfig, limits: DriftConfig) -> list[Change]:
    """Warns if the samples that are new since the last run differ from that run's by more than the limits."""
    store, log = workspace.open_store(), get_run_logger()
    before = last_with(store, rule.dataset, NEW, but=workspace.run_id)
    known = figures_of(store, workspace.run_id, rule.dataset)
    figures = known if NEW in known else new_samples(store, rule, config.train_split, before.at if before else None)
    questions = figures[NEW].value or 0
    if before is None:  # the first run: something to compare with later
        store_figures(store, workspace.run_id, rule.dataset, figures)
        return []
    if questions < limits.questions:
        log.info(
            "Drift: %s questions have new samples, %s are needed to compare.", f"{questions:,.0f}", limits.questions
        )
        return []
    changes = compare(figures, before.figures, limits)
    passed = [change for change in changes if change.passed]
    store_figures(store, workspace.run_id, rule.dataset, figures | {"drift": Figure(len(passed))})
    if passed:
        text = "; ".join(map(str, passed))
        log.warning("Drift since run %s, on %s new questions: %s.", before.run_id, f"{questions:,.0f}", text)
        emit_event(
            DRIFT,
            {"prefect.resource.id": f"{DATASET}.{rule.dataset}", "prefect.resource.name": rule.dataset},
            payload={"reason": text, "before": before.run_id, "questions": questions},
        )
    else:
        log.info("No drift since run %s, on %s new questions.", before.run_id, f"{questions:,.0f}")
    rows = [
        {
            "figure": one.name,
            "before": f"{one.before:.3g}",
            "now": f"{one.now:.3g}",
            "change": f"{one.change:.3g}",
            "limit": f"{one.limit:g}",
            "past it": "yes" if one.passed else "no",
        }
        for one in changes
    ]
    create_table_artifact(rows, key="drift", description=f"New samples against those of run {before.run_id}")
    return changes

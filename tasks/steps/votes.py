"""The vote as a Prefect task."""

from contextlib import suppress

from prefect import get_run_logger, task

from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo
from storage.votes import VoteRule, VoteSummary, stored_splits, vote
from tasks.questions.sets import DatasetConfig
from tasks.running.workspace import Workspace
from tasks.steps.retries import STEP


@task(name="vote", timeout_seconds=3600, **STEP)
def count_votes(workspace: Workspace, rule: VoteRule, config: DatasetConfig) -> VoteSummary:
    """Finds the majority answers, positives and negatives of the training split; where the teacher has answered
    validation questions, too, their majority answers, with which the student's are compared."""
    store, dataset = workspace.open_store(), get_dataset(config.name)
    summary = vote(store, dataset, rule, config.train_split)
    if config.validation_split in stored_splits(store, dataset.name):
        with suppress(NothingToDo):  # another teacher's
            vote(store, dataset, rule, config.validation_split)
    accuracy = summary.majority_accuracy
    get_run_logger().info(
        "Votes on %s examples: %s of %s samples parsed%s%s.", f"{summary.examples:,}",
        f"{summary.samples - summary.unparsed:,}", f"{summary.samples:,}",
        f", {summary.miscalculated:,} with wrong arithmetic left out" if summary.miscalculated else "",
        "" if accuracy is None else f"; one sample right {summary.single_accuracy:.1%}, the majority {accuracy:.1%}",
    )  # fmt: skip
    return summary

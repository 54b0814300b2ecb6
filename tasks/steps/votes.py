"""The vote as a Prefect task."""

from prefect import get_run_logger, task

from storage.datasets.registry import get_dataset
from storage.store import Store
from storage.vote_summary import VoteSummary
from storage.votes import VoteRule, matching_teachers, vote
from tasks.questions.sets import DatasetConfig, QuestionSet
from tasks.running.workspace import Workspace
from tasks.steps.retries import STEP


@task(name="vote", timeout_seconds=86_400, **STEP)
def count_votes(workspace: Workspace, rule: VoteRule, config: DatasetConfig) -> VoteSummary:
    """Finds the majority answers, positives and negatives of the training split."""
    store = workspace.open_store()
    vote_on_validation(store, rule, config)
    return log_votes(vote(store, get_dataset(config.name), rule, config.train_split))


def voted_further(
    workspace: Workspace, rule: VoteRule, config: DatasetConfig, further: list[QuestionSet]
) -> list[QuestionSet]:
    """Votes on further training questions; returns those of which there are samples."""
    store, dataset = workspace.open_store(), get_dataset(config.name)
    sampled = [one for one in further if matching_teachers(store, one.partition, rule)]
    for one in sampled:
        log_votes(vote(store, dataset, rule, one.split), of=f" of split {one.split}")
    return sampled


def vote_on_validation(store: Store, rule: VoteRule, config: DatasetConfig) -> None:
    """Votes on the validation questions that the teacher has answered, too, to compare the student's answers with."""
    dataset, split = get_dataset(config.name), config.validation_split
    if split is not None and matching_teachers(store, {"dataset": dataset.name, "split": split}, rule):
        vote(store, dataset, rule, split)


def log_votes(summary: VoteSummary, of: str = "") -> VoteSummary:
    """Notes a vote's figures in the run's log, and returns them."""
    accuracy = summary.majority_accuracy
    get_run_logger().info(
        "Votes on %s examples%s: %s of %s samples parsed%s%s.", f"{summary.examples:,}", of,
        f"{summary.samples - summary.unparsed:,}", f"{summary.samples:,}",
        f", {summary.miscalculated:,} with wrong arithmetic left out" if summary.miscalculated else "",
        "" if accuracy is None else f"; one sample right {summary.single_accuracy:.1%}, the majority {accuracy:.1%}",
    )  # fmt: skip
    return summary

"""The figures of a vote as rows for people, and its rule: in the terminal, on pages and in Prefect's UI."""

import json

from flows.terminal import figure, percent
from storage.vote_summary import VoteSummary


def vote_rows(votes: VoteSummary) -> list[tuple[str, str, str]]:
    """(figure, value, what it is of)."""
    return [
        ("examples", figure(votes.examples), ", ".join(votes.splits)),
        ("samples", figure(votes.samples), f"{votes.unparsed:,} without an answer{_miscalculated(votes)}"),
        ("single accuracy", percent(votes.single_accuracy), "of all samples; without an answer is wrong"),
        ("majority accuracy", percent(votes.majority_accuracy), f"of {votes.labelled:,} labelled examples"),
        ("votes for the winner", figure(votes.mean_positives), "mean per example"),
        ("share of the winner", figure(votes.mean_share), "of all votes, mean"),
        ("entropy", figure(votes.mean_entropy), "nats, mean"),
        ("ties", figure(votes.ties), ""),
        ("positive rationales", figure(votes.positive_targets), "distinct texts"),
        ("negative rationales", figure(votes.negative_targets), "distinct texts"),
    ]


def rule_text(rule: str) -> str:
    """A stored vote's rule, for people: what it sets besides the dataset."""
    return ", ".join(
        f"{key}={value}" for key, value in json.loads(rule).items() if key != "dataset" and value is not None
    )


def _miscalculated(votes: VoteSummary) -> str:
    return f", {votes.miscalculated:,} with wrong arithmetic" if votes.miscalculated else ""

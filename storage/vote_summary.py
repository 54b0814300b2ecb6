"""The figures of a vote: sums over its parts (splits, shards), added up, then made averages."""

from collections import Counter
from dataclasses import dataclass

import duckdb

VoteSums = Counter[str]
"""Of some vote rows: how many examples, samples, ties ..., and the sums of what is averaged. They add up."""


@dataclass(frozen=True)
class VoteSummary:
    """The figures of one vote.

    Attributes:
        vote_id: the rule's content id.
        splits: the splits voted on.
        examples: examples with at least one selected sample.
        samples: selected samples.
        unparsed: selected samples without an answer.
        miscalculated: selected samples with an answer that do not vote because of their arithmetic.
        ties: examples with more than one answer in first place.
        labelled: examples with a gold label.
        single_accuracy: share of the labelled examples' selected samples that equal the gold label; unparsed samples
            count as wrong. None without labels.
        majority_accuracy: share of the labelled examples whose winner equals the label; examples without a parsed
            sample count as wrong. None without labels.
        mean_positives: votes for the winner, mean over examples.
        mean_share: votes for the winner / all votes, mean over examples with a vote.
        mean_entropy: entropy of the parsed answers in nats, mean over the same examples.
        positive_targets, negative_targets: distinct rationale texts, summed over examples. A text that is a positive
            is not a negative too, and an empty text is neither.
        added, changed, unchanged: vote rows in the store.
    """

    vote_id: str
    splits: list[str]
    examples: int
    samples: int
    unparsed: int
    miscalculated: int
    ties: int
    labelled: int
    single_accuracy: float | None
    majority_accuracy: float | None
    mean_positives: float
    mean_share: float | None
    mean_entropy: float | None
    positive_targets: int
    negative_targets: int
    added: int
    changed: int
    unchanged: int


def vote_sums(con: duckdb.DuckDBPyConnection) -> VoteSums:
    """The sums over `voted`, a table of the connection with rows of `vote_sql`."""
    columns = {
        "examples": "count(*)",
        "samples": "sum(n_sampled)",
        "unparsed": "sum(n_sampled - n_parsed - n_miscalculated)",
        "miscalculated": "sum(n_miscalculated)",
        "ties": "count(*) FILTER (tie)",
        "labelled": "count(correct)",
        "labelled_samples": "sum(n_sampled) FILTER (correct IS NOT NULL)",
        "right_samples": "sum(n_correct)",
        "right": "count(*) FILTER (correct)",
        "votes": "sum(n_votes)",
        "parsed_examples": "count(share)",
        "share": "sum(share)",
        "entropy": "sum(entropy)",
        "positives": "sum(len(positives))",
        "negatives": "sum(len(negatives))",
    }
    sql = ", ".join(f"coalesce({expression}, 0) AS {name}" for name, expression in columns.items())
    values = con.execute(f"SELECT {sql} FROM voted WHERE n_sampled > 0").fetchall()[0]
    return Counter(dict(zip(columns, values, strict=True)))


def summary_of(vote_id: str, splits: list[str], sums: VoteSums) -> VoteSummary:
    """The summary of a vote from the sums of its parts, and from how many rows were `added`, `changed`, `unchanged`."""

    def mean(total: str, count: str) -> float | None:
        # The last digits of a sum of floats depend on the order, and threads finish in any order.
        return round(float(sums[total]) / sums[count], 12) if sums[count] else None

    return VoteSummary(
        vote_id=vote_id,
        splits=splits,
        **{name: int(sums[name]) for name in ("examples", "samples", "unparsed", "miscalculated", "ties", "labelled")},
        single_accuracy=mean("right_samples", "labelled_samples"),
        majority_accuracy=mean("right", "labelled"),
        mean_positives=mean("votes", "examples") or 0.0,
        mean_share=mean("share", "parsed_examples"),
        mean_entropy=mean("entropy", "parsed_examples"),
        positive_targets=int(sums["positives"]),
        negative_targets=int(sums["negatives"]),
        **{name: int(sums[name]) for name in ("added", "changed", "unchanged")},
    )

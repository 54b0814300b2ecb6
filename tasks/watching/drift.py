"""Has incoming data changed? Compares the samples that are new since the last run with those of that run.

A schedule samples new questions every night. If the questions change (another product, another language) or the teacher
does (its provider replaced it), the samples show it first: they agree less, more of them have no answer, the answers
are others, or they are shorter or longer. There are four figures, each with its own limit:

    agreement         votes for the winner / parsed samples, mean over questions: by how much it moved
    unparsed          samples without an answer / samples: by how much it moved
    answers           total variation distance of the two distributions of answers, 0 to 1; the most frequent answers
                      of the earlier run count one by one, all others together
    rationale_words   words of a rationale, mean: by which share of the earlier value it moved

If fewer questions are new than `questions`, nothing is compared, and they count as new again in the next run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from storage.schemas import RATIONALES, VOTES
from storage.store import Store
from storage.votes import VoteRule, matching_teachers
from tasks.watching.figures import Figure

NEW = "new_questions"
ANSWERS_KEPT = 50
"""Answers whose shares are stored."""
ANSWERS_COMPARED = 10
"""Answers of the earlier run that count one by one."""


class DriftConfig(BaseModel):
    """Limits past which a run warns that incoming data has changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    questions: int = Field(
        default=50, ge=1, description="Fewest new questions that are compared; fewer wait for the next run."
    )
    agreement: float = Field(
        default=0.1, gt=0, description="Largest change in the mean share of votes for the winner, 0 to 1."
    )
    unparsed: float = Field(
        default=0.05, gt=0, description="Largest change in the share of samples without an answer, 0 to 1."
    )
    answers: float = Field(
        default=0.3,
        gt=0,
        description="Largest total variation distance between the distributions of the answers, 0 to 1.",
    )
    rationale_words: float = Field(
        default=0.3,
        gt=0,
        description="Largest change in the mean length of rationales, as a share of the earlier mean.",
    )


@dataclass(frozen=True)
class Change:
    """One figure compared with the earlier run's.

    Attributes:
        name: the figure's name.
        before, now: its values; for `answers` the number of different answers.
        change: what is compared with the limit; never negative.
        limit: the configured limit.
    """

    name: str
    before: float
    now: float
    change: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether it is past the limit."""
        return self.change > self.limit

    def __str__(self) -> str:
        return f"{self.name} {self.before:.3g} -> {self.now:.3g} (change {self.change:.3g}, limit {self.limit:g})"


def new_samples(store: Store, rule: VoteRule, split: str, since: datetime | None) -> dict[str, Figure]:
    """The figures of the samples that came in after a moment.

    Args:
        rule: the rule of the vote, which has been held.
        split: the split of the training questions.
        since: None takes all.

    Returns:
        new_questions, new_samples, new_agreement, new_unparsed, new_answers (detail: answer -> share) and
        new_rationale_words; only new_questions if nothing came in.
    """
    partition = {"dataset": rule.dataset, "split": split}
    with store.connect() as con:
        teachers = pa.array(matching_teachers(store, partition, rule), pa.string())
        con.register("teachers", pa.table({"model": teachers}))
        con.execute("CREATE TEMP TABLE since AS SELECT $1::TIMESTAMPTZ AS moment", [since])
        con.register("rule", pa.table({"vote_id": [rule.vote_id]}))
        store.execute(
            con,
            f"CREATE TEMP TABLE fresh AS SELECT example_id, answer, rationale "
            f"FROM {store.relation(RATIONALES, partition)} SEMI JOIN teachers USING (model) "
            "WHERE source <> 'student' AND created_at > coalesce((SELECT moment FROM since), '-infinity'::TIMESTAMPTZ)",
        )
        row = store.execute(
            con,
            "SELECT count(DISTINCT example_id) AS questions, count(*) AS samples, "
            "avg((answer IS NULL)::INT) AS unparsed, "
            "avg(len(regexp_split_to_array(trim(rationale), '\\s+'))) AS words, "
            f"(SELECT avg(share) FROM {store.relation(VOTES, partition)} SEMI JOIN rule USING (vote_id) "
            "SEMI JOIN fresh USING (example_id)) AS agreement FROM fresh",
        ).to_pylist()[0]
        answers = store.execute(
            con,
            "SELECT answer, count(*) / sum(count(*)) OVER () AS share FROM fresh WHERE answer IS NOT NULL "
            "GROUP BY answer ORDER BY share DESC, answer",
        ).to_pylist()
    figures = {NEW: Figure(row["questions"])}
    if row["questions"]:
        shares = {one["answer"]: round(one["share"], 6) for one in answers[:ANSWERS_KEPT]}
        figures |= {
            "new_samples": Figure(row["samples"]),
            "new_agreement": Figure(row["agreement"]),
            "new_unparsed": Figure(row["unparsed"]),
            "new_answers": Figure(len(answers), shares),
            "new_rationale_words": Figure(row["words"]),
        }
    return figures


def compare(now: Mapping[str, Figure], before: Mapping[str, Figure], limits: DriftConfig) -> list[Change]:
    """Compares two runs' figures; a figure that one of them lacks is left out."""
    changes = []
    for name in ("agreement", "unparsed", "answers", "rationale_words"):
        key = f"new_{name}"
        one, other = (side[key].value if key in side else None for side in (before, now))
        if one is None or other is None:
            continue
        if name == "answers":
            change = variation(before[key].detail, now[key].detail)
        elif name == "rationale_words":
            change = abs(other - one) / one if one else float(other > 0)
        else:
            change = abs(other - one)
        changes.append(Change(name, one, other, change, getattr(limits, name)))
    return changes


def variation(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """Total variation distance, 0 to 1, of two distributions (answer -> share); the rest of each is "others"."""
    single = sorted(before, key=lambda answer: (-before[answer], answer))[:ANSWERS_COMPARED]
    pairs = [(before[answer], now.get(answer, 0.0)) for answer in single]
    others = [1.0 - sum(side) for side in zip(*pairs, strict=True)] if pairs else [1.0, 1.0]
    distances = [abs(one - other) for one, other in [*pairs, (others[0], others[1])]]
    return 0.5 * float(sum(distances))

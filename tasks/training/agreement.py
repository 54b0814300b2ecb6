"""How often a student says what the teacher's majority says, and how often that is right: round by round, from stored
predictions.

Agreement with the teacher is what a training without labels is after: a proxy for being right. A student can also come
closer to the teacher by learning its mistakes. Only validation questions count, on which it is not trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from storage.audited import audited_answers
from storage.schemas import PREDICTIONS, VOTES
from tasks.training.folder import Training
from tasks.training.judging import judged_by_label


@dataclass(frozen=True)
class Agreement:
    """A round's student on the validation questions that have a majority answer.

    Attributes:
        t: the round.
        agrees: example id -> whether it said what the majority says.
        right: example id -> whether it was right, for those of them with a gold label or an audited answer.
    """

    t: int
    agrees: Mapping[str, bool]
    right: Mapping[str, bool]

    @property
    def share(self) -> float:
        """Questions on which it agrees / all that have a majority answer."""
        return sum(self.agrees.values()) / len(self.agrees)

    @property
    def accuracy(self) -> float | None:
        """Right / all whose right answer is known; None without any."""
        return sum(self.right.values()) / len(self.right) if self.right else None


def agreements(training: Training) -> list[Agreement]:
    """The finished rounds of a training, in order; empty where no validation question has a majority answer."""
    spec, store, dataset = training.spec, training.store, training.dataset
    rounds = {spec.student_name(result.t): result.t for result in training.evaluations()}
    here = spec.validation.partition
    if not rounds or not store.parts(VOTES, here):
        return []
    with store.connect() as con:
        rows = store.execute(
            con,
            "SELECT p.model, e.example_id, e.label, e.extra, v.winner, coalesce(p.given_answer, p.answer) AS answer "
            f"FROM {store.relation(PREDICTIONS, here)} p JOIN {store.relation(VOTES, here)} v USING (example_id) "
            # Not of the whole partition: a fold's test questions are in it, and half of them may be certifying ones.
            f"JOIN {spec.validation.sql(store)} e USING (example_id) "
            "WHERE list_contains($1, p.model) AND v.vote_id = $2 AND v.winner IS NOT NULL ORDER BY example_id",
            [list(rounds), spec.rule.vote_id],
        ).to_pylist()
    audited = audited_answers(store, here)
    agrees: dict[int, dict[str, bool]] = {t: {} for t in rounds.values()}
    right: dict[int, dict[str, bool]] = {t: {} for t in rounds.values()}
    for row in rows:
        t, key = rounds[row["model"]], row["example_id"]
        agrees[t][key] = row["answer"] == row["winner"]
        label = row["label"] if row["label"] is not None else audited.get(key)
        if label is not None:
            right[t][key] = judged_by_label(dataset, {**row, "label": label}, row["answer"])
    return [Agreement(t, agrees[t], right[t]) for t in agrees if agrees[t]]

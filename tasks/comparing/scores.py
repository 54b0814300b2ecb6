"""The discriminator's scores of a training's rationales, of right ones and of wrong ones."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from storage.schemas import EXAMPLES, RATIONALES, SCORES
from storage.store import Store
from tasks.training.folder import Training
from tasks.training.outcomes import QualityUpdated
from tasks.training.rounds import best_round
from tasks.training.training_set import is_held_out


@dataclass(frozen=True)
class Scores:
    """Quality scores, in (0, 1), of rationales to the training questions that the discriminator was not trained on.

    Attributes:
        right, wrong: example id -> scores of the rationales whose own answer is the label, or another one.
        auc_minority, auc_student: as in `tasks.training.outcomes.QualityUpdated`.
    """

    right: Mapping[str, list[float]]
    wrong: Mapping[str, list[float]]
    auc_minority: float | None = None
    auc_student: float | None = None


def scores_by_rightness(store: Store, training: Training) -> Scores | None:
    """The scores by the discriminator of the best round; None without a discriminator.

    Rationales without a readable answer, and those to questions without a label, are left out.
    """
    spec = training.spec
    quality = training.outcome(QualityUpdated, best_round(training.evaluations()))
    if quality is None or quality.version is None:
        return None
    examples = chain.from_iterable(training.example_parts(["example_id"]))
    held_out = [row["example_id"] for place, row in enumerate(examples) if is_held_out(place)]
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT r.example_id, r.answer, e.label, e.extra, s.score "
            f"FROM {store.relation(SCORES, spec.train.partition)} s "
            f"JOIN {store.relation(RATIONALES, spec.train.partition)} r USING (sample_id) "
            f"JOIN {store.relation(EXAMPLES, spec.train.partition)} e ON e.example_id = r.example_id "
            "WHERE s.run_id = $1 AND s.round = $2 AND list_contains($3, r.example_id) "
            "AND r.answer IS NOT NULL AND e.label IS NOT NULL ORDER BY s.sample_id",
            [spec.training_id, quality.version, held_out],
        ).to_pylist()
    right: dict[str, list[float]] = {}
    wrong: dict[str, list[float]] = {}
    for row in rows:
        equal = training.dataset.equal(row["answer"], row["label"], json.loads(row["extra"] or "{}"))
        (right if equal else wrong).setdefault(row["example_id"], []).append(row["score"])
    return Scores(right, wrong, quality.auc_minority, quality.auc_student)

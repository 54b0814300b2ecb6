"""How good rationales are, besides being right: their arithmetic, whether they agree with the answer, their scores."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from tasks.comparing.answers import Told, common_questions
from tasks.comparing.scores import Scores
from tasks.comparing.statistics import (
    Difference,
    Figures,
    Interval,
    mean_interval,
    ratio_difference,
    ratio_interval,
)

Quality = Literal["right_steps", "without_steps", "agreement", "score_right", "score_wrong"]
QUALITIES: dict[Quality, str] = {
    "right_steps": "arithmetic steps that are right",
    "without_steps": "explanations without a step",
    "agreement": "explanations that come to the answer",
    "score_right": "score of right rationales",
    "score_wrong": "score of wrong rationales",
}
"""What each says; shares, or means of a score in (0, 1)."""
COMPARED: tuple[Quality, ...] = ("right_steps", "agreement")
"""Those of which more is better, question by question."""


def quality_of(told: Sequence[Sequence[Told]], scores: Sequence[Sequence[Scores | None]]) -> dict[Quality, Interval]:
    """The qualities of a variant's rationales with their 95 % intervals over seeds and questions.

    Args:
        told, scores: for each seed its trainings, one for each fold.

    Returns:
        Only those that there are: a method without rationales has none, one without a discriminator no scores, a
        dataset whose answers are no numbers no steps.
    """
    found: dict[Quality, Interval | None] = {}
    counts = _counts(told, sorted(common_questions(told, "explanations") or ()))
    if "right_steps" in counts:
        found["right_steps"] = ratio_interval(*counts["right_steps"])
        found["without_steps"] = mean_interval(counts["right_steps"][1] == 0)
    if "agreement" in counts:
        found["agreement"] = mean_interval(counts["agreement"][0] > 0)
    known = [[one for one in folds if one is not None] for folds in scores]
    if all(known):
        found["score_right"] = _mean_score([[one.right for one in folds] for folds in known])
        found["score_wrong"] = _mean_score([[one.wrong for one in folds] for folds in known])
    return {name: interval for name, interval in found.items() if interval is not None}


def quality_difference(
    first: Sequence[Sequence[Told]], second: Sequence[Sequence[Told]], quality: str
) -> Difference | None:
    """How much better a variant's rationales are than another's, on the questions that both explain.

    Args:
        first, second: of each seed its trainings, one for each fold; first minus second.
        quality: one of `COMPARED`.

    Returns:
        None where one of them has no such figure.
    """
    asked = [common_questions(told, "explanations") or set() for told in (first, second)]
    counts = [_counts(told, sorted(asked[0] & asked[1])).get(quality) for told in (first, second)]
    return None if counts[0] is None or counts[1] is None else ratio_difference(counts[0], counts[1])


def _counts(told: Sequence[Sequence[Told]], examples: Sequence[str]) -> dict[str, tuple[Figures, Figures]]:
    """Of the compared qualities that there are, (S, Q) tables of how many are good, and of how many."""
    of_seed = [{key: one for fold in folds for key, one in fold.said.items()} for folds in told]
    said = [[seed[example] for example in examples] for seed in of_seed]
    found: dict[str, tuple[Figures, Figures]] = {}
    if examples and all(one.steps is not None for row in said for one in row):
        steps = np.array([[one.steps for one in row] for row in said], dtype=np.float64)  # (S, Q, 2)
        found["right_steps"] = steps[..., 0], steps[..., 1]
    if examples and all(one.agrees is not None for row in said for one in row):
        agree = np.array([[one.agrees for one in row] for row in said], dtype=np.float64)
        found["agreement"] = agree, np.ones_like(agree)
    return found


def _mean_score(seeds: Sequence[Sequence[Mapping[str, list[float]]]]) -> Interval | None:
    """The mean over all rationales; those of one question are no independent evidence."""
    examples = sorted({key for folds in seeds for fold in folds for key in fold})
    sums, counts = np.zeros((2, len(seeds), len(examples)))
    for row, folds in enumerate(seeds):
        for column, example in enumerate(examples):
            values = [value for fold in folds for value in fold.get(example, ())]
            sums[row, column], counts[row, column] = sum(values), len(values)
    return ratio_interval(sums, counts)

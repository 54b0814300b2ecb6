"""Points of learning curves: what a training came to, as a benchmark stores it, and how outcomes of seeds are told."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tasks.comparing.statistics import Answers, mean_interval, paired_difference
from tasks.training.folder import Training
from tasks.training.rounds import best_round

Outcome = dict[str, Any]


def outcome_of(training: Training) -> Outcome:
    """The test figures of a training that is over: accuracies of the bare, the explained and the chosen answers, and
    whether each question's chosen answer is right, in the order of the ids."""
    best = best_round(training.evaluations())
    test = training.evaluation(best, "test")
    if test is None or training.spec.test is None:
        raise SystemExit("There are no test questions.")
    rights = training.spec.test.rights(training.store, training.spec.student_name(best))
    return {
        "training": training.spec.training_id,
        "bare": test.accuracy,
        "explanations": test.explanation_accuracy,
        "chosen": sum(rights.values()) / len(rights),
        "right": "".join(str(int(rights[key])) for key in sorted(rights)),
    }


def write(file: Path, outcome: Outcome) -> None:
    """Writes an outcome, whole or not at all."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(outcome))
    partial.replace(file)


def read(file: Path) -> Outcome | None:
    """An outcome; None if it is not there yet."""
    found: Outcome | None = json.loads(file.read_text()) if file.exists() else None
    return found


def accuracies(outcomes: Mapping[int, Outcome]) -> str:
    """Mean accuracies over seeds in per cent, that of the chosen answers with its interval over seeds and questions.

    Args:
        outcomes: seed -> outcome.
    """
    mean, low, high = mean_interval(_right(outcomes, sorted(outcomes)))
    bare, explained = (100 * mean_of(outcomes, name) for name in ("bare", "explanations"))
    return (
        f"{100 * mean:5.1f} ({100 * low:.1f} to {100 * high:.1f}), bare {bare:.1f}, explanations {explained:.1f}, "
        f"{len(outcomes)} seeds"
    )


def minus(outcomes: Mapping[int, Outcome], others: Mapping[int, Outcome], name: str) -> str:
    """The paired difference from others in points, over the seeds that both have; empty if there are none."""
    both = sorted(outcomes.keys() & others.keys())
    if not both:
        return ""
    told = paired_difference(_right(outcomes, both), _right(others, both))
    return (
        f"; minus {name} {100 * told.mean:+.1f} ({100 * told.low:+.1f} to {100 * told.high:+.1f}, "
        f"p {told.p_value:.2g}, {len(both)} seeds)"
    )


def mean_of(outcomes: Mapping[int, Outcome], name: str) -> float:
    """Mean of a figure over seeds; 0 stands for one that is not there."""
    return float(np.mean([one[name] or 0 for one in outcomes.values()]))


def _right(outcomes: Mapping[int, Outcome], seeds: list[int]) -> Answers:
    """(S, Q) whether each seed's student was right about each test question."""
    return np.array([[sign == "1" for sign in outcomes[seed]["right"]] for seed in seeds])

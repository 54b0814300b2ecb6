"""Fits how a student's answer is chosen, and how sure it is, to the validation questions.

`tasks.serving.deciding` has the formula. Its five numbers maximise the probability of what was right, with a normal
prior around a plain vote, so that a few dozen questions are enough.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from storage.datasets.definition import Dataset
from tasks.serving.answering import Answered
from tasks.serving.deciding import Candidate, decide
from tasks.serving.settings import ABSTAINS_ALWAYS, Decision
from tasks.training.asking import ask_round, samples_of
from tasks.training.folder import Training
from tasks.training.judging import judged_by_label
from tasks.training.outcomes import Abstention, Calibrated, Decided, Promise, ReliabilityBin
from tasks.training.risk_control import (
    CERTAINTY,
    NO_ANSWER,
    Confidences,
    Wrong,
    aurc,
    certify,
    curve,
    sequence,
    share_interval,
)
from tasks.training.training_set import judged_questions

FEATURES = ("head", "votes", "quality", "arithmetic")
"""Of a candidate; each has a weight of the same name in a decision."""
PRIOR = (1.0, 1.0, 0.0, 0.0, 0.0)
"""Of head, votes, quality, arithmetic and none: bare answer and rationales count alike, any answer is as likely as
none."""
DEVIATION = 3.0
"""Of the prior: wide enough for what a hundred questions say."""
COMBINATION = "combination"
SOURCES: dict[str, tuple[str, ...]] = {
    COMBINATION: FEATURES,
    "answer probability": ("head",),
    "votes": ("votes",),
    "quality": ("quality",),
}
"""Of a confidence: what it goes by. Votes are those of the rationales; where none are sampled, that is the agreement
of answer and rationale. Quality is the discriminator's, or that of the student's own judgement."""
FOLDS = 5
"""In which a source is fitted to the others and held against one."""
BINS = 10
"""Of confidences, each a tenth wide."""


def calibrate(folder: Path, t: int, on_progress: Callable[[int, int], None] | None = None) -> Calibrated:
    """Asks the student that a round ended with the validation questions, and fits a decision for each number of
    samples of `answering.samples`. With `registry.risk`, chooses the source of the first one's confidence, and finds
    the threshold below which the student abstains, by the certifying questions, which nothing else reads.

    Args:
        folder: the training's folder.
        t: the round.
        on_progress: called with (texts written, texts in all).
    """
    training = Training(folder)

    def fitted() -> Calibrated:
        started = time.monotonic()
        spec, dataset = training.spec, training.dataset
        rows, _ = judged_questions(training.store, spec.validation, spec.rule)
        certifying, judged_by = (
            judged_questions(training.store, spec.certifying, spec.rule) if spec.certifying else ([], "")
        )
        samples = samples_of(spec)
        answers = ask_round(training, t, [*rows, *certifying], explain=True, samples=samples, on_progress=on_progress)
        fitting, others = answers[: len(rows)], answers[len(rows) :]
        decisions = [fitted_to(dataset, rows, fitting, one) for one in samples]
        sources: dict[str, float] = {}
        promise = None
        if spec.config.risk is not None:
            decisions[0], sources = best_source(*_weighed(dataset, rows, fitting, samples[0]), samples[0])
            known = selective(figures(dataset, rows, fitting, decisions[0])[1])
            unseen = selective(figures(dataset, certifying, others, decisions[0])[1])
            promise = promised(known, unseen, spec.config.risk).model_copy(update={"judged_by": judged_by})
        return Calibrated(
            t=t,
            questions=len(rows),
            decisions=tuple(decisions),
            sources=sources,
            promise=promise,
            seconds=time.monotonic() - started,
        )

    return training.once(Calibrated, fitted, t)


def fit(
    given: Sequence[Sequence[Candidate]],
    right: Sequence[Sequence[bool]],
    samples: int,
    features_used: Sequence[str] = FEATURES,
) -> Decision:
    """The decision that makes what was right likeliest.

    Args:
        given: the candidates of each question; questions without any count for nothing.
        right: whether each of them is right; of one question several may be.
        samples: noted in the decision.
        features_used: those of FEATURES that may count; the others get the weight 0.
    """
    sizes = np.array([len(candidates) for candidates in given if candidates])
    starts = np.cumsum(sizes) - sizes  # of each question's candidates among all of them
    features = np.array([[getattr(one, name) for name in FEATURES] for candidates in given for one in candidates])
    rights = np.array([flag for flags in right for flag in flags], dtype=bool)
    used = np.array([*(name in features_used for name in FEATURES), True])
    prior = np.where(used, PRIOR, 0.0)

    def loss(free: NDArray[np.float64]) -> float:
        weights = np.zeros(len(PRIOR))
        weights[used] = free
        total = 0.5 * float((((weights - prior) / DEVIATION) ** 2).sum())
        if not len(sizes):
            return total
        scores, none = features @ weights[:-1], weights[-1]
        everything = np.logaddexp(np.logaddexp.reduceat(scores, starts), none)
        of_right = np.logaddexp.reduceat(np.where(rights, scores, -np.inf), starts)
        return total + float((everything - np.where(np.isneginf(of_right), none, of_right)).sum())

    found = np.zeros(len(PRIOR))
    found[used] = minimize(loss, prior[used], method="L-BFGS-B").x
    return Decision(samples=samples, **dict(zip((*FEATURES, "none"), found.tolist(), strict=True)))


def best_source(
    given: Sequence[Sequence[Candidate]], right: Sequence[Sequence[bool]], samples: int
) -> tuple[Decision, dict[str, float]]:
    """The decision with the best of SOURCES, by the area under the risk-coverage curve (`risk_control.aurc`) on
    questions that it was not fitted to, in FOLDS turns: the one with most weights always fits its own ones best.

    Args:
        given, right, samples: as in `fit`.

    Returns:
        The decision, fitted to all the questions, and each source's area, the best first.
    """
    told = [[getattr(one, name) for name in FEATURES] for candidates in given for one in candidates]
    varies = dict(zip(FEATURES, np.ptp(np.array(told), axis=0) > 0, strict=True)) if told else {}
    areas = {}
    for source, features in SOURCES.items():
        if not any(varies.get(name, False) for name in features):
            continue
        found: list[tuple[str | None, bool, float | None]] = [(None, False, None)] * len(given)
        for fold in range(FOLDS):
            rest = [place for place in range(len(given)) if place % FOLDS != fold]
            decision = fit([given[place] for place in rest], [right[place] for place in rest], samples, features)
            for place in range(fold, len(given), FOLDS):
                answer, confidence = decide(given[place], decision)
                rights = {one.answer: flag for one, flag in zip(given[place], right[place], strict=True)}
                found[place] = (answer, answer is not None and rights[answer], confidence)
        areas[source] = aurc(*selective(found))
    areas = dict(sorted(areas.items(), key=lambda item: item[1]))
    best = next(iter(areas), COMBINATION)
    return fit(given, right, samples, SOURCES[best]), areas


def selective(found: Sequence[tuple[str | None, bool, float | None]]) -> tuple[Confidences, Wrong]:
    """What `tasks.training.risk_control` takes: confidences, and what is wrong.

    Args:
        found: answer, whether it is right, and its confidence, as from `figures`.
    """
    return (
        np.array([NO_ANSWER if confidence is None else confidence for _, _, confidence in found], dtype=float),
        np.array([not right for _, right, _ in found], dtype=bool),
    )


def promised(fitting: tuple[Confidences, Wrong], certifying: tuple[Confidences, Wrong], risk: float) -> Promise:
    """The threshold whose risk is certified, from what `selective` says of both sets of questions."""
    found = certify(sequence(*fitting, risk), *certifying, risk)
    return Promise(
        risk=risk,
        certainty=CERTAINTY,
        abstain_below=ABSTAINS_ALWAYS if found.threshold is None else found.threshold,
        questions=len(certifying[0]),
        answered=found.answered,
        wrong=found.wrong,
        bound=found.bound,
    )


def figures(
    dataset: Dataset,
    rows: Sequence[dict[str, Any]],
    answers: Sequence[Answered],
    decision: Decision,
    promise: Promise | None = None,
    refuses: bool = False,
) -> tuple[Decided, list[tuple[str | None, bool, float | None]]]:
    """What deciding gives on labelled questions, and abstaining as promised.

    Args:
        refuses: whether the student was trained to say that it does not know.

    Returns:
        The figures, and for each question the answer, whether it is right, and its confidence.
    """
    found: list[tuple[str | None, bool, float | None]] = []
    for row, answered in zip(rows, answers, strict=True):
        decided = answered.decided(decision, decision.samples)
        found.append((decided.answer, judged_by_label(dataset, row, decided.answer), decided.confidence))
    confidences = np.array([confidence or 0.0 for _, _, confidence in found])
    rights = np.array([right for _, right, _ in found], dtype=bool)
    places = np.minimum((confidences * BINS).astype(int), BINS - 1)
    bins = [
        ReliabilityBin(
            questions=int(inside.sum()),
            confidence=float(confidences[inside].mean()),
            right=float(rights[inside].mean()),
        )
        for place in range(BINS)
        if (inside := places == place).any()
    ]
    correct = int(rights.sum())
    return (
        Decided(
            samples=decision.samples,
            correct=correct,
            accuracy=correct / len(found),
            calibration_error=sum(one.questions * abs(one.confidence - one.right) for one in bins) / len(found),
            reliability=tuple(bins),
            aurc=aurc(*selective(found)),
            risks=tuple(curve(*selective(found))),
            abstention=abstention(*selective(found), promise) if promise or refuses else None,
        ),
        found,
    )


def abstention(confidence: Confidences, wrong: Wrong, promise: Promise | None) -> Abstention:
    """What abstaining gives on questions that the promise was not made with; without one, whatever has a confidence is
    answered."""
    given = confidence >= (promise.abstain_below if promise else 0.0)
    questions, answered, errors = len(given), int(given.sum()), int(wrong[given].sum())
    return Abstention(
        promise=promise,
        questions=questions,
        answered=answered,
        wrong=errors,
        coverage=answered / questions,
        coverage_interval=share_interval(answered, questions),
        risk=errors / answered if answered else None,
        risk_interval=share_interval(errors, answered),
    )


def fitted_to(dataset: Dataset, rows: Sequence[dict[str, Any]], answers: Sequence[Answered], samples: int) -> Decision:
    """The decision that fits labelled questions best, by `fit`."""
    return fit(*_weighed(dataset, rows, answers, samples), samples)


def _weighed(
    dataset: Dataset, rows: Sequence[dict[str, Any]], answers: Sequence[Answered], samples: int
) -> tuple[list[list[Candidate]], list[list[bool]]]:
    """The candidates of labelled questions, and whether they are right."""
    given = [answered.candidates(samples) for answered in answers]
    right = [
        [judged_by_label(dataset, row, one.answer) for one in candidates]
        for row, candidates in zip(rows, given, strict=True)
    ]
    return given, right

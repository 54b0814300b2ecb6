"""How sure students are of the answers that they choose, and how often they are right, over several trainings."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.comparing.statistics import Interval, wilson
from tasks.training.outcomes import Decided

BINS = 10
"""Of confidences, each a tenth wide, as in `tasks.training.calibration`."""


@dataclass(frozen=True)
class Reliability:
    """A variant's chosen answers with one number of sampled rationales.

    Attributes:
        samples: sampled rationales for each question.
        accuracy: mean over its trainings.
        calibration_error: mean likewise.
        bins: (mean confidence, share that is right with Wilson's interval) of answers about equally sure, the least
            sure first. One question counts once for each training, so the intervals are rather too narrow.
        aurc: area under the risk-coverage curve, mean over the trainings; None where one of them has none.
        risks: that curve at equal steps of coverage: (mean, lowest, highest) over the trainings; empty likewise.
        coverage, risk: share that is answered, and share of the answers that is wrong, of students that abstain, with
            Wilson's intervals, as narrow as those of the bins; None where they do not, risk also where none answers.
    """

    samples: int
    accuracy: float
    calibration_error: float
    bins: Sequence[tuple[float, Interval]]
    aurc: float | None = None
    risks: Sequence[Interval] = ()
    coverage: Interval | None = None
    risk: Interval | None = None


def reliability_of(trainings: Sequence[Sequence[Decided]]) -> list[Reliability]:
    """One for each number of samples that all of a variant's trainings have.

    Args:
        trainings: what each of them chose.
    """
    if not trainings:
        return []
    common = [one.samples for one in trainings[0] if all(one.samples in {o.samples for o in own} for own in trainings)]
    found = []
    for samples in sorted(common):
        several = [one for own in trainings for one in own if one.samples == samples]
        places: dict[int, list[tuple[int, float, int]]] = {}
        for one in several:
            for part in one.reliability:
                place = min(BINS - 1, int(part.confidence * BINS))
                right = round(part.right * part.questions)
                places.setdefault(place, []).append((part.questions, part.confidence * part.questions, right))
        bins = []
        for place in sorted(places):
            questions, confidences, right = (sum(column) for column in zip(*places[place], strict=True))
            bins.append((confidences / questions, wilson(right, questions)))
        areas = [one.aurc for one in several if one.aurc is not None]
        curves = [one.risks for one in several]
        abstained = [one.abstention for one in several if one.abstention]
        questions, answered, wrong = (
            sum(getattr(one, name) for one in abstained) for name in ("questions", "answered", "wrong")
        )
        found.append(
            Reliability(
                samples,
                sum(one.accuracy for one in several) / len(several),
                sum(one.calibration_error for one in several) / len(several),
                bins,
                sum(areas) / len(areas) if len(areas) == len(several) else None,
                [(sum(at) / len(at), min(at), max(at)) for at in zip(*curves, strict=True)] if all(curves) else (),
                wilson(answered, questions) if questions else None,
                wilson(wrong, answered) if answered else None,
            )
        )
    return found

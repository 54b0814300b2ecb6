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
    """

    samples: int
    accuracy: float
    calibration_error: float
    bins: Sequence[tuple[float, Interval]]


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
        found.append(
            Reliability(
                samples,
                sum(one.accuracy for one in several) / len(several),
                sum(one.calibration_error for one in several) / len(several),
                bins,
            )
        )
    return found

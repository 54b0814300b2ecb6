"""What the report of a comparison shows besides its result: rounds, scores, and questions with their answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.comparison import ComparisonResult, Trained, kind_of, shown_name
from flows.config.compare import CompareConfig
from storage.store import Store
from tasks.comparing.answers import Told, questions_of
from tasks.comparing.curves import Curves, curves_of, round_points
from tasks.comparing.examples import Shown, disagreements, shown
from tasks.comparing.reliability import Reliability, reliability_of
from tasks.comparing.scores import Scores
from tasks.training.folder import Training
from tasks.training.outcomes import Decided, Preparation

EXAMPLES = 12
"""Questions that are shown."""


@dataclass(frozen=True)
class Contents:
    """All that is in a report.

    Attributes:
        config: what was compared.
        result: what came out.
        dataset: stored name.
        trained_on: training questions of the largest share, fewest and most: methods leave out what they cannot use.
        parameters: of the baseline's student.
        curves: variant's name -> its rounds on the largest share.
        scores: variant's name -> scores of each of its trainings; only those with a discriminator.
        examples: questions on which the variants disagree.
        told: variant's name -> what the first of its trainings told.
        chosen: variant's name -> how sure its students are of the answers that they choose, and how often right.
    """

    config: CompareConfig
    result: ComparisonResult
    dataset: str
    trained_on: tuple[int, int]
    parameters: int
    curves: Mapping[str, Curves]
    scores: Mapping[str, Sequence[Scores]]
    examples: Sequence[Shown]
    told: Mapping[str, Told]
    chosen: Mapping[str, Sequence[Reliability]]


def contents_of(store: Store, config: CompareConfig, trained: Sequence[Trained], result: ComparisonResult) -> Contents:
    """Reads them.

    Args:
        trained: all trainings of the comparison.
        result: of the comparison.
    """
    share = max(config.shares)
    kinds: dict[str, list[Trained]] = {}
    for one in trained:
        if one.cell.share == share:
            variant, rounds, _ = kind_of(one.cell)
            kinds.setdefault(shown_name(variant, rounds), []).append(one)
    first = kinds[config.baseline][0]
    training = Training(first.result.folder)
    prepared = [Training(one.result.folder).outcome(Preparation) for own in kinds.values() for one in own]
    questions = [one.questions for one in prepared if one is not None]
    told = {name: own[0].told for name, own in kinds.items()}
    partition = questions_of(training.spec, config.part).partition
    return Contents(
        config=config,
        result=result,
        dataset=training.spec.train.dataset,
        trained_on=(min(questions), max(questions)),
        parameters=first.result.parameters,
        curves={
            name: curves_of([round_points(Training(one.result.folder)) for one in own]) for name, own in kinds.items()
        },
        scores={name: scores for name, own in kinds.items() if (scores := [one.scores for one in own if one.scores])},
        examples=shown(store, partition, disagreements(told, EXAMPLES)),
        told=told,
        chosen={
            name: found for name, own in kinds.items() if (found := reliability_of([_decided(one) for one in own]))
        },
    )


def _decided(trained: Trained) -> Sequence[Decided]:
    """On the test questions; where there are none, on the validation questions, to which the choice was fitted."""
    result = trained.result
    return result.test.decided if result.test else result.rounds[result.best].decided

"""The result of a comparison: what each variant reaches, and what may be said of the differences."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from flows.config.compare import Cell, CompareConfig
from flows.results import MethodResult
from tasks.comparing.answers import FIGURES, Figure, Told, common_questions, table_of
from tasks.comparing.statistics import Difference, holm, mean_interval, paired_difference, sentence, verdict


@dataclass(frozen=True)
class Trained:
    """One training of a comparison."""

    cell: Cell
    result: MethodResult
    told: Told


class VariantRow(BaseModel):
    """What a variant reaches on one share of the training questions.

    Attributes:
        variant, share: which.
        rounds: in place of its configuration's, for a baseline trained for as long as a slower variant; else None.
        seeds, questions: how many.
        answers, explanations: figure -> (mean, low, high), shares of the questions with their 95 % interval.
        seconds: median of its trainings.
        best_round: mean.
    """

    variant: str
    share: float
    rounds: int | None
    seeds: int
    questions: int
    figures: dict[Figure, tuple[float, float, float]]
    seconds: float
    best_round: float

    @property
    def name(self) -> str:
        """The variant, with its rounds where they are not its own."""
        return self.variant if self.rounds is None else f"{self.variant}, {self.rounds} rounds"


class DifferenceRow(BaseModel):
    """A variant compared with the baseline.

    Attributes:
        variant, against: names of the two.
        share: of the training questions.
        figure: what is compared.
        difference, low, high: mean difference with its 95 % interval.
        p_value: of no difference; `adjusted` for all comparisons of the figure (Holm).
        verdict: better, worse, or same where it cannot be told.
        sentence: all of it in words.
    """

    variant: str
    against: str
    share: float
    figure: Figure
    difference: float
    low: float
    high: float
    p_value: float
    adjusted: float
    verdict: str
    sentence: str


class ComparisonResult(BaseModel):
    """All of a comparison."""

    part: str
    variants: list[VariantRow]
    differences: list[DifferenceRow]


def comparison(
    config: CompareConfig, trained: Sequence[Trained], against: Mapping[str, int | None]
) -> ComparisonResult:
    """Computes the result.

    Args:
        trained: all trainings.
        against: variant -> rounds of the baseline that it is compared with; None for the baseline's own.
    """
    kinds = dict.fromkeys((one.cell.variant, one.cell.rounds, one.cell.share) for one in trained)
    rows = [_row([one for one in trained if _kind(one.cell) == kind]) for kind in kinds]
    differences = []
    for figure in FIGURES:
        found = {}
        for share in config.shares:
            for variant in config.variants:
                if variant != config.baseline:
                    other = (config.baseline, against[variant], share)
                    pair = [_told(trained, kind) for kind in ((variant, None, share), other)]
                    if (row := _difference(pair, figure)) is not None:
                        found[variant, share] = row
        adjusted = holm({f"{variant}/{share}": row.p_value for (variant, share), row in found.items()})
        for (variant, share), row in found.items():
            p_value = adjusted[f"{variant}/{share}"]
            rounds_ = against[variant]
            name = config.baseline if rounds_ is None else f"{config.baseline} with {rounds_} rounds"
            differences.append(
                DifferenceRow(
                    variant=variant, against=name, share=share, figure=figure, difference=row.mean, low=row.low,
                    high=row.high, p_value=row.p_value, adjusted=p_value, verdict=verdict(row, p_value),
                    sentence=f"{figure.capitalize()}: {sentence(variant, name, row, p_value)}",
                )
            )  # fmt: skip
    return ComparisonResult(part=config.part, variants=rows, differences=differences)


def _kind(cell: Cell) -> tuple[str, int | None, float]:
    return cell.variant, cell.rounds, cell.share


def _told(trained: Sequence[Trained], kind: tuple[str, int | None, float]) -> list[list[Told]]:
    """Of each seed its folds, in order."""
    own = [one for one in trained if _kind(one.cell) == kind]
    return [[one.told for one in own if one.cell.seed == seed] for seed in sorted({one.cell.seed for one in own})]


def _row(own: Sequence[Trained]) -> VariantRow:
    cell = own[0].cell
    told = _told(own, _kind(cell))
    figures: dict[Figure, tuple[float, float, float]] = {}
    questions = 0
    for figure in FIGURES:
        if asked := common_questions(told, figure):
            figures[figure] = mean_interval(table_of(told, figure, sorted(asked)))
            questions = len(asked)
    return VariantRow(
        variant=cell.variant, share=cell.share, rounds=cell.rounds, seeds=len(told), questions=questions,
        figures=figures,
        seconds=statistics.median(one.result.seconds for one in own),
        best_round=statistics.fmean(one.result.best for one in own),
    )  # fmt: skip


def _difference(pair: Sequence[list[list[Told]]], figure: Figure) -> Difference | None:
    """First minus second on the questions that both answered; None where one of them has no such figure."""
    asked = [common_questions(told, figure) for told in pair]
    if asked[0] is None or asked[1] is None:
        return None
    examples = sorted(asked[0] & asked[1])
    first, second = (table_of(told, figure, examples) for told in pair)
    return paired_difference(first, second)

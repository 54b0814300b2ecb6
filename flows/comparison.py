"""The result of a comparison: what each variant reaches, and what may be said of the differences."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from flows.config.compare import Cell, CompareConfig
from flows.results import MethodResult
from storage.ids import content_id
from tasks.comparing.answers import FIGURES, Figure, Told, common_questions, table_of
from tasks.comparing.judge import Pair
from tasks.comparing.preferences import Preferences
from tasks.comparing.quality import COMPARED, QUALITIES, Quality, quality_difference, quality_of
from tasks.comparing.scores import Scores
from tasks.comparing.statistics import (
    CONFIDENCE,
    Difference,
    Interval,
    holm,
    mean_interval,
    paired_difference,
    sentence,
    sign_test,
    verdict,
)

Seeds = list[list[Told]]
"""What the trainings of one kind told: of each seed its folds, in order."""


@dataclass(frozen=True)
class Trained:
    """One training of a comparison.

    Attributes:
        cell: which one.
        result: what it came to.
        told: what its student told to the questions that are compared.
        scores: of its discriminator; None without one.
    """

    cell: Cell
    result: MethodResult
    told: Told
    scores: Scores | None = None


class VariantRow(BaseModel):
    """What a variant reaches on one share of the training questions.

    Attributes:
        variant, share: which.
        rounds: in place of its configuration's, for a baseline trained for as long as a slower variant; else None.
        seeds, questions: how many.
        figures: figure -> (mean, low, high), shares of the questions with their 95 % interval.
        quality: figures of its rationales (`tasks.comparing.quality`), likewise.
        seconds: median of its trainings.
        best_round: mean.
    """

    variant: str
    share: float
    rounds: int | None
    seeds: int
    questions: int
    figures: dict[Figure, Interval]
    quality: dict[Quality, Interval]
    seconds: float
    best_round: float

    @property
    def name(self) -> str:
        """The variant, with its rounds where they are not its own."""
        return shown_name(self.variant, self.rounds)


class DifferenceRow(BaseModel):
    """A variant compared with the baseline.

    Attributes:
        variant, against: names of the two.
        share: of the training questions.
        figure: what is compared; of rationales one of their qualities.
        difference, low, high: mean difference with its 95 % interval.
        p_value: of no difference; `adjusted` for all comparisons of the figure (Holm).
        verdict: better, worse, or same where it cannot be told.
        sentence: all of it in words.
    """

    variant: str
    against: str
    share: float
    figure: Figure | Quality
    difference: float
    low: float
    high: float
    p_value: float
    adjusted: float
    verdict: str
    sentence: str


class JudgedRow(BaseModel):
    """A variant's rationales compared with the baseline's by a judge.

    Attributes:
        variant, against: names of the two.
        wins, ties, losses, same, unread, refused: questions (`tasks.comparing.preferences.Preferences`).
        share, low, high: wins of all that are decided, with the exact 95 % interval.
        p_value: of the exact sign test; `adjusted` for all comparisons (Holm).
        verdict: better, worse, or same where it cannot be told.
        sentence: all of it in words.
    """

    variant: str
    against: str
    wins: int
    ties: int
    losses: int
    same: int
    unread: int
    refused: int
    share: float
    low: float
    high: float
    p_value: float
    adjusted: float
    verdict: str
    sentence: str


class ComparisonResult(BaseModel):
    """All of a comparison.

    Attributes:
        part: of the questions.
        variants, differences: the tables.
        rationales: differences between the qualities of rationales.
        judged: the judge's preferences; empty without a judge.
        report: path of the HTML report; None until it is written.
        mlflow_run: the comparison's run; `mlflow_url` that of its page, None if there is no server.
    """

    part: str
    variants: list[VariantRow]
    differences: list[DifferenceRow]
    rationales: list[DifferenceRow] = []
    judged: list[JudgedRow] = []
    report: Path | None = None
    mlflow_run: str | None = None
    mlflow_url: str | None = None


def comparison(
    config: CompareConfig,
    trained: Sequence[Trained],
    against: Mapping[str, int | None],
    judged: Mapping[str, Preferences],
) -> ComparisonResult:
    """Computes the result.

    Args:
        trained: all trainings.
        against: variant -> rounds of the baseline that it is compared with; None for the baseline's own.
        judged: variant -> how often its rationales were preferred; empty without a judge.
    """
    kinds = dict.fromkeys(kind_of(one.cell) for one in trained)
    rows = [_row([one for one in trained if kind_of(one.cell) == kind]) for kind in kinds]
    return ComparisonResult(
        part=config.part,
        variants=rows,
        differences=[row for figure in FIGURES for row in _differences(config, trained, against, figure, figure)],
        rationales=[row for name in COMPARED for row in _differences(config, trained, against, name, QUALITIES[name])],
        judged=_judged_rows(config, against, judged),
    )


def pairs_to_judge(
    config: CompareConfig, trained: Sequence[Trained], against: Mapping[str, int | None], variant: str, count: int
) -> list[Pair]:
    """The questions on which a variant's rationales are judged against the baseline's, on the largest share.

    A question is asked once, with the rationales of one seed, so that the preferences are independent; seeds take
    turns. The questions are the same for all variants, as far as both have a rationale.

    Args:
        count: at most so many questions.
    """
    share = max(config.shares)
    own, other = (
        [{key: (fold.student, said) for fold in folds for key, said in fold.said.items()} for folds in seeds]
        for seeds in (_told(trained, (variant, None, share)),
                      _told(trained, (config.baseline, against[variant], share)))
    )  # fmt: skip
    common = set.intersection(*(set(seed) for seed in (*own, *other)))
    explained = [
        example
        for example in sorted(common, key=lambda example: content_id("judged", example))
        if all(seed[example][1].rationale is not None for seed in (*own, *other))
    ]
    return [
        Pair(example, own[place % config.seeds][example][0], other[place % config.seeds][example][0])
        for place, example in enumerate(explained[:count])
    ]


def _judged_rows(
    config: CompareConfig, against: Mapping[str, int | None], judged: Mapping[str, Preferences]
) -> list[JudgedRow]:
    tests = {variant: sign_test(found.wins, found.losses) for variant, found in judged.items()}
    adjusted = holm({variant: p_value for variant, (_, p_value) in tests.items()})
    rows = []
    for variant, found in judged.items():
        (share, low, high), p_value = tests[variant]
        name, said = _baseline(config, against[variant]), "same"
        if adjusted[variant] <= 1 - CONFIDENCE:
            said = "better" if found.wins > found.losses else "worse"
        chance = f"p = {adjusted[variant]:.2g}" if adjusted[variant] >= 0.001 else "p < 0.001"
        counted = f"win {found.wins:,}, tie {found.ties:,} and lose {found.losses:,} ({chance})"
        told = {
            "better": f"{variant}'s rationales are preferred to those of {name}: they {counted}.",
            "worse": f"The rationales of {name} are preferred to those of {variant}, which {counted}.",
            "same": f"Whether {variant}'s rationales are better than those of {name} cannot be told: they {counted}.",
        }[said]
        rows.append(
            JudgedRow(
                variant=variant, against=name, **vars(found), share=share, low=low, high=high, p_value=p_value,
                adjusted=adjusted[variant], verdict=said, sentence=f"Judge: {told}",
            )
        )  # fmt: skip
    return rows


def kind_of(cell: Cell) -> tuple[str, int | None, float]:
    """What a cell's training has in common with those of other seeds and folds: variant, rounds, share."""
    return cell.variant, cell.rounds, cell.share


def shown_name(variant: str, rounds: int | None) -> str:
    """A variant, with its rounds where they are not its own."""
    return variant if rounds is None else f"{variant}, {rounds} rounds"


def _baseline(config: CompareConfig, rounds: int | None) -> str:
    return config.baseline if rounds is None else f"{config.baseline} with {rounds} rounds"


def _told(trained: Sequence[Trained], kind: tuple[str, int | None, float]) -> Seeds:
    """Of each seed its folds, in order."""
    own = [one for one in trained if kind_of(one.cell) == kind]
    return [[one.told for one in own if one.cell.seed == seed] for seed in sorted({one.cell.seed for one in own})]


def _row(own: Sequence[Trained]) -> VariantRow:
    cell = own[0].cell
    told = _told(own, kind_of(cell))
    scores = [[one.scores for one in own if one.cell.seed == seed] for seed in sorted({one.cell.seed for one in own})]
    figures: dict[Figure, Interval] = {}
    questions = 0
    for figure in FIGURES:
        if asked := common_questions(told, figure):
            figures[figure] = mean_interval(table_of(told, figure, sorted(asked)))
            questions = len(asked)
    return VariantRow(
        variant=cell.variant, share=cell.share, rounds=cell.rounds, seeds=len(told), questions=questions,
        figures=figures, quality=quality_of(told, scores),
        seconds=statistics.median(one.result.seconds for one in own),
        best_round=statistics.fmean(one.result.best for one in own),
    )  # fmt: skip


def _differences(
    config: CompareConfig,
    trained: Sequence[Trained],
    against: Mapping[str, int | None],
    figure: Figure | Quality,
    title: str,
) -> list[DifferenceRow]:
    """A figure of every variant minus the baseline's, as far as both have it; its sentences begin with the title."""
    found = {}
    for share in config.shares:
        for variant in config.variants:
            if variant != config.baseline:
                own = _told(trained, (variant, None, share))
                other = _told(trained, (config.baseline, against[variant], share))
                if (row := _difference(own, other, figure)) is not None:
                    found[variant, share] = row
    adjusted = holm({f"{variant}/{share}": row.p_value for (variant, share), row in found.items()})
    rows = []
    for (variant, share), row in found.items():
        p_value = adjusted[f"{variant}/{share}"]
        name = _baseline(config, against[variant])
        rows.append(
            DifferenceRow(
                variant=variant, against=name, share=share, figure=figure, difference=row.mean, low=row.low,
                high=row.high, p_value=row.p_value, adjusted=p_value, verdict=verdict(row, p_value),
                sentence=f"{title.capitalize()}: {sentence(variant, name, row, p_value)}",
            )
        )  # fmt: skip
    return rows


def _difference(own: Seeds, other: Seeds, figure: Figure | Quality) -> Difference | None:
    """First minus second on the questions that both answered; None where one of them has no such figure."""
    if figure not in FIGURES:
        return quality_difference(own, other, figure)
    asked = [common_questions(told, figure) for told in (own, other)]
    if asked[0] is None or asked[1] is None:
        return None
    examples = sorted(asked[0] & asked[1])
    return paired_difference(table_of(own, figure, examples), table_of(other, figure, examples))

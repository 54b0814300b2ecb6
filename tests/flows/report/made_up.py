"""Contents of a report as a comparison would give them, without any training. Run as a module, it writes the page:

python -m tests.flows.report.made_up made-up.html
"""

import random
import sys
from pathlib import Path

import numpy as np

from flows.comparison import Trained, comparison
from flows.config.compare import Cell, CompareConfig
from flows.report.contents import Contents
from flows.report.page import page
from flows.results import MethodResult
from tasks.comparing.answers import Said, Told
from tasks.comparing.curves import RoundPoint, curves_of
from tasks.comparing.examples import Shown
from tasks.comparing.preferences import Preferences
from tasks.comparing.reliability import reliability_of
from tasks.comparing.scores import Scores
from tasks.training.outcomes import Abstention, Decided, Evaluation, Promise, ReliabilityBin

SKILL = {"dss": 0.55, "qcrd": 0.62, "divergence": 0.585, "finetune": 0.47}
QUESTIONS, SEEDS, ROUNDS = 200, 3, 12


def contents(
    name: str = "qcrd", texts: str = "", questions: int = QUESTIONS, shares: tuple[float, ...] = (1.0,)
) -> Contents:
    """A report's contents.

    Args:
        name: of the variant `qcrd`.
        texts: put into every text that a dataset, a teacher or a student wrote.
    """
    skill = {name if key == "qcrd" else key: value for key, value in SKILL.items()}
    config = CompareConfig.model_validate(
        {"base": "lab", "settings": {"rounds": {"rounds": ROUNDS}}, "baseline": "dss", "seeds": SEEDS, "shares": shares,
         "variants": {key: {"method": {"name": texts or key}} for key in skill},
         "judge": {"model": f"wise {texts}", "url": "http://127.0.0.1:8000/v1"}}
    )  # fmt: skip
    rng = np.random.default_rng(4)
    difficulty = rng.beta(1.5, 1.5, questions)
    trained = [
        _trained(cell, skill[cell.variant], difficulty, rng, texts)
        for variant in skill
        for cell in config.cells(variant)
    ]
    judged = {
        variant: Preferences(wins, 160 - wins, 40, 31, 4, 1) for variant, wins in ((name, 92), ("divergence", 51))
    }
    result = comparison(config, trained, dict.fromkeys(skill), judged)
    own = {variant: [one for one in trained if one.cell.variant == variant] for variant in skill}
    return Contents(
        config=config,
        result=result,
        dataset=f"lab{texts}",
        trained_on=(1998, 2000),
        parameters=1_200_000,
        curves={
            variant: curves_of([_rounds(chance, variant, seed) for seed in range(SEEDS)])
            for variant, chance in skill.items()
        },
        scores={variant: [one.scores for one in own[variant] if one.scores] for variant in (name, "divergence")},
        examples=[_shown(place, texts) for place in range(12)],
        told={variant: own[variant][0].told for variant in skill},
        chosen={variant: reliability_of([_decided(chance)] * SEEDS) for variant, chance in skill.items()},
    )  # fmt: skip


def _decided(skill: float) -> list[Decided]:
    """A little too sure, and better with more rationales."""
    return [
        Decided(
            samples=samples, correct=0, accuracy=skill + 0.02 * samples**0.5, calibration_error=0.04,
            reliability=tuple(
                ReliabilityBin(questions=20, confidence=0.05 + tenth / 10, right=round(0.9 * tenth * 2) / 20)
                for tenth in range(10)
            ),
            aurc=0.9 - skill, risks=tuple((1 - skill) * step / 20 for step in range(1, 21)),
            abstention=_abstention(skill) if samples == 0 else None,
        )
        for samples in (0, 4, 16)
    ]  # fmt: skip


def _abstention(skill: float) -> Abstention:
    """Of a student that answers the more the better it is."""
    promise = Promise(risk=0.05, certainty=0.95, abstain_below=0.8, questions=150, answered=90, wrong=1, bound=0.05)
    answered = round(100 * skill)
    return Abstention(
        promise=promise, questions=QUESTIONS, answered=answered, wrong=2, coverage=answered / QUESTIONS,
        coverage_interval=(0.2, 0.4), risk=2 / answered, risk_interval=(0.01, 0.1),
    )  # fmt: skip


def _shown(place: int, texts: str) -> Shown:
    right = f"{place + 4}{texts}"
    said = f"She has {place} + 4 = {place + 4}. So the answer is {right}."
    asked = f"Ann has {place} nuts and gets 4 more. How many has she?{texts}"
    return Shown(f"q{place}", asked, () if place % 3 else (right, "5"), right, None if place % 4 == 3 else said)


def _trained(cell: Cell, skill: float, difficulty: np.ndarray, rng: np.random.Generator, texts: str) -> Trained:
    skill -= 0.3 * (1 - cell.share) + rng.normal(0, 0.015)
    explains = cell.variant != "finetune"
    right = {
        figure: {
            f"q{place}": bool(rng.random() < chance + skill - 0.5 - less) for place, chance in enumerate(difficulty)
        }
        for figure, less in (("answers", 0.0), ("explanations", 0.06))
        if explains or figure == "answers"
    }
    said = {
        key: Said(
            f"{place + 4 + (not good)}{texts}",
            f"She has {place} + 4 = {place + 4}. So the answer is {place + 4}.{texts}" if explains else None,
            bool(rng.random() < skill + 0.2) if explains else None,
            (int(rng.random() < skill + 0.3), 1) if explains else None,
        )
        for place, (key, good) in enumerate(right["answers"].items())
    }
    scores = None
    if cell.variant not in ("dss", "finetune"):
        high, low = rng.beta(5, 2.5, (200, 3)), rng.beta(3, 3.4, (200, 2))
        scores = Scores(
            {f"t{place}": list(map(float, row)) for place, row in enumerate(high)},
            {f"t{place}": list(map(float, row)) for place, row in enumerate(low)},
            auc_minority=0.74, auc_student=0.91,
        )  # fmt: skip
    seconds = 300.0 + 2500 * skill
    result = MethodResult(
        method="qcrd", training_id="t", student="s", folder=Path("t"), parameters=1_200_000,
        rounds=[Evaluation(t=0, part="validation", questions=1, answered=1, correct=1, accuracy=1.0)],
        best=9 + cell.seed % 3, test=None, test_interval=None, seconds=seconds + 7 * cell.seed,
        mlflow_run="", mlflow_round="", mlflow_model="",
    )  # fmt: skip
    return Trained(cell, result, Told(right, said, "s@9"), scores)  # type: ignore[arg-type]


def _rounds(skill: float, variant: str, seed: int) -> list[RoundPoint]:
    rng, points = random.Random(f"{variant}{seed}"), []
    for t in range(ROUNDS):
        reached = skill * (1 - 0.85 ** (t + 1)) + rng.gauss(0, 0.015)
        contrast = variant not in ("dss", "finetune")
        seconds = {"student": 60 + rng.random() * 5, "validation": 6.0}
        if contrast:
            seconds |= {"sampling": 22.0, "discriminator": 12.0}
        explained = None if variant == "finetune" else max(0.0, reached - 0.06)
        points.append(RoundPoint(max(0.0, reached), explained, min(0.5, 0.05 * t) if contrast else None, seconds))
    return points


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(contents(shares=(0.25, 0.5, 1.0) if "shares" in sys.argv else (1.0,))), "utf-8")

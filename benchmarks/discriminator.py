"""How well a training's discriminator tells good rationales from bad ones; with a plot like the paper's Figure 6.

    python -m benchmarks.discriminator                       # the newest qcrd training of --home
    python -m benchmarks.discriminator --training ID --plot scores.png

On the questions that the discriminator was not trained on (every tenth): the teacher's positives against its minority
samples, and against fresh samples of the best round's student at T = 1.5 and T = 2. Nothing is stored.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from models.discriminator import load_discriminator
from models.generation import generate
from models.prefixes import EXPLAIN
from models.seeds import derived_seed
from models.student_loading import load_student
from tasks.training.folder import Training, trainings_in
from tasks.training.outcomes import QualityUpdated
from tasks.training.quality import area_under_curve
from tasks.training.rounds import best_round
from tasks.training.summary import find_training
from tasks.training.training_set import is_held_out

TEMPERATURES = (1.5, 2.0)


def newest_qcrd(home: Path) -> Training:
    """The newest training that has a discriminator."""
    judged = [training for training in trainings_in(home) if training.spec.config.method.uses_discriminator]
    if not judged:
        sys.exit(f"No training with a discriminator under {home}; run `qcrd distill lab` first.")
    return judged[-1]


def scores_by_kind(training: Training) -> tuple[int, dict[str, list[float]]]:
    """(round of the student, kind of rationale -> scores) on the held-out questions."""
    spec, dataset = training.spec, training.dataset
    best = best_round(training.evaluations())
    quality = training.outcome(QualityUpdated, best)
    assert quality is not None
    assert quality.version is not None, "the training has no discriminator"
    judge = load_discriminator(training.discriminator(quality.version))
    student = load_student(training.model(best), spec.config.student)
    rows = [row for place, row in enumerate(training.examples().to_pylist()) if is_held_out(place)]
    questions = [dataset.student_input(row["question"], tuple(row["choices"])) for row in rows]
    texts: dict[str, list[tuple[str, str]]] = {
        "positive": pairs(questions, rows, "positives"),
        "minority": pairs(questions, rows, "negatives"),
    }
    for temperature in TEMPERATURES:
        written = generate(
            student,
            [EXPLAIN + question for question in questions],
            max_new_tokens=spec.config.negatives.max_tokens or student.max_target_tokens,
            temperature=temperature,
            seeds=[derived_seed("figure", str(temperature), row["example_id"]) for row in rows],
        )
        texts[f"student, T = {temperature:g}"] = [(q, made.text) for q, made in zip(questions, written, strict=True)]
    return best, {
        kind: judge.score([question for question, _ in found], [text for _, text in found]).tolist()
        for kind, found in texts.items()
    }


def pairs(questions: list[str], rows: list[dict[str, Any]], side: str) -> list[tuple[str, str]]:
    """(question, rationale) of one side of the vote."""
    return [(question, item["text"]) for question, row in zip(questions, rows, strict=True) for item in row[side]]


def show(scores: dict[str, list[float]]) -> None:
    """The table."""
    table = Table(box=None, pad_edge=False)
    for name in ("rationales", "n", "mean score", "median", "AUC against positives"):
        table.add_column(name, justify="left" if name == "rationales" else "right")
    for kind, values in scores.items():
        auc = area_under_curve(scores["positive"], values) if kind != "positive" else None
        middle = sorted(values)[len(values) // 2]
        table.add_row(
            kind, f"{len(values):,}", f"{sum(values) / len(values):.3f}", f"{middle:.3f}",
            "" if auc is None else f"{auc:.3f}",
        )  # fmt: skip
    Console(width=100).print(table)


def plot(scores: dict[str, list[float]], file: Path) -> None:
    """One histogram per kind, on the same axis."""
    figure, axes = plt.subplots(len(scores), 1, figsize=(6.4, 1.5 * len(scores)), sharex=True, layout="constrained")
    for axis, (kind, values) in zip(axes, scores.items(), strict=True):
        axis.hist(values, bins=40, range=(0, 1), color="tab:green" if kind == "positive" else "tab:red", alpha=0.8)
        axis.set_title(f"{kind} ({len(values):,})", loc="left", fontsize=9)
        axis.set_yticks([])
    axes[-1].set_xlabel("quality score of the discriminator, on questions it was not trained on")
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".qcrd"))
    parser.add_argument("--training", help="its id; the newest with a discriminator if left out")
    parser.add_argument("--plot", type=Path, help="a PNG to write")
    options = parser.parse_args()
    chosen = find_training(options.home, options.training) if options.training else newest_qcrd(options.home)
    best, scores = scores_by_kind(chosen)
    print(f"{chosen.spec.name}, the student of round {best} and its discriminator")
    show(scores)
    if options.plot:
        plot(scores, options.plot)


if __name__ == "__main__":
    main()

"""How many samples an early end of asking saves, and what it costs: recorded samples replayed.

    python -m benchmarks.asking FOLDER          # with svamp_train.jsonl.gz, cqa_train.jsonl.gz, esnli_train.jsonl.gz

Each question's samples come in an order shuffled by the seed. They are asked for one by one, from LEAST on, until the
doubt (`tasks.teacher.stopping`) is at most the one allowed, or MOST are there. Beside it: always five.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from storage.datasets.definition import Dataset, Example
from storage.datasets.registry import get_dataset
from storage.recorded import read_recorded
from tasks.teacher.stopping import doubt

FILES = {"svamp": "gpt-3.5*", "cqa": "gpt-style-*", "esnli": "gpt-style-*"}
"""Dataset -> whose samples of <dataset>_train.jsonl.gz are taken: those of one teacher, however it was asked."""
ALWAYS = 5
RULES = [(least, most, allowed) for least, most in ((2, 5), (2, 8)) for allowed in (0.05, 0.1, 0.2, 0.3)]

Recorded = tuple[Example, list[str | None]]


def read(file: Path, dataset: Dataset, teachers: str) -> list[Recorded]:
    """The labelled questions with at least `ALWAYS` samples, and the answers read from those."""
    found = []
    for question in read_recorded(file, dataset):
        texts = [one.text for one in question.samples if fnmatch(one.teacher, teachers)]
        if len(texts) >= ALWAYS and question.example.label is not None:
            found.append((question.example, [dataset.parse(text, question.example.choices).answer for text in texts]))
    return found


def asked(answers: Sequence[str | None], least: int, most: int, allowed: float) -> int:
    """How many of a question's samples are asked for."""
    most = min(most, len(answers))
    return next(count for count in range(least, most + 1) if doubt(answers[:count], most - count) <= allowed)


def is_right(dataset: Dataset, example: Example, answers: Sequence[str | None]) -> bool:
    """Whether the majority is; of equal counts the first answer counts."""
    counted = Counter(answer for answer in answers if answer is not None).most_common(1)
    return bool(counted) and dataset.equal(str(counted[0][0]), str(example.label), example.extra)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    for name, teachers in FILES.items():
        dataset = get_dataset(name)
        recorded = read(options.folder / f"{name}_train.jsonl.gz", dataset, teachers)
        table = Table("asked, doubt", "samples", "fewer", "majority right", "minus always 5",
                      title=f"{name}: {len(recorded):,} questions, {teachers}")  # fmt: skip
        orders = [
            [(example, random.Random(f"{seed}/{place}").sample(answers, len(answers)))
             for place, (example, answers) in enumerate(recorded)]
            for seed in range(options.seeds)
        ]  # fmt: skip
        always = fmean(is_right(dataset, one, answers[:ALWAYS]) for order in orders for one, answers in order)
        table.add_row("always 5", "5.00", "", f"{100 * always:.2f} %", "")
        for least, most, allowed in RULES:
            counts = [asked(answers, least, most, allowed) for order in orders for _, answers in order]
            flat = [pair for order in orders for pair in order]
            right = fmean(
                is_right(dataset, one, answers[:count]) for (one, answers), count in zip(flat, counts, strict=True)
            )
            table.add_row(
                f"{least} to {most}, {allowed}", f"{fmean(counts):.2f}", f"{1 - fmean(counts) / ALWAYS:.0%}",
                f"{100 * right:.2f} %", f"{100 * (right - always):+.2f} points",
            )  # fmt: skip
        Console().print(table)


if __name__ == "__main__":
    main()

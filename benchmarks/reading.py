"""How well answers are read from recorded texts of real teachers, and how fast.

    python -m benchmarks.reading FOLDER                                   # the recordings, see tests/recorded_data.py
    python -m benchmarks.reading FOLDER --save before.jsonl               # then change the parser, and
    python -m benchmarks.reading FOLDER --before before.jsonl --show 20   # see every kind of change, with texts

A teacher's texts of one file are a line: how many of them have an answer, how many of those are right by the gold
label, how many of all are, and how many have none of ours although the answer that another parser recorded is the gold
one. Files that are missing are skipped and named. Time is this thread's processor time, parsing alone.
"""

import argparse
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from storage.datasets.registry import get_dataset
from storage.recorded import read_recorded

FILES = {
    "svamp_train": "svamp",
    "cqa_train": "cqa",
    "esnli_train": "esnli",
    "esnli_valid": "esnli",
    "anli1_train": "anli1",
    "anli1_train_unlabeled": "anli1",
    "anli1_valid": "anli1",
}
"""File -> the dataset whose parser reads it."""

out = Console(width=140, highlight=False)


@dataclass(frozen=True)
class Reading:
    """One text, as read: `place` names it (file, number of the question, number of the sample)."""

    place: str
    teacher: str
    answer: str | None
    reason: str | None
    label: str | None
    recorded: str | None
    text: str

    @property
    def verdict(self) -> str:
        """right, wrong, unread; read where there is no gold label."""
        if self.answer is None:
            return "unread"
        return "read" if self.label is None else "right" if self.answer == self.label else "wrong"


def readings(folder: Path, name: str) -> tuple[list[Reading], float]:
    """Every text of a recording, and the seconds of parsing them."""
    dataset = get_dataset(FILES[name])
    found, seconds = [], 0.0
    for number, question in enumerate(read_recorded(folder / f"{name}.jsonl.gz", dataset)):
        choices = question.example.choices
        for place, sample in enumerate(question.samples):
            started = time.thread_time()
            parsed = dataset.parse(sample.text, choices)
            seconds += time.thread_time() - started
            recorded = None if sample.answer is None else dataset.normalise(sample.answer, choices)
            found.append(
                Reading(
                    f"{name}/{number}/{place}",
                    sample.teacher,
                    parsed.answer,
                    parsed.parse_error,
                    question.example.label,
                    recorded,
                    sample.text,
                )
            )
    return found, seconds


def main() -> None:
    """Reads every recording of the folder and prints the tables."""
    options = _options()
    before = dict(_saved(options.before)) if options.before else {}
    saved = []
    table = Table(
        "file", "teacher", "texts", "read", "right of read", "right of all", "unread, gold recorded", box=None
    )
    speed = Table("file", "texts", "characters", "microseconds a text", box=None)
    changed: dict[str, list[tuple[Reading, str | None]]] = defaultdict(list)
    for name in FILES:
        if not (options.folder / f"{name}.jsonl.gz").is_file():
            out.print(f"skipped: {name}.jsonl.gz is not in {options.folder}")
            continue
        found, seconds = readings(options.folder, name)
        saved += found
        speed.add_row(
            name,
            f"{len(found):,}",
            f"{sum(len(reading.text) for reading in found) / len(found):.0f}",
            f"{1e6 * seconds / len(found):.0f}",
        )
        for teacher in sorted({reading.teacher for reading in found}):
            table.add_row(name, teacher, *_figures([reading for reading in found if reading.teacher == teacher]))
        for reading in found:
            if reading.place in before and before[reading.place] != reading.answer:
                earlier = replace(reading, answer=before[reading.place])
                changed[f"{name}: {earlier.verdict} -> {reading.verdict}"].append((reading, earlier.answer))
    out.print(table)
    out.print(speed)
    if options.save:
        lines = (json.dumps([reading.place, reading.answer]) for reading in saved)
        options.save.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for kind, cases in sorted(changed.items()):
        out.print(f"\n{kind}: {len(cases)}")
        for reading, was in random.Random(0).sample(cases, min(options.show, len(cases))):
            ending = " ".join(reading.text.split())[-300:]
            out.print(
                f"  {reading.place}: {was} -> {reading.answer or reading.reason} (gold {reading.label}) | {ending}",
                markup=False,
            )


def _figures(found: list[Reading]) -> list[str]:
    counts = Counter(reading.verdict for reading in found)
    labelled = [reading for reading in found if reading.label is not None]
    read = counts["right"] + counts["wrong"]
    missed = sum(reading.answer is None and reading.recorded == reading.label for reading in labelled)
    return [
        f"{len(found):,}",
        f"{100 * (1 - counts['unread'] / len(found)):.2f}%",
        f"{100 * counts['right'] / read:.2f}%" if read else "-",
        f"{100 * counts['right'] / len(labelled):.2f}%" if labelled else "-",
        f"{missed:,}" if labelled else "-",
    ]


def _saved(path: Path) -> Iterator[tuple[str, str | None]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            place, answer = json.loads(line)
            yield place, answer


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the recordings lie")
    parser.add_argument("--save", type=Path, help="write every reading to this file")
    parser.add_argument("--before", type=Path, help="compare with the readings of this file")
    parser.add_argument("--show", type=int, default=3, help="texts of each kind of change to show")
    return parser.parse_args()


if __name__ == "__main__":
    main()

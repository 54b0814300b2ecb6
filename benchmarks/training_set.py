"""From stored votes to the first step of a training, at sizes where the texts are large: seconds and peak memory.

    python -m benchmarks.training_set                         # a million questions with 2 rationales of about 60 tokens
    python -m benchmarks.training_set --questions 10000 100000
    python -m benchmarks.training_set --code /path/of/another/checkout ...

Every figure is of a process of its own: one that prepares the training (assembles the training set, writes it, measures
it with the student's tokenizer), and one that trains round 0 up to its first step. The store is generated, and removed.
Peak memory is that of resident pages (VmHWM).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.votes import peak_mib
from models.student_loading import make_student
from storage.datasets.registry import get_dataset
from storage.ids import example_id, rationale_hash
from storage.schemas import EXAMPLES, RATIONALES
from storage.store import Store, now
from storage.votes import VoteRule, vote
from tasks.questions.sets import DatasetConfig
from tasks.training.folder import Training
from tasks.training.prepare import prepare_training
from tasks.training.spec import Parts, TrainingConfig
from tasks.training.student import train_round

RATIONALES_EACH = 2
PHRASES, PHRASES_A_TEXT = 4096, 9
QUESTIONS_A_PART = 50_000
RULE = VoteRule(dataset="svamp")


class FirstStep(Exception):
    """Ends a training after its first step."""


def phrases(rng: np.random.Generator) -> list[str]:
    """Pieces of five words each, which texts are made of."""
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 5)) for _ in range(2000)]
    return [" ".join(rng.choice(words, 5)) + "." for _ in range(PHRASES)]


def fill(root: Path, questions: int) -> None:
    """Stores random questions with two right samples each, a few for validation, and the votes."""
    rng = np.random.default_rng(0)
    pieces = phrases(rng)
    store = Store(root)

    def texts(count: int) -> list[str]:
        return [" ".join(pieces[place] for place in row) for row in rng.integers(0, PHRASES, (count, PHRASES_A_TEXT))]

    def add(split: str, count: int) -> None:
        asked = [f"{number} {text}" for number, text in enumerate(texts(count), int(rng.integers(2**40)))]
        ids = [example_id("svamp", split, question, ()) for question in asked]
        rows: dict[str, Any] = {"example_id": ids, "question": asked, "choices": [[]] * count}
        _store(store, EXAMPLES, count, {**rows, "split": [split] * count, "label": ["7"] * count,
                                        "extra": ["{}"] * count})  # fmt: skip
        if split == "train":
            said = texts(RATIONALES_EACH * count)
            _store(store, RATIONALES, len(said), {
                "sample_id": [f"{key[:10]}{index}" for key in ids for index in range(RATIONALES_EACH)],
                "example_id": [key for key in ids for _ in range(RATIONALES_EACH)],
                "split": [split] * len(said), "source": ["teacher"] * len(said), "model": ["made-up"] * len(said),
                "sample_index": list(range(RATIONALES_EACH)) * count, "answer": ["7"] * len(said),
                "text": said, "rationale": said, "rationale_hash": [rationale_hash(text) for text in said],
            })  # fmt: skip

    for start in range(0, questions, QUESTIONS_A_PART):
        add("train", min(QUESTIONS_A_PART, questions - start))
    add("validation", 100)
    vote(store, get_dataset("svamp"), RULE)


def _store(store: Store, table: Any, count: int, values: dict[str, list[Any]]) -> None:
    values = {**values, "dataset": ["svamp"] * count, "created_at": [now()] * count}
    columns = [pa.array(values.get(field.name, [None] * count), field.type) for field in table.schema]
    store.append(table, pa.table(columns, table.schema))


def configured(student: Path) -> TrainingConfig:
    """A training without negatives and discriminator, which would have to be made for a million questions first."""
    return TrainingConfig.model_validate(
        {
            "student": {"model": str(student), "max_input_tokens": 256, "max_target_tokens": 256},
            "method": {"negatives": False, "discriminator": False},
            "optimisation": {"device": "cpu", "precision": "float32", "log_every": 1},
            "rounds": {"threads": 2},
        }
    )


def a_student(folder: Path) -> Path:
    """A small T5, saved, with a tokenizer of texts like those in the store: a token in three letters or so."""
    config = TrainingConfig.model_validate({"student": {"model": "new", "new": {"vocab_size": 8192}}})
    make_student(config.student, phrases(np.random.default_rng(0))).save(folder)
    return folder


def prepare(root: Path) -> dict[str, Any]:
    parts = Parts.of(DatasetConfig(name="svamp", test_split=None), "svamp")
    made = prepare_training(
        root / "trainings", Store(root / "store"), "svamp", RULE, parts, configured(root / "student")
    )
    return {"folder": str(made.folder), "digest": made.spec.data_digest}


def first_step(root: Path) -> dict[str, Any]:
    [folder] = (root / "trainings").glob("[!.]*")
    lines: list[dict[str, float]] = []

    def report(line: dict[str, float]) -> None:
        lines.append(line)
        raise FirstStep

    with Training(folder).held(Training(folder).spec), suppress(FirstStep):
        train_round(folder, 0, report)
    return {"loss": lines[0]["loss"]}


STEPS = {"prepare": prepare, "first step": first_step}


def run_one(step: str, root: Path) -> None:
    """Runs in a process of its own; prints the figures as JSON."""
    start = time.perf_counter()
    done = STEPS[step](root)
    seconds = time.perf_counter() - start
    sys.stdout.write(json.dumps({**done, "seconds": seconds, "mib": peak_mib()}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, nargs="+", default=[1_000_000])
    parser.add_argument(
        "--code", type=Path, nargs="*", default=[], help="other checkouts to measure, in turn with this"
    )
    parser.add_argument("--one", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one, arguments.root)
        return
    console = Console()
    here = Path(__file__).parents[1]
    table = Table("questions", "code", "step", "seconds", "peak MiB", "outcome", box=None)
    for questions in arguments.questions:
        with TemporaryDirectory() as folder:
            root = Path(folder)
            console.print(f"storing {questions:,} questions ...")
            fill(root / "store", questions)
            a_student(root / "student")
            for code in (here, *arguments.code):
                mine = root / "of" / code.name
                mine.mkdir(parents=True)
                for name in ("store", "student"):
                    (mine / name).symlink_to(root / name)
                for step in STEPS:
                    command = [sys.executable, str(Path(__file__)), "--one", step, "--root", str(mine)]
                    done = subprocess.run(
                        command,
                        env={**os.environ, "PYTHONPATH": str(code)}, capture_output=True, text=True, check=False,
                    )  # fmt: skip
                    if done.returncode:
                        console.print(f"{code.name}, {step} failed: {done.stderr.strip().splitlines()[-1:]}")
                        break
                    found = json.loads(done.stdout.splitlines()[-1])
                    outcome = found.get("digest") or f"loss {found['loss']:.9g}"
                    row = (
                        f"{questions:,}",
                        code.name,
                        step,
                        f"{found['seconds']:.1f}",
                        f"{found['mib']:,.0f}",
                        outcome,
                    )
                    console.print(*row)
                    table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()

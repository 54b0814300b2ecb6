"""From stored votes to the first step of a training, at sizes where the texts are large: seconds and peak memory.

    python -m benchmarks.training_set                         # a million questions with 2 rationales of about 60 tokens
    python -m benchmarks.training_set --questions 10000 100000
    python -m benchmarks.training_set --own                   # with negatives and scores, as by default
    python -m benchmarks.training_set --code /path/of/another/checkout ...

Every figure is of a process of its own: one that prepares the training (assembles the training set, writes it, measures
it with the student's tokenizer), and one that trains round 0 up to its first step. With --own a negative of the student
of every question and a score of every rationale are made up and stored, and the step that finds the negatives there is
measured, too. The store is generated, and removed.
Peak memory is that of resident pages (VmHWM).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from itertools import islice
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
from storage.schemas import EXAMPLES, RATIONALES, SCORES
from storage.store import Store, now
from storage.votes import VoteRule, vote
from tasks.questions.sets import DatasetConfig
from tasks.training.folder import Training
from tasks.training.negatives import _wanted, sample_negatives
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


def configured(student: Path, own: bool) -> TrainingConfig:
    """A training without negatives and discriminator, which would have to be made for a million questions first; or
    with both, which are then made up."""
    return TrainingConfig.model_validate(
        {
            "student": {"model": str(student), "max_input_tokens": 256, "max_target_tokens": 256},
            "method": {"negatives": own, "discriminator": own},
            "optimisation": {"device": "cpu", "precision": "float32", "log_every": 1},
            "rounds": {"threads": 2},
        }
    )


def a_student(folder: Path) -> Path:
    """A small T5, saved, with a tokenizer of texts like those in the store: a token in three letters or so."""
    config = TrainingConfig.model_validate({"student": {"model": "new", "new": {"vocab_size": 8192}}})
    make_student(config.student, phrases(np.random.default_rng(0))).save(folder)
    return folder


def prepare(root: Path, own: bool = False) -> dict[str, Any]:
    parts = Parts.of(DatasetConfig(name="svamp", test_split=None), "svamp")
    made = prepare_training(
        root / "trainings", Store(root / "store"), "svamp", RULE, parts, configured(root / "student", own)
    )
    return {"outcome": made.spec.data_digest}


def prepare_own(root: Path) -> dict[str, Any]:
    return prepare(root, own=True)


def make_up(root: Path) -> dict[str, Any]:
    """Stores what round 0 needs of the student and of the discriminator, with random texts and scores."""
    training = training_in(root)
    spec, store, rng = training.spec, training.store, np.random.default_rng(1)
    pieces, constant = phrases(rng), {"dataset": "svamp", "split": "train", "created_at": now()}
    wanted, made = _wanted(training, 0), 0
    while part := list(islice(wanted, QUESTIONS_A_PART)):
        rows = []
        for (key, one), said in zip(part, rng.integers(0, PHRASES, (len(part), PHRASES_A_TEXT)), strict=True):
            text = " ".join(pieces[place] for place in said)
            rows.append({
                **constant, "sample_id": key, "example_id": one.question["example_id"], "source": "student",
                "model": spec.name, "round": one.before, "sample_index": one.index, "answer": "7", "text": text,
                "rationale": text, "rationale_hash": rationale_hash(text), "finish_reason": "stop",
                "token_ids": rng.integers(3, 300, 60).tolist(),
            })  # fmt: skip
        store.append(RATIONALES, pa.Table.from_pylist(rows, RATIONALES.schema))
        made += len(rows)
    ids = store.query("SELECT sample_id FROM rationales")["sample_id"]
    values = {"sample_id": ids, "score": pa.array(rng.random(len(ids)))}
    same = {**constant, "round": 0, "run_id": spec.training_id}
    columns = [
        values[field.name] if field.name in values else pa.repeat(pa.scalar(same[field.name], field.type), len(ids))
        for field in SCORES.schema
    ]
    store.append(SCORES, pa.table(columns, [field.name for field in SCORES.schema]))
    return {"outcome": f"{made:,} negatives, {len(ids):,} scores"}


def find_negatives(root: Path) -> dict[str, Any]:
    training = training_in(root)
    with training.held(training.spec):
        found = sample_negatives(training.folder, 0)
    return {"outcome": f"{found.samples:,} found, {found.sampled:,} sampled"}


def training_in(root: Path) -> Training:
    [folder] = (root / "trainings").glob("[!.]*")
    return Training(folder)


def first_step(root: Path) -> dict[str, Any]:
    folder = training_in(root).folder
    lines: list[dict[str, float]] = []

    def report(line: dict[str, float]) -> None:
        lines.append(line)
        raise FirstStep

    with Training(folder).held(Training(folder).spec), suppress(FirstStep):
        train_round(folder, 0, report)
    return {"outcome": f"loss {lines[0]['loss']:.9g}"}


STEPS = {"prepare": prepare, "first step": first_step}
OWN_STEPS = {
    "prepare, own": prepare_own, "make up": make_up, "find negatives": find_negatives, "first step": first_step,
}  # fmt: skip


def run_one(step: str, root: Path) -> None:
    """Runs in a process of its own; prints the figures as JSON."""
    start = time.perf_counter()
    done = (STEPS | OWN_STEPS)[step](root)
    seconds = time.perf_counter() - start
    sys.stdout.write(json.dumps({**done, "seconds": seconds, "mib": peak_mib()}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, nargs="+", default=[1_000_000])
    parser.add_argument(
        "--code", type=Path, nargs="*", default=[], help="other checkouts to measure, in turn with this"
    )
    parser.add_argument("--own", action="store_true", help="with negatives and scores, made up")
    parser.add_argument("--one", choices=STEPS | OWN_STEPS, help=argparse.SUPPRESS)
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
                (mine / "student").symlink_to(root / "student")
                shutil.copytree(root / "store", mine / "store", copy_function=os.link)  # each adds rows of its own
                for step in OWN_STEPS if arguments.own else STEPS:
                    command = [sys.executable, str(Path(__file__)), "--one", step, "--root", str(mine)]
                    done = subprocess.run(
                        command,
                        env={**os.environ, "PYTHONPATH": str(code)}, capture_output=True, text=True, check=False,
                    )  # fmt: skip
                    if done.returncode:
                        console.print(f"{code.name}, {step} failed: {done.stderr.strip().splitlines()[-1:]}")
                        break
                    found = json.loads(done.stdout.splitlines()[-1])
                    row = (
                        f"{questions:,}",
                        code.name,
                        step,
                        f"{found['seconds']:.1f}",
                        f"{found['mib']:,.0f}",
                        found["outcome"],
                    )
                    console.print(*row)
                    table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()

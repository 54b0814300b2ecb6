"""A year of nightly runs in one store: does a run take longer than its data explain?

    python -m benchmarks.months                                     # 365 nights of 1,000 questions, 5 samples each
    python -m benchmarks.months --nights 30 --show 1 30 --questions 100

Every night stores new samples (in as many part files as a teacher leaves in half a minute), figures and the run's row,
through the store's own writers; questions and votes come in every seventh night, for speed. A second store gets the
same files and is compacted then. On the nights that are shown, each is read by processes of their own, as `qcrd vote`
and as a run that finds nothing new: it stores all questions again, plans the sampling, votes, looks for drift and
assembles the training set. The figures are processor seconds, which another program on the machine changes little.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from models.methods import MethodConfig
from models.teacher import SamplingConfig
from storage.compaction import compact
from storage.datasets.definition import Example, Parsed
from storage.datasets.registry import get_dataset
from storage.parts import PART, REVISION
from storage.rationales import rationale_row
from storage.schemas import FIGURES, RATIONALES, RUNS, TABLES
from storage.store import Store, now
from storage.votes import VoteRule, vote
from tasks.questions.sets import QuestionSet
from tasks.questions.stored import store_examples
from tasks.teacher.planning import TeacherIdentity, plan_sampling
from tasks.training.training_set import training_set
from tasks.watching.drift import new_samples
from tasks.watching.figures import last_with

DATASET, SPLIT, TEACHER, SEED = get_dataset("svamp"), "train", TeacherIdentity("made-up"), 0
SAMPLING = SamplingConfig()
RULE = VoteRule(dataset=DATASET.name)
WAYS = ("as written", "compacted")


def questions(night: int, count: int) -> Iterator[Example]:
    """A night's questions, all different."""
    for number in range(night * count, (night + 1) * count):
        first, second = 3 + number % 89, 2 + number // 89
        text = f"Ann has {first} apples and buys {second} bags with 4 apples each. How many apples has she?"
        yield Example(text, (), str(first + 4 * second), {"night": night})


def run_nights(store: Store, nights: range, count: int, parts: int) -> None:
    """What nightly runs write: each night its samples in so many part files, its run and its figures."""
    every = [example for night in nights for example in questions(night, count)]
    asked = store_examples(store, DATASET, SPLIT, every).example_ids
    labels = dict(zip(asked, (int(one.label or 0) for one in every), strict=True))
    planned = plan_sampling(store, DATASET, SPLIT, asked, TEACHER, SAMPLING, SEED).requests
    rng, size = random.Random(nights[0]), -(-count // parts)
    for place, night in enumerate(nights):
        tonight = planned[place * count : (place + 1) * count]
        for start in range(0, count, size):
            rows = [
                rationale_row(
                    "teacher", sample_id=sample_id, example_id=request.question.example_id, dataset=DATASET.name,
                    split=SPLIT, model=TEACHER.model, sample_index=index, text=text,
                    parsed=Parsed(text, answer, None), run_id=f"run-{night}",
                )
                for request in tonight[start : start + size]
                for index, sample_id in enumerate(request.sample_ids)
                for answer in [str(labels[request.question.example_id] + rng.choice((0, 0, 0, 0, 1)))]
                for text in [f"She buys 4 apples a bag: {rng.getrandbits(900):x}. The answer is {answer}."]
            ]  # fmt: skip
            store.append(RATIONALES, pa.Table.from_pylist(rows, RATIONALES.schema))
        for kind, state in ((PART, "running"), (REVISION, "finished")):
            row = {"run_id": f"run-{night}", "dataset": DATASET.name, "created_at": now()}
            store.append(RUNS, pa.Table.from_pylist([row | {"config": "{}", "state": state}], RUNS.schema), kind=kind)
            store.append(FIGURES, pa.Table.from_pylist([row | {"name": state, "value": 0.5}], FIGURES.schema))
    vote(store, DATASET, RULE)


def read_one(way: str, root: Path, nights: int, count: int) -> dict[str, float]:
    """Processor seconds of each step, all threads, in a process of its own."""
    store, took = Store(root), {}

    def timed(name: str, step: Callable[[], object]) -> None:
        start = time.process_time()
        step()
        took[name] = time.process_time() - start

    if way == "vote":
        timed("vote", lambda: vote(store, DATASET, RULE))
        return took
    every = [example for night in range(nights) for example in questions(night, count)]
    stored = store_examples(Store(root), DATASET, SPLIT, every[:1]).example_ids  # what is imported at a first call
    timed("questions", lambda: stored.extend(store_examples(store, DATASET, SPLIT, every).example_ids[1:]))
    timed("plan", lambda: plan_sampling(store, DATASET, SPLIT, stored, TEACHER, SAMPLING, SEED))
    timed("votes", lambda: vote(store, DATASET, RULE))
    timed("drift", lambda: new_samples(store, RULE, SPLIT, now()) and last_with(store, DATASET.name, "x", but=""))
    wanted = QuestionSet(dataset=DATASET.name, split=SPLIT, part="train", limit=5 * count)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "examples.parquet"
        timed("training set", lambda: training_set(store, wanted, RULE, MethodConfig(), file))
    took["all"] = sum(took.values())
    return took


def read(way: str, root: Path, nights: int, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.months", "--one", way, "--root", str(root)]
    command += ["--nights", str(nights), "--questions", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def linked(source: Store, target: Path) -> None:
    """Adds a store's files to another one."""
    for table in TABLES.values():
        for path in source.parts(table):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(Path(source.files.absolute(path)), target / path)
    Store(target).mark(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=30, help="part files that a night's sampling leaves")
    parser.add_argument("--compact-every", type=int, default=7, help="nights between two compactions")
    parser.add_argument("--show", type=int, nargs="+", default=[1, 100, 365], help="after how many nights to measure")
    parser.add_argument("--one", choices=("vote", "run"), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(read_one(options.one, options.root, options.nights, options.questions)))
        return
    table = Table("nights", "store", "part files", "vote", "a run that finds nothing new", "of that", box=None)
    compactions: dict[int, float] = {}
    stops = sorted({*range(0, options.nights, options.compact_every), options.nights, *options.show})
    with TemporaryDirectory() as folder:
        roots = {way: Path(folder, way) for way in WAYS}
        for before, night in pairwise(stops):
            with TemporaryDirectory(dir=folder) as apart:
                run_nights(Store(apart), range(before, night), options.questions, options.parts)
                for root in roots.values():
                    linked(Store(apart), root)
            start = time.process_time()
            compact(Store(roots["compacted"]), kept_for=timedelta(0))
            compactions[night] = time.process_time() - start
            for way, root in roots.items() if night in options.show else ():
                files = sum(len(Store(root).parts(one)) for one in TABLES.values())
                voted, run = (read(what, root, night, options.questions) for what in ("vote", "run"))
                steps = ", ".join(f"{name} {took:.1f}" for name, took in run.items() if name != "all")
                row = (str(night), way, f"{files:,}", f"{voted['vote']:.1f}", f"{run['all']:.1f}", steps)
                print("\t".join(row), file=sys.stderr, flush=True)
                table.add_row(*row)
    Console(width=160).print(table)
    longest = max(compactions, key=lambda night: compactions[night])
    print(
        f"{len(compactions)} compactions, processor seconds: {sum(compactions.values()):.0f} in all, at most "
        f"{compactions[longest]:.1f} (night {longest})"
    )


if __name__ == "__main__":
    main()

"""A year of nightly runs in one store: does a run take longer than its data explain?

    python -m benchmarks.months                                     # 365 nights of 1,000 questions, 5 samples each
    python -m benchmarks.months --nights 30 --show 1 30 --questions 100

Every night stores new questions, samples (in as many part files as a teacher's run of a minute leaves), votes, figures
and the run's row, through the store's own writers. A second store gets the same files and is compacted every seventh
night. On the nights that are shown, each is read by processes of their own, as `qcrd vote` and as a run that finds
nothing new: it stores all questions again, plans the sampling, votes, looks for drift and assembles the training set.
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
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from models.methods import MethodConfig
from models.teacher import SamplingConfig, TeacherReply, TeacherSample
from storage.compaction import compact
from storage.datasets.definition import Example
from storage.datasets.registry import get_dataset
from storage.schemas import RUNS, TABLES
from storage.store import Store, now
from storage.votes import VoteRule, vote
from tasks.questions.sets import QuestionSet
from tasks.questions.stored import store_examples
from tasks.teacher.planning import TeacherIdentity, plan_sampling
from tasks.teacher.sampling import SamplingProgress, store_replies
from tasks.training.training_set import training_set
from tasks.watching.drift import new_samples
from tasks.watching.figures import last_with, store_figures

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


def run_night(store: Store, night: int, count: int, parts: int) -> None:
    """What a nightly run writes into the store: nothing of it depends on the nights before."""
    rng = random.Random(night)
    asked = store_examples(store, DATASET, SPLIT, questions(night, count)).example_ids
    labels = dict(zip(asked, (int(one.label or 0) for one in questions(night, count)), strict=True))
    plan = plan_sampling(store, DATASET, SPLIT, asked, TEACHER, SAMPLING, SEED)
    progress = SamplingProgress(wanted=plan.missing)
    size = -(-len(plan.requests) // parts)
    for start in range(0, len(plan.requests), size):
        replies = []
        for planned in plan.requests[start : start + size]:
            samples = []
            for index in range(planned.request.n):
                label = labels[planned.question.example_id] + (rng.random() < 0.2) * rng.randint(1, 9)
                words = " ".join(f"Then there are {rng.randint(2, 999)} more." for _ in range(8))
                text = f"She buys 4 apples a bag. {words} The answer is {label}."
                samples.append(TeacherSample(index, index, text, None, "stop", 60, None, -rng.random()))
            replies.append((planned, TeacherReply(planned.request.request_id, tuple(samples), 60, 300, 0, 0.7, 1.0)))
        store_replies(store, DATASET, SPLIT, TEACHER, "auto", replies, progress, f"run-{night}")
    summary = vote(store, DATASET, RULE)
    run = {"run_id": f"run-{night}", "dataset": DATASET.name, "config": "{}", "created_at": now()}
    for state in ("running", "finished"):
        store.upsert(RUNS, pa.Table.from_pylist([run | {"state": state}], RUNS.schema))
        store_figures(store, f"run-{night}", DATASET.name, {f"agreement {state}": summary.mean_share})


def read_one(way: str, root: Path, nights: int, count: int) -> dict[str, float]:
    """Seconds of each step, in a process of its own."""
    store, took = Store(root), {}

    def timed(name: str, step: Callable[[], object]) -> None:
        start = time.perf_counter()
        step()
        took[name] = time.perf_counter() - start

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
    timed("training set", lambda: training_set(store, wanted, RULE, MethodConfig()))
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
    parser.add_argument("--parts", type=int, default=60, help="part files that a night's sampling leaves")
    parser.add_argument("--compact-every", type=int, default=7, help="nights between two compactions")
    parser.add_argument("--show", type=int, nargs="+", default=[1, 100, 365], help="after how many nights to measure")
    parser.add_argument("--one", choices=("vote", "run"), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(read_one(options.one, options.root, options.nights, options.questions)))
        return
    table = Table("nights", "store", "part files", "vote, s", "a run that finds nothing new, s", "of that", box=None)
    compactions: dict[int, float] = {}
    with TemporaryDirectory() as folder:
        roots = {way: Path(folder, way) for way in WAYS}
        for night in range(1, options.nights + 1):
            with TemporaryDirectory(dir=folder) as tonight:
                store = Store(tonight)
                run_night(store, night - 1, options.questions, options.parts)
                for root in roots.values():
                    linked(store, root)
            if night % options.compact_every == 0 or night in options.show:
                start = time.perf_counter()
                compact(Store(roots["compacted"]), kept_for=timedelta(0))
                compactions[night] = time.perf_counter() - start
            if night not in options.show:
                continue
            for way, root in roots.items():
                files = sum(len(Store(root).parts(one)) for one in TABLES.values())
                voted, run = (read(what, root, night, options.questions) for what in ("vote", "run"))
                steps = ", ".join(f"{name} {took:.1f}" for name, took in run.items() if name != "all")
                row = (str(night), way, f"{files:,}", f"{voted['vote']:.1f}", f"{run['all']:.1f}", steps)
                print("\t".join(row), file=sys.stderr, flush=True)
                table.add_row(*row)
            print(f"compaction of night {night}: {compactions[night]:.1f} s", file=sys.stderr, flush=True)
    Console(width=160).print(table)
    longest = max(compactions, key=lambda night: compactions[night])
    print(f"{len(compactions)} compactions: {sum(compactions.values()):.0f} s in all, the longest {longest}")


if __name__ == "__main__":
    main()

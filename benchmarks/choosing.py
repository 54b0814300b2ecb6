"""Which questions to ask a teacher: accuracy on test questions against samples paid, for each way to choose.

    qcrd sample --dataset lab --limit 4000 --n 2 --max-tokens 128 --home RECORDED
    python -m benchmarks.choosing lab --recorded RECORDED --home HOME --sizes 500 1000 2000 --seeds 5
    python -m benchmarks.choosing lab --home HOME --sizes 500 1000 2000 --seeds 5 --table       # what is there so far

    qcrd import --dataset esnli esnli_train.jsonl.gz --split train --home RECORDED              # and so for e-SNLI

The recorded samples are the teacher: what is "asked" is copied into a store of its own. Each seed begins with its own
random questions and one student; then each way chooses more of them, by the student that it has, and trains the next
from scratch. All trainings take the same number of steps, whatever they train on. What is done is stored
(HOME/curves/NAME/SEED/WAY/SIZE.json), so that it can be stopped and goes on with the same command. Trainings go by
size, then by seed: what is not done in time are the last ones.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa

from benchmarks import curves
from benchmarks.cells import train_whole
from flows.config.distill import DistillConfig, load_config
from storage.datasets.registry import get_dataset
from storage.schemas import EXAMPLES, RATIONALES
from storage.store import Store
from storage.votes import VoteRule, vote
from tasks.questions.choosing import Choose, Signals, ordered, shuffled
from tasks.questions.stored import store_examples
from tasks.serving.settings import AskingConfig, Question
from tasks.teacher.lab import lab_folder
from tasks.teacher.settings import LAB
from tasks.training.folder import Training
from tasks.training.outcomes import Calibrated
from tasks.training.rounds import best_round
from tasks.training.spec import Parts, writes

START = "start"
WAYS: tuple[Choose, ...] = get_args(Choose)


@dataclass(frozen=True)
class World:
    """What is learned in a replay.

    Attributes:
        base: a shipped configuration.
        settings: what differs from it.
        teachers: whose samples are taken, as SQL LIKE.
        visits: questions that a training visits in all, however many there are.
        rounds: rounds of a training.
    """

    base: str
    settings: tuple[str, ...]
    teachers: str
    visits: int
    rounds: int


WORLDS = {
    "lab": World(
        "quickstart",
        ("dataset.limit=null", "dataset.validation_limit=200", "dataset.test_split=fresh", "dataset.test_limit=1000",
         "compare=[]", "compare_rounds=null", "answering.samples=[0]", "rounds.explain_validation=false"),
        "lab-teacher", visits=8_000, rounds=2,
    ),
    "esnli": World(
        "esnli-t5-small",
        ("dataset.limit=null", "dataset.validation_split=null", "dataset.validation_limit=300",
         "dataset.test_split=test", "dataset.test_limit=1500", "method.discriminator=false", "method.negatives=false",
         "method.scheme=sample", "compare=[]", "answering.samples=[0]", "optimisation.precision=bfloat16",
         "optimisation.batch_size=16", "optimisation.learning_rate=3.0e-4", "optimisation.warmup_steps=50",
         "rounds.explain_validation=false", "rounds.patience=null", "rounds.threads=1"),
        "gpt-style-%", visits=8_000, rounds=2,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        home: of all.
        recorded: the state folder with the recorded samples.
        world: name of what is learned.
        more: settings from the command line.
        seed, way, size: what is trained: after so many questions were asked, chosen in this way.
        before: the size before; None for the first.
        visits: of a training, if not the world's.
    """

    home: Path
    recorded: Path | None
    world: str
    more: tuple[str, ...]
    seed: int
    way: str
    size: int
    before: int | None
    visits: int | None

    @property
    def folder(self) -> Path:
        return self.home / "curves" / self.world / str(self.seed) / self.way

    @property
    def file(self) -> Path:
        return self.folder / f"{self.size}.json"

    @property
    def source(self) -> Path:
        """The file of the training whose student chooses."""
        first = not (self.folder / f"{self.before}.json").exists()
        return (self.folder.parent / START if first else self.folder) / f"{self.before}.json"

    def read(self) -> dict[str, Any] | None:
        """What it came to; None if it is not done."""
        return curves.read(self.file)

    def config(self) -> DistillConfig:
        """Its configuration: the same number of steps for any size."""
        world = WORLDS[self.world]
        epochs = max(1, round((self.visits or world.visits) / self.size / world.rounds))
        settings = [*world.settings, f"optimisation.seed={self.seed}", f"rounds.epochs_per_round={epochs}",
                    f"rounds.rounds={world.rounds}", *self.more]  # fmt: skip
        student = load_config(world.base, settings).student
        if student.new is not None:
            settings.append(f"student.new.seed={self.seed}")
        if student.tokenizer == LAB:
            settings.append(f"student.tokenizer={lab_folder(_of(self.recorded))}")
        return load_config(world.base, settings)


def do(cell: Cell) -> str:
    """Chooses, "asks", trains and stores what came of it; returns it as a line."""
    began = time.monotonic()
    config, recorded = cell.config(), Store(_of(cell.recorded) / "store")
    dataset = get_dataset(config.dataset.name)
    questions = config.dataset.question_set(dataset.name, "train")
    here = {"dataset": dataset.name, "split": questions.split}
    with recorded.connect() as con:
        pool = recorded.execute(
            con,
            f"SELECT e.example_id, question, choices FROM {questions.sql(recorded)} e SEMI JOIN (SELECT * FROM "
            f"{recorded.relation(RATIONALES, here)} WHERE model LIKE $1) USING (example_id)",
            [WORLDS[cell.world].teachers],
        ).to_pylist()
    rows = {row["example_id"]: row for row in pool}
    asked = _asked(cell, rows)
    with recorded.connect() as con:
        con.register("wanted", pa.table({"example_id": asked}))
        samples = recorded.execute(
            con,
            f"SELECT * FROM {recorded.relation(RATIONALES, here)} SEMI JOIN wanted USING (example_id) "
            "WHERE model LIKE $1",
            [WORLDS[cell.world].teachers],
        )
        examples = recorded.execute(con, f"SELECT * FROM {recorded.relation(EXAMPLES, here)}")
    store = Store(cell.folder / "store")
    store.upsert(EXAMPLES, examples.select(EXAMPLES.schema.names))
    store.upsert(RATIONALES, samples.select(RATIONALES.schema.names))
    for part, split in config.dataset.splits().items():
        if split != questions.split:
            limit = config.dataset.question_set(dataset.name, part).limit
            store_examples(store, dataset, split, dataset.load(split, config.dataset.paths.get(split), limit))
    rule = VoteRule(dataset=dataset.name, **config.votes.model_dump())
    vote(store, dataset, rule, questions.split)
    training = train_whole(cell.home, store, config, rule, Parts.of(config.dataset, dataset.name, sampled_only=True))
    outcome = {
        "asked": asked,
        "samples": samples.num_rows,
        **curves.outcome_of(training),
        "seconds": time.monotonic() - began,
    }
    curves.write(cell.file, outcome)
    return (
        f"{cell.world} seed {cell.seed} {cell.way} {cell.size}: {outcome['samples']:,} samples, chosen "
        f"{outcome['chosen']:.3f}, bare {outcome['bare']:.3f}, explained {outcome['explanations'] or 0:.3f} "
        f"({outcome['seconds']:.0f} s)"
    )


def _asked(cell: Cell, rows: dict[str, dict[str, Any]]) -> list[str]:
    """The questions that have been asked, once more have been chosen."""
    if cell.before is None:
        return shuffled(list(rows), cell.seed)[: cell.size]
    before = json.loads(cell.source.read_text())
    asked: list[str] = before["asked"]
    left = shuffled(list(rows.keys() - set(asked)), cell.seed)
    count = cell.size - len(asked)
    if cell.way == "random":
        return asked + left[:count]
    from models.student_loading import load_student
    from tasks.questions.signals import signals_of, states_of

    training = Training(cell.home / "trainings" / before["training"])
    best, spec = best_round(training.evaluations()), training.spec
    student = load_student(training.model(best), spec.config.student)
    calibrated = training.outcome(Calibrated, best)
    asking = AskingConfig(
        writes=writes(spec.config.method), answer_tokens=spec.config.rounds.answer_tokens,
        decisions=calibrated.decisions if calibrated else (),
    )  # fmt: skip

    def put(ids: list[str]) -> list[Question]:
        return [Question(rows[key]["question"], tuple(rows[key]["choices"])) for key in ids]

    signals: Signals = signals_of(cell.way, training.dataset, student, put(left), asking)  # type: ignore[arg-type]
    known = states_of(training.dataset, student, put(asked)) if signals.states is not None else None
    places = ordered(cell.way, count, signals, known)  # type: ignore[arg-type]
    return asked + [left[place] for place in places]


def _of(folder: Path | None) -> Path:
    if folder is None:
        raise SystemExit("--recorded names the state folder with the samples; only --table goes without.")
    return folder


def cells(arguments: argparse.Namespace) -> Iterator[list[Cell]]:
    """The trainings in groups, each to be done before the next begins."""

    def cell(seed: int, way: str, size: int, before: int | None) -> Cell:
        return Cell(
            arguments.home.resolve(), arguments.recorded and arguments.recorded.resolve(), arguments.world,
            tuple(arguments.set), seed, way, size, before, arguments.visits,
        )  # fmt: skip

    sizes, seeds = arguments.sizes, range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    yield [cell(seed, START, sizes[0], None) for seed in seeds]
    for before, size in pairwise(sizes):
        yield [cell(seed, way, size, before) for seed in seeds for way in arguments.ways]


def show(arguments: argparse.Namespace) -> None:
    """Prints accuracy by samples and way, and each way's difference to random, over the seeds that have both."""
    for group in cells(arguments):
        found = {(cell.way, cell.seed): outcome for cell in group if (outcome := cell.read())}
        by_way = {way: {seed: one for (name, seed), one in found.items() if name == way} for way in (START, *WAYS)}
        for way, outcomes in by_way.items():
            if not outcomes:
                continue
            line = (
                f"{group[0].size:6,} questions {curves.mean_of(outcomes, 'samples'):8,.0f} samples  {way:10} "
                f"{curves.accuracies(outcomes)}"
            )
            if way != "random":
                line += curves.minus(outcomes, by_way["random"], "random")
            print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=WORLDS)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--recorded", type=Path, help="state folder with the recorded samples")
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 2000], help="questions asked by then")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--side-by-side", type=int, default=2)
    parser.add_argument("--visits", type=int, help="questions that a training visits in all")
    parser.add_argument("--set", action="append", default=[], help="section.key=value of the configuration")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    failed = 0
    if not arguments.table:
        with ProcessPoolExecutor(arguments.side_by_side, get_context("spawn"), initializer=_one_thread) as pool:
            for group in cells(arguments):
                waiting = [cell for cell in group if not cell.file.exists()]
                ready = [cell for cell in waiting if cell.before is None or cell.source.exists()]
                for cell in waiting:
                    cell.folder.mkdir(parents=True, exist_ok=True)
                for future in as_completed([pool.submit(do, cell) for cell in ready]):
                    error = future.exception()
                    failed += error is not None
                    print(error or future.result(), flush=True)
    show(arguments)
    return 1 if failed else 0


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())

"""Five nights of the loop: does a cascade's student learn to answer more, and does the teacher's bill fall?

    python -m benchmarks.nights --home HOME --seeds 3            # goes on where it stopped
    python -m benchmarks.nights --home HOME --seeds 3 --table    # what is there so far

In the lab the solver knows what is right. A student is distilled from some questions. Then, each day, new questions
come. Its own threshold (`registry.risk`) says which it answers; of the others, as many as the budget allows go to the
teacher, through the desk of `qcrd answer`. At night `qcrd distill` trains the next student on all that the teacher was
asked, with its own samples. Beside it, from the same first student, an arm that asks the teacher as many questions,
drawn at random from the day's.

After the last night one more day is measured and nothing passed on.

The teacher is one vLLM server of the lab's model. Every command is the user's, in a state folder for each seed and arm.
A night's student is the one that was registered last; whether the gate made it champion is not asked: a night's gain
may be too small for that.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from flows.config.distill import DistillConfig, load_config
from models.server import VllmServer
from models.server_settings import ServerConfig
from storage.datasets.definition import Example
from storage.datasets.registry import get_dataset
from storage.store import Store
from tasks.cascade.desk import Desk
from tasks.comparing.statistics import wilson
from tasks.serving.settings import Question
from tasks.teacher.lab import find_lab
from tasks.teacher.session import choose_teacher, endpoint
from tasks.tracking.registry import CHALLENGER, load_registered

ARMS = ("cascade", "random")
LAB = get_dataset("lab")
TEACHER = "lab-teacher"
SETTINGS = (
    "compare=[]", "compare_rounds=null", "dataset.validation_limit=800", "dataset.test_limit=400",
    "answering.samples=[0]", "rounds.rounds=2", "registry.name=night", "teacher.api=completions",
    f"teacher.name={TEACHER}", f"teacher.model={TEACHER}", "cascade.questions_a_day=null",
    "cascade.wait_s=86400",
)  # fmt: skip


class Nights:
    """The nights of one seed and arm.

    Args:
        home: of all.
        seed: which questions come, and of all trainings.
        arm: one of ARMS, or "first" for the student that both begin with.
        url: of the teacher.
        options: of the command line.
    """

    def __init__(self, home: Path, seed: int, arm: str, url: str, options: argparse.Namespace) -> None:
        self.seed, self.arm, self.options = seed, arm, options
        self.folder = home / f"seed-{seed}" / arm
        self.settings = [
            *SETTINGS, f"teacher.url={url}", f"dataset.limit={options.first}", f"registry.risk={options.risk}",
            f"optimisation.seed={seed}", f"student.new.seed={seed}", f"teacher.seed={seed}",
            f"rounds.epochs_per_round={options.epochs}", *options.set,
        ]  # fmt: skip

    def config(self) -> DistillConfig:
        return load_config("quickstart", self.settings)

    def distill(self) -> None:
        """One `qcrd distill`."""
        command = [sys.executable, "-c", "from flows.cli import main; main()", "distill", "quickstart", "--home",
                   str(self.folder)]  # fmt: skip
        command += [part for setting in self.settings for part in ("--set", setting)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])

    def day(self, number: int, questions: list[Example]) -> dict[str, Any]:
        """Asks the student, passes some questions on, and trains the next one; what came of it."""
        begun = self.folder / f"day-{number}.begun.json"
        if not begun.exists():  # written before anything is asked: the next student must not be measured on this day
            partial = begun.with_suffix(".partial")
            partial.write_text(json.dumps(self.measured(number, questions)))
            partial.rename(begun)
        outcome: dict[str, Any] = json.loads(begun.read_text())
        places = outcome.pop("places")
        if number < self.options.nights:
            asyncio.run(self.pass_on([questions[place] for place in places]))
            self.distill()
        return outcome

    def measured(self, number: int, questions: list[Example]) -> dict[str, Any]:
        """What the student says on a day, and the places of the questions that the teacher is to be asked."""
        student = load_registered(self.folder, "night", CHALLENGER)
        rows = student.predict([one.question for one in questions], guesses=True)
        abstained = [bool(row["abstained"]) for row in rows]
        right = [row["answer"] is not None and LAB.equal(row["answer"], one.label or "", one.extra)
                 for row, one in zip(rows, questions, strict=True)]  # fmt: skip
        would_pass = [place for place, abstains in enumerate(abstained) if abstains]
        places = would_pass[: self.options.budget]
        if number == self.options.nights:
            places = []
        elif self.arm == "random":
            # As many as the cascade paid for on this day.
            paid = json.loads((self.folder.parent / "cascade" / f"day-{number}.json").read_text())["asked"]
            places = np.random.default_rng([self.seed, number]).permutation(len(questions))[:paid].tolist()
        return {
            "questions": len(questions),
            "answered": len(questions) - sum(abstained),
            "wrong": sum(not one and not abstains for one, abstains in zip(right, abstained, strict=True)),
            "right_in_all": sum(right),
            "would_pass": len(would_pass),
            "asked": len(places),
            "places": places,
        }

    async def pass_on(self, chosen: list[Example]) -> None:
        config = self.config()
        teacher = choose_teacher(config.teacher, self.folder)
        with endpoint(teacher, self.folder / "logs", print) as (address, recover):
            desk = Desk(Store(self.folder / "store"), LAB, config.votes, config.cascade, config.teacher, teacher,
                        address, print, recover)  # fmt: skip
            async with desk:
                await asyncio.gather(*(desk.pass_on(Question(one.question)) for one in chosen))

    def run(self, days: list[list[Example]]) -> None:
        """All days that are not done; a day is done when its file is there."""
        if self.arm == "first":
            if not (self.folder / "done").exists():
                shutil.copytree(
                    self.folder.parents[1] / "lab", self.folder / "lab", dirs_exist_ok=True
                )  # its tokenizer
                self.distill()
                (self.folder / "done").touch()
            return
        if not self.folder.exists():
            partial = self.folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(self.folder.parent / "first", partial)
            partial.rename(self.folder)
        for number, questions in enumerate(days):
            file = self.folder / f"day-{number}.json"
            if not file.exists():
                outcome = self.day(number, questions)
                file.write_text(json.dumps(outcome))
                print(f"seed {self.seed} {self.arm} day {number + 1}: {outcome}", flush=True)


@contextmanager
def teacher(home: Path) -> Iterator[str]:
    """The URL of the lab's teacher."""
    built = find_lab(home)
    if built is None:
        raise SystemExit(f"Build the lab's teacher first: qcrd lab build --home {home}")
    with VllmServer(ServerConfig(model=str(built), served_name=TEACHER), home / "vllm.log") as server:
        yield server.base_url


def run_seed(seed: int, url: str, options: argparse.Namespace) -> None:
    """Both arms of a seed; the questions of its days are drawn from those that no first student learns from."""
    pool = list(LAB.load("train", None, None))[options.first :]
    taken = np.random.default_rng(seed).permutation(len(pool))[: (options.nights + 1) * options.a_day]
    days = [[pool[place] for place in taken[first : first + options.a_day]]
            for first in range(0, len(taken), options.a_day)]  # fmt: skip
    for arm in ("first", *ARMS):
        Nights(options.home, seed, arm, url, options).run(days)


def show(options: argparse.Namespace) -> None:
    """Prints a row for each day and arm, over the seeds that have it."""
    print("day  arm      seeds  coverage %            risk % of what is answered   asked  right in all %")
    for number in range(options.nights + 1):
        for arm in ARMS:
            files = [options.home / f"seed-{seed}" / arm / f"day-{number}.json" for seed in range(options.seeds)]
            found = [json.loads(file.read_text()) for file in files if file.exists()]
            if not found:
                continue
            total = {name: sum(one[name] for one in found) for name in found[0]}
            parts = [_share(total["answered"], total["questions"]), _share(total["wrong"], total["answered"]),
                     _share(total["right_in_all"], total["questions"])]  # fmt: skip
            asked = total["asked"] / len(found)
            print(f"{number + 1:3}  {arm:8} {len(found):5}  {parts[0]:22}{parts[1]:27}{asked:7.0f}  {parts[2]}")


def _share(count: int, of: int) -> str:
    """A percentage with its interval, over questions alone."""
    if not of:
        return "-"
    share, low, high = (100 * one for one in wilson(count, of))
    return f"{share:5.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="with the lab's teacher; a folder for each seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--nights", type=int, default=5)
    parser.add_argument("--first", type=int, default=1500, help="questions that the first student learns from")
    parser.add_argument("--a-day", type=int, default=500, help="questions that come")
    parser.add_argument("--budget", type=int, default=250, help="questions a day that the teacher may be asked")
    parser.add_argument("--risk", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=4, help="of each of two rounds")
    parser.add_argument("--side-by-side", type=int, default=2, help="seeds at a time")
    parser.add_argument("--set", action="append", default=[], help="section.key=value of the configuration")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    if not options.table:
        os.environ["DO_NOT_TRACK"] = "1"
        processes = ProcessPoolExecutor(options.side_by_side, multiprocessing.get_context("spawn"))
        with teacher(options.home) as url, processes:
            list(processes.map(run_seed, range(options.seeds), repeat(url), repeat(options)))
    show(options)


if __name__ == "__main__":
    main()

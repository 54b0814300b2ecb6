"""Are questions that a teacher writes from few questions worth anything? Students of few questions, with and without.

    python -m benchmarks.variants --home HOME --few 500 --seeds 4            # goes on where it stopped
    python -m benchmarks.variants --home HOME --few 500 --seeds 4 --table    # what is there so far

HOME has the lab's teacher (`qcrd lab build --home HOME`). For each seed other questions and four students:

- few: the few questions alone;
- rephrased, changed: with one variant of each question of that kind;
- more: with as many further questions of the lab in place of the variants, labels included.

The lab's teacher, on vLLM, answers all of them, two samples each. It cannot write variants: benchmarks/rewriting.py
does, by rules, as a teacher would that rewrites faithfully. No large model was asked, so this is what variants give at
best, of those that stay near their source's words; how many of a real teacher's are right and useful is not measured.

What is too like a validation or test question is refused, as in any run (`variants.overlap`), so there are fewer
variants than questions. Of further questions none is left out; how many of them the same rule would refuse is counted.

With `--equal steps`, the default, all trainings visit a question --visits times in all, as far as whole epochs allow:
those with twice the questions have half the epochs. Refused variants and questions without a usable sample make some a
little shorter; the table has the steps. With `--equal epochs` all have those of the few, and most take twice the steps.

Every command is the user's, in a state folder for each seed and arm. The others begin with the store of "few", so all
arms of a seed learn from the same samples of the few questions. Settings are those of `benchmarks.choosing lab`.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np

from benchmarks import curves
from benchmarks.choosing import WORLDS
from benchmarks.nights import LAB, TEACHER, teacher
from benchmarks.rewriting import Rewriter, rewriting
from flows.config.distill import load_config
from storage.datasets.definition import Example
from storage.datasets.variants import VARIANT_KINDS
from storage.store import Store
from tasks.questions.leaks import Known
from tasks.teacher.lab import lab_folder
from tasks.teacher.variants import Source, sorted_variants
from tasks.training.folder import Training
from tasks.training.outcomes import RoundTrained

ARMS = ("few", *VARIANT_KINDS, "more")
BASE = "quickstart"
SETTINGS = (
    *WORLDS["lab"].settings, f"rounds.rounds={WORLDS['lab'].rounds}", "registry.register_model=false",
    "teacher.api=completions", f"teacher.name={TEACHER}", f"teacher.model={TEACHER}",
)  # fmt: skip


class Arm:
    """One training.

    Args:
        seed: which questions, and of the training.
        arm: one of ARMS.
        url: of the teacher; empty where nothing is run.
        options: of the command line.
    """

    def __init__(self, seed: int, arm: str, url: str, options: argparse.Namespace) -> None:
        self.seed, self.arm, self.url, self.options = seed, arm, url, options
        self.folder: Path = options.home / f"few-{options.few}" / f"seed-{seed}" / f"{arm}-{options.equal}"
        self.file = self.folder / "outcome.json"
        self.questions = self.folder / "questions.jsonl"

    def settings(self) -> list[str]:
        few, world = self.options.few, WORLDS["lab"]
        visited = few if self.arm == "few" or self.options.equal == "epochs" else 2 * few
        variants = [f"variants.{self.arm}=1"] if self.arm in VARIANT_KINDS else []
        return [
            *SETTINGS, f"teacher.url={self.url}", f"teacher.seed={self.seed}", f"optimisation.seed={self.seed}",
            f"student.new.seed={self.seed}", f"student.tokenizer={lab_folder(self.options.home)}",
            f"dataset.paths.train={self.questions}", *variants,
            f"rounds.epochs_per_round={max(1, round(self.options.visits / visited / world.rounds))}",
            *self.options.set,
        ]  # fmt: skip

    def run(self, pool: list[Example]) -> None:
        """Trains and stores what came of it, unless that is there.

        Args:
            pool: the seed's questions, the few first.
        """
        if self.file.exists():
            return
        if not self.folder.exists():
            partial = self.folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            if self.arm != "few":
                shutil.copytree(Arm(self.seed, "few", "", self.options).folder / "store", partial / "store")
            asked = pool[: self.options.few * (2 if self.arm == "more" else 1)]
            lines = [json.dumps({"question": one.question, "label": one.label}) for one in asked]
            (partial / self.questions.name).write_text("\n".join(lines) + "\n")
            partial.rename(self.folder)
        outcome = self.outcome(self.distill(), pool)
        curves.write(self.file, outcome)
        told = {name: value for name, value in outcome.items() if name != "right"}
        print(f"seed {self.seed} {self.arm}: {told}", flush=True)

    def distill(self) -> Training:
        """One `qcrd distill`."""
        command = [sys.executable, "-c", "from flows.cli import main; main()", "distill", BASE, "--json", "--home",
                   str(self.folder)]  # fmt: skip
        command += [part for setting in self.settings() for part in ("--set", setting)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        return Training(Path(json.loads(done.stdout)["methods"][0]["folder"]))

    def outcome(self, training: Training, pool: list[Example]) -> curves.Outcome:
        """What it came to, and what it learnt from."""
        store, rounds = Store(self.folder / "store"), len(training.evaluations())
        [samples] = store.query("SELECT count(*) AS n FROM rationales")["n"].to_pylist()
        trained = [training.outcome(RoundTrained, t) for t in range(rounds)]
        return curves.outcome_of(training) | {
            "samples": samples,
            "questions": training.examples().num_rows,
            "steps": sum(one.steps for one in trained if one),
            "seconds": sum(one.seconds for one in trained if one),
            "majorities": self.majorities(store),
            "refused": self.refused(store, pool),
        }

    def majorities(self, store: Store) -> float:
        """Share of right majority answers: to the variants, or to the questions where there are none."""
        if self.arm not in VARIANT_KINDS:
            rows = store.query(
                "SELECT winner, label FROM votes JOIN examples USING (example_id) WHERE examples.split = 'train' AND "
                "winner IS NOT NULL"
            ).to_pylist()
            return float(np.mean([LAB.equal(row["winner"], row["label"], {}) for row in rows]))
        rows = store.query(
            "SELECT winner, written.question AS variant, own.question AS source FROM examples written JOIN votes "
            "USING (example_id) JOIN examples own ON own.example_id = written.extra->>'variant_of' WHERE winner IS NOT "
            "NULL"
        ).to_pylist()
        answer = Rewriter().answer
        return float(
            np.mean([LAB.equal(row["winner"], str(answer(row["source"], row["variant"])), {}) for row in rows])
        )

    def refused(self, store: Store, pool: list[Example]) -> dict[str, int]:
        """Reason -> how many variants are refused for it; of "more", how many further questions would be."""
        config = load_config(BASE, self.settings())
        sets = {part: config.dataset.question_set("lab", part) for part in config.dataset.splits()}
        rows = {}
        for part, questions in sets.items():
            with store.connect() as con:
                rows[part] = store.execute(
                    con, f"SELECT example_id, question, label FROM {questions.sql(store)}"
                ).to_pylist()
        kept_out = [row["question"] for part in ("validation", "test") for row in rows[part]]
        few = self.options.few
        if self.arm in VARIANT_KINDS:
            sources = [Source(row["example_id"], row["question"], (), row["label"]) for row in rows["train"]]
            return dict(
                sorted_variants(
                    store, LAB, sets["train"].partition, self.arm, config.variants.kinds[self.arm], sources,
                    [one.question for one in sources], kept_out, config.variants.overlap,
                ).refused
            )  # fmt: skip
        known = Known(kept_out, config.variants.overlap)
        near = sum(known.near(one.question) for one in pool[few : 2 * few]) if self.arm == "more" else 0
        return {"like a validation or test question": near} if near else {}


def run_seed(seed: int, url: str, options: argparse.Namespace) -> None:
    """All arms of a seed."""
    questions = list(LAB.load("train", None, None))
    pool = [questions[place] for place in np.random.default_rng(seed).permutation(len(questions))[: 2 * options.few]]
    for arm in options.arms:
        Arm(seed, arm, url, options).run(pool)


def show(options: argparse.Namespace) -> None:
    """Prints two lines for each arm, over the seeds that have it."""
    found: dict[str, dict[int, curves.Outcome]] = {
        arm: {
            seed: outcome
            for seed in range(options.first_seed, options.first_seed + options.seeds)
            if (outcome := curves.read(Arm(seed, arm, "", options).file))
        }
        for arm in ARMS
    }
    for arm, outcomes in found.items():
        if not outcomes:
            continue
        chosen = sorted(100 * one["chosen"] for one in outcomes.values())
        line = f"{arm:10} {curves.accuracies(outcomes)} of {chosen[0]:.1f} to {chosen[-1]:.1f}"
        print(line + (curves.minus(outcomes, found["few"], "few") if arm != "few" else ""))
        refused: Counter[str] = Counter()
        for one in outcomes.values():
            refused.update(one["refused"])
        samples, questions, steps, seconds = (
            curves.mean_of(outcomes, name) for name in ("samples", "questions", "steps", "seconds")
        )
        majorities = 100 * curves.mean_of(outcomes, "majorities")
        told = [f"{samples:,.0f} samples", f"{majorities:.1f} % of majorities right",
                f"{questions:,.0f} questions trained on in {steps:,.0f} steps, {seconds:,.0f} s"]  # fmt: skip
        told += [
            f"{count / len(outcomes):.0f} {'refused' if arm in VARIANT_KINDS else 'would be'}: {reason}"
            for reason, count in sorted(refused.items())
        ]
        print(f"{'':10} {'; '.join(told)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="with the lab's teacher; a folder for each arm")
    parser.add_argument("--few", type=int, default=500, help="questions that there are")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="`few` goes before the others")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--equal", choices=("steps", "epochs"), default="steps", help="in all trainings")
    parser.add_argument("--visits", type=int, default=WORLDS["lab"].visits, help="of questions in a training, in all")
    parser.add_argument("--side-by-side", type=int, default=2, help="seeds at a time")
    parser.add_argument("--set", action="append", default=[], help="section.key=value of the configuration")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    options.home = options.home.resolve()
    if not options.table:
        os.environ["DO_NOT_TRACK"] = "1"
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        processes = ProcessPoolExecutor(options.side_by_side, multiprocessing.get_context("spawn"))
        with teacher(options.home) as solver, rewriting(solver) as url, processes:
            list(processes.map(run_seed, seeds, repeat(url), repeat(options)))
    show(options)


if __name__ == "__main__":
    main()

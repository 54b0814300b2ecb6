"""Are questions that a teacher writes from few questions worth anything? Students of few questions, with and without.

    python -m benchmarks.variants --home HOME --few 500 --seeds 4            # goes on where it stopped
    python -m benchmarks.variants --home HOME --few 500 --seeds 4 --table    # what is there so far

HOME has the lab's teacher (`qcrd lab build --home HOME`). For each seed other questions and four students:

- few: the few questions alone;
- rephrased, changed: with one variant of each question of that kind;
- more: with as many further questions of the lab in place of the variants, labels included;
- apart (only if `--arms` names it): with those of these alone that would not be refused as variants.

The lab's teacher, on vLLM, answers all of them, two samples each. It cannot write variants: benchmarks/rewriting.py
does, by rules, as a teacher would that rewrites faithfully. No large model was asked, so this is what variants give at
best, of those that stay near their source's words; how many of a real teacher's are right and useful is not measured.

What is too like a validation or test question is refused, as in any run (`variants.overlap`), so there are fewer
variants than questions. Of `more` nothing is left out; how many of its further questions are as near is counted.

With `--equal steps`, the default, trainings have as many epochs as come nearest to --visits of a question in all, so
those with twice the questions have half the epochs, and the steps are the same but for rounding; the table has them.
With `--equal epochs` all have the epochs of the few, and the others take up to twice the steps.

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
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, cached_property
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
from storage.ids import example_id
from storage.store import Store
from tasks.questions.leaks import Known
from tasks.teacher.lab import lab_folder
from tasks.teacher.variants import Source, sorted_variants
from tasks.training.folder import Training
from tasks.training.outcomes import RoundTrained

ARMS = ("few", *VARIANT_KINDS, "more", "apart")
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
        options: of the command line.
    """

    def __init__(self, seed: int, arm: str, options: argparse.Namespace) -> None:
        self.seed, self.arm, self.options = seed, arm, options
        name = arm if arm == "few" else f"{arm}-{options.equal}"
        self.folder: Path = options.home / f"few-{options.few}" / f"seed-{seed}" / name
        self.file = self.folder / "outcome.json"
        self.config = load_config(BASE, [*SETTINGS, *self._variants(), *options.set])

    def _variants(self) -> list[str]:
        return [f"variants.{self.arm}=1"] if self.arm in VARIANT_KINDS else []

    @cached_property
    def kept_out(self) -> list[str]:
        """All validation and test questions."""
        dataset = self.config.dataset
        sets = (dataset.question_set(LAB.name, part) for part in ("validation", "test"))
        return [row.question for one in sets for row in LAB.load(one.split, dataset.paths.get(one.split), one.limit)]

    def near(self, questions: Iterable[str]) -> list[bool]:
        """Which of some questions a run would refuse, were they variants, for what is kept out."""
        known = Known(self.kept_out, self.config.variants.overlap)
        return [known.near(one) for one in questions]

    def own(self, pool: list[Example]) -> list[Example]:
        """Its questions, without variants.

        Args:
            pool: the seed's questions, the few first.
        """
        few, further = pool[: self.options.few], pool[self.options.few :]
        if self.arm == "apart":
            near = self.near(one.question for one in further)
            further = [one for one, is_near in zip(further, near, strict=True) if not is_near]
        return [*few, *further] if self.arm in ("more", "apart") else few

    def epochs(self, own: list[Example]) -> int:
        """Of a round; of variants those count that are likely to be there."""
        questions, world = len(own), WORLDS["lab"]
        if self.arm in VARIANT_KINDS:
            likely = (rewriter().write(self.arm, one.question, self.seed) for one in own)
            questions += self.near(likely).count(False)
        if self.options.equal == "epochs":
            questions = self.options.few
        visits: int = self.options.visits
        return max(1, round(visits / questions / world.rounds))

    def run(self, pool: list[Example], url: str) -> None:
        """Trains and stores what came of it, unless that is there.

        Args:
            pool: the seed's questions, the few first.
            url: of the teacher.
        """
        if self.file.exists():
            return
        own, questions = self.own(pool), self.folder / "questions.jsonl"
        if not self.folder.exists():
            partial = self.folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            if self.arm != "few":
                shutil.copytree(Arm(self.seed, "few", self.options).folder / "store", partial / "store")
            lines = [json.dumps({"question": one.question, "label": one.label}) for one in own]
            (partial / questions.name).write_text("\n".join(lines) + "\n")
            partial.rename(self.folder)
        training = self.distill(
            [
                f"teacher.url={url}", f"teacher.seed={self.seed}", f"optimisation.seed={self.seed}",
                f"student.new.seed={self.seed}", f"student.tokenizer={lab_folder(self.options.home)}",
                f"dataset.paths.train={questions}", f"rounds.epochs_per_round={self.epochs(own)}",
            ]
        )  # fmt: skip
        outcome = self.outcome(training, pool)
        curves.write(self.file, outcome)
        told = {name: value for name, value in outcome.items() if name != "right"}
        print(f"seed {self.seed} {self.arm}: {told}", flush=True)

    def distill(self, settings: list[str]) -> Training:
        """One `qcrd distill`."""
        command = [sys.executable, "-c", "from flows.cli import main; main()", "distill", BASE, "--json", "--home",
                   str(self.folder)]  # fmt: skip
        command += [part for setting in (*SETTINGS, *settings, *self._variants(), *self.options.set)
                    for part in ("--set", setting)]  # fmt: skip
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
        right = [LAB.equal(row["winner"], str(rewriter().answer(row["source"], row["variant"])), {}) for row in rows]
        return float(np.mean(right))

    def refused(self, store: Store, pool: list[Example]) -> dict[str, int]:
        """Reason -> how many variants are refused for it; where there are further questions, how many would be."""
        if self.arm == "few":
            return {}
        if self.arm in VARIANT_KINDS:
            train = {"dataset": LAB.name, "split": "train"}
            sources = [
                Source(example_id(LAB.name, "train", one.question, ()), one.question, (), one.label)
                for one in self.own(pool)
            ]
            found = sorted_variants(
                store, LAB, train, self.arm, self.config.variants.kinds[self.arm], sources,
                [one.question for one in sources], self.kept_out, self.config.variants.overlap,
            )  # fmt: skip
            return dict(found.refused)
        near = sum(self.near(one.question for one in pool[self.options.few :]))
        return {"further questions are like a validation or test question": near}


@cache
def rewriter() -> Rewriter:
    """A process's."""
    return Rewriter()


def run_seed(seed: int, url: str, options: argparse.Namespace) -> None:
    """All arms of a seed."""
    questions = list(LAB.load("train", None, None))
    pool = [questions[place] for place in np.random.default_rng(seed).permutation(len(questions))[: 2 * options.few]]
    for arm in options.arms:
        Arm(seed, arm, options).run(pool, url)


def show(options: argparse.Namespace) -> None:
    """Prints two lines for each arm, over the seeds that have it."""
    found: dict[str, dict[int, curves.Outcome]] = {
        arm: {
            seed: outcome
            for seed in range(options.first_seed, options.first_seed + options.seeds)
            if (outcome := curves.read(Arm(seed, arm, options).file))
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
            f"{count / len(outcomes):.0f} {'refused: ' if arm in VARIANT_KINDS else ''}{reason}"
            for reason, count in sorted(refused.items())
        ]
        print(f"{'':10} {'; '.join(told)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="with the lab's teacher; a folder for each arm")
    parser.add_argument("--few", type=int, default=500, help="questions that there are")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS[:4], help="few comes before others")
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

"""Every method on the same data with several seeds: accuracy with intervals, and paired tests against dss.

    python -m benchmarks.methods                                   # the lab, 5 seeds, all methods: an hour on 2 cores
    python -m benchmarks.methods --methods dss qcrd --seeds 2 --set rounds.rounds=4
    python -m benchmarks.methods --recorded svamp_train.jsonl.gz --folds 5 --seeds 1

It takes the questions and samples that the store of --home holds (`qcrd sample --dataset lab --max-tokens 128` makes
the lab's) and runs the same steps as `qcrd distill`, without Prefect and MLflow. Trainings are found again by their
ids, so a run that was stopped goes on, and another seed or method costs only itself. The test questions are read once
a training, by the student of the round that was best on validation.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import t as student_t

from flows.config.distill import DistillConfig, load_config
from models.configs import NEW
from models.methods import MethodConfig
from storage.datasets.registry import get_dataset
from storage.schemas import PREDICTIONS
from storage.store import Store
from storage.votes import VoteRule, vote
from tasks.questions.stored import store_examples
from tasks.teacher.recorded import import_recorded
from tasks.training.evaluation import evaluate_round
from tasks.training.folder import Training
from tasks.training.negatives import sample_negatives
from tasks.training.outcomes import Evaluation
from tasks.training.prepare import prepare_training
from tasks.training.quality import update_quality
from tasks.training.rounds import best_round, is_over, prune
from tasks.training.spec import Parts
from tasks.training.student import train_round

METHODS: dict[str, MethodConfig] = {
    "finetune": MethodConfig(name="finetune"),
    "label-distill": MethodConfig(name="label-distill"),
    "single-task": MethodConfig(name="single-task"),
    "dss": MethodConfig(name="dss"),
    "mi": MethodConfig(name="mi"),
    "qcrd": MethodConfig(name="qcrd"),
    # the paper's ablation, cumulative: dss, +ED, +NK, +QJ (= qcrd)
    "dss+ED": MethodConfig(name="qcrd", negatives=False, discriminator=False),
    "dss+ED+NK": MethodConfig(name="qcrd", discriminator=False),
    "qcrd refreshed 4": MethodConfig(name="qcrd", refresh_every=4),
    "qcrd delta 8": MethodConfig(name="qcrd", delta=8.0),
}


@dataclass(frozen=True)
class Job:
    """One training: a method with a seed on a fold."""

    method: str
    seed: int
    fold: int | None
    home: str
    config: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """Its outcome: the test's figures, and which questions were answered right."""

    job: Job
    best: int
    test: Evaluation
    right: dict[str, bool]
    seconds: float


def run(job: Job) -> Done:
    """Trains and tests; finds what is there already."""
    import torch

    torch.set_num_threads(1)
    home = Path(job.home)
    config = configured(job)
    store, dataset = Store(home / "store"), get_dataset(config.dataset.name)
    rule = rule_of(config, dataset.name)
    parts = Parts.of(config.dataset, dataset.name)
    training = config.training(method_of(job.method, config), home)
    folder = prepare_training(home / "trainings", store, config.dataset.name, rule, parts, training).folder
    seconds = 0.0
    for t in range(training.rounds.rounds):
        seconds += sample_negatives(folder, t).seconds + update_quality(folder, t).seconds
        seconds += train_round(folder, t).seconds
        evaluate_round(folder, t, "validation")
        prune(Training(folder))
        if is_over(Training(folder).evaluations()[: t + 1], training.rounds):
            break
    best = best_round(Training(folder).evaluations())
    test = evaluate_round(folder, best, "test")
    spec = Training(folder).spec
    assert parts.test is not None, "a comparison of methods needs test questions"
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT example_id, correct FROM {store.relation(PREDICTIONS, parts.test.partition)} "
            f"SEMI JOIN {parts.test.sql(store)} USING (example_id) WHERE model = $1",
            [spec.student_name(best)],
        ).to_pylist()
    return Done(job, best, test, {row["example_id"]: row["correct"] for row in rows}, seconds)


def configured(job: Job) -> DistillConfig:
    """The configuration with the job's seed and fold."""
    seeds = [f"optimisation.seed={job.seed}", f"discriminator.seed={job.seed}"]
    if load_config(job.config, job.settings).student.model == NEW:
        seeds += [f"student.new.seed={job.seed}"]
    folds = [] if job.fold is None else [f"dataset.fold={job.fold}"]
    return load_config(job.config, [*job.settings, *seeds, *folds])


def method_of(name: str, config: DistillConfig) -> MethodConfig:
    """One of METHODS, with the weights of the configuration's method (beta, delta, scheme ...)."""
    weights = config.method.model_dump(exclude={"name", "voting", "negatives", "discriminator"})
    return MethodConfig.model_validate({**weights, **METHODS[name].model_dump(exclude_unset=True)})


def rule_of(config: DistillConfig, dataset: str) -> VoteRule:
    """The vote of the configuration's teacher."""
    teachers = config.teacher.teachers or (config.teacher.name or "lab-teacher",)
    return VoteRule(dataset=dataset, teachers=teachers, **config.votes.model_dump())


def ready(home: Path, config: DistillConfig, recorded: Path | None) -> None:
    """Questions, samples and votes, in this process, before the others start."""
    store, dataset = Store(home / "store"), get_dataset(config.dataset.name)
    if recorded:
        import_recorded(store, dataset, str(recorded), config.dataset.train_split)
    else:
        for name in set(config.dataset.splits().values()):
            store_examples(store, dataset, name, dataset.load(name))
    summary = vote(store, dataset, rule_of(config, dataset.name), config.dataset.train_split)
    Console(stderr=True).print(
        f"{summary.examples} questions, {summary.samples} samples; one right {summary.single_accuracy or 0:.1%}, "
        f"the majority {summary.majority_accuracy or 0:.1%}"
    )


def outcomes(jobs: list[Job], processes: int) -> Iterator[Done]:
    """Runs the jobs, a few at a time, and reports each."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        for number, future in enumerate(as_completed(futures), start=1):
            done = future.result()
            fold = "" if done.job.fold is None else f" fold {done.job.fold}"
            print(
                f"{number}/{len(jobs)} {done.job.method} seed {done.job.seed}{fold}: best round {done.best}, "
                f"test {done.test.accuracy:.1%}, {done.seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            yield done


def interval(values: list[float]) -> str:
    """A mean with its 95 % interval over seeds (Student's t); folds of one seed are one value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.1%}"
    half = float(student_t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.1%} ±{100 * half:.1f}"


def show(found: list[Done], methods: list[str]) -> None:
    """The table: one row per method."""
    table = Table(box=None, pad_edge=False)
    for name in ("method", "test accuracy", "explanations", "best round", "s", "minus dss, paired by question"):
        table.add_column(name, justify="left" if name == "method" else "right")
    right = {method: answers_of(found, method) for method in methods}
    for method in methods:
        own = [one for one in found if one.job.method == method]
        seeds = sorted({one.job.seed for one in own})
        by_seed = [[one.test for one in own if one.job.seed == seed] for seed in seeds]
        accuracy = [sum(t.correct for t in tests) / sum(t.questions for t in tests) for tests in by_seed]
        explained = [statistics.fmean(t.explanation_accuracy or 0.0 for t in tests) for tests in by_seed]
        versus = ""
        if method != "dss" and "dss" in right:
            versus = difference(right[method], right["dss"])
        explains = any(t.explanation_accuracy is not None for tests in by_seed for t in tests)
        table.add_row(
            method, interval(accuracy), interval(explained) if explains else "-",
            f"{statistics.fmean(one.best for one in own):.1f}", f"{statistics.median(one.seconds for one in own):.0f}",
            versus,
        )  # fmt: skip
    Console(width=120).print(table)


def answers_of(found: list[Done], method: str) -> dict[str, float]:
    """Question -> the share of a method's trainings (one a seed) that answered it right."""
    answers: dict[str, list[bool]] = {}
    for one in found:
        if one.job.method == method:
            for example, right in one.right.items():
                answers.setdefault(example, []).append(right)
    return {example: statistics.fmean(values) for example, values in answers.items()}


def difference(method: dict[str, float], other: dict[str, float]) -> str:
    """The mean difference over questions with its 95 % interval; a question's trainings count as one observation."""
    values = [method[example] - other[example] for example in sorted(method.keys() & other.keys())]
    mean, half = statistics.fmean(values), 1.96 * statistics.stdev(values) / len(values) ** 0.5
    return f"{100 * mean:+.1f} ({100 * (mean - half):+.1f} to {100 * (mean + half):+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".qcrd"))
    parser.add_argument("--config", default="lab")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=None)
    parser.add_argument("--recorded", type=Path, help="recorded samples of the configuration's dataset")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    options: Any = parser.parse_args()
    settings = (*options.settings, *([f"dataset.folds={options.folds}"] if options.folds else []))
    ready(options.home, load_config(options.config, settings), options.recorded)
    folds: list[int | None] = list(range(options.folds)) if options.folds else [None]
    jobs = [
        Job(method, seed, fold, str(options.home), options.config, settings)
        for seed in range(options.seeds)
        for method in options.methods
        for fold in folds
    ]
    show(list(outcomes(jobs, options.processes)), options.methods)


if __name__ == "__main__":
    main()

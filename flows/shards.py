"""A teacher in shards: flow runs on a work pool, each with the questions whose id's hash falls to it.

    ask_in_shards            the step of `distill` that samples: waits until every shard is done
    vote_in_shards           the step that votes, where there are many samples, on the same pool
        sample_shard         one run, wherever a worker takes it; what it makes goes into the store

A sample's id follows from its question, so the store holds the same samples however they were shared out; and votes
are on one question each. Nothing is kept but the store: a shard that died is started again, anywhere, and does only the
rest (`flows.sharing`). Every question is in one shard, so object stores, which have no locks, need none.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact

from flows.prefect.shard_runs import ShardRuns, Telling, Told
from flows.prefect.workers import own_workers
from flows.sharing import Sharing, Started
from models.errors import TeacherFailed, TeacherUnavailable, WorkerDied
from models.hardware import detect_hardware, gpu_names
from models.server_parallel import gpus_a_copy, names_parallelism
from storage.datasets.registry import get_dataset
from storage.errors import StorageError, one_line
from storage.shards import Shard
from storage.vote_summary import VoteSummary, VoteSums
from storage.votes import VoteRule, splits_to_vote_on, stored_samples, summarised, vote, vote_on_split
from tasks.errors import ONE_LINE
from tasks.questions.sets import DatasetConfig
from tasks.running.progress import Progress
from tasks.running.workspace import Workspace
from tasks.steps.asking import ask, asked_questions, summary
from tasks.steps.retries import MAY_PASS, STEP
from tasks.steps.teacher import Sampled
from tasks.steps.votes import log_votes, vote_on_validation
from tasks.teacher.sampling import SamplingProgress, per_second
from tasks.teacher.session import choose_teacher, sampling_right
from tasks.teacher.settings import TeacherSettings

TABLE_S = 10.0
SAMPLES_A_RUN = 10_000_000
"""Samples that a flow run votes on, at least: one process has voted on fewer about when a run has started."""


@flow(name="sample-shard")
def sample_shard(
    workspace: Workspace,
    dataset: DatasetConfig,
    teacher: TeacherSettings,
    shard: Shard,
    rule: VoteRule | None = None,
) -> None:
    """Samples the questions of one shard, or votes on them; `distill` starts it, wherever there are workers.

    Args:
        workspace: of the run that shares out the questions. Its store must be the same place here, and its home is a
            folder of this machine.
        dataset: the questions, which are in the store.
        teacher: which teacher is asked.
        shard: which of the questions.
        rule: votes on the shard's samples by this rule, and asks nobody.
    """
    with Telling() as telling, _error_told(telling.told):
        if rule is not None:
            store, named = workspace.open_store(), get_dataset(dataset.name)
            telling.told.votes = dict(vote_on_split(store, named, rule, dataset.train_split, shard))
            return

        def on_progress(state: SamplingProgress) -> None:
            telling.told.made = state

        choice = choose_teacher(teacher, workspace.home)
        taught = ask(workspace, dataset, teacher, choice, on_progress, shard)
        telling.told.questions, telling.told.samples = taught.plan.examples, taught.plan.samples
        telling.told.made = taught.done


@contextmanager
def _error_told(told: Told) -> Iterator[None]:
    """Notes why the block failed."""
    try:
        yield
    except Exception as error:
        told.may_pass = isinstance(error, MAY_PASS)
        told.error = one_line(error) if isinstance(error, ONE_LINE) else f"{type(error).__name__}: {error}"
        raise


@task(name="ask the teacher in shards", **STEP)
def ask_in_shards(workspace: Workspace, config: DatasetConfig, teacher: TeacherSettings) -> Sampled:
    """Samples what is missing, as `ask_teacher` does, but in shards.

    Raises:
        TeacherFailed: a shard was refused for good.
        TeacherUnavailable: a shard ended early again and again.
        UsageError: there is no such deployment.
        ServerRefused: Prefect's server is away.
    """
    started = time.monotonic()
    dataset, log = get_dataset(config.name), get_run_logger()
    choice = choose_teacher(teacher, workspace.home)
    questions = asked_questions(config, dataset, teacher)
    with (
        sampling_right(workspace.open_store(), dataset, questions.split, choice, log.info),
        _deployment(workspace, teacher) as deployment,
        workspace.progress("sampling the teacher", "teacher") as report,
    ):
        runs = ShardRuns(deployment, workspace.run_id, _parameters(workspace, config, teacher))
        with Sharing(
            runs, Shard.all(teacher.shards), _Showing(teacher, report), refused=TeacherFailed,
            in_vain=TeacherUnavailable, split_s=teacher.split_s,
        ) as sharing:  # fmt: skip
            sharing.run()
        told = sharing.told
    if not any(one.questions for one in told):
        questions.ids(workspace.open_store())  # raises NothingToDo, which says what to do
    made = _sum(told)
    made.seconds = time.monotonic() - started
    return summary(teacher, choice, sum(one.samples for one in told), made if made.wanted else None)


@task(name="vote in shards", **STEP)
def vote_in_shards(
    workspace: Workspace, rule: VoteRule, config: DatasetConfig, teacher: TeacherSettings
) -> VoteSummary:
    """Votes as `count_votes` does; many samples in shards, on the work pool where the teacher was sampled.

    Raises:
        StorageError: a shard cannot vote: what the store holds is damaged, for one.
        WorkerDied: a shard ended early again and again.
        UsageError: there is no such deployment.
        ServerRefused: Prefect's server is away.
    """
    store, dataset = workspace.open_store(), get_dataset(config.name)
    vote_on_validation(store, rule, config)
    splits = splits_to_vote_on(store, dataset, config.train_split)
    samples = stored_samples(store, {"dataset": dataset.name, "split": config.train_split})
    of = min(teacher.shards, math.ceil(samples / SAMPLES_A_RUN))
    if of <= 1:
        return log_votes(vote(store, dataset, rule, config.train_split))
    parameters = _parameters(workspace, config, teacher) | {"rule": rule.model_dump(mode="json")}
    with (
        _deployment(workspace, teacher) as deployment,
        workspace.progress("voting in shards", "votes") as report,
        Sharing(
            ShardRuns(deployment, workspace.run_id, parameters, "votes of shard"), Shard.all(of),
            lambda sharing: report(sharing.done, sharing.shards), refused=StorageError, in_vain=WorkerDied,
        ) as sharing,
    ):  # fmt: skip
        sharing.run()
    sums = VoteSums()
    for told in sharing.told:
        sums.update(told.votes)
    return log_votes(summarised(store, dataset, rule, splits, sums))


def _parameters(workspace: Workspace, config: DatasetConfig, teacher: TeacherSettings) -> dict[str, Any]:
    """Of `sample_shard`, as Prefect keeps them; all but the shard."""
    return {
        "workspace": workspace.model_dump(mode="json"),
        "dataset": config.model_dump(mode="json"),
        "teacher": teacher.model_dump(mode="json"),
    }


@contextmanager
def _deployment(workspace: Workspace, teacher: TeacherSettings) -> Iterator[str]:
    """The deployment whose pool runs the shards: the one that is named, or one of our own, on this machine."""
    if teacher.shards_on is not None:
        yield f"{sample_shard.name}/{teacher.shards_on}"
        return
    name = f"shards-{workspace.run_id}"
    hardware = detect_hardware()
    limits: list[tuple[int, dict[str, str]]] = [(min(teacher.shards, len(hardware.cores)), {})]
    if not teacher.urls:  # each shard starts a server: one on every GPU (or as many as it needs), or one at a time
        gpus = () if names_parallelism(teacher.server_args) else gpu_names()
        each = gpus_a_copy(teacher.model or "", hardware)
        groups = [",".join(gpus[first : first + each]) for first in range(0, len(gpus), each)]
        limits = [(1, {"CUDA_VISIBLE_DEVICES": group}) for group in groups][: teacher.shards] or [(1, {})]
    with own_workers(sample_shard, name, workspace.home / "logs", limits) as deployment:
        yield deployment


class _Showing:
    """Shows how far the shards are together.

    Args:
        report: the step's.
    """

    def __init__(self, teacher: TeacherSettings, report: Progress) -> None:
        self._teacher, self._report = teacher, report
        self._shown = time.monotonic()

    def __call__(self, sharing: Sharing) -> None:
        now = time.monotonic()
        under_way = [one.state.told for one in sharing.started]
        made = _sum([*sharing.told, *under_way])
        if not made.wanted:  # nothing is known yet, or nothing is missing
            return
        speeds = [per_second(told.made.completion_tokens, told.made.seconds) for told in under_way if told.made]
        done, shards = sharing.done, sharing.shards
        self._report(
            made.sampled,
            max(made.wanted, made.sampled + (done < shards)),  # a shard that waits has not told what it wants
            f"{done} of {shards} shards done",
            tokens_per_second=None if None in speeds else sum(filter(None, speeds)),
            cost=self._teacher.price.of(made.prompt_tokens, made.completion_tokens, made.reasoning_tokens),
        )
        if now - self._shown > TABLE_S:
            self._shown = now
            rows = [_row(one) for one in sorted(sharing.started, key=lambda one: (one.shard.of, one.shard.number))]
            create_table_artifact(rows, key="shards", description=f"{done} of {shards} shards are done")


def _sum(told: list[Told]) -> SamplingProgress:
    """The figures of several runs together."""
    total = SamplingProgress(wanted=0)
    for one in told:
        made = one.made
        if made is None:
            continue
        total.wanted += made.wanted
        for name in ("sampled", "unparsed", "cut_off", "filtered"):
            setattr(total, name, getattr(total, name) + getattr(made, name))
        total.add(made)
        total.refused |= made.refused
        total.learnt += [what for what in made.learnt if what not in total.learnt]
    return total


def _row(one: Started) -> dict[str, str]:
    made, left = one.state.told.made, one.state.told.seconds_left
    return {
        "shard": str(one.shard),
        "state": one.state.type.value.lower(),
        "samples": f"{made.sampled:,} of {made.wanted:,}" if made else "",
        "samples/s": f"{one.state.told.speed:,.1f}" if made else "",
        "seconds left": f"{left:,.0f}" if left is not None else "",
    }

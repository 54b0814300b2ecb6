"""Sampling a teacher in shards: flow runs on a work pool, each with the questions whose id's hash falls to it.

    ask_in_shards            the step of `distill`: starts the runs, starts again what died, splits stragglers, waits
        sample_shard         one run, wherever a worker takes it; its samples go into the store as they come

A sample's id follows from its question, so the store holds the same samples however they were shared out. Nothing
is kept but the store: a shard that died is started again, anywhere, and asks only for the rest. Every question is in
one shard, so object stores, which have no locks, need none.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import httpx
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import StateType

from flows.prefect.shard_runs import ShardRuns, ShardState, Telling, Told
from flows.prefect.workers import own_workers
from models.errors import TeacherFailed, TeacherUnavailable
from models.hardware import detect_hardware, gpu_names
from models.server_parallel import gpus_a_copy, names_parallelism
from storage.datasets.registry import get_dataset
from storage.errors import one_line
from tasks.errors import ONE_LINE, ServerRefused
from tasks.questions.sets import DatasetConfig, Shard
from tasks.running.progress import Progress
from tasks.running.workspace import Workspace
from tasks.steps.asking import ask, asked_questions, summary
from tasks.steps.retries import MAY_PASS, STEP
from tasks.steps.teacher import Sampled
from tasks.teacher.sampling import SamplingProgress, per_second
from tasks.teacher.session import choose_teacher, sampling_right
from tasks.teacher.settings import TeacherSettings

LOOK_S, TABLE_S, WORKERLESS_S = 1.0, 10.0, 60.0
LOST_S = 90.0
"""A shard that tells nothing for so long is lost."""
LOST_AFTER_S = {StateType.RUNNING: LOST_S, StateType.CANCELLING: LOST_S, StateType.PENDING: 900.0}
"""By state. A worker that dies between taking a run and starting it leaves it pending; a pod may wait for its image."""
AWAY_S = 300.0
"""How long Prefect's server may be away."""
TRIES = 5
"""A shard may end early so often without a single sample."""
WAIT_S = 5.0
"""Before the first of them it waits so long; twice as long before each other."""


@flow(name="sample-shard", flow_run_name="shard {shard}")
def sample_shard(workspace: Workspace, dataset: DatasetConfig, teacher: TeacherSettings, shard: Shard) -> None:
    """Samples the questions of one shard; `distill` starts it, wherever there are workers.

    Args:
        workspace: of the run that shares out the questions. Its store must be the same place here, and its home is a
            folder of this machine.
        dataset: the questions, which are in the store.
        teacher: which teacher is asked.
        shard: which of the questions.
    """
    choice = choose_teacher(teacher, workspace.home)
    with Telling() as telling:

        def on_progress(state: SamplingProgress) -> None:
            telling.told.made = state

        try:
            taught = ask(workspace, dataset, teacher, choice, on_progress, shard)
        except Exception as error:
            telling.told.may_pass = isinstance(error, MAY_PASS)
            telling.told.error = one_line(error) if isinstance(error, ONE_LINE) else f"{type(error).__name__}: {error}"
            raise
        telling.told.questions, telling.told.samples = taught.plan.examples, taught.plan.samples
        telling.told.made = taught.done


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
    parameters = {
        "workspace": workspace.model_dump(mode="json"),
        "dataset": config.model_dump(mode="json"),
        "teacher": teacher.model_dump(mode="json"),
    }
    with (
        sampling_right(workspace.open_store(), dataset, questions.split, choice, log.info),
        _deployment(workspace, teacher) as deployment,
        workspace.progress("sampling the teacher", "teacher") as report,
    ):
        runs = ShardRuns(deployment, workspace.run_id, parameters)
        with _Sharing(runs, teacher, report) as sharing:
            sharing.run()
        told = sharing.told
    if not any(one.questions for one in told):
        questions.ids(workspace.open_store())  # raises NothingToDo, which says what to do
    made = _sum(told)
    made.seconds = time.monotonic() - started
    return summary(teacher, choice, sum(one.samples for one in told), made if made.wanted else None)


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


@dataclass
class _Started:
    """A shard whose run was started."""

    shard: Shard
    run: UUID
    fruitless: int
    since: float
    heard: float
    state: ShardState = field(default_factory=lambda: ShardState(type=StateType.SCHEDULED))
    splitting: bool = False


@dataclass
class _Waiting:
    """A shard that is to be started. Of its runs, the last `fruitless` made nothing."""

    shard: Shard
    fruitless: int = 0
    not_before: float = 0.0


class _Sharing:
    """Starts the runs of all shards and waits until each is done.

    When the block ends early, the runs that are under way are asked to end.

    Attributes:
        told: what was told last by each run that has ended.
    """

    def __init__(self, runs: ShardRuns, teacher: TeacherSettings, report: Progress) -> None:
        self.told: list[Told] = []
        self._runs, self._teacher, self._report = runs, teacher, report
        self._log = get_run_logger()
        self._waiting = [_Waiting(Shard(number=number, of=teacher.shards)) for number in range(teacher.shards)]
        self._started: list[_Started] = []
        self._done = self._at_once = 0
        self._complained = self._shown = time.monotonic()

    def __enter__(self) -> "_Sharing":
        return self

    def __exit__(self, *_: object) -> None:
        runs = [one.run for one in self._started]  # none, unless the block ends early
        try:
            self._end(runs)
        except httpx.HTTPError as error:  # what ended the block is the error to show
            self._log.warning("%s shards cannot be told to end, and go on: %s", f"{len(runs):,}", error)

    def run(self) -> None:
        """Returns when all shards are done."""
        self._end(self._runs.unfinished())
        away_since: float | None = None
        while self._waiting or self._started:
            try:
                self._start_some()
                self._look()
                self._split_stragglers()
                self._show()
                away_since = None
            except httpx.HTTPError as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > AWAY_S:
                    raise ServerRefused(f"Prefect's server has been away for {AWAY_S:.0f} s: {error}") from error
            time.sleep(LOOK_S)

    def _start_some(self) -> None:
        now = time.monotonic()
        for one in [one for one in self._waiting if one.not_before <= now]:
            run = self._runs.start(one.shard)
            self._waiting.remove(one)
            self._started.append(_Started(one.shard, run, one.fruitless, now, now))

    def _look(self) -> None:
        now = time.monotonic()
        states = self._runs.look(one.run for one in self._started)
        for one in list(self._started):
            state = states[one.run]
            if state != one.state:
                one.state, one.heard = state, now
            if state.over:
                self._started.remove(one)
                self.told.append(state.told)
                self._ended(one, now)
            elif now - one.heard > LOST_AFTER_S.get(state.type, math.inf):
                self._log.warning("Shard %s has told nothing for %.0f s: it is lost.", one.shard, now - one.heard)
                self._runs.lose(one.run, f"It told nothing for {now - one.heard:.0f} s.")
        idle = [one for one in self._started if one.state.type == StateType.SCHEDULED]
        if idle and len(idle) == len(self._started) and now - max(self._complained, idle[-1].since) > WORKERLESS_S:
            self._complained = now
            self._log.warning(
                "No worker takes a shard. Start some: prefect worker start --pool %s", self._runs.pool
            )  # fmt: skip

    def _ended(self, one: _Started, now: float) -> None:
        told = one.state.told
        if one.state.type == StateType.COMPLETED:
            self._done += 1
            return
        if told.made is not None:
            told.made.wanted = told.made.sampled  # the next run wants the rest
        if told.error is not None and not told.may_pass:
            raise TeacherFailed(told.error)
        if one.splitting:
            self._log.info("Shard %s is split in two.", one.shard)
            self._waiting += [_Waiting(half) for half in one.shard.halves()]
            return
        fruitless = 0 if told.made and told.made.sampled else one.fruitless + 1
        why = told.error or one.state.message or one.state.type.value.lower()
        if fruitless >= TRIES:
            raise TeacherUnavailable(f"Shard {one.shard} ended early {TRIES} times without a sample, at last: {why}")
        self._log.warning("Shard %s ended early and is started again: %s", one.shard, why)
        wait = WAIT_S * 2 ** (fruitless - 1) if fruitless else 0.0
        self._waiting.append(_Waiting(one.shard, fruitless, now + wait))

    def _split_stragglers(self) -> None:
        """Splits the shard that needs longest, if that is long, no other waits, and workers have had more at a time."""
        slowest, long = None, self._teacher.split_s
        running = [one for one in self._started if one.state.type == StateType.RUNNING]
        self._at_once = max(self._at_once, sum(one.state.type != StateType.SCHEDULED for one in self._started))
        if long is None or self._waiting or len(running) < len(self._started) or len(running) >= self._at_once:
            return
        for one in running:
            left = one.state.told.seconds_left
            if left is not None and left > long:
                slowest, long = one, left
        if slowest is not None:
            slowest.splitting = True
            self._runs.cancel(slowest.run)

    def _show(self) -> None:
        now = time.monotonic()
        under_way = [one.state.told for one in self._started]
        made = _sum([*self.told, *under_way])
        if not made.wanted:  # nothing is known yet, or nothing is missing
            return
        speeds = [per_second(told.made.completion_tokens, told.made.seconds) for told in under_way if told.made]
        shards = self._done + len(self._started) + len(self._waiting)
        self._report(
            made.sampled,
            max(made.wanted, made.sampled + (self._done < shards)),  # a shard that waits has not told what it wants
            f"{self._done} of {shards} shards done",
            tokens_per_second=None if None in speeds else sum(filter(None, speeds)),
            cost=self._teacher.price.of(made.prompt_tokens, made.completion_tokens, made.reasoning_tokens),
        )
        if now - self._shown > TABLE_S:
            self._shown = now
            rows = [_row(one) for one in sorted(self._started, key=lambda one: (one.shard.of, one.shard.number))]
            create_table_artifact(rows, key="shards", description=f"{self._done} of {shards} shards are done")

    def _end(self, runs: list[UUID]) -> None:
        """Tells some runs to end, waits until they have, and gives up those that do not."""
        for run in runs:
            self._runs.cancel(run)
        deadline = time.monotonic() + LOST_S
        while runs:
            runs = [run for run, state in self._runs.look(runs).items() if not state.over]
            if time.monotonic() > deadline:
                for run in runs:
                    self._runs.lose(run, "It did not end when it was told to.")
                return
            time.sleep(LOOK_S if runs else 0.0)


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


def _row(one: _Started) -> dict[str, str]:
    made, left = one.state.told.made, one.state.told.seconds_left
    return {
        "shard": str(one.shard),
        "state": one.state.type.value.lower(),
        "samples": f"{made.sampled:,} of {made.wanted:,}" if made else "",
        "samples/s": f"{one.state.told.speed:,.1f}" if made else "",
        "seconds left": f"{left:,.0f}" if left is not None else "",
    }

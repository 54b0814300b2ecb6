"""Flow runs for shards: started on a work pool, started again where they die, split where they are slow, waited for.

    with Sharing(runs, shards, ...) as sharing:
        sharing.run()
    sharing.told                # what each told last

What they do is their flow's business (`flows.shards`). A shard that died is started again, anywhere, and does only
what is left.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.schemas.objects import StateType

from flows.prefect.shard_runs import ShardRuns, ShardState, Told
from storage.shards import Shard
from tasks.errors import ServerRefused

LOOK_S, WORKERLESS_S = 1.0, 60.0
LOST_S = 90.0
"""A shard that tells nothing for so long is lost."""
LOST_AFTER_S = {StateType.RUNNING: LOST_S, StateType.CANCELLING: LOST_S, StateType.PENDING: 900.0}
"""By state. A worker that dies between taking a run and starting it leaves it pending; a pod may wait for its image."""
AWAY_S = 300.0
"""How long Prefect's server may be away."""
TRIES = 5
"""A shard may end early so often without having made anything."""
WAIT_S = 5.0
"""Before the first of them it waits so long; twice as long before each other."""


@dataclass
class Started:
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


class Sharing:
    """Starts the runs of all shards and waits until each is done.

    When the block ends early, the runs that are under way are asked to end.

    Args:
        runs: starts them, and knows how they stand.
        shards: all of them.
        show: called every second, with this.
        refused: what is raised, with a shard's reason, if trying again would not help.
        in_vain: what is raised if a shard ended early too often.
        split_s: a shard that needs longer is split when no other waits; None never does.

    Attributes:
        told: what was told last by each run that has ended.
        started: the shards whose runs are under way.
        done: how many shards are done.
    """

    def __init__(
        self,
        runs: ShardRuns,
        shards: Iterable[Shard],
        show: Callable[["Sharing"], None],
        *,
        refused: type[Exception],
        in_vain: type[Exception],
        split_s: float | None = None,
    ) -> None:
        self.told: list[Told] = []
        self.started: list[Started] = []
        self.done = 0
        self._runs, self._show, self._split_s = runs, show, split_s
        self._refused, self._in_vain = refused, in_vain
        self._log = get_run_logger()
        self._waiting = [_Waiting(shard) for shard in shards]
        self._at_once = 0
        self._complained = time.monotonic()

    @property
    def shards(self) -> int:
        """How many there are now."""
        return self.done + len(self.started) + len(self._waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        runs = [one.run for one in self.started]  # none, unless the block ends early
        try:
            self._end(runs)
        except httpx.HTTPError as error:  # what ended the block is the error to show
            self._log.warning("%s shards cannot be told to end, and go on: %s", f"{len(runs):,}", error)

    def run(self) -> None:
        """Returns when all shards are done."""
        self._end(self._runs.unfinished())
        away_since: float | None = None
        while self._waiting or self.started:
            try:
                self._start_some()
                self._look()
                self._split_stragglers()
                self._show(self)
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
            self.started.append(Started(one.shard, run, one.fruitless, now, now))

    def _look(self) -> None:
        now = time.monotonic()
        states = self._runs.look(one.run for one in self.started)
        for one in list(self.started):
            state = states[one.run]
            if state != one.state:
                one.state, one.heard = state, now
            if state.over:
                self.started.remove(one)
                self.told.append(state.told)
                self._ended(one, now)
            elif now - one.heard > LOST_AFTER_S.get(state.type, math.inf):
                self._log.warning("Shard %s has told nothing for %.0f s: it is lost.", one.shard, now - one.heard)
                self._runs.lose(one.run, f"It told nothing for {now - one.heard:.0f} s.")
        idle = [one for one in self.started if one.state.type == StateType.SCHEDULED]
        if idle and len(idle) == len(self.started) and now - max(self._complained, idle[-1].since) > WORKERLESS_S:
            self._complained = now
            self._log.warning(
                "No worker takes a shard. Start some: prefect worker start --pool %s", self._runs.pool
            )  # fmt: skip

    def _ended(self, one: Started, now: float) -> None:
        told = one.state.told
        if one.state.type == StateType.COMPLETED:
            self.done += 1
            return
        if told.made is not None:
            told.made.wanted = told.made.sampled  # the next run wants the rest
        told.votes = {}  # the next run votes on all of it
        if told.error is not None and not told.may_pass:
            raise self._refused(told.error)
        if one.splitting:
            self._log.info("Shard %s is split in two.", one.shard)
            self._waiting += [_Waiting(half) for half in one.shard.halves()]
            return
        fruitless = 0 if told.made and told.made.sampled else one.fruitless + 1
        why = told.error or one.state.message or one.state.type.value.lower()
        if fruitless >= TRIES:
            raise self._in_vain(f"Shard {one.shard} ended early {TRIES} times and had made nothing, at last: {why}")
        self._log.warning("Shard %s ended early and is started again: %s", one.shard, why)
        wait = WAIT_S * 2 ** (fruitless - 1) if fruitless else 0.0
        self._waiting.append(_Waiting(one.shard, fruitless, now + wait))

    def _split_stragglers(self) -> None:
        """Splits the shard that needs longest, if that is long, no other waits, and workers have had more at a time."""
        slowest, long = None, self._split_s
        running = [one for one in self.started if one.state.type == StateType.RUNNING]
        self._at_once = max(self._at_once, sum(one.state.type != StateType.SCHEDULED for one in self.started))
        if long is None or self._waiting or len(running) < len(self.started) or len(running) >= self._at_once:
            return
        for one in running:
            left = one.state.told.seconds_left
            if left is not None and left > long:
                slowest, long = one, left
        if slowest is not None:
            slowest.splitting = True
            self._runs.cancel(slowest.run)

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

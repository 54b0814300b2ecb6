"""The flow runs of shards, as the run sees them that shares out the questions; and what a shard tells it.

    told = Telling()                                 # in a shard: an artifact, written again every few seconds
    runs = ShardRuns("sample-shard/docker", ...)     # where they are shared out
    run = runs.start(shard)
    runs.look([run])

A shard that is silent for long is lost, with its machine or the network to it. Its artifact's own clock does not
matter: whoever looks goes by the time since the artifact changed.
"""

import json
import os
import signal
import threading
from collections.abc import Iterable
from dataclasses import asdict, fields
from itertools import islice
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import TERMINAL_STATES, StateType
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger
from prefect.runtime import flow_run
from prefect.states import Crashed
from pydantic import BaseModel

from flows.prefect.pool_runs import cancel, pool_of, start, unfinished
from storage.shards import Shard
from tasks.teacher.sampling import SamplingProgress, per_second

BEAT_S = 5.0
"""How often a shard tells how far it is."""
KEY = "shard"
REFUSALS = 3
"""Refused questions that a shard names: as many as the run that shares out shows of all."""


class Told(BaseModel):
    """What a shard tells.

    Attributes:
        questions: how many it has; 0 until it has looked.
        samples: wanted in all, stored ones included.
        made: what it has sampled so far; None if nothing was missing.
        votes: where it votes, the sums over its votes (`storage.vote_summary`); empty until it is done.
        beat: grows with every telling.
        error: why it ended early, in one line.
        may_pass: whether trying again may help.

    As an artifact it is a table of one row.
    """

    questions: int = 0
    samples: int = 0
    made: SamplingProgress | None = None
    votes: dict[str, float] = {}
    beat: int = 0
    error: str | None = None
    may_pass: bool = True

    def table(self) -> str:
        """The table, as Prefect stores it; of the refused questions some."""
        row = self.model_dump(exclude={"made"})
        if self.made is not None:
            row |= asdict(self.made) | {"refused": dict(islice(self.made.refused.items(), REFUSALS))}
        return json.dumps([row])

    @classmethod
    def of(cls, table: str) -> "Told":
        """What a table says."""
        [row] = json.loads(table)
        made = {field.name: row.pop(field.name) for field in fields(SamplingProgress) if field.name in row}
        return cls(**row, made=SamplingProgress(**made) if made else None)

    @property
    def speed(self) -> float:
        """Samples per second; 0 until there are any."""
        return per_second(self.made.sampled, self.made.seconds) or 0.0 if self.made else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time until it is done, at its pace so far; None until there is a pace."""
        return (self.made.wanted - self.made.sampled) / self.speed if self.made and self.speed else None


class Telling:
    """Tells how far this flow run is, every few seconds, until the block ends.

    It also looks whether the run is still wanted. A worker that is cut off from Prefect is not told to end its run, and
    another run may do its work by then.

    Attributes:
        told: what is told; the block changes it.
    """

    def __init__(self) -> None:
        self.told = Told()
        self._run = UUID(str(flow_run.id))
        self._artifact: UUID | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="telling", daemon=True)

    def __enter__(self) -> Self:
        self.tell()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self.tell()

    def tell(self) -> None:
        """Tells it now."""
        self.told.beat += 1
        made = self.told.made
        line = f"{made.sampled:,} of {made.wanted:,} samples" if made else "nothing sampled"
        if self.told.votes:
            line = f"voted on {self.told.votes['examples']:,.0f} questions"
        with get_client(sync_client=True) as client:
            if self._artifact is None:
                artifact = ArtifactCreate(type="table", key=KEY, flow_run_id=self._run)
                self._artifact = client.create_artifact(artifact).id
            client.update_artifact(self._artifact, ArtifactUpdate(data=self.told.table(), description=line))

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                self.tell()
                with get_client(sync_client=True) as client:
                    state = client.read_flow_run(self._run).state
            except (httpx.HTTPError, ObjectNotFound) as error:  # the next beat tries again
                get_logger("shards").warning("Prefect's server does not take a shard's figures: %s", error)
                continue
            if state is not None and state.type != StateType.RUNNING and not self._over.is_set():
                os.kill(os.getpid(), signal.SIGTERM)
                return


class ShardState(BaseModel):
    """A shard's flow run at one moment.

    Attributes:
        type: Prefect's state.
        message: Prefect's message, if any.
        told: what the shard told last.
    """

    type: StateType
    message: str = ""
    told: Told = Told()

    @property
    def over(self) -> bool:
        """Whether the run has ended, well or not."""
        return self.type in TERMINAL_STATES


class ShardRuns:
    """The flow runs of one run's shards.

    Args:
        deployment: of the flow `sample-shard`: FLOW/NAME.
        run_id: the run that shares out the questions.
        parameters: of the flow, but for the shard.
        name: what its runs are called, but for the shard.

    Raises:
        UsageError: there is no such deployment.
    """

    def __init__(self, deployment: str, run_id: str, parameters: dict[str, Any], name: str = "shard") -> None:
        self._deployment, self._parameters, self._name = deployment, parameters, name
        self._tag = f"shards of {run_id}"
        self.pool = pool_of(deployment, "teacher.shards_on", "deploy/shards.yaml")

    def start(self, shard: Shard) -> UUID:
        """Schedules a run for a shard."""
        parameters = self._parameters | {"shard": shard.model_dump()}
        return start(self._deployment, parameters, f"{self._name} {shard}", self._tag)

    def look(self, runs: Iterable[UUID]) -> dict[UUID, ShardState]:
        """How some runs stand; one that the server does not know any more has crashed."""
        wanted = list(runs)
        with get_client(sync_client=True) as client:
            found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=wanted)))
            artifacts = client.read_artifacts(
                artifact_filter=ArtifactFilter(
                    flow_run_id=ArtifactFilterFlowRunId(any_=wanted), key=ArtifactFilterKey(any_=[KEY])
                )
            )
        told = {
            artifact.flow_run_id: Told.of(artifact.data) for artifact in artifacts if isinstance(artifact.data, str)
        }
        states = dict.fromkeys(wanted, ShardState(type=StateType.CRASHED, message="Prefect's server lost it"))
        for run in found:
            state = run.state
            states[run.id] = ShardState(
                type=state.type if state else StateType.PENDING,
                message=(state.message if state else None) or "",
                told=told.get(run.id, Told()),
            )
        return states

    def cancel(self, run: UUID) -> None:
        """Asks a run to end: it stores what has arrived first."""
        cancel(run)

    def lose(self, run: UUID, why: str) -> None:
        """Gives a run up for lost. Should it still be there, it ends as soon as it looks."""
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Crashed(message=why), force=True)

    def unfinished(self) -> list[UUID]:
        """The runs that have not ended, also those that an earlier process of this run started."""
        return unfinished(self._tag)

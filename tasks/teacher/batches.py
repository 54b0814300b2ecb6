"""Samples a teacher through its endpoint's batches: half the price, and a day's patience.

What is asked is noted in the state folder before the endpoint is asked, and the batch's id right after. A run that ends
meanwhile costs nothing: the endpoint goes on, and the next run waits for the same batches, stores what came, and asks
only for what is missing. A batch whose id could not be noted any more is found by its tag, so nothing is asked twice.
"""

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.errors import TeacherFailed, TeacherUnavailable
from models.teacher import RequestRefused, SamplingConfig, TeacherConfig, TeacherKey, TeacherReply, TeacherRequest
from models.teacher_batch import MOST_BYTES, MOST_REQUESTS, BatchEndpoint, BatchGone, BatchState
from storage.datasets.definition import Dataset
from storage.ids import content_id
from storage.schemas import RATIONALES
from storage.store import Store
from tasks.teacher.planning import AskedQuestion, PlannedRequest, SamplingPlan, TeacherIdentity
from tasks.teacher.reading import Rationale
from tasks.teacher.sampling import SamplingProgress, store_replies

FIRST_WAIT_S, MOST_WAIT_S = 1.0, 60.0
"""Seconds between two looks at the batches: at first, and at most."""
STORED_AT_ONCE = 1_000  # replies


@dataclass(frozen=True)
class Line:
    """One request of a batch: all that its samples' rows need, so that settings may have changed when they come.

    Attributes:
        prompt_hash, sample_ids, first_index: of `PlannedRequest`; the ids are those of its own samples.
        offset: index in the planned request of the line's first sample.
        sent: the parameters that were sent.
    """

    example_id: str
    choices: list[str]
    prompt_hash: str
    sample_ids: list[str]
    first_index: int
    offset: int
    n: int
    sent: dict[str, Any]

    def planned(self) -> PlannedRequest:
        """The request as it was planned, without its prompt."""
        name = f"{self.example_id}/{self.first_index}"
        request = TeacherRequest(name, "", [], (), len(self.sample_ids), 0)
        ids = [""] * self.first_index + self.sample_ids
        question = AskedQuestion(self.example_id, tuple(self.choices), request, self.prompt_hash, 0, ids, answers={})
        return PlannedRequest(request, question, self.first_index)


@dataclass
class Noted:
    """A batch as the state folder knows it.

    Attributes:
        file: where it is noted.
        tag: by which the endpoint finds it.
        where: the endpoint, and whose samples of what they are.
        batch_id: the endpoint's; None where nobody knows whether it was submitted.
        lines: custom_id -> request.
    """

    file: Path
    tag: str
    where: dict[str, Any]
    batch_id: str | None
    lines: dict[str, Line]

    def save(self) -> None:
        """Writes it down, whole or not at all."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(f".{os.getpid()}.partial")
        content = {"tag": self.tag, "where": self.where, "batch_id": self.batch_id,
                   "lines": {key: asdict(line) for key, line in self.lines.items()}}  # fmt: skip
        with partial.open("w", encoding="utf-8") as opened:
            json.dump(content, opened)
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(self.file)

    def is_of(self, identity: TeacherIdentity, dataset: str, split: str) -> bool:
        """Whether it holds samples of a teacher on a split."""
        wanted = {"dataset": dataset, "split": split, **asdict(identity)}
        return wanted.items() <= self.where.items()

    @classmethod
    def read(cls, file: Path) -> "Noted":
        """What `save` wrote."""
        content = json.loads(file.read_text(encoding="utf-8"))
        lines = {key: Line(**line) for key, line in content["lines"].items()}
        return cls(file, content["tag"], content["where"], content["batch_id"], lines)


def all_noted(folder: Path) -> list[Noted]:
    """The batches that are noted in a folder."""
    return [Noted.read(file) for file in sorted(folder.glob("*.json"))]


def forget_in_notes(folder: Path, examples: Collection[str]) -> int:
    """Removes the choices of examples from what is noted of batches; returns how many batches ask for such examples."""
    asked = 0
    for batch in all_noted(folder):
        lines = {
            key: replace(line, choices=[]) if line.example_id in examples else line for key, line in batch.lines.items()
        }
        asked += any(line.example_id in examples for line in lines.values())
        if lines != batch.lines:
            batch.lines = lines
            batch.save()
    return asked


class BatchSampling:
    """Samples one teacher on one split through batches. The caller holds the lock under which it is sampled.

    Args:
        folder: of the state folder, where batches are noted.
        plan: plans what is missing, without the questions that it is given.
        notice: called with sentences that say what is going on.
        on_progress: called after each stored part.
        key: the endpoint's key; None takes it from the environment.
    """

    def __init__(
        self,
        store: Store,
        dataset: Dataset,
        split: str,
        identity: TeacherIdentity,
        config: TeacherConfig,
        sampling: SamplingConfig,
        rationale: Rationale,
        folder: Path,
        plan: Callable[[frozenset[str]], SamplingPlan | None],
        notice: Callable[[str], None],
        on_progress: Callable[[SamplingProgress], None] | None = None,
        run_id: str | None = None,
        key: TeacherKey | None = None,
    ) -> None:
        self._store, self._dataset, self._split, self._identity = store, dataset, split, identity
        self._rationale, self._plan, self._run_id = rationale, plan, run_id
        self._notice, self._on_progress = notice, on_progress
        self._folder = folder
        # With what the reading of its replies goes by: a batch asked for otherwise waits until that is set again.
        self._where = {
            "url": config.base_url, "api": sampling.api, "logprobs": sampling.logprobs, "dataset": dataset.name,
            "split": split, **asdict(identity),
        }  # fmt: skip
        self._endpoint = BatchEndpoint(config, sampling, key or TeacherKey.of_environment())
        self._progress = SamplingProgress(wanted=0)
        self._passed = ""  # what was last said of a request that may be answered another time

    def run(self) -> SamplingProgress:
        """Collects what earlier runs asked for, then asks for what is missing, until all is there.

        Raises:
            TeacherFailed, TeacherUnavailable: the endpoint refuses, fails, or answers none of a batch's requests.
            StoreWriteFailed: from the store.
        """
        start = time.monotonic()
        try:
            noted = self._noted()
            if noted:
                self._progress.wanted = sum(line.n for batch in noted for line in batch.lines.values())
                self._notice(f"Waiting for what an earlier run asked for (batches: {len(noted)}).")
                self._collect(noted, start)
                self._progress.refused.clear()  # they may have been asked otherwise
            while (plan := self._plan(frozenset(self._progress.refused))) is not None and plan.requests:
                self._progress.wanted = self._progress.sampled + plan.missing
                before = self._progress.sampled, len(self._progress.refused)
                self._collect(list(self._submit(plan)), start)
                if before == (self._progress.sampled, len(self._progress.refused)):
                    if not self._progress.sampled and not plan.stored:
                        raise TeacherUnavailable(
                            f"{self._where['url']} answered none of a batch's requests; {self._passed}"
                        )
                    # It answers others, so it is these questions' trouble.
                    self._progress.refused |= {one.question.example_id: self._passed for one in plan.requests}
            return self._progress
        finally:
            self._endpoint.close()

    def _noted(self) -> list[Noted]:
        """The batches of earlier runs."""
        return [batch for batch in all_noted(self._folder) if batch.where == self._where]

    def _submit(self, plan: SamplingPlan) -> Iterator[Noted]:
        """Has a plan's requests answered, in as few batches as may be."""
        lines: dict[str, Line] = {}
        content = bytearray()
        for planned in plan.requests:
            for key, line, text in self._lines(planned):
                if lines and (len(lines) == MOST_REQUESTS or len(content) + len(text) > MOST_BYTES):
                    yield self._submitted(lines, bytes(content))
                    lines, content = {}, bytearray()
                lines[key] = line
                content += text
        yield self._submitted(lines, bytes(content))

    def _lines(self, planned: PlannedRequest) -> Iterator[tuple[str, Line, bytes]]:
        question = planned.question
        for key, part, sent, text in self._endpoint.lines(planned.request):
            shown = {name: value for name, value in sent.items() if name in ("temperature", "top_p", "seed")}
            line = Line(
                question.example_id, list(question.choices), question.prompt_hash, planned.sample_ids,
                planned.first_index, part.first_index, part.n, shown,
            )  # fmt: skip
            yield key, line, text

    def _submitted(self, lines: dict[str, Line], content: bytes) -> Noted:
        tag = content_id(self._where, [[key, line.sample_ids] for key, line in lines.items()], time.time_ns())
        noted = Noted(self._folder / f"{tag}.json", tag, self._where, None, lines)
        noted.save()
        noted.batch_id = self._endpoint.submit(content, tag)
        noted.save()
        self._notice(f"Batch {noted.batch_id}: {len(lines):,} requests. It goes on if this run is stopped.")
        return noted

    def _collect(self, batches: list[Noted], start: float) -> None:
        """Waits until each batch is over, and stores what it brought."""
        waiting = [batch for batch in batches if self._was_submitted(batch)]
        wait_s, shown = FIRST_WAIT_S, ""
        while waiting:
            states = []
            for batch in waiting:
                try:
                    state = self._endpoint.state(batch.batch_id or "")
                    self._progress.seconds = time.monotonic() - start
                    if state.over:
                        self._take(batch, state)
                except BatchGone as gone:
                    raise TeacherFailed(f"{gone} - remove {batch.file} to have its questions asked again") from gone
                states.append((batch, state))
            waiting = [batch for batch, state in states if not state.over]
            if waiting:
                told = _told([state for _, state in states])
                if told != shown:
                    self._notice(told)
                    shown = told
                time.sleep(wait_s)
                wait_s = min(1.5 * wait_s, MOST_WAIT_S)

    def _was_submitted(self, batch: Noted) -> bool:
        """Whether the endpoint has it. A run may have died between asking the endpoint and noting the id."""
        if batch.batch_id is None:
            batch.batch_id = self._endpoint.find(batch.tag)
            if batch.batch_id is None:
                batch.file.unlink()
                return False
            batch.save()
        return True

    def _take(self, batch: Noted, state: BatchState) -> None:
        """Stores what a batch brought; only then it is no longer noted."""
        if state.errors and not state.files:
            batch.file.unlink()
            raise TeacherFailed(f"{self._where['url']} refused the batch {state.id}: {state.errors[0]}")
        self._passed = f"batch {state.id} is {state.status}"
        replies: list[tuple[PlannedRequest, TeacherReply]] = []
        planned = {key: line.planned() for key, line in batch.lines.items()}
        asked = {
            key: (one.request.part(batch.lines[key].offset, batch.lines[key].n), batch.lines[key].sent)
            for key, one in planned.items()
        }
        there = self._stored(batch)
        for key, outcome in self._endpoint.outcomes(state, asked):
            if isinstance(outcome, TeacherReply):
                if planned[key].sample_ids[outcome.samples[0].index] not in there:
                    replies.append((planned[key], outcome))
            elif isinstance(outcome, RequestRefused):
                self._progress.refused[batch.lines[key].example_id] = outcome.reason
            else:
                self._passed = f"of one request it says: {outcome.what}"
            if len(replies) >= STORED_AT_ONCE:
                self._store_replies(replies)
                replies = []
        self._store_replies(replies)
        batch.file.unlink()

    def _stored(self, batch: Noted) -> set[str]:
        """Ids of its samples that are stored: a run may have died between storing and forgetting it."""
        ids = [key for line in batch.lines.values() for key in line.sample_ids]
        partition = {"dataset": self._dataset.name, "split": self._split, "source": "teacher"}
        with self._store.connect() as con:
            con.register("wanted", pa.table({"sample_id": pa.array(ids, pa.string())}))
            found = self._store.execute(
                con,
                f"SELECT sample_id FROM {self._store.relation(RATIONALES, partition)} "
                "SEMI JOIN wanted USING (sample_id)",
            )
        return set(found["sample_id"].to_pylist())

    def _store_replies(self, replies: list[tuple[PlannedRequest, TeacherReply]]) -> None:
        if replies:
            store_replies(
                self._store, self._dataset, self._split, self._identity, self._rationale, replies, self._progress,
                self._run_id,
            )  # fmt: skip
        if self._on_progress:
            self._on_progress(self._progress)


def _told(states: list[BatchState]) -> str:
    """How far some batches are, for people."""
    answered, total = sum(state.answered + state.failed for state in states), sum(state.total for state in states)
    kinds = ", ".join(sorted({state.status.replace("_", " ") for state in states}))
    return f"Batches {kinds}" + (f": {answered:,} of {total:,} requests answered." if total else ".")

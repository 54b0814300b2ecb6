"""Samples a teacher on a dataset's questions and stores every finished question within a second.

Resuming needs no progress file: every sample's id follows from its request, so what is missing is what is not
stored. A run killed at any moment loses at most the last second, and the next one asks only for the rest.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa

from models.errors import TeacherFailed
from models.seeds import request_seed
from models.teacher import (
    RequestRefused,
    SamplingConfig,
    TeacherConfig,
    TeacherKey,
    TeacherReply,
    TeacherRequest,
)
from storage.datasets.definition import Dataset
from storage.errors import NothingToDo
from storage.ids import prompt_hash, teacher_sample_id
from storage.rationales import rationale_row
from storage.schemas import EXAMPLES, RATIONALES
from storage.store import Store
from tasks.teacher.reading import CUT_OFF, FILTERED, TOO_LONG, Rationale, read_sample
from tasks.teacher.receiving import receive


@dataclass(frozen=True)
class TeacherIdentity:
    """Which teacher the samples come from, as stored in every row.

    Attributes:
        model: its name.
        revision: fingerprint of a local model folder; None for an endpoint.
    """

    model: str
    revision: str | None = None


@dataclass(frozen=True)
class PlannedRequest:
    """One request still to be made: samples `first_index` .. `first_index + n - 1` of one question."""

    request: TeacherRequest
    example_id: str
    choices: tuple[str, ...]
    first_index: int
    prompt_hash: str
    sample_ids: tuple[str, ...]


@dataclass(frozen=True)
class SamplingPlan:
    """What is still to be sampled.

    Attributes:
        examples: selected questions.
        samples: samples wanted in all, stored ones included.
        stored: samples stored already.
        requests: what is missing, in the order of the questions.
    """

    examples: int
    samples: int
    stored: int
    requests: list[PlannedRequest]

    @property
    def missing(self) -> int:
        """Samples still to be made."""
        return self.samples - self.stored


@dataclass
class SamplingProgress:
    """How far sampling is; at the end, the figures of its summary.

    Attributes:
        wanted: samples this run has to make.
        sampled: samples made and stored by this run.
        unparsed: those without an answer.
        cut_off: those of them that max_tokens cut off.
        filtered: those of them that the endpoint's filter cut off.
        prompt_tokens, completion_tokens: as the endpoint counts them; a prompt counts once per request. None as soon as
            one reply does not tell.
        reasoning_tokens: those of the completions that are thoughts; None as soon as one reply with a thought does not
            tell.
        seconds: since the first request.
        refused: example_id -> what the endpoint said when it refused the request.
        learnt: how the endpoint had to be asked, where that is not as it was set.
    """

    wanted: int
    sampled: int = 0
    unparsed: int = 0
    cut_off: int = 0
    filtered: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    reasoning_tokens: int | None = 0
    seconds: float = 0.0
    refused: dict[str, str] = field(default_factory=dict)
    learnt: list[str] = field(default_factory=list)

    def add(self, reply: TeacherReply) -> None:
        """Counts a reply's tokens."""
        for name in ("prompt_tokens", "completion_tokens", "reasoning_tokens"):
            before, more = getattr(self, name), getattr(reply, name)
            setattr(self, name, None if before is None or more is None else before + more)


def per_second(count: int | None, seconds: float) -> float | None:
    """A rate; None where the number is not known or no time has passed."""
    return count / seconds if count is not None and seconds else None


def plan_sampling(
    store: Store,
    dataset: Dataset,
    split: str,
    example_ids: Iterable[str],
    teacher: TeacherIdentity,
    sampling: SamplingConfig,
    run_seed: int,
) -> SamplingPlan:
    """Compares what is wanted with what is stored.

    Raises:
        NothingToDo: no example is selected.
        DamagedPart: what is stored cannot be read.
    """
    partition = {"dataset": dataset.name, "split": split}
    wanted = list(example_ids)
    if not wanted:
        raise NothingToDo(f"No questions of {dataset.name!r}, split {split!r}, are selected; nothing to sample.")
    with store.connect() as con:
        con.register("wanted", pa.table({"example_id": wanted, "place": range(len(wanted))}))
        rows = store.execute(
            con,
            f"SELECT example_id, question, choices FROM {store.relation(EXAMPLES, partition)} "
            "JOIN wanted USING (example_id) ORDER BY place",
        ).to_pylist()
        stored = set(
            store.execute(
                con,
                f"SELECT sample_id FROM {store.relation(RATIONALES, {**partition, 'source': 'teacher'})} "
                "SEMI JOIN wanted USING (example_id)",
            )["sample_id"].to_pylist()
        )
    requests: list[PlannedRequest] = []
    known = 0
    for row in rows:
        planned = list(_missing(dataset, row, teacher, sampling, run_seed, stored))
        known += sampling.n - sum(len(request.sample_ids) for request in planned)
        requests += planned
    return SamplingPlan(len(rows), len(rows) * sampling.n, known, requests)


def _missing(
    dataset: Dataset,
    row: dict[str, Any],
    teacher: TeacherIdentity,
    sampling: SamplingConfig,
    run_seed: int,
    stored: set[str],
) -> Iterator[PlannedRequest]:
    """The requests for one question's missing samples: one for each run of consecutive indices."""
    choices = tuple(row["choices"])
    prompt = dataset.teacher_prompt(row["question"], choices)
    messages, plain = prompt.messages(), prompt.plain
    stop = prompt.stop if sampling.api == "completions" else ()
    hashed = prompt_hash([sampling.api, messages if sampling.api == "chat" else plain, stop])
    identity = {
        "example": row["example_id"],
        "model": teacher.model,
        "revision": teacher.revision,
        "prompt": hashed,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": run_seed,
    }
    # A field that is left out says how the endpoint is asked, not what is sampled.
    if extra := {name: value for name, value in sampling.extra_body.items() if value is not None}:
        identity["extra_body"] = extra
    missing = [
        (index, sample_id)
        for index in range(sampling.n)
        if (sample_id := teacher_sample_id(identity, index)) not in stored
    ]
    # index - position is constant along a run of consecutive indices
    for _, run in groupby(enumerate(missing), key=lambda item: item[1][0] - item[0]):
        indices, sample_ids = zip(*(pair for _, pair in run), strict=True)
        request = TeacherRequest(
            request_id=f"{row['example_id']}/{indices[0]}",
            plain=plain,
            messages=messages,
            stop=stop,
            n=len(indices),
            seed=request_seed(row["example_id"], run_seed, indices[0]),
        )
        yield PlannedRequest(request, row["example_id"], choices, indices[0], hashed, sample_ids)


def sample_teacher(
    store: Store,
    dataset: Dataset,
    split: str,
    plan: SamplingPlan,
    identity: TeacherIdentity,
    config: TeacherConfig,
    sampling: SamplingConfig,
    *,
    notice: Callable[[str], None],
    rationale: Rationale = "auto",
    run_id: str | None = None,
    recover: Callable[[], Awaitable[bool]] | None = None,
    on_progress: Callable[[SamplingProgress], None] | None = None,
    key: TeacherKey | None = None,
) -> SamplingProgress:
    """Makes a plan's requests and stores the samples. The caller holds the lock it planned under.

    However it ends (an error, Ctrl-C), samples that have arrived are stored first.

    Args:
        config: where the teacher is.
        sampling: how it is sampled; as in the plan.
        notice: called with sentences that say what is going on.
        rationale: what students learn from where the teacher thinks first.
        recover: restarts a supervised server (`VllmServer.ensure_alive`).
        on_progress: called after each stored part.
        key: the endpoint's key; None takes it from the environment.

    Raises:
        TeacherFailed, TeacherUnavailable, ServerFailed: from the teacher.
        StoreWriteFailed: from the store.
    """
    progress = SamplingProgress(wanted=plan.missing)
    planned = {request.request.request_id: request for request in plan.requests}

    def store_replies(replies: list[TeacherReply], seconds: float) -> None:
        rows = [
            row
            for reply in replies
            for row in _rows(dataset, split, identity, rationale, planned[reply.request_id], reply, run_id)
        ]
        store.append(RATIONALES, pa.Table.from_pylist(rows, RATIONALES.schema))
        progress.sampled += len(rows)
        progress.unparsed += sum(row["answer"] is None for row in rows)
        cut = Counter(row["finish_reason"] for row in rows if row["parse_error"] == CUT_OFF)
        progress.cut_off += sum(cut[reason] for reason in TOO_LONG)
        progress.filtered += sum(cut[reason] for reason in FILTERED)
        for reply in replies:
            progress.add(reply)
        progress.seconds = seconds
        if on_progress:
            on_progress(progress)

    def refused(error: RequestRefused) -> None:
        progress.refused[planned[error.request_id].example_id] = error.reason

    requests = [request.request for request in plan.requests]
    progress.seconds = receive(
        requests, store_replies, config, sampling, on_refused=refused, notice=notice,
        on_learnt=progress.learnt.append, recover=recover, key=key,
    )  # fmt: skip
    if progress.refused and not progress.sampled and not plan.stored:
        raise TeacherFailed(
            f"The endpoint refused all {len(progress.refused):,} questions; one of them: "
            f"{next(iter(progress.refused.values()))}"
        )
    return progress


def _rows(
    dataset: Dataset,
    split: str,
    identity: TeacherIdentity,
    rationale: Rationale,
    planned: PlannedRequest,
    reply: TeacherReply,
    run_id: str | None,
) -> Iterator[dict[str, Any]]:
    for sample in reply.samples:
        reading = read_sample(
            dataset, planned.choices, sample.text, thought=sample.thought, finish_reason=sample.finish_reason,
            rationale=rationale,
        )  # fmt: skip
        yield rationale_row(
            "teacher",
            sample_id=planned.sample_ids[sample.index],
            example_id=planned.example_id,
            dataset=dataset.name,
            split=split,
            model=identity.model,
            model_revision=identity.revision,
            sample_index=planned.first_index + sample.index,
            seed=sample.seed,
            temperature=reply.temperature,
            top_p=reply.top_p,
            prompt_hash=planned.prompt_hash,
            text=sample.text,
            thought=reading.thought,
            rationale_from=rationale,
            parsed=reading.parsed,
            finish_reason=sample.finish_reason,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=sample.completion_tokens,
            reasoning_tokens=sample.reasoning_tokens,
            logprob=sample.logprob,
            run_id=run_id,
        )

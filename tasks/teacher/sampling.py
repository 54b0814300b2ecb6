"""Samples a teacher on a dataset's questions and stores every finished question soon (`receiving.store_pause`).

A run killed at any moment loses at most the last second, or the last half per cent of a run of hours. The next one asks
only for the rest (`planning`).
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from models.teacher import (
    Payer,
    RequestRefused,
    SamplingConfig,
    TeacherConfig,
    TeacherKey,
    TeacherReply,
    TeacherRequest,
    TeacherSample,
)
from models.teacher_dialect import Dialect
from storage.datasets.definition import Dataset
from storage.rationales import rationale_row
from storage.schemas import RATIONALES
from storage.store import Store
from tasks.teacher.planning import PlannedRequest, SamplingPlan, TeacherIdentity
from tasks.teacher.reading import CUT_OFF, FILTERED, TOO_LONG, Rationale, Reading, read_sample
from tasks.teacher.receiving import receive


@dataclass
class SamplingProgress:
    """How far sampling is; at the end, the figures of its summary.

    Attributes:
        wanted: samples this run has to make; it may grow while answers leave doubt.
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

    def add(self, reply: "TeacherReply | SamplingProgress") -> None:
        """Counts the tokens of a reply, or of another sampling."""
        for name in ("prompt_tokens", "completion_tokens", "reasoning_tokens"):
            before, more = getattr(self, name), getattr(reply, name)
            setattr(self, name, None if before is None or more is None else before + more)


def per_second(count: int | None, seconds: float) -> float | None:
    """A rate; None where the number is not known or no time has passed."""
    return count / seconds if count is not None and seconds else None


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
    payer: Payer | None = None,
    dialects: dict[str, Dialect] | None = None,
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
        payer: decides which requests can be paid; None pays for all.
        dialects: see `models.teacher.Teacher`.

    Raises:
        TeacherFailed, TeacherUnavailable, ServerFailed: from the teacher.
        StoreWriteFailed: from the store.
    """
    progress = SamplingProgress(wanted=plan.missing)
    planned = {request.request.request_id: request for request in plan.requests}

    def store_some(replies: list[TeacherReply], seconds: float) -> None:
        progress.seconds = seconds
        store_replies(
            store, dataset, split, identity, rationale, [(planned[reply.request_id], reply) for reply in replies],
            progress, run_id,
        )  # fmt: skip
        if on_progress:
            on_progress(progress)

    def refused(error: RequestRefused) -> None:
        progress.refused[planned[error.request_id].question.example_id] = error.reason

    def further(reply: TeacherReply) -> list[TeacherRequest]:
        asked = planned[reply.request_id]
        question = asked.question
        for sample in reply.samples:
            read = _read(dataset, asked, sample, rationale)
            question.answers[asked.first_index + sample.index] = read.parsed.answer
        more = question.requests(question.wanted(plan.asking))
        planned.update({request.request.request_id: request for request in more})
        progress.wanted += sum(request.request.n for request in more)
        return [request.request for request in more]

    progress.seconds = receive(
        [request.request for request in plan.requests], store_some, config, sampling, on_refused=refused,
        notice=notice, further=further if plan.asking.depends else None, on_learnt=progress.learnt.append,
        recover=recover, key=key, payer=payer, dialects=dialects,
    )  # fmt: skip
    return progress


def store_replies(
    store: Store,
    dataset: Dataset,
    split: str,
    identity: TeacherIdentity,
    rationale: Rationale,
    replies: Iterable[tuple[PlannedRequest, TeacherReply]],
    progress: SamplingProgress,
    run_id: str | None,
) -> None:
    """Stores the samples of some replies, and counts them.

    Raises:
        StoreWriteFailed: from the store; nothing is counted then.
    """
    came = list(replies)
    rows = [row for asked, reply in came for row in _rows(dataset, split, identity, rationale, asked, reply, run_id)]
    store.append(RATIONALES, pa.Table.from_pylist(rows, RATIONALES.schema))
    progress.sampled += len(rows)
    progress.unparsed += sum(row["answer"] is None for row in rows)
    cut = Counter(row["finish_reason"] for row in rows if row["parse_error"] == CUT_OFF)
    progress.cut_off += sum(cut[reason] for reason in TOO_LONG)
    progress.filtered += sum(cut[reason] for reason in FILTERED)
    for _, reply in came:
        progress.add(reply)


def _rows(
    dataset: Dataset,
    split: str,
    identity: TeacherIdentity,
    rationale: Rationale,
    planned: PlannedRequest,
    reply: TeacherReply,
    run_id: str | None,
) -> Iterator[dict[str, Any]]:
    of_all = len(reply.samples)
    completions, thoughts = _shares(reply.completion_tokens, of_all), _shares(reply.reasoning_tokens, of_all)
    for place, sample in enumerate(reply.samples):
        reading = _read(dataset, planned, sample, rationale)
        yield rationale_row(
            "teacher",
            sample_id=planned.sample_ids[sample.index],
            example_id=planned.question.example_id,
            dataset=dataset.name,
            split=split,
            model=identity.model,
            model_revision=identity.revision,
            sample_index=planned.first_index + sample.index,
            seed=sample.seed,
            temperature=reply.temperature,
            top_p=reply.top_p,
            prompt_hash=planned.question.prompt_hash,
            text=sample.text,
            thought=reading.thought,
            rationale_from=rationale,
            parsed=reading.parsed,
            finish_reason=sample.finish_reason,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=completions[place] if sample.completion_tokens is None else sample.completion_tokens,
            reasoning_tokens=thoughts[place] if sample.reasoning_tokens is None else sample.reasoning_tokens,
            logprob=sample.logprob,
            run_id=run_id,
        )


def _shares(total: int | None, count: int) -> list[int] | list[None]:
    """A request's tokens shared out among its samples, where the endpoint tells only their sum: rows add up to what was
    paid."""
    if total is None:
        return [None] * count
    return [total * (place + 1) // count - total * place // count for place in range(count)]


def _read(dataset: Dataset, planned: PlannedRequest, sample: TeacherSample, rationale: Rationale) -> Reading:
    return read_sample(
        dataset, planned.question.choices, sample.text, thought=sample.thought, finish_reason=sample.finish_reason,
        rationale=rationale,
    )  # fmt: skip

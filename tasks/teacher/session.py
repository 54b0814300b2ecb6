"""The teacher's part of a run: missing samples are made, by a server that is started for it or by an endpoint."""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from models.errors import TeacherFailed
from models.hardware import detect_hardware
from models.precision import SAMPLING_FACTOR, emulated_settings, emulation_warning
from models.revision import has_chat_template, model_revision
from models.server import VllmServer, check_model
from models.server_settings import ServerConfig, default_served_name, served_dtype
from models.teacher import SamplingConfig, TeacherConfig, TeacherKey
from storage.datasets.definition import LABEL_SETS, Dataset
from storage.errors import UsageError
from storage.shards import Shard
from storage.store import Store
from tasks.teacher.batches import BatchSampling, all_noted
from tasks.teacher.budget import Purse
from tasks.teacher.lab import build_lab
from tasks.teacher.planning import SamplingPlan, TeacherIdentity, plan_sampling
from tasks.teacher.read_again import read_thoughts_again
from tasks.teacher.reading import Rationale
from tasks.teacher.sampling import SamplingProgress, sample_teacher
from tasks.teacher.settings import TeacherSettings
from tasks.teacher.stopping import Asking

OnProgress = Callable[[SamplingProgress], None]
Notice = Callable[[str], None]
OWN_IN_FLIGHT = 64
"""Requests under way at a server of our own: 64 of 5 samples keep the 256 places of a CPU engine full."""
LAB_NAME = "lab-teacher"
"""Name of the lab's teacher in the store, unless its settings give it another."""


@dataclass(frozen=True)
class TeacherChoice:
    """A teacher that can be asked.

    Attributes:
        identity: as stored in every row.
        sampling: how it is sampled.
        client: arguments of `TeacherConfig`, except the URLs (and, for a server of our own, the served name).
        urls: the endpoints'; none if a server is started.
        server: the server to start; None if there is an endpoint.
        rationale: what students learn from where it thinks first.
        asking: how often each question is asked; None: `sampling.n` times.
        batches: the folder where its endpoint's batches are noted.
        batch: whether it is asked through batches.
    """

    identity: TeacherIdentity
    sampling: SamplingConfig
    client: dict[str, Any] = field(default_factory=dict)
    urls: tuple[str, ...] = ()
    server: ServerConfig | None = None
    rationale: Rationale = "auto"
    asking: Asking | None = None
    batches: Path | None = None
    batch: bool = False


@dataclass(frozen=True)
class Taught:
    """The outcome of `teach`.

    Attributes:
        plan: what was wanted in the end, and what was stored before.
        done: what this call sampled; None if nothing was missing.
        seconds: how long it took, including a server's start.
    """

    plan: SamplingPlan
    done: SamplingProgress | None
    seconds: float


def choose_teacher(settings: TeacherSettings, home: Path) -> TeacherChoice:
    """The teacher to sample.

    Args:
        settings: with source "sample".
        home: the state folder, which holds the lab's teacher; a missing one is trained.

    Raises:
        BadModel: the model cannot be served.
    """
    model, name = settings.model or "", settings.name
    if settings.needs_lab():
        model, name = str(build_lab(home).folder), name or LAB_NAME
    api = settings.api
    if api == "auto":  # chat, unless the model is a local folder whose tokenizer has no chat template
        plain = settings.url is None and Path(model).is_dir() and not has_chat_template(model)
        api = "completions" if plain else "chat"
    sampling = SamplingConfig(
        n=settings.asking.most,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_tokens,
        logprobs=settings.logprobs,
        api=api,
        instruction=settings.instruction,
        extra_body=settings.extra_body,
    )
    client = {"model": model, "in_flight": settings.in_flight, "request_timeout_s": settings.timeout_s,
              "retries": settings.retries}  # fmt: skip
    if settings.urls:
        return TeacherChoice(
            TeacherIdentity(name or model), sampling, client, settings.urls,
            rationale=settings.rationale, asking=settings.asking,
            batches=home / "batches", batch=settings.batch,
        )  # fmt: skip
    check_model(model)
    identity = TeacherIdentity(name or default_served_name(model), model_revision(model))
    server = ServerConfig(model=model, port=settings.port, extra_args=settings.server_args)
    return TeacherChoice(
        identity, sampling, client, server=server, rationale=settings.rationale, asking=settings.asking
    )


def teach(
    store: Store,
    dataset: Dataset,
    split: str,
    example_ids: Iterable[str],
    teacher: TeacherChoice,
    run_seed: int,
    logs: Path,
    notice: Notice,
    on_progress: OnProgress | None = None,
    run_id: str | None = None,
    key: TeacherKey | None = None,
    shard: Shard | None = None,
    purse: Purse | None = None,
) -> Taught:
    """Samples what is missing. Of two processes that want the same, one waits, so that nothing is sampled twice.

    Args:
        store: where the questions and the samples are.
        example_ids: the questions.
        run_seed: another one gives other samples.
        logs: folder for a server's log.
        notice: called with sentences that say what is going on.
        on_progress: called after each stored part.
        key: the endpoint's key; None takes it from the environment.
        shard: the shard that the questions are; whoever shares out the shards holds the right to sample all.
        purse: what may be paid; None pays for all.

    Raises:
        ServerFailed, TeacherFailed, TeacherUnavailable: from the teacher.
        UsageError: the purse pays for nothing.
        StoreWriteFailed: from the store.
    """
    started = time.monotonic()
    with sampling_right(store, dataset, split, teacher, notice, shard), ExitStack() as stack:
        wanted = list(example_ids)
        revised = read_thoughts_again(store, dataset, split, wanted, teacher.identity.model, teacher.rationale)
        if revised:
            notice(f"{revised:,} stored samples with thoughts, or cut off, were read again: they read differently now.")

        asking = asking_of(teacher, dataset)

        def planned(ids: list[str]) -> SamplingPlan:
            return plan_sampling(store, dataset, split, ids, teacher.identity, teacher.sampling, run_seed, asking)

        def left(refused: frozenset[str]) -> SamplingPlan | None:
            ids = [key for key in wanted if key not in refused]
            return planned(ids) if ids else None

        noted = [
            batch for batch in (all_noted(teacher.batches) if teacher.batches else [])
            if batch.is_of(teacher.identity, dataset.name, split)
        ]  # fmt: skip
        if noted and not teacher.batch:
            notice(
                f"An earlier run asked this teacher in batches ({len(noted)} not collected): --batch waits for them "
                "instead of asking again."
            )
        plan = planned(wanted)
        if not plan.requests and not (noted and teacher.batch):
            return Taught(plan, None, time.monotonic() - started)
        notice(f"{plan.missing:,} samples of {plan.examples:,} questions to make; {plan.stored:,} are stored already.")
        config, recover = stack.enter_context(endpoint(teacher, logs, notice))
        if teacher.batch and teacher.batches is not None:
            done = BatchSampling(
                store, dataset, split, teacher.identity, config, teacher.sampling, teacher.rationale, teacher.batches,
                left, notice, on_progress, run_id, key,
            ).run()  # fmt: skip
        else:
            done = sample_teacher(
                store, dataset, split, plan, teacher.identity, config, teacher.sampling,
                notice=notice, rationale=teacher.rationale, run_id=run_id, recover=recover, on_progress=on_progress,
                key=key, payer=purse,
            )  # fmt: skip
        if purse is not None and purse.exhausted:
            _tell_spent(purse, plan, done, notice)
        if done.refused and not done.sampled and not plan.stored:
            raise TeacherFailed(
                f"The endpoint refused all {len(done.refused):,} questions; one of them: "
                f"{next(iter(done.refused.values()))}"
            )
        samples = planned(wanted).samples if teacher.batch else plan.stored + done.wanted
        return Taught(replace(plan, samples=samples), done, time.monotonic() - started)


def asking_of(teacher: TeacherChoice, dataset: Dataset) -> Asking | None:
    """How often the questions of a dataset are asked; None: `sampling.n` times."""
    return teacher.asking and replace(teacher.asking, per_label=dataset.answer_kind == LABEL_SETS)


def _tell_spent(purse: Purse, plan: SamplingPlan, done: SamplingProgress, notice: Notice) -> None:
    """Says that a budget has ended the sampling.

    Raises:
        UsageError: before a single sample was there.
    """
    if not done.sampled and not plan.stored:
        raise UsageError(
            f"teacher.budget pays for no request: one may cost {purse.most(plan.requests[0].request):,.6g} (a token a "
            f"byte of its prompt, and teacher.max_tokens for each sample), and {purse.limit - purse.spent:,.6g} is "
            "left. Raise the budget, or lower teacher.max_tokens or teacher.n."
        )
    notice(
        f"The budget ends the sampling: {purse.spent:,.6g} of {purse.limit:,.6g} spent, "
        f"{done.wanted - done.sampled:,} samples not made."
    )


@contextmanager
def sampling_right(
    store: Store, dataset: Dataset, split: str, teacher: TeacherChoice, notice: Notice, shard: Shard | None = None
) -> Iterator[None]:
    """Holds the exclusive right to sample a teacher on a split, or on a shard of it; waits for whoever holds it.

    Object stores have no locks: see `Store.lock`.
    """
    what = f"sample {dataset.name}/{split} {teacher.identity.model}"
    with ExitStack() as stack:
        if shard is not None:
            # A shard that was split leaves its questions to its halves; its process may take a moment to end.
            for of in _before_splits(shard.of):
                with store.lock(f"{what} shard {Shard(number=shard.number % of, of=of)}"):
                    pass
            what += f" shard {shard}"
        if not stack.enter_context(store.lock(what, wait=False)):
            notice("Another process is sampling this teacher on this split; waiting for it, then taking the rest.")
            stack.enter_context(store.lock(what))
        yield


def _before_splits(of: int) -> Iterator[int]:
    """How many shards there may have been before some were split in two."""
    while of % 2 == 0:
        of //= 2
        yield of


@contextmanager
def endpoint(
    teacher: TeacherChoice, logs: Path, notice: Notice
) -> Iterator[tuple[TeacherConfig, Callable[[], Awaitable[bool]] | None]]:
    """Where a teacher is asked during the block, and what starts its server again; a server is started if need be.

    Args:
        logs: folder for a server's log.
        notice: called with sentences that say what is going on.

    Raises:
        ServerFailed: the server does not start.
    """
    if teacher.server is None:
        first, *others = teacher.urls
        yield TeacherConfig(base_url=first, other_urls=tuple(others), **teacher.client), None
        return
    with _server(teacher.server, logs, notice) as server:
        served = teacher.client | {"model": server.served_name, "return_token_ids": True}
        served["in_flight"] = teacher.client["in_flight"] or OWN_IN_FLIGHT
        yield TeacherConfig(base_url=server.base_url, **served), server.ensure_alive


def _server(config: ServerConfig, logs: Path, notice: Notice) -> VllmServer:
    """A vLLM server that reports how its start proceeds."""
    shown = ""
    hardware = detect_hardware()
    emulated = emulated_settings({"vLLM's --dtype": served_dtype(config, hardware)})
    if emulated and not hardware.gpus:
        notice(emulation_warning(emulated, SAMPLING_FACTOR, "sampling"))

    def on_progress(text: str, seconds: float) -> None:
        nonlocal shown
        if text != shown:
            notice(f"vLLM: {text} ({seconds:.0f} s)")
            shown = text

    return VllmServer(config, logs / f"vllm-{time.strftime('%Y%m%d-%H%M%S')}.log", on_progress)

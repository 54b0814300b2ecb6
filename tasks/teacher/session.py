"""The teacher's part of a run: what is missing of its samples is made, by a server started for it or by an endpoint."""

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.hardware import detect_hardware
from models.precision import SAMPLING_FACTOR, emulated_settings, emulation_warning
from models.revision import has_chat_template, model_revision
from models.server import VllmServer, check_model
from models.server_settings import ServerConfig, default_served_name, served_dtype
from models.teacher import SamplingConfig, TeacherConfig, TeacherKey
from storage.datasets.definition import Dataset
from storage.store import Store
from tasks.teacher.sampling import SamplingPlan, SamplingProgress, TeacherIdentity, plan_sampling, sample_teacher

OnProgress = Callable[[SamplingProgress], None]
Notice = Callable[[str], None]


class Price(BaseModel):
    """What a teacher costs, in any currency, per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_million_prompt: float = Field(default=0.0, ge=0)
    per_million_completion: float = Field(default=0.0, ge=0)

    def of(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """The price of some tokens; None where no price is given."""
        if not self.per_million_prompt and not self.per_million_completion:
            return None
        return (prompt_tokens * self.per_million_prompt + completion_tokens * self.per_million_completion) / 1e6


@dataclass(frozen=True)
class TeacherChoice:
    """A teacher that can be asked.

    Attributes:
        identity: as stored in every row.
        sampling: how it is sampled.
        client: arguments of `TeacherConfig` but base_url (and, for a server of our own, the served name).
        url: an endpoint's; None where a server is started.
        server: what to start otherwise.
    """

    identity: TeacherIdentity
    sampling: SamplingConfig
    client: dict[str, Any] = field(default_factory=dict)
    url: str | None = None
    server: ServerConfig | None = None


@dataclass(frozen=True)
class Taught:
    """What became of it.

    Attributes:
        plan: what was wanted and what was stored before.
        done: what this call sampled; None where nothing was missing.
        seconds: it took, a server's start included.
    """

    plan: SamplingPlan
    done: SamplingProgress | None
    seconds: float


def choose_api(
    api: Literal["auto", "chat", "completions"], model: str, url: str | None
) -> Literal["chat", "completions"]:
    """chat, unless the model is a local folder whose tokenizer has no chat template."""
    if api != "auto":
        return api
    return "completions" if url is None and Path(model).is_dir() and not has_chat_template(model) else "chat"


def identify(model: str, name: str | None, url: str | None) -> TeacherIdentity:
    """Which teacher the samples are stored under.

    Raises:
        BadModel: no endpoint is given and the model cannot be served.
    """
    if url is not None:
        return TeacherIdentity(name or model)
    check_model(model)
    return TeacherIdentity(name or default_served_name(model), model_revision(model))


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
) -> Taught:
    """Samples what is missing. Two processes that want the same wait for each other and never sample anything twice.

    Args:
        store: where the questions and the samples are.
        example_ids: the questions.
        run_seed: another one gives other samples.
        logs: folder for a server's log.
        notice: told what is going on, in sentences.
        on_progress: called after each stored part.
        key: an endpoint's; None takes it from the environment.

    Raises:
        ServerFailed, TeacherFailed: from the teacher.
        StoreWriteFailed: from the store.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        what = f"sample {dataset.name}/{split} {teacher.identity.model}"
        if not stack.enter_context(store.lock(what, wait=False)):
            notice("Another process is sampling this teacher on this split; waiting for it, then taking the rest.")
            stack.enter_context(store.lock(what))
        plan = plan_sampling(store, dataset, split, example_ids, teacher.identity, teacher.sampling, run_seed)
        if not plan.requests:
            return Taught(plan, None, time.monotonic() - started)
        notice(f"{plan.missing:,} samples of {plan.examples:,} questions to make; {plan.stored:,} are stored already.")
        url, client, recover = teacher.url, dict(teacher.client), None
        if teacher.server is not None:
            server = stack.enter_context(_server(teacher.server, logs, notice))
            url, recover = server.base_url, server.ensure_alive
            client |= {"model": server.served_name, "return_token_ids": True}
        done = sample_teacher(
            store, dataset, split, plan, teacher.identity, TeacherConfig(base_url=url or "", **client),
            teacher.sampling, run_id=run_id, recover=recover, on_progress=on_progress, key=key,
        )  # fmt: skip
        return Taught(plan, done, time.monotonic() - started)


def _server(config: ServerConfig, logs: Path, notice: Notice) -> VllmServer:
    """A vLLM server that tells of its start."""
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

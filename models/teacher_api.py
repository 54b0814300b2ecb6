"""What goes to a teacher and what comes back, in the words of the OpenAI API: completions and chat completions.

Pure functions and small frozen classes; the client that sends and receives them is `models.teacher`.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from models.teacher_settings import SamplingConfig

MOST_TOKENS = 2**31 - 1  # what a count may be; more is nonsense


@dataclass(frozen=True)
class TeacherRequest:
    """One question to sample; the prompt in both shapes, so that the configuration alone decides which is sent.

    Attributes:
        request_id: the caller's name for it; comes back with the reply and in errors.
        plain: the prompt as one text.
        messages: the prompt as chat messages, each {"role": ..., "content": ...}.
        stop: strings at which the teacher stops.
        n: samples wanted now; on a resumed run fewer than the configuration's n may be missing.
        seed: of the first sample (see `models.seeds.request_seed`); sample i has seed + i.
    """

    request_id: str
    plain: str
    messages: list[dict[str, str]]
    stop: tuple[str, ...]
    n: int
    seed: int


@dataclass(frozen=True)
class TeacherSample:
    """One sampled text.

    Attributes:
        index: place in its request, from 0.
        seed: the seed this very sample was made with: the request's seed + index (see `models.seeds`).
        text: what the teacher wrote; empty where it wrote nothing.
        finish_reason: "stop", "length" (max_tokens or the context length reached), or what the endpoint says.
        completion_tokens: tokens of this sample; None where the endpoint tells only the request's total.
        logprob: mean log-probability per token, nats; None unless asked for.
    """

    index: int
    seed: int
    text: str
    finish_reason: str | None
    completion_tokens: int | None
    logprob: float | None


@dataclass(frozen=True)
class TeacherReply:
    """All samples of one request.

    Attributes:
        request_id: of the request.
        samples: in the order of their index.
        prompt_tokens: tokens of the prompt, counted once; None where the endpoint does not say.
        completion_tokens: tokens of all samples together; None where the endpoint does not say.
    """

    request_id: str
    samples: tuple[TeacherSample, ...]
    prompt_tokens: int | None
    completion_tokens: int | None


class NonsenseError(Exception):
    """A reply with status 200 that is not what was asked for; the message says what came."""


def request_path(sampling: SamplingConfig) -> str:
    """The path below the base URL."""
    return "/chat/completions" if sampling.api == "chat" else "/completions"


def request_body(model: str, sampling: SamplingConfig, request: TeacherRequest, token_ids: bool) -> dict[str, Any]:
    """The JSON body of one request.

    Args:
        model: name of the model as the endpoint knows it.
        sampling: how to sample; its n is replaced by the request's.
        request: the question.
        token_ids: whether to ask for token ids, a vLLM extension, for exact token counts per sample.
    """
    body: dict[str, Any] = {
        "model": model,
        "n": request.n,
        "temperature": sampling.temperature,
        # Sent even when 1.0: a server may otherwise take another default from the model's generation_config.json.
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": request.seed,
    }
    if request.stop:
        body["stop"] = list(request.stop)
    if sampling.api == "chat":
        body["messages"] = request.messages
        if sampling.logprobs:
            body["logprobs"] = True
    else:
        body["prompt"] = request.plain
        if sampling.logprobs:
            body["logprobs"] = 0  # the sampled token's own, none of its rivals'
    if token_ids:
        body["return_token_ids"] = True
    return body


def read_reply(content: bytes, sampling: SamplingConfig, request: TeacherRequest) -> TeacherReply:
    """Reads the body of a reply with status 200.

    The fields are picked out of the plain JSON: building the openai package's typed objects for them costs more
    than sending and receiving together, and the client shares its cores with the engine.

    Raises:
        NonsenseError: not JSON, no choices, fewer choices than asked for, or a choice without a text.
    """
    try:
        reply = json.loads(content)
    except (ValueError, RecursionError):  # also what cannot be decoded as UTF-8, or is nested without end
        raise NonsenseError(f"a body that is not JSON: {_start_of(content)}") from None
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices:
        raise NonsenseError(f"JSON without choices: {_start_of(content)}")
    if len(choices) < request.n:
        raise NonsenseError(f"{len(choices)} choices where n = {request.n} were asked for (does it support n?)")
    usage = reply.get("usage")
    total = _count(usage, "completion_tokens")
    ordered = sorted(choices, key=_place)[: request.n]  # a sample's seed goes by its index
    samples = tuple(_read_choice(choice, index, sampling, request, total) for index, choice in enumerate(ordered))
    if total is None and all(sample.completion_tokens is not None for sample in samples):
        total = sum(sample.completion_tokens or 0 for sample in samples)
    return TeacherReply(request.request_id, samples, _count(usage, "prompt_tokens"), total)


def _place(choice: Any) -> int:
    index = choice.get("index") if isinstance(choice, dict) else None
    return index if isinstance(index, int) else 0


def _read_choice(
    choice: Any, index: int, sampling: SamplingConfig, request: TeacherRequest, total: int | None
) -> TeacherSample:
    try:
        # A chat message's content is null where the model wrote nothing to show.
        text = (choice["message"]["content"] or "") if sampling.api == "chat" else choice["text"]
        if not isinstance(text, str):
            raise TypeError
        token_ids = choice.get("token_ids")
        finish_reason = choice.get("finish_reason")
    except (KeyError, TypeError, AttributeError):
        raise NonsenseError(f"a choice without a text: {_start_of(json.dumps(choice).encode())}") from None
    try:
        logprobs = _logprobs(choice, sampling) if sampling.logprobs else None
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise NonsenseError(
            f"log-probabilities that are no numbers: {_start_of(json.dumps(choice).encode())}"
        ) from None
    if isinstance(token_ids, list):
        tokens: int | None = len(token_ids)
    elif logprobs is not None:
        tokens = len(logprobs)
    else:
        tokens = total if request.n == 1 else None
    return TeacherSample(
        index=index,
        seed=request.seed + index,
        text=_without_surrogates(text),
        finish_reason=finish_reason if isinstance(finish_reason, str) else None,
        completion_tokens=tokens,
        logprob=_finite_mean(logprobs),
    )


def _logprobs(choice: dict[str, Any], sampling: SamplingConfig) -> list[float] | None:
    """Log-probability of each token of a choice, nats; None where the endpoint sent none."""
    found = choice.get("logprobs")
    if found is None:
        return None
    if sampling.api == "chat":
        return [float(token["logprob"]) for token in found.get("content") or []]
    return [float(value) for value in found.get("token_logprobs") or []]


def _without_surrogates(text: str) -> str:
    """JSON can hold half a character ("\\ud800"), a file in UTF-8 cannot; it becomes the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _finite_mean(logprobs: list[float] | None) -> float | None:
    """Mean log-probability; None where there is none or it is no number: NaN would win every tie of a vote."""
    mean = sum(logprobs) / len(logprobs) if logprobs else None
    return mean if mean is not None and math.isfinite(mean) else None


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None  # True is an int to isinstance


def _start_of(content: bytes) -> str:
    text = " ".join(content[:400].decode("utf-8", "replace").split())
    return f"{text[:120]!r}" + ("..." if len(text) > 120 else "")

"""Reads what a teacher's endpoint sends with status 200: samples, thoughts, token counts, and errors in disguise.

The fields are picked out of the plain JSON: building the openai package's typed objects for them costs more than
sending and receiving together, and the client shares its cores with the engine.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from models.teacher_api import TeacherReply, TeacherRequest, TeacherSample
from models.teacher_settings import SamplingConfig

MOST_TOKENS = 2**31 - 1  # what a count may be; more is nonsense
# Where endpoints put a thought: vLLM before and since 0.12, OpenRouter, Ollama, LiteLLM.
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks")
THOUGHT_PARTS = ("thinking", "reasoning", "thought")  # types of a content list's parts that are no text to show


class NonsenseError(Exception):
    """A reply with status 200 that is not what was asked for; the message says what came."""


class ErrorInReplyError(Exception):
    """A reply with status 200 that says that the endpoint failed.

    Attributes:
        error: what it says, as it says it.
    """

    def __init__(self, error: Any) -> None:
        super().__init__("an error in a reply with status 200")
        self.error = error


def read_reply(
    content: bytes, sampling: SamplingConfig, request: TeacherRequest, sent: Mapping[str, Any]
) -> TeacherReply:
    """Reads the body of a reply with status 200.

    Args:
        request: what was asked for; fewer choices may have come.
        sent: the body that was sent.

    Raises:
        NonsenseError: not JSON, no choices, or choices without a text.
        ErrorInReplyError: the endpoint failed; nothing of such a reply is a sample.
    """
    try:
        reply = json.loads(content.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):  # also what cannot be decoded as UTF-8, or is nested without end
        raise NonsenseError(f"a body that is not JSON: {_start_of(content)}") from None
    if isinstance(reply, dict) and reply.get("error"):
        raise ErrorInReplyError(reply["error"])
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices:
        raise NonsenseError(f"JSON without choices: {_start_of(content)}")
    if all(_failed(choice) for choice in choices):
        raise ErrorInReplyError(choices[0].get("error") or "finish_reason error")
    usage = reply.get("usage")
    prompt, total, reasoning = _counts(usage)
    samples = tuple(
        _read_choice(choice, index, sampling, request, sent, (total, reasoning) if len(choices) == 1 else (None, None))
        for index, choice in _placed(choices, request.n)
        if not _failed(choice)
    )
    if total is None and all(sample.completion_tokens is not None for sample in samples):
        total = sum(sample.completion_tokens or 0 for sample in samples)
    if reasoning is None and not any(sample.thought for sample in samples):
        reasoning = 0
    return TeacherReply(
        request.request_id, samples, prompt, total, reasoning, sent.get("temperature"), sent.get("top_p")
    )


def _failed(choice: Any) -> bool:
    return isinstance(choice, dict) and (choice.get("finish_reason") == "error" or bool(choice.get("error")))


def _placed(choices: Sequence[Any], n: int) -> list[tuple[int, Any]]:
    """At most n choices, each with its index in the request: a sample's seed goes by it."""
    indices = [choice.get("index") if isinstance(choice, dict) else None for choice in choices]
    whole = [index for index in indices if type(index) is int and 0 <= index < len(choices)]
    if len(set(whole)) == len(choices):
        return sorted(zip(whole, choices, strict=True), key=lambda item: item[0])[:n]
    return list(enumerate(choices))[:n]


def _read_choice(
    choice: Any,
    index: int,
    sampling: SamplingConfig,
    request: TeacherRequest,
    sent: Mapping[str, Any],
    counts: tuple[int | None, int | None],
) -> TeacherSample:
    try:
        shown = choice["message"] if sampling.api == "chat" else choice
        thought = next((found for name in THOUGHT_FIELDS if (found := _text_of(shown.get(name), thoughts=True))), None)
        # A chat message's content is null where the model wrote nothing to show; beside a thought it may be left out.
        if sampling.api == "chat":
            content = (shown.get("content") if thought else shown["content"]) or ""
        else:
            content = shown["text"]
        if isinstance(content, list) and thought is None:
            parts = [part for part in content if isinstance(part, dict) and part.get("type") in THOUGHT_PARTS]
            thought = _text_of(parts, thoughts=True)
        text = content if isinstance(content, str) else _text_of(content, thoughts=False)
        if not isinstance(text, str):
            raise TypeError
        token_ids = choice.get("token_ids")
        finish_reason = choice.get("finish_reason")
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise NonsenseError(f"a choice without a text: {_start_of(json.dumps(choice).encode())}") from None
    try:
        logprobs = _logprobs(choice, sampling) if sampling.logprobs else None
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise NonsenseError(
            f"log-probabilities that are no numbers: {_start_of(json.dumps(choice).encode())}"
        ) from None
    tokens, reasoning = counts
    if isinstance(token_ids, list):
        tokens = len(token_ids)
    elif logprobs is not None:
        tokens = len(logprobs)
    return TeacherSample(
        index=request.first_index + index,
        seed=sent["seed"] + index if "seed" in sent else None,
        text=_without_surrogates(text),
        thought=_without_surrogates(thought) if thought else None,
        finish_reason=finish_reason if isinstance(finish_reason, str) else None,
        completion_tokens=tokens,
        reasoning_tokens=reasoning,
        logprob=_finite_mean(logprobs),
    )


def _text_of(value: Any, *, thoughts: bool) -> str | None:
    """The text in a field that may be a text, a part such as {"type": "text", "text": ...}, or a list of these.

    Args:
        thoughts: whether parts that are thoughts count.

    Returns:
        None where there is none.
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, list):
        texts = [text for part in value if (text := _text_of(part, thoughts=thoughts))]
        return "".join(texts) if texts else (None if thoughts else "")
    if not isinstance(value, dict) or (not thoughts and str(value.get("type")) in THOUGHT_PARTS):
        return None
    names = ("text", "thinking", "reasoning", "summary", "content") if thoughts else ("text", "content")
    return next((text for name in names if (text := _text_of(value.get(name), thoughts=thoughts))), None)


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


def _counts(usage: Any) -> tuple[int | None, int | None, int | None]:
    """Tokens of the prompt, of all that was written, and of the thoughts in that; None where it is not said."""
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    reasoning = _count(details, "reasoning_tokens")
    if reasoning is None:
        reasoning = _count(usage, "reasoning_tokens")
    if prompt is not None and completion is not None and reasoning:
        # Some endpoints count thoughts beside the completion, which only their total tells.
        beside = _count(usage, "total_tokens") == prompt + completion + reasoning
        completion += reasoning if beside or reasoning > completion else 0
    return prompt, completion, reasoning


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None  # True is an int to isinstance


def _start_of(content: bytes) -> str:
    text = " ".join(content[:400].decode("utf-8", "replace").split())
    return f"{text[:120]!r}" + ("..." if len(text) > 120 else "")

"""What goes to a teacher and what comes back, in the words of the OpenAI API: completions and chat completions.

Pure functions and small frozen classes; the client that sends and receives them is `models.teacher`, replies are read
by `models.teacher_replies`, and how an endpoint differs from OpenAI's is known to `models.teacher_dialect`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

from models.teacher_settings import SamplingConfig


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
        first_index: index of its first sample; above 0 where earlier ones of the caller's request have come.
    """

    request_id: str
    plain: str
    messages: list[dict[str, str]]
    stop: tuple[str, ...]
    n: int
    seed: int
    first_index: int = 0

    def part(self, offset: int, n: int) -> Self:
        """The request for `n` of its samples, from the one at `offset` on."""
        return replace(self, n=n, seed=self.seed + offset, first_index=self.first_index + offset)

    def without(self, came: set[int]) -> Iterator[Self]:
        """Requests for its other samples, one for each run of consecutive ones.

        Args:
            came: indices of those that are there.
        """
        missing = [offset for offset in range(self.n) if self.first_index + offset not in came]
        starts = [offset for offset in missing if offset - 1 not in missing]
        ends = [offset for offset in missing if offset + 1 not in missing]
        for start, end in zip(starts, ends, strict=True):
            yield self.part(start, end - start + 1)


@dataclass(frozen=True)
class TeacherSample:
    """One sampled text.

    Attributes:
        index: place in the caller's request, from 0.
        seed: the seed this very sample was made with (see `models.seeds`); None where the endpoint takes none.
        text: what the teacher wrote; empty where it wrote nothing.
        thought: what it thought before, where the endpoint sends that apart; else None.
        finish_reason: "stop", "length" (max_tokens or the context length reached), or what the endpoint says.
        completion_tokens: tokens of this sample; None where the endpoint tells only the request's total.
        reasoning_tokens: those of its thought; None where the endpoint does not say.
        logprob: mean log-probability per token, nats; None unless asked for.
    """

    index: int
    seed: int | None
    text: str
    thought: str | None
    finish_reason: str | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    logprob: float | None


@dataclass(frozen=True)
class TeacherReply:
    """The samples that one request brought: all it asked for, or, from some endpoints, only some.

    Attributes:
        request_id: of the request.
        samples: in the order of their index; at least one.
        prompt_tokens: tokens of the prompt, counted once; None where the endpoint does not say.
        completion_tokens: tokens of all samples together, thoughts included; None where the endpoint does not say.
        reasoning_tokens: tokens of the thoughts; None where there are thoughts and the endpoint does not say.
        temperature, top_p: as they were sent; None where the endpoint takes none.
    """

    request_id: str
    samples: tuple[TeacherSample, ...]
    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    temperature: float | None
    top_p: float | None


def request_path(sampling: SamplingConfig) -> str:
    """The path below the base URL."""
    return "/chat/completions" if sampling.api == "chat" else "/completions"


def request_body(model: str, sampling: SamplingConfig, request: TeacherRequest, token_ids: bool) -> dict[str, Any]:
    """The JSON body of one request, before it is put into an endpoint's dialect.

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

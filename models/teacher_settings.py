"""What can be set about a teacher: where it is, how patient to be with it, and how it is sampled.

Apart from the client, because that imports the openai package, which takes longer than all other modules that a
configuration is checked with.
"""

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.teacher_refusals import KEY_VARIABLES

FIXED_FIELDS = ("model", "messages", "prompt", "stream")
OWN_FIELDS = ("n", "temperature", "top_p", "max_tokens", "seed", "stop", "logprobs")
Instruction = Literal["system", "user"]


def checked_extra_body(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields for the body of every request, as they are.

    Raises:
        ValueError: one of them belongs elsewhere; its value is not repeated.
    """
    for name, value in fields.items():
        if name in FIXED_FIELDS:
            raise ValueError(f"`{name}` is what qcrd itself sends")
        if name in OWN_FIELDS and value is not None:
            raise ValueError(f"`{name}` is set elsewhere; here it can only be null, which leaves it out of the request")
        if re.search(r"api.?key|secret|password|authorization", name, re.IGNORECASE):
            raise ValueError(f"`{name}` looks like a key, which belongs in {KEY_VARIABLES[0]}: these fields are stored")
    return fields


class SamplingConfig(BaseModel):
    """How a teacher is sampled.

    Attributes:
        n: samples per question, asked for in one request; 5 in the paper.
        temperature: of the sampling distribution; 0.7 in the paper.
        top_p: probability mass to sample from; 1.0 (all of it) as in the paper. On a CPU anything lower costs
            vLLM half of its speed.
        max_tokens: longest sample, in tokens.
        logprobs: whether to ask for log-probabilities; they cost half of the speed on a CPU.
        api: "chat" sends the prompt as messages, "completions" as one text. Base models and models without a chat
            template need "completions".
        instruction: the role of the message that holds the instruction; "user" puts it before the first question, for
            models that know no system role.
        extra_body: more fields for the body of every request, such as reasoning_effort; null takes a field out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(default=5, ge=1, le=1024)
    temperature: float = Field(default=0.7, ge=0.0, le=10.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int = Field(default=256, ge=1)
    logprobs: bool = False
    api: Literal["chat", "completions"] = "chat"
    instruction: Instruction = "system"
    extra_body: dict[str, Any] = Field(default_factory=dict)

    @field_validator("extra_body")
    @classmethod
    def _checked_extra_body(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return checked_extra_body(fields)


def plain_http_url(url: str) -> str:
    """An endpoint's URL without a slash at its end.

    Raises:
        ValueError: no HTTP URL, or one that holds a user, password or query; does not repeat it.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        raise ValueError("its host must be a name or address, and its port a number from 0 to 65535") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must be like http://host:8000/v1 or https://host/v1")
    if parts.username is not None or parts.password is not None or parts.query:
        raise ValueError(f"it must hold no user name, password or query; a key belongs in {KEY_VARIABLES[0]}")
    return url.rstrip("/")


MOST_IN_FLIGHT = 256
"""Requests under way at one endpoint where their number adapts."""


class TeacherConfig(BaseModel):
    """Where a teacher is and how patient to be with it.

    The API key is not part of it: it is passed to `Teacher` separately, and stored nowhere.

    Attributes:
        base_url: of the API, usually ending in /v1.
        other_urls: of further endpoints that serve the same model.
        model: the model's name as the endpoint knows it.
        in_flight: requests under way at each endpoint; n samples each. None: as many as it takes without getting slower
            (`models.teacher_pool`).
        connect_timeout_s: seconds to wait for a connection.
        request_timeout_s: seconds to wait for a whole reply, the endpoint's queue included.
        retries: how often one request is tried again after 429, 5xx, a timeout, a lost connection or nonsense.
        backoff_first_s: seconds before the first retry; doubled for each next one, with jitter.
        backoff_most_s: upper bound of that.
        retry_after_most_s: longest Retry-After, in seconds, that is waited for; a longer one is an error at once.
        return_token_ids: ask for token ids, so that each sample's tokens can be counted; vLLM only, others may
            refuse it. Without it only a request's total is known (or, with log-probabilities, each sample's too).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: str
    other_urls: tuple[str, ...] = ()
    model: str = Field(min_length=1)
    in_flight: int | None = Field(default=None, ge=1, le=4096)
    connect_timeout_s: float = Field(default=10.0, gt=0)
    request_timeout_s: float = Field(default=600.0, gt=0)
    retries: int = Field(default=6, ge=0)
    backoff_first_s: float = Field(default=0.5, gt=0)
    backoff_most_s: float = Field(default=30.0, gt=0)
    retry_after_most_s: float = Field(default=300.0, gt=0)
    return_token_ids: bool = False

    @field_validator("base_url")
    @classmethod
    def _plain_http_url(cls, url: str) -> str:
        return plain_http_url(url)

    @field_validator("other_urls")
    @classmethod
    def _plain_http_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(plain_http_url(url) for url in urls)

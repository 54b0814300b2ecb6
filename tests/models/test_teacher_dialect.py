"""Endpoints that want to be asked in another way than OpenAI's of old: it is learnt from refusals, or set."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from models.teacher import SamplingConfig, Teacher, TeacherReply, TeacherRequest
from models.teacher_dialect import Dialect, without_system
from models.teacher_refusals import Refusal
from tests.models.endpoint import Endpoint, config, gives, good, openai_error, refusal, serving

Habit = Callable[[dict[str, Any]], web.Response | None]
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
CHAT = SamplingConfig(api="chat")


def ask(name: str, n: int = 5, seed: int = 2**40) -> TeacherRequest:
    return TeacherRequest(name, "Q: 1 + 1?\nA:", MESSAGES, (), n, seed)


def sampled(
    habit: Habit | None, *script: Any, sampling: SamplingConfig = CHAT, questions: int = 6
) -> tuple[dict[str, list[TeacherReply]], Endpoint, list[str]]:
    """The replies of each question, two in flight."""
    learnt: list[str] = []

    async def scenario() -> tuple[dict[str, list[TeacherReply]], Endpoint, list[str]]:
        replies: dict[str, list[TeacherReply]] = {}
        async with (
            serving(*script, habit=habit) as endpoint,
            Teacher(config(endpoint, in_flight=2), sampling, on_learnt=learnt.append) as teacher,
        ):
            async for reply in teacher.sample_many(ask(f"q{i}") for i in range(questions)):
                replies.setdefault(reply.request_id, []).append(reply)
        return replies, endpoint, learnt

    return asyncio.run(scenario())


def refuses(when: Callable[[dict[str, Any]], bool], *error: Any, **more: Any) -> Habit:
    return lambda body: refusal(openai_error(*error), **more) if when(body) else None


HABITS: list[tuple[str, Habit, Callable[[dict[str, Any]], bool]]] = [
    (
        "max_completion_tokens instead of max_tokens",
        refuses(lambda body: "max_tokens" in body, "'max_tokens' is unsupported; use 'max_completion_tokens'."),
        lambda body: body.get("max_completion_tokens") == 256,
    ),
    (
        "no temperature but 1, so 0.7 has no effect",
        refuses(lambda body: body.get("temperature") != 1, "'temperature' does not support 0.7. Only the default (1)."),
        lambda body: body.get("temperature") == 1,
    ),
    (
        "no temperature, so 0.7 has no effect",
        refuses(lambda body: "temperature" in body, "`temperature` is deprecated for this model."),
        lambda body: "temperature" not in body,
    ),
    (
        "no top_p, so 1 has no effect",
        refuses(lambda body: "top_p" in body, "`temperature` and `top_p` cannot both be specified."),
        lambda body: "top_p" not in body and body["temperature"] == 0.7,
    ),
    (
        "seeds of 31 bits",
        refuses(lambda body: body["seed"] >= 2**31, "seed: value is out of range for int32"),
        lambda body: body["seed"] == 2**40 % 2**31,
    ),
    (
        "no seeds, so the same samples cannot be made again",
        lambda body: (
            refusal({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Not permitted"}]}, 422)
            if "seed" in body
            else None
        ),
        lambda body: "seed" not in body,
    ),
    (
        "no system role, so the instruction stands in the first question",
        refuses(lambda body: body["messages"][0]["role"] == "system", "This model has no support: system role"),
        lambda body: body["messages"] == [{"role": "user", "content": "Be brief.\n\n1 + 1?"}],
    ),
    (
        "no system role, so the instruction stands in the first question",
        lambda body: (
            refusal([{"error": {"code": 400, "message": "Developer instruction is not enabled for this model"}}])
            if body["messages"][0]["role"] == "system"
            else None
        ),
        lambda body: body["messages"][0]["role"] == "user",
    ),
    (
        "one sample a request",
        refuses(lambda body: body["n"] > 1, "Only one candidate can be asked for."),
        lambda body: body["n"] == 1,
    ),
    (
        "at most 2 samples a request",
        refuses(lambda body: body["n"] > 2, "n must be less than or equal to 2"),
        lambda body: body["n"] <= 2,
    ),
]


@pytest.mark.parametrize(("learnt", "habit", "obeys"), HABITS, ids=[told for told, _, _ in HABITS])
def test_a_clear_refusal_teaches_once_how_to_ask(learnt: str, habit: Habit, obeys: Any) -> None:
    replies, endpoint, told = sampled(habit)
    assert len(replies) == 6
    for parts in replies.values():
        assert sorted(sample.index for part in parts for sample in part.samples) == [0, 1, 2, 3, 4]
    assert told == [learnt]
    refused = [body for body in endpoint.bodies if not obeys(body)]
    assert len(refused) <= 2, "the two that were in flight"
    used = next(iter(replies.values()))[0]
    sent = next(body for body in endpoint.bodies if obeys(body))
    assert (used.temperature, used.top_p) == (sent.get("temperature"), sent.get("top_p"))
    assert used.samples[0].seed == sent.get("seed")


@pytest.mark.parametrize(("most", "requests"), [(1, 5), (3, 2), (4, 2), (5, 1)])
def test_what_came_is_kept_and_only_the_rest_asked_for(most: int, requests: int) -> None:
    replies, endpoint, _ = sampled(lambda body: web.json_response(good(body, min(most, body["n"]))), questions=2)
    assert [len(parts) for parts in replies.values()] == [requests] * 2
    for parts in replies.values():
        samples = sorted((sample for part in parts for sample in part.samples), key=lambda sample: sample.index)
        assert [sample.index for sample in samples] == [0, 1, 2, 3, 4]
        assert [sample.text for sample in samples] == [f"text {2**40 + i}" for i in range(5)]
        assert [sample.seed for sample in samples] == [2**40 + i for i in range(5)]
    assert len(endpoint.bodies) == 2 * requests


def test_how_many_come_at_once_is_learnt_once() -> None:
    _, endpoint, _ = sampled(None, *[gives(1)] * 100, questions=10)
    assert len(endpoint.bodies) == 10 * 5
    assert Counter(body["n"] for body in endpoint.bodies) == {5: 2, 1: 48}


def test_fewer_once_by_chance_does_not_last() -> None:
    _, endpoint, _ = sampled(None, gives(2), questions=20)
    assert [body["n"] for body in endpoint.bodies[-10:]] == [5] * 10


@pytest.mark.parametrize(
    "words",
    [
        "temperature must be between 0 and 2",
        "max_tokens is too large: this model gives at most 100",
        "Unrecognized request argument supplied: chat_template_kwargs",
        "How many seeds does Ann sow?",
        "the model is loading",
    ],
)
def test_a_refusal_that_is_not_clear_teaches_nothing(words: str) -> None:
    sent = {"n": 5, "temperature": 5.0, "top_p": 1.0, "max_tokens": 256, "seed": 1, "messages": MESSAGES}
    assert Dialect().learn(Refusal(400, words), sent) is None


def test_what_cannot_be_learnt_can_be_set() -> None:
    nulls: dict[str, Any] = dict.fromkeys(["n", "seed", "temperature", "top_p", "max_tokens"])
    extra = {**nulls, "reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}
    _, endpoint, told = sampled(
        None, sampling=SamplingConfig(api="chat", instruction="user", extra_body=extra), questions=1
    )
    assert endpoint.bodies == 5 * [
        {
            "model": "lab",
            "messages": [{"role": "user", "content": "Be brief.\n\n1 + 1?"}],
            "reasoning_effort": "low",
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ]
    assert told == []


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"messages": []}, "`messages` is what qcrd itself sends"),
        ({"n": 3}, "`n` is set elsewhere; here it can only be null"),
        (
            {"api_key": "sk-1"},  # pragma: allowlist secret
            "`api_key` looks like a key, which belongs in QCRD_TEACHER_API_KEY",
        ),
    ],
)
def test_fields_that_belong_elsewhere_are_refused(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError, match=line):
        SamplingConfig(extra_body=fields)


def test_without_a_system_role_nothing_of_it_is_lost() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert without_system([{"role": "system", "content": "s"}, *turns]) == [
        {"role": "user", "content": "s\n\na"}, *turns[1:],
    ]  # fmt: skip
    assert without_system(turns) == turns

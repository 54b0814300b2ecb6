"""One refused question ends nothing, and an endpoint that fails for good loses nothing that is under way."""

import asyncio
import time
from typing import Any

import pytest
from aiohttp import web

from models.errors import TeacherFailed, TeacherUnavailable
from models.teacher import RequestRefused, SamplingConfig, Teacher, TeacherRequest
from tests.models.endpoint import Endpoint, config, good, openai_error, refusal, says, serving

CHAT = SamplingConfig(api="chat")


def ask(name: str) -> TeacherRequest:
    return TeacherRequest(name, f"Q: {name}\nA:", [{"role": "user", "content": name}], (), 2, 7)


def bad(status: int, body: Any) -> Any:
    """An endpoint that finds fault with every question that is called bad."""
    return lambda sent: refusal(body, status) if sent["messages"][-1]["content"].startswith("bad") else None


async def asked(
    endpoint: Endpoint, names: list[str], **settings: Any
) -> tuple[list[str], dict[str, str], TeacherFailed | None]:
    """The questions that were answered, those that were refused, and how it ended."""
    refused: dict[str, str] = {}
    answered: list[str] = []

    def on_refused(error: RequestRefused) -> None:
        refused[error.request_id] = error.reason

    async with Teacher(config(endpoint, **settings), CHAT) as teacher:
        try:
            async for reply in teacher.sample_many(map(ask, names), on_refused):
                answered.append(reply.request_id)
        except TeacherFailed as error:
            return answered, refused, error
    return answered, refused, None


REFUSALS = [
    (400, openai_error("Content Exists Risk"), "the endpoint filtered the prompt: Content Exists Risk"),
    (400, {"error": {"code": "data_inspection_failed", "message": "no"}}, "the endpoint filtered the prompt: no ("),
    (403, openai_error("moderation on, and your input was flagged"), "the endpoint filtered the prompt: moderation"),
    (400, openai_error("prompt is too long: 900 tokens > 800 maximum"), "the prompt is too long for the teacher: "),
    (400, openai_error("The input (9 tokens) is longer than the model's context length"), "the prompt is too long"),
    (422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 4096"}, "the prompt is too long for the teacher"),
    (500, {"detail": "The decoder prompt is longer than the maximum model length of 65536."}, "the prompt is too long"),
    (400, openai_error("computer says no"), "refused, while others are answered (400: computer says no)"),
    (418, openai_error("short and stout"), "refused, while others are answered (418: short and stout)"),
    (500, openai_error("oops"), "failed 2 times, while others are answered; last: 500: oops"),
    (200, {"error": "oops"}, "failed 2 times, while others are answered; last: 502: oops"),
]


@pytest.mark.parametrize("in_flight", [1, 8])
@pytest.mark.parametrize(("status", "body", "reason"), REFUSALS, ids=[str(body)[:50] for _, body, _ in REFUSALS])
def test_a_refused_question_is_named_and_the_others_go_on(status: int, body: Any, reason: str, in_flight: int) -> None:
    async def scenario() -> tuple[list[str], dict[str, str], TeacherFailed | None]:
        async with serving(habit=bad(status, body)) as endpoint:
            names = [f"q{i}" for i in range(3)] + ["bad"] + [f"q{i}" for i in range(3, 40)]
            return await asked(endpoint, names, in_flight=in_flight, retries=1, backoff_first_s=0.1)

    answered, refused, error = asyncio.run(scenario())
    assert error is None
    assert sorted(answered) == sorted(f"q{i}" for i in range(40))
    assert list(refused) == ["bad"]
    assert refused["bad"].startswith(reason)


def test_a_refusal_that_every_request_meets_ends_the_sampling_after_one_harmless_question() -> None:
    async def scenario() -> tuple[tuple[list[str], dict[str, str], TeacherFailed | None], Endpoint]:
        async with serving(habit=lambda _: refusal(openai_error("unknown field: chat_template_kwargs"))) as endpoint:
            return await asked(endpoint, [f"q{i}" for i in range(100)], in_flight=8), endpoint

    (answered, refused, error), endpoint = asyncio.run(scenario())
    assert (answered, refused) == ([], {})
    assert str(error) == f"{endpoint.url} refused the request (400): unknown field: chat_template_kwargs"
    harmless = [body for body in endpoint.bodies if body["messages"][-1]["content"] == "What is 1 + 1?"]
    assert len(harmless) == 1
    assert len(endpoint.bodies) <= 8 + 1


def test_questions_that_are_left_over_are_told_from_an_endpoint_that_refuses_all() -> None:
    """As on a second run, which asks for nothing but what was refused before."""

    async def scenario() -> tuple[list[str], dict[str, str], TeacherFailed | None]:
        async with serving(habit=bad(400, openai_error("computer says no"))) as endpoint:
            return await asked(endpoint, ["bad one", "bad two"])

    answered, refused, error = asyncio.run(scenario())
    assert (answered, sorted(refused), error) == ([], ["bad one", "bad two"], None)


@pytest.mark.parametrize(
    ("trouble", "final"),
    [
        (says(401, openai_error("key withdrawn")), "refused the API key (401)"),
        (says(402, openai_error("no credit")), "refused the request (402)"),
        (says(429, openai_error("wait", "insufficient_quota")), "refused the request (429)"),
        (says(503, "gone"), "last: 503: gone"),
    ],
)
def test_what_is_under_way_when_the_endpoint_fails_for_good_arrives_first(trouble: Any, final: str) -> None:
    async def slow(_: Endpoint, body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(1.0)
        return web.json_response(good(body))

    async def scenario() -> tuple[tuple[list[str], dict[str, str], TeacherFailed | None], int]:
        async with serving(slow, slow, slow, trouble, *[says(500, "never")] * 100) as endpoint:
            return await asked(endpoint, [f"q{i}" for i in range(30)], in_flight=4, retries=0), len(endpoint.bodies)

    (answered, refused, error), requests = asyncio.run(scenario())
    assert len(answered) == 3
    assert refused == {}
    assert final in str(error)
    assert requests == 4 + ("503" in final), "nothing more, but for whether others are answered"


def test_what_does_not_arrive_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.teacher.ARRIVAL_LEAST_S", 0.5)

    async def never(_: Endpoint, __: dict[str, Any]) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def scenario() -> TeacherFailed | None:
        async with serving(never, says(401, openai_error("no"))) as endpoint:
            return (await asked(endpoint, ["q1", "q2", "q3"], in_flight=2, request_timeout_s=60.0))[2]

    start = time.monotonic()
    assert "401" in str(asyncio.run(scenario()))
    assert time.monotonic() - start < 20


WAITS = [
    ({"error": {"message": "You exceeded your current quota, see billing. Please retry in 0.4s."}}, {}, 0.4),
    ([{"error": {"code": 429, "message": "quota", "details": [{"retryDelay": "0.4s"}]}}], {}, 0.4),
    (openai_error("Rate limit reached. Please try again in 400ms."), {}, 0.4),
    (openai_error("slow down"), {"retry-after-ms": "400"}, 0.4),
    (openai_error("GenerateRequestsPerMinutePerProject: quota"), {}, 0.0),
]


@pytest.mark.parametrize(("body", "headers", "least_s"), WAITS)
def test_words_of_a_quota_that_mean_wait_are_waited_for(body: Any, headers: dict[str, str], least_s: float) -> None:
    async def scenario() -> Endpoint:
        async with serving(says(429, body, headers)) as endpoint:
            answered, refused, error = await asked(endpoint, ["q1"])
            assert (answered, refused, error) == (["q1"], {}, None)
            return endpoint

    endpoint = asyncio.run(scenario())
    assert least_s <= endpoint.times[1] - endpoint.times[0] < least_s + 5


@pytest.mark.parametrize(
    "body",
    [
        [{"error": {"code": 429, "message": "quota", "details": [{"quotaId": "RequestsPerDay", "retryDelay": "9s"}]}}],
        openai_error("You exceeded your current quota", "insufficient_quota"),
        openai_error("Limit 1000 requests per day (RPD)"),
    ],
)
def test_a_quota_that_is_used_up_is_final_in_one_line(body: Any) -> None:
    async def scenario() -> TeacherFailed | None:
        async with serving(*[says(429, body)] * 9) as endpoint:
            return (await asked(endpoint, ["q1"]))[2]

    error = asyncio.run(scenario())
    assert "refused the request (429)" in str(error)
    assert not isinstance(error, TeacherUnavailable)
    assert "[" not in str(error), "a list of Python's or JSON's"


def test_a_limit_that_lets_others_through_is_waited_for_beyond_the_retries() -> None:
    free_at, refusals = 0.0, 0

    def limited(_: dict[str, Any]) -> web.Response | None:
        nonlocal free_at, refusals
        if time.monotonic() < free_at:
            refusals += 1
            return refusal(openai_error("Rate limit reached; try again in 150ms"), 429)
        free_at = time.monotonic() + 0.1
        return None

    async def scenario() -> tuple[list[str], dict[str, str], TeacherFailed | None]:
        async with serving(habit=limited) as endpoint:
            return await asked(endpoint, [f"q{i}" for i in range(12)], in_flight=12, retries=2)

    answered, refused, error = asyncio.run(scenario())
    assert (len(answered), refused, error) == (12, {}, None)
    assert refusals > 12 * 3, "more than the retries would allow"

"""The teacher's client against a real endpoint: replies, retries, requests in flight, recovery of a server."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from models.errors import ServerFailed, TeacherFailed, TeacherUnavailable
from models.teacher import SamplingConfig, Teacher, TeacherReply, TeacherRequest
from tests.models.endpoint import (
    KEY,
    SAMPLING,
    Endpoint,
    ask,
    config,
    good,
    hangs_up,
    openai_error,
    run,
    says,
    serving,
    too_late,
)

pytestmark = pytest.mark.usefixtures("planted_key")


def test_a_reply_carries_texts_seeds_and_tokens() -> None:
    reply, endpoint = run()
    assert reply.request_id == "q1"
    assert [sample.text for sample in reply.samples] == [f"text {100 + i}" for i in range(5)]
    assert [sample.seed for sample in reply.samples] == [100, 101, 102, 103, 104]
    assert (reply.prompt_tokens, reply.completion_tokens) == (11, 10)
    assert {sample.completion_tokens for sample in reply.samples} == {None}
    assert {sample.logprob for sample in reply.samples} == {None}
    assert endpoint.bodies == [
        {
            "model": "lab",
            "prompt": "Q: 1 + 1?\nA:",
            "n": 5,
            "temperature": 0.7,
            "top_p": 1.0,
            "max_tokens": 256,
            "seed": 100,
            "stop": ["\n\n"],
        }
    ]
    assert endpoint.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_logprobs_become_a_mean_and_a_count(api: Any) -> None:
    reply, endpoint = run(sampling=SamplingConfig(api=api, logprobs=True, n=5))
    assert {(sample.logprob, sample.completion_tokens) for sample in reply.samples} == {(-1.5, 2)}
    assert ("messages" in endpoint.bodies[0]) == (api == "chat")


def test_choices_out_of_order_are_put_in_order() -> None:
    async def backwards(_: Endpoint, body: dict[str, Any]) -> web.StreamResponse:
        reply = good(body)
        return web.json_response(reply | {"choices": reply["choices"][::-1]})

    reply, _ = run(backwards)
    assert [sample.text for sample in reply.samples] == [f"text {100 + i}" for i in range(5)]


def test_token_ids_count_each_samples_tokens() -> None:
    reply, _ = run(return_token_ids=True)
    assert [sample.completion_tokens for sample in reply.samples] == [1, 2, 3, 4, 5]


def test_one_sample_has_the_requests_tokens() -> None:
    async def scenario() -> TeacherReply:
        async with serving() as endpoint, Teacher(config(endpoint), SAMPLING) as teacher:
            return await teacher.sample(ask(n=1))

    assert asyncio.run(scenario()).samples[0].completion_tokens == 2


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(says(429, openai_error("slow down")), id="429"),
        pytest.param(says(429, openai_error("slow down"), {"Retry-After": "0"}), id="429 with Retry-After"),
        pytest.param(says(500, "boom"), id="500"),
        pytest.param(says(503, openai_error("loading")), id="503"),
        pytest.param(says(200, "<html>a login page</html>"), id="not JSON"),
        pytest.param(says(200, {"choices": []}), id="no choices"),
        pytest.param(says(200, [1, 2]), id="not an object"),
        pytest.param(says(200, {"choices": [{"index": i} for i in range(5)]}), id="choices without text"),
        pytest.param(says(200, {"error": {"message": "slow down", "code": 429}}), id="429 inside 200"),
        pytest.param(says(200, {"error": "upstream failed", "choices": [{"text": "half a"}] * 5}), id="error in 200"),
        pytest.param(says(200, {"choices": [{"text": "", "finish_reason": "error"}] * 5}), id="choices of errors"),
        pytest.param(hangs_up, id="connection lost"),
    ],
)
def test_passing_troubles_are_tried_again(trouble: Any) -> None:
    reply, endpoint = run(trouble, trouble)
    assert len(reply.samples) == 5
    assert len(endpoint.bodies) == 3


def test_too_late_an_answer_is_tried_again() -> None:
    reply, endpoint = run(too_late, request_timeout_s=0.3)
    assert len(reply.samples) == 5
    assert len(endpoint.bodies) == 2


def test_retry_after_is_waited_for() -> None:
    _, endpoint = run(says(429, openai_error("slow down"), {"Retry-After": "1"}))
    assert 1.0 <= endpoint.times[1] - endpoint.times[0] < 3.0


def test_requests_in_flight_are_bounded_and_the_source_is_read_lazily() -> None:
    drawn = 0

    def endless() -> Iterator[TeacherRequest]:
        nonlocal drawn
        while True:
            drawn += 1
            yield ask(f"q{drawn}")

    async def scenario() -> tuple[Endpoint, set[str]]:
        got: set[str] = set()
        async with serving(together=7) as endpoint, Teacher(config(endpoint, in_flight=7), SAMPLING) as teacher:
            async with contextlib.aclosing(teacher.sample_many(endless())) as replies:
                async for reply in replies:
                    got.add(reply.request_id)
                    if len(got) == 100:
                        break
            return endpoint, got

    endpoint, got = asyncio.run(scenario())
    assert endpoint.most_under_way == 7
    assert len(got) == 100
    assert drawn <= 100 + 2 * 7 + 1  # under way, and finished but not yet taken


def test_replies_that_came_in_are_yielded_before_an_error() -> None:
    async def scenario() -> list[str]:
        got: list[str] = []
        async with serving() as endpoint, Teacher(config(endpoint, in_flight=1), SAMPLING) as teacher:
            try:
                async for reply in teacher.sample_many(ask(f"q{i}") for i in range(10)):
                    got.append(reply.request_id)
                    if len(got) == 3:
                        endpoint.script = [says(401, "no")]
            except TeacherFailed:
                return got
            raise AssertionError("no error")

    got = asyncio.run(scenario())
    assert got[:3] == ["q0", "q1", "q2"]
    assert 3 <= len(got) <= 5


def test_an_error_of_the_source_ends_the_sampling() -> None:
    def broken() -> Iterator[TeacherRequest]:
        yield ask("q1")
        raise OSError("the file of questions is gone")

    async def scenario() -> list[str]:
        async with serving() as endpoint, Teacher(config(endpoint), SAMPLING) as teacher:
            return [reply.request_id async for reply in teacher.sample_many(broken())]

    with pytest.raises(OSError, match="the file of questions is gone"):
        asyncio.run(scenario())


def test_lost_connections_share_one_recovery_and_cost_no_retries() -> None:
    recoveries = 0

    async def scenario() -> list[str]:
        async with serving(*[hangs_up] * 20) as endpoint:

            async def recover() -> bool:
                nonlocal recoveries
                recoveries += 1
                while endpoint.under_way:  # all twenty have failed by the time the server is up again
                    await asyncio.sleep(0)
                return True

            settings = config(endpoint, in_flight=20, retries=0)
            async with Teacher(settings, SAMPLING, recover) as teacher:
                return [reply.request_id async for reply in teacher.sample_many(ask(f"q{i}") for i in range(40))]

    assert sorted(asyncio.run(scenario())) == sorted(f"q{i}" for i in range(40))
    assert 1 <= recoveries < 20


def test_a_connection_that_keeps_breaking_on_a_living_server_is_given_up() -> None:
    async def scenario() -> None:
        async with serving(*[hangs_up] * 100) as endpoint:

            async def recover() -> bool:
                return True

            async with Teacher(config(endpoint, retries=1), SAMPLING, recover) as teacher:
                await teacher.sample(ask())

    with pytest.raises(TeacherUnavailable, match="no connection"):
        asyncio.run(scenario())


def test_a_recovery_that_fails_ends_the_sampling() -> None:
    async def scenario() -> None:
        async with serving(*[hangs_up] * 8) as endpoint:

            async def recover() -> bool:
                raise ServerFailed("died too often")

            async with Teacher(config(endpoint, in_flight=4), SAMPLING, recover) as teacher:
                async for _ in teacher.sample_many(ask(f"q{i}") for i in range(8)):
                    pass

    with pytest.raises(ServerFailed, match="died too often"):
        asyncio.run(scenario())

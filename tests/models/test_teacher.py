"""The teacher's client against a real HTTP endpoint that misbehaves in every way endpoints do."""

import asyncio
import contextlib
import json
import logging
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from models.errors import ServerFailed, TeacherFailed, TeacherUnavailable
from models.teacher import RequestRefused, SamplingConfig, Teacher, TeacherConfig, TeacherReply, TeacherRequest

KEY = "sk-planted-7f3a9c"


@dataclass
class Endpoint:
    """An OpenAI-compatible endpoint that first gives the answers on its list, and works once that is used up."""

    script: list[Callable[["Endpoint", dict[str, Any]], Awaitable[web.StreamResponse]]] = field(default_factory=list)
    models: list[str] = field(default_factory=lambda: ["lab", "smollm2"])
    together: int = 1  # no request is answered before so many are under way
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    under_way: int = 0
    most_under_way: int = 0

    async def sampled(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.keys.append(request.headers.get("Authorization", ""))
        self.times.append(time.monotonic())
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.script:
                return await self.script.pop(0)(self, body)
            if self.under_way >= self.together:
                self.enough.set()
            await self.enough.wait()
            return web.json_response(good(body))
        except ConnectionResetError:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()  # goes nowhere
        finally:
            self.under_way -= 1

    async def listed(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"id": name} for name in self.models]})


@contextlib.asynccontextmanager
async def serving(*script: Any, api_root: str = "/v1", **settings: Any) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(list(script), **settings)
    app = web.Application()
    app.router.add_post(api_root + "/completions", endpoint.sampled)
    app.router.add_post(api_root + "/chat/completions", endpoint.sampled)
    app.router.add_get(api_root + "/models", endpoint.listed)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield endpoint
    finally:
        await runner.cleanup()


def good(body: dict[str, Any], choices: int | None = None) -> dict[str, Any]:
    """A correct reply; texts name their seed."""
    count = body["n"] if choices is None else choices
    texts = [f"text {body['seed'] + i}" for i in range(count)]
    chat = "messages" in body
    return {
        "choices": [
            {
                "index": i,
                "finish_reason": "stop",
                **({"message": {"role": "assistant", "content": text}} if chat else {"text": text}),
                "logprobs": _logprobs(chat) if body.get("logprobs") is not None else None,
                **({"token_ids": [7] * (i + 1)} if body.get("return_token_ids") else {}),
            }
            for i, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 2 * count},
    }


def _logprobs(chat: bool) -> dict[str, Any]:
    return {"content": [{"logprob": -1.0}, {"logprob": -2.0}]} if chat else {"token_logprobs": [-1.0, -2.0]}


def says(status: int, body: Any, headers: dict[str, str] | None = None) -> Any:
    """An answer for the script: this status with this body (JSON unless it is a text)."""

    async def answer(_: Endpoint, __: dict[str, Any]) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers=headers, content_type="application/json")

    return answer


def gives(choices: int) -> Any:
    async def answer(_: Endpoint, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response(good(body, choices))

    return answer


async def too_late(_: Endpoint, __: dict[str, Any]) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def hangs_up(_: Endpoint, __: dict[str, Any]) -> web.StreamResponse:
    raise ConnectionResetError


def openai_error(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code}}


def config(endpoint: Endpoint, **settings: Any) -> TeacherConfig:
    fast = {"retries": 3, "backoff_first_s": 0.01, "backoff_most_s": 0.02, "request_timeout_s": 5.0}
    return TeacherConfig(**{"base_url": endpoint.url, "model": "lab", **fast, **settings})


def ask(name: str = "q1", n: int = 5, seed: int = 100) -> TeacherRequest:
    return TeacherRequest(name, "Q: 1 + 1?\nA:", [{"role": "user", "content": "1 + 1?"}], ("\n\n",), n, seed)


SAMPLING = SamplingConfig(api="completions")


async def answered(*script: Any, sampling: SamplingConfig = SAMPLING, **settings: Any) -> tuple[TeacherReply, Endpoint]:
    async with serving(*script) as endpoint, Teacher(config(endpoint, **settings), sampling) as teacher:
        return await teacher.sample(ask()), endpoint


def run(*script: Any, **settings: Any) -> tuple[TeacherReply, Endpoint]:
    return asyncio.run(answered(*script, **settings))


@pytest.fixture(autouse=True)
def planted_key(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Every test runs with a key, everything is logged, and the key must not be in it."""
    monkeypatch.setenv("QCRD_TEACHER_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-other-one")
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx2", "httpcore2", "aiohttp", "models"):
        caplog.set_level(logging.DEBUG, logger=name)
    yield
    assert KEY not in caplog.text


def line_of(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The error's message; asserts that it is one line and that nothing reachable from the error holds the key."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error.value]
    while todo:
        exception = todo.pop()
        if exception is None or id(exception) in seen:
            continue
        seen.add(id(exception))
        todo += [exception.__cause__, exception.__context__]
        assert KEY not in f"{exception!r} {vars(exception)}"
        assert not hasattr(exception, "request"), "an HTTP request, with its key, is reachable from the error"
    assert KEY not in "".join(traceback.format_exception(error.value))
    assert "\n" not in str(error.value)
    return str(error.value)


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
        pytest.param(gives(3), id="fewer choices"),
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


@pytest.mark.parametrize(
    ("trouble", "line"),
    [
        (says(429, openai_error("slow down")), "429 too many requests: slow down"),
        (says(500, "boom"), "500: boom"),
        (says(200, "<html>a login\npage</html>"), "a body that is not JSON: '<html>a login page</html>'"),
        (says(200, {"choices": []}), "JSON without choices: '{\"choices\": []}'"),
        (gives(3), "3 choices where n = 5 were asked for (does it support n?)"),
        (says(502, f"who sent {KEY}?"), "502: who sent ***?"),
    ],
)
def test_lasting_troubles_name_what_came_last(trouble: Any, line: str) -> None:
    with pytest.raises(TeacherUnavailable) as error:
        run(*[trouble] * 4)
    text = line_of(error)
    assert text.startswith("http://127.0.0.1:")
    assert text.endswith(f"/v1 failed 4 times in a row for request q1; last: {line}")


def test_no_reply_at_all_names_the_time_waited() -> None:
    with pytest.raises(TeacherUnavailable, match=r"for request q1; last: no reply within 0\.2 s$") as error:
        run(too_late, too_late, request_timeout_s=0.2, retries=1)
    line_of(error)


def test_nobody_listening() -> None:
    closed = Endpoint(url="http://127.0.0.1:9/v1")

    async def scenario(check: bool) -> None:
        async with Teacher(config(closed, retries=1), SAMPLING) as teacher:
            await (teacher.check() if check else teacher.sample(ask()))

    with pytest.raises(TeacherUnavailable, match=r"^cannot reach http://127\.0\.0\.1:9/v1: .*127\.0\.0\.1:9") as error:
        asyncio.run(scenario(check=True))
    line_of(error)
    with pytest.raises(TeacherUnavailable, match=r"failed 2 times in a row .*; last: no connection: .*:9") as error:
        asyncio.run(scenario(check=False))
    line_of(error)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            says(401, openai_error(f"Incorrect API key provided: {KEY}.", "invalid_api_key")),
            "URL refused the API key (401): Incorrect API key provided: ***. (invalid_api_key) - set "
            "QCRD_TEACHER_API_KEY (or OPENAI_API_KEY) to a key it accepts",
        ),
        (
            says(403, openai_error("no access")),
            "URL refused the API key (403): no access - set QCRD_TEACHER_API_KEY (or OPENAI_API_KEY) to a key it "
            "accepts",
        ),
        (says(400, openai_error("n must be 1")), "URL refused the request (400): n must be 1"),
        (
            says(404, openai_error("The model does not exist.")),
            "URL serves 'lab' but not /completions (404): The model does not exist.",
        ),
        (
            says(429, openai_error("You exceeded your current quota", "insufficient_quota")),
            "URL refused the request (429): You exceeded your current quota (insufficient_quota)",
        ),
        (
            says(429, openai_error("come back tomorrow"), {"Retry-After": "86400"}),
            "URL asks to wait 86400 s (429), more than the 300 s allowed by retry_after_most_s: come back tomorrow",
        ),
    ],
)
def test_refusals_are_final_and_say_what_to_do(answer: Any, line: str) -> None:
    endpoints: list[Endpoint] = []

    async def scenario() -> None:
        async with serving(answer) as endpoint, Teacher(config(endpoint), SAMPLING) as teacher:
            endpoints.append(endpoint)
            await teacher.sample(ask())

    with pytest.raises(TeacherFailed) as error:
        asyncio.run(scenario())
    assert line_of(error) == line.replace("URL", endpoints[0].url)
    assert not isinstance(error.value, RequestRefused)
    assert len(endpoints[0].bodies) == 1


@pytest.mark.parametrize("check", [True, False])
def test_a_wrong_model_names_those_on_offer_and_the_nearest(check: bool) -> None:
    async def scenario() -> None:
        refusal = says(404, openai_error("The model `smollm` does not exist."))
        async with serving(refusal) as endpoint, Teacher(config(endpoint, model="smollm"), SAMPLING) as teacher:
            await (teacher.check() if check else teacher.sample(ask()))

    with pytest.raises(TeacherFailed) as error:
        asyncio.run(scenario())
    expected = "does not serve a model named 'smollm'; it offers: lab, smollm2; did you mean 'smollm2'?"
    assert line_of(error).endswith(expected)


def test_a_url_without_its_v1_is_recognised() -> None:
    async def scenario() -> None:
        async with serving(api_root="/other") as endpoint, Teacher(config(endpoint), SAMPLING) as teacher:
            await teacher.sample(ask())

    with pytest.raises(TeacherFailed, match=r"^no OpenAI-compatible API at http\S+ \(404\): .*end in /v1\?$") as error:
        asyncio.run(scenario())
    line_of(error)


def test_a_prompt_that_is_too_long_refuses_only_its_own_request() -> None:
    async def long_prompt(_: Endpoint, __: dict[str, Any]) -> web.StreamResponse:
        message = "This model's maximum context length is 512 tokens. However, your prompt contains 9,999."
        return web.json_response(openai_error(message), status=400)

    async def scenario() -> tuple[list[str], list[RequestRefused]]:
        refused: list[RequestRefused] = []
        async with serving(long_prompt) as endpoint, Teacher(config(endpoint, in_flight=1), SAMPLING) as teacher:
            requests = [ask("q1"), ask("q2"), ask("q3")]
            return [reply.request_id async for reply in teacher.sample_many(requests, refused.append)], refused

    answered_ids, refused = asyncio.run(scenario())
    assert answered_ids == ["q2", "q3"]
    assert [error.request_id for error in refused] == ["q1"]
    assert str(refused[0]) == (
        "request q1: the prompt is too long for the teacher: This model's maximum context length is 512 tokens. "
        "However, your prompt contains 9,999."
    )


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


def test_the_key_comes_from_the_first_variable_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QCRD_TEACHER_API_KEY")
    assert run()[1].keys == ["Bearer sk-the-other-one"]
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    assert run()[1].keys == ["Bearer none"]


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("localhost:8000/v1", "base_url must be like http://host:8000/v1 or https://host/v1"),
        (f"http://user:{KEY}@host/v1", "a key belongs in QCRD_TEACHER_API_KEY"),
        (f"http://host/v1?key={KEY}", "a key belongs in QCRD_TEACHER_API_KEY"),
    ],
)
def test_a_bad_url_is_refused_without_repeating_it(url: str, line: str) -> None:
    with pytest.raises(ValidationError, match=line) as error:
        TeacherConfig(base_url=url, model="lab")
    assert KEY not in str(error.value)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="temprature"):
        SamplingConfig(temprature=0.7)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        SamplingConfig(n=0)

"""What a user reads when a teacher's endpoint refuses or fails: one line, what to do, and never the API key."""

import asyncio
import traceback
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from models.errors import TeacherFailed, TeacherUnavailable
from models.teacher import RequestRefused, SamplingConfig, Teacher, TeacherConfig
from tests.models.endpoint import (
    KEY,
    SAMPLING,
    Endpoint,
    ask,
    config,
    openai_error,
    run,
    says,
    serving,
    too_late,
)

pytestmark = pytest.mark.usefixtures("planted_key")


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


@pytest.mark.parametrize(
    ("trouble", "line"),
    [
        (says(429, openai_error("slow down")), "429 too many requests: slow down"),
        (says(500, "boom"), "500: boom"),
        (says(200, "<html>a login\npage</html>"), "a body that is not JSON: '<html>a login page</html>'"),
        (says(200, {"choices": []}), "JSON without choices: '{\"choices\": []}'"),
        (says(200, {"error": {"message": "upstream failed"}, "choices": []}), "502: upstream failed"),
        (says(502, f"who sent {KEY}?"), "502: who sent ***?"),
    ],
)
def test_lasting_troubles_name_what_came_last(trouble: Any, line: str) -> None:
    with pytest.raises(TeacherUnavailable) as error:
        run(*[trouble] * 5)  # the fifth is for the question that asks whether others are answered
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
        (says(402, openai_error("no credit left")), "URL refused the request (402): no credit left"),
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


def test_a_wrong_model_names_those_on_offer_and_the_nearest() -> None:
    async def scenario() -> None:
        refusal = says(404, openai_error("The model `smollm` does not exist."))
        async with serving(refusal) as endpoint, Teacher(config(endpoint, model="smollm"), SAMPLING) as teacher:
            await teacher.sample(ask())

    with pytest.raises(TeacherFailed) as error:
        asyncio.run(scenario())
    expected = "does not serve a model named 'smollm'; it offers: lab, smollm2; did you mean 'smollm2'?"
    assert line_of(error).endswith(expected)


def test_a_model_that_is_not_listed_is_warned_about_and_asked_all_the_same() -> None:
    async def scenario() -> tuple[list[str], list[str], int]:
        async with serving() as endpoint:
            async with Teacher(config(endpoint, model="models/lab"), SAMPLING) as teacher:
                warning, reply = await teacher.check(), await teacher.sample(ask())
            async with Teacher(config(endpoint), SAMPLING) as teacher:
                return warning, await teacher.check(), len(reply.samples)

    [warning], none, samples = asyncio.run(scenario())
    assert (none, samples) == ([], 5)
    expected = "/v1 does not list a model named 'models/lab' (it lists lab, smollm2); asking for it all the same."
    assert warning.endswith(expected)


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


def test_the_key_comes_from_the_first_variable_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QCRD_TEACHER_API_KEY")
    assert run()[1].keys == ["Bearer sk-the-other-one"]
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    assert run()[1].keys == ["Bearer none"]


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("localhost:8000/v1", "it must be like http://host:8000/v1 or https://host/v1"),
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

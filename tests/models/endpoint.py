"""An OpenAI-compatible endpoint on this machine that misbehaves in every way endpoints do, for the teacher's tests."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from models.teacher import SamplingConfig, Teacher, TeacherConfig, TeacherReply, TeacherRequest

KEY = "sk-planted-7f3a9c"


@dataclass
class Endpoint:
    """An OpenAI-compatible endpoint that first gives the answers on its list, and works once that is used up."""

    script: list[Callable[["Endpoint", dict[str, Any]], Awaitable[web.StreamResponse]]] = field(default_factory=list)
    models: list[str] = field(default_factory=lambda: ["lab", "smollm2"])
    habit: Callable[[dict[str, Any]], web.Response | None] | None = None  # how it answers some bodies, for good
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
            if self.habit is not None and (answer := self.habit(body)) is not None:
                return answer
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
    count = body.get("n", 1) if choices is None else choices
    texts = [f"text {body.get('seed', 0) + i}" for i in range(count)]
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


def refusal(body: Any, status: int = 400) -> web.Response:
    """An answer for a habit."""
    return web.json_response(body, status=status)


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

"""An endpoint on this machine for benchmarks, in a process of its own: what it answers is the benchmark's."""

import asyncio
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

from aiohttp import web


async def serve(
    told: Connection,
    path: str,
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
    report: Callable[[], object],
) -> None:
    """Sends its port; at a word of the other side what there is to report, and ends.

    Args:
        told: the other side.
        path: below /v1, where requests are answered.
        answer: a request.
        report: called at the end.
    """

    async def models(_: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"id": "loopback"}]})

    app = web.Application()
    app.router.add_post(f"/v1/{path}", answer)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    told.send(runner.addresses[0][1])
    await asyncio.to_thread(told.recv)
    told.send(report())
    await runner.cleanup()

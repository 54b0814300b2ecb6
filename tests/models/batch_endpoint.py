"""An endpoint on this machine that speaks OpenAI's files and batches, for the teacher's tests."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.models.endpoint import good

Line = dict[str, Any]


def answers(line: Line) -> Line:
    """The line of an output file for an answered request."""
    return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": good(line["body"])}, "error": None}


def refuses(line: Line, status: int, message: str) -> Line:
    """The line of an error file for a request that failed."""
    body = {"error": {"message": message}}
    return {"custom_id": line["custom_id"], "response": {"status_code": status, "body": body}, "error": None}


@dataclass
class BatchServer:
    """Files and batches.

    Attributes:
        answer: what becomes of a line, by how often it was asked before; None: it expires unanswered.
        looks: how often a batch is looked at before it is over.
        hangs: whether a batch is made and nobody is told.
        loses: how many batches are made whose reply is lost: a gateway answers 502.
        forgets: whether batches are unknown from now on.
        status: that a batch ends with.
        errors: of a batch that fails as a whole.
        asked: custom_id -> how often.
    """

    answer: Callable[[Line, int], Line | None] = lambda line, _: answers(line)
    looks: int = 2
    hangs: bool = False
    loses: int = 0
    forgets: bool = False
    status: str = "completed"
    errors: tuple[str, ...] = ()
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)

    def _file(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        content = form["file"]
        assert isinstance(content, web.FileField)
        name = self._file(content.file.read())
        return web.json_response({"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": "x",
                                  "purpose": "batch", "status": "processed"})  # fmt: skip

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["endpoint"] in ("/v1/completions", "/v1/chat/completions")
        assert body["completion_window"] == "24h"
        batch = {
            "id": f"batch-{len(self.batches)}", "object": "batch", "created_at": 0, "status": "in_progress",
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, "looks": 0, **body,
        }  # fmt: skip
        self.batches[batch["id"]] = batch
        if self.hangs:
            await asyncio.Event().wait()
        if self.loses:
            self.loses -= 1
            return web.json_response({"error": {"message": "bad gateway"}}, status=502)
        return web.json_response(batch)

    async def listed(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [*self.batches.values()][::-1], "has_more": False})

    async def shown(self, request: web.Request) -> web.Response:
        if self.forgets:
            return web.json_response({"error": {"message": "No batch found"}}, status=404)
        batch = self.batches[request.match_info["id"]]
        batch["looks"] += 1
        if batch["looks"] > self.looks and batch["status"] == "in_progress":
            self._finish(batch)
        return web.json_response(batch)

    def _finish(self, batch: dict[str, Any]) -> None:
        if self.errors:
            batch |= {"status": "failed", "errors": {"object": "list", "data": [{"message": e} for e in self.errors]}}
            return
        output: list[Line] = []
        failed: list[Line] = []
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        for line in lines:
            row = self.answer(line, self.asked[line["custom_id"]])
            self.asked[line["custom_id"]] += 1
            if row is None:
                failed.append({"custom_id": line["custom_id"], "response": None,
                               "error": {"code": "batch_expired", "message": "too late"}})  # fmt: skip
            else:
                (output if row["response"]["status_code"] == 200 else failed).append(row)
        batch["status"] = self.status
        batch["request_counts"] = {"total": len(lines), "completed": len(output), "failed": len(failed)}
        for name, rows in (("output_file_id", output), ("error_file_id", failed)):
            if rows:
                batch[name] = self._file("".join(json.dumps(row) + "\n" for row in rows).encode())

    async def content(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.match_info["id"]])


@contextlib.asynccontextmanager
async def serving_batches(**settings: Any) -> AsyncIterator[BatchServer]:
    server = BatchServer(**settings)
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/v1/files", server.upload)
    app.router.add_get("/v1/files/{id}/content", server.content)
    app.router.add_post("/v1/batches", server.create)
    app.router.add_get("/v1/batches", server.listed)
    app.router.add_get("/v1/batches/{id}", server.shown)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def serving_page() -> AsyncIterator[BatchServer]:
    """A site that answers every path with a page."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>Welcome</html>", content_type="text/html")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", page)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield BatchServer(url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()

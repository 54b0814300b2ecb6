"""What the web service says to requests that are not as they should be, and who may ask."""

import asyncio
import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from storage.datasets.registry import get_dataset
from storage.store import Store
from tasks.cascade.cascade import Cascade
from tasks.cascade.champion import Champion
from tasks.cascade.desk import Desk
from tasks.cascade.service import MOST_BYTES, make_app
from tasks.cascade.settings import CascadeSettings
from tests.models.endpoint import Endpoint
from tests.tasks.cascade.test_desk import QUESTIONS, at_the_desk

KEY = "a-key-of-the-service"
JSON = {"Content-Type": "application/json"}
GOOD = {"questions": [{"question": QUESTIONS[0].question}]}
SEND = ' Send {"questions": [{"question": "..."}]}'


@dataclass(frozen=True)
class Reply:
    """A reply; `error` is its only line, if it is a refusal."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def error(self) -> str:
        assert list(self.body) == ["error"], self.body
        line: str = self.body["error"]
        assert "\n" not in line
        return line


Post = Callable[..., Reply]


def stored(root: Path) -> int:
    """Questions that were passed on."""
    return int(Store(root / "store").query("SELECT * FROM examples").num_rows)


def with_service(home: Path, root: Path, scenario: Callable[[Post], None], dataset: str = "lab") -> None:
    """Runs a scenario with a service whose champion is never sure."""

    async def run(desk: Desk, _: Endpoint) -> None:
        champion = Champion(home, "qcrd-lab", CascadeSettings(below=1.0), print)
        app = make_app(Cascade(champion, desk), get_dataset(dataset), KEY)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        with socket.create_server(("127.0.0.1", 0)) as bound:
            port = bound.getsockname()[1]

            def post(body: Any = None, headers: Mapping[str, str] = JSON, *, authorization: str = f"Bearer {KEY}",
                     method: str = "POST", path: str = "/answer") -> Reply:  # fmt: skip
                content = json.dumps(body) if isinstance(body, (dict, list)) else body
                with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                    connection.request(method, path, content, {"Authorization": authorization, **headers})
                    reply = connection.getresponse()
                    return Reply(reply.status, dict(reply.headers), json.loads(reply.read()))

            async with champion:
                serving = asyncio.create_task(server.serve([bound]))
                try:
                    await asyncio.to_thread(scenario, post)
                finally:
                    server.should_exit = True
                    await serving

    at_the_desk(root, run)


def test_the_scheme_of_the_key_is_written_in_any_case(champions_home: Path, tmp_path: Path) -> None:
    def scenario(post: Post) -> None:
        for scheme in ("Bearer", "bearer", "BEARER"):
            assert post(GOOD, authorization=f"{scheme} {KEY}").status == 200
        for wrong in (f"Basic {KEY}", KEY, "", "Bearer", f"Bearer {KEY}x", "Bearer gehe\u00fcm"):
            reply = post(GOOD, authorization=wrong)
            assert (reply.status, reply.error) == (401, "This service needs its key, as Authorization: Bearer KEY.")
            assert reply.headers["www-authenticate"] == "Bearer"

    with_service(champions_home, tmp_path, scenario)


def test_what_is_wrong_with_a_request_is_said(champions_home: Path, tmp_path: Path) -> None:
    an_object = 'it must be an object with "questions".'
    a_question = 'it must be an object with "question".'

    def chunks() -> Iterator[bytes]:
        yield json.dumps(GOOD).encode()

    def scenario(post: Post) -> None:
        for body, said in (
            ([], f"the body: {an_object}{SEND}"),
            ('"x"', f"the body: {an_object}"),
            ({"questions": ["x"]}, f"questions.0: {a_question}{SEND}"),
            ({"questions": [GOOD["questions"][0], None]}, f"questions.1: {a_question}"),
            ({"questions": "x"}, "questions: it must be a list."),
            ({"questions": []}, "questions: it must have at least 1."),
            ({"questions": [{"question": "x"}] * 1025}, "questions: it may have at most 1,024."),
            ({"questions": [{"question": 3}]}, "questions.0.question: it must be a text."),
            ({"questions": [{"question": "\ud800"}]}, "questions.0.question: it must be a text."),
            ({"questions": [{"question": " "}]}, "questions.0.question: it is empty."),
            (
                {"questions": [{"question": "x" * 100_001}]},
                "questions.0.question: it may have at most 100,000 characters.",
            ),
            ({"questions": [{}]}, "questions.0.question: it is missing."),
            ({}, "questions: it is missing."),
            ({"questions": [{"question": "x", "choice": []}]}, "questions.0.choice: there is no such field."),
            ({"questions": [{"question": "x", "a\nb" * 99: []}]}, "questions.0.a b"),
            ("nonsense", "the body: it is not valid JSON (Expecting value, at character 1)."),
            ('{"questions": [}', "the body: it is not valid JSON (Expecting value, at character 16)."),
            (b'{"questions": [{"question": "\xff"}]}', "the body: it is not valid JSON ('utf-8' codec can't decode"),
            (b"[" * 100_000, "the body: it is not valid JSON ("),
            (None, "the body: it is empty."),
            ("", "the body: it is empty."),
        ):
            reply = post(body)
            assert reply.status == 422, reply
            assert reply.error.startswith(said), reply.error
            assert len(reply.error) < 300
        for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
            reply = post(json.dumps(GOOD), headers)
            assert (reply.status, reply.error) == (
                422, "Send JSON, and say so: Content-Type: application/json."
            )  # fmt: skip
        reply = post(chunks())
        assert (reply.status, reply.error) == (
            411, "Say how long the request is, with Content-Length; one in chunks is not read."
        )  # fmt: skip
        reply = post(None, {"Content-Length": str(MOST_BYTES + 1)})
        assert (reply.status, reply.error) == (
            413, "A request has at most 16,777,216 bytes; ask in several."
        )  # fmt: skip
        reply = post(method="GET")
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
        assert reply.error == "Method Not Allowed. There are POST /answer, GET /health and GET /metrics."
        assert post(method="GET", path="/answers").status == 404

    with_service(champions_home, tmp_path, scenario)
    assert stored(tmp_path) == 0


@pytest.mark.parametrize("dataset", ["lab", "arc"])
def test_choices_are_those_of_the_dataset(champions_home: Path, tmp_path: Path, dataset: str) -> None:
    good = QUESTIONS[0].question
    one = "questions.0: its choices must be at least two different texts."
    wrong = {
        "lab": [(["a", "b"], "questions.0: it has choices, and lab has none: leave them out.")],
        "arc": [
            ([], "questions.0: it has no choices, and arc asks for one of them."),
            (["a", "a "], one),
            (["a"], one),
        ],
    }

    def scenario(post: Post) -> None:
        for choices, said in wrong[dataset]:
            reply = post({"questions": [{"question": good, "choices": choices}]})
            assert (reply.status, reply.error) == (422, said)
        if dataset == "lab":
            assert post({"questions": [{"question": good}, {"question": good, "choices": ["a", "b"]}]}).status == 422

    with_service(champions_home, tmp_path, scenario, dataset)
    assert stored(tmp_path) == 0, "nobody was asked"

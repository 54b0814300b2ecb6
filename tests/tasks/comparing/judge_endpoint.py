"""A small HTTP server on this machine that speaks the chat API and judges by a rule, for the tests of the judge."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Rule = Callable[[str, str], str]
"""(explanation A, explanation B) -> what the judge replies."""
_SHOWN = re.compile(r"Explanation A:\n(.*)\n\nExplanation B:\n(.*)\n\nWhich explanation", re.DOTALL)


@dataclass
class Judge:
    """What was asked, in order."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)

    def questions(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]


@contextmanager
def judging(rule: Rule, seconds: float = 0.0, refuse: str = "") -> Iterator[Judge]:
    """A judge that takes some seconds for each reply, and refuses questions that hold a text."""
    judge = Judge()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.reply(200, {"data": [{"id": "wise"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            judge.bodies.append(body)
            if body["model"] != "wise":
                self.reply(404, {"error": {"message": "there is no such model"}})
                return
            time.sleep(seconds)
            asked = body["messages"][-1]["content"]
            shown = _SHOWN.search(asked)
            assert shown is not None
            if refuse and refuse in asked:
                error = {"message": "maximum context length is 8 tokens", "code": "context_length_exceeded"}
                self.reply(400, {"error": error})
                return
            message = {"role": "assistant", "content": rule(shown[1], shown[2])}
            usage = {"prompt_tokens": 90, "completion_tokens": 7}
            self.reply(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})

        def reply(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a killed client hangs up
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def prefers(word: str) -> Rule:
    """Prefers the explanation that holds a word; a tie where both or neither do."""

    def rule(first: str, second: str) -> str:
        if (word in first) == (word in second):
            return "Both reason alike.\nVerdict: tie"
        return f"One of them is better.\nVerdict: {'A' if word in first else 'B'}"

    return rule

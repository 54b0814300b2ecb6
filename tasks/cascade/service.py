"""The cascade as a web service.

    POST /answer     {"questions": [{"question": "...", "choices": [...]}, ...]} -> {"answers": [...]}
    GET  /health     200 while it answers
    GET  /metrics    for Prometheus
    GET  /openapi.json

FastAPI, not MLflow's own server: that one knows a model and nothing else, and here a question may wait for the teacher,
be turned away, or be counted.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from starlette.exceptions import HTTPException

from storage.datasets.choices import has_choices, wrong_choices
from storage.datasets.definition import Dataset
from storage.errors import UsageError, one_line
from tasks.cascade.cascade import Cascade, Given
from tasks.cascade.grouping import Overloaded
from tasks.serving.settings import Question

MOST_CHARACTERS, MOST_CHOICES, MOST_QUESTIONS = 100_000, 1000, 1024
MOST_BYTES = 16 * 2**20
"""Largest body of a request."""
MOST_SHOWN = 80
"""Characters of a field's place that are repeated."""
RETRY_S = 1
OWN_NAMES = ("localhost", "127.0.0.1", "::1")
WRONG = {
    "missing": "it is missing",
    "extra_forbidden": "there is no such field",
    "list_type": "it must be a list",
    "string_type": "it must be a text",
    "string_unicode": "it must be a text",  # half a character: "\ud800"
    "too_short": "it must have at least {min_length:,}",
    "too_long": "it may have at most {max_length:,}",
    "string_too_long": "it may have at most {max_length:,} characters",
}
"""What pydantic finds wrong, by its name for it."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty")
    return text


Text = Annotated[str, StringConstraints(max_length=MOST_CHARACTERS), AfterValidator(_not_blank)]


class Asked(BaseModel):
    """A question, and its choices if the dataset has some."""

    model_config = ConfigDict(extra="forbid")

    question: Text
    choices: list[Text] = Field(default=[], max_length=MOST_CHOICES)


class Ask(BaseModel):
    """What is asked in one request."""

    model_config = ConfigDict(extra="forbid")

    questions: list[Asked] = Field(min_length=1, max_length=MOST_QUESTIONS)


class Answers(BaseModel):
    """The answers, in the order of the questions."""

    answers: list[Given]


class Metrics:
    """What Prometheus is told.

    Args:
        cascade: whose queues are shown.
    """

    def __init__(self, cascade: Cascade) -> None:
        self.registry = CollectorRegistry()
        self._answers = Counter("qcrd_answers", "Questions answered.", ["by"], registry=self.registry)
        self._seconds = Histogram(
            "qcrd_answer_seconds", "Seconds to the answer.", ["by"], registry=self.registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
        )  # fmt: skip
        self._turned_away = Counter(
            "qcrd_turned_away", "Requests turned away because too many were waiting.", registry=self.registry
        )
        for by in ("student", "teacher", "nobody"):
            self._answers.labels(by)
            self._seconds.labels(by)
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "qcrd_waiting_for_student": ("Questions that wait for the champion.", lambda: cascade.champion.waiting),
            "qcrd_waiting_for_teacher": ("Questions that wait for the teacher.", lambda: cascade.desk.under_way),
            "qcrd_teacher_questions_left": (
                "Questions that the teacher may still be asked today; infinite without a limit.",
                lambda: float("inf") if cascade.desk.left is None else cascade.desk.left,
            ),
            "qcrd_answering_version": (
                "Version of the champion that answers.", lambda: float(cascade.champion.registered.version)
            ),
        }  # fmt: skip
        for name, (words, value) in gauges.items():
            Gauge(name, words, registry=self.registry).set_function(value)

    def answered(self, given: Given, seconds: float) -> None:
        """Counts an answer."""
        self._answers.labels(given.by).inc()
        self._seconds.labels(given.by).observe(seconds)

    def turned_away(self) -> None:
        """Counts a request that was turned away."""
        self._turned_away.inc()


def make_app(cascade: Cascade, dataset: Dataset, key: str | None = None) -> FastAPI:
    """The service.

    Args:
        cascade: who answers; champion and desk have been entered.
        dataset: what is asked.
        key: that a request must carry ("Authorization: Bearer KEY"); None for none.
    """

    example = '{"question": "...", "choices": ["...", "..."]}' if has_choices(dataset) else '{"question": "..."}'
    send = f'Send {{"questions": [{example}]}}.'
    app = FastAPI(title=f"qcrd: {dataset.name}", docs_url=None, redoc_url=None)  # its pages load scripts from elsewhere
    metrics = Metrics(cascade)

    @app.middleware("http")
    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuses who has no key, pages of other sites, and what is too large, before anything is read."""
        if key is not None and request.url.path != "/health":
            scheme, _, given = request.headers.get("Authorization", "").partition(" ")
            if not hmac.compare_digest(given.encode(), key.encode()) or scheme.lower() != "bearer":
                why = "This service needs its key, as Authorization: Bearer KEY."
                return refusal(401, why, {"WWW-Authenticate": "Bearer"})
        elif key is None and request.url.hostname not in OWN_NAMES:
            # A page in a browser here may reach this address by a name of its own (DNS rebinding).
            return refusal(403, f"Without a key this service is reached as {' or '.join(OWN_NAMES)} alone.")
        if "Transfer-Encoding" in request.headers:
            return refusal(411, "Say how long the request is, with Content-Length; one in chunks is not read.")
        length = request.headers.get("Content-Length", "0")
        if not (length.isdecimal() and int(length) <= MOST_BYTES):
            return refusal(413, f"A request has at most {MOST_BYTES:,} bytes; ask in several.")
        return await go_on(request)

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        """One line for what is wrong with a request, without repeating it."""
        first = error.errors()[0]
        kind, (_, *place), context = first["type"], first["loc"], first.get("ctx", {})
        if kind == "json_invalid":
            return not_json(f"{context['error']}, at character {place[0] + 1}")
        if kind == "model_attributes_type":
            if isinstance(first["input"], bytes):
                return refusal(422, "Send JSON, and say so: Content-Type: application/json.")
            said = f'it must be an object with "{"question" if place else "questions"}"'
        elif kind == "missing" and not place:
            said = "it is empty"
        else:
            other = first["msg"].removeprefix("Value error, ")
            said = WRONG[kind].format_map(context) if kind in WRONG else other
        return refusal(422, f"{named(place)}: {said}. {send}")

    def not_json(why: str) -> JSONResponse:
        return refusal(422, f"the body: it is not valid JSON ({why}). {send}")

    @app.exception_handler(HTTPException)
    async def not_found(_: Request, error: HTTPException) -> JSONResponse:
        """One line for what is not there, or cannot be read at all: other bytes than UTF-8, lists in lists without
        end."""
        if error.status_code == 400 and error.__cause__ is not None:
            return not_json(one_line(error.__cause__))
        why = f"{error.detail}. There are POST /answer, GET /health and GET /metrics."
        return refusal(error.status_code, why, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> JSONResponse:
        """One line for what should not happen; the log has the rest."""
        return refusal(500, "The service failed at this; its log says more.")

    @app.post("/answer", response_model=Answers)
    async def answer(asked: Ask) -> Answers | JSONResponse:
        """Answers questions: the student's answer where it is sure, else the teacher's, else none."""
        questions = [Question(one.question, tuple(one.choices)) for one in asked.questions]
        if len(questions) > cascade.champion.most:
            return refusal(
                422, f"questions: at most {cascade.champion.most:,} at a time (cascade.queue); ask in several."
            )
        for number, one in enumerate(questions):
            if (why := wrong_choices(dataset, one.choices)) is not None:
                return refusal(422, f"questions.{number}: {why}.")
        start = time.monotonic()

        async def ask(question: Question) -> Given:
            given = await cascade.answer(question)
            metrics.answered(given, time.monotonic() - start)
            return given

        try:
            given = await _all(ask(question) for question in questions)
        except UsageError as error:
            return refusal(422, str(error))
        except Overloaded as error:
            metrics.turned_away()
            return refusal(503, f"{error}; ask again in a moment.", {"Retry-After": str(RETRY_S)})
        return Answers(answers=given)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether it answers, and who does."""
        registered = cascade.champion.registered
        return {
            "status": "ok",
            "model": registered.name,
            "version": registered.version,
            "left_today": cascade.desk.left,
        }

    @app.get("/metrics", response_class=Response)
    async def shown() -> Response:
        """The figures, in Prometheus' text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def _all(answers: Iterable[Awaitable[Given]]) -> list[Given]:
    """All answers; where one cannot be given, nobody waits for the others."""
    tasks = [asyncio.ensure_future(one) for one in answers]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def named(place: Sequence[str | int]) -> str:
    """Where in the body something is, such as questions.0.question; what somebody calls a field may be anything."""
    where = " ".join(".".join(map(str, place)).split())
    return (where if len(where) <= MOST_SHOWN else f"{where[:MOST_SHOWN]}...") or "the body"


def refusal(status: int, why: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A request that is not answered, and the reason in one line."""
    return JSONResponse({"error": why}, status, headers)

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
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from starlette.exceptions import HTTPException

from storage.datasets.definition import Dataset
from storage.errors import UsageError
from tasks.cascade.cascade import Cascade, Given
from tasks.cascade.grouping import Overloaded
from tasks.serving.settings import Question

MOST_CHARACTERS, MOST_CHOICES, MOST_QUESTIONS = 100_000, 1000, 1024
MOST_BYTES = 16 * 2**20
"""Largest body of a request."""
RETRY_S = 1
EXAMPLE = '{"questions": [{"question": "...", "choices": []}]}'
OWN_NAMES = ("localhost", "127.0.0.1", "::1")


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

    # FastAPI's own pages load scripts from elsewhere.
    app = FastAPI(title=f"qcrd: {dataset.name}", docs_url=None, redoc_url=None)
    metrics = Metrics(cascade)

    @app.middleware("http")
    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuses who has no key, pages of other sites, and what is too large, before anything is read."""
        if key is not None and request.url.path != "/health":
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), key.encode()):
                return refusal(401, "This service needs its key, as Authorization: Bearer KEY.")
        elif key is None and request.url.hostname not in OWN_NAMES:
            # A page in a browser here may reach this address by a name of its own (DNS rebinding).
            return refusal(403, f"Without a key this service is reached as {' or '.join(OWN_NAMES)} alone.")
        length = request.headers.get("Content-Length", "")
        if request.method == "POST" and not (length.isdigit() and int(length) <= MOST_BYTES):
            return refusal(413, f"A request has a Content-Length of at most {MOST_BYTES:,} bytes; ask in several.")
        return await go_on(request)

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        """One line for what is wrong with a request, without repeating it."""
        first = error.errors()[0]
        if first["type"] == "model_attributes_type":
            return refusal(422, "Send JSON, and say so: Content-Type: application/json.")
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        said = first["msg"].removeprefix("Value error, ")
        return refusal(422, f"{place or 'the body'}: {said}. Send {EXAMPLE}.")

    @app.exception_handler(HTTPException)
    async def not_found(_: Request, error: HTTPException) -> JSONResponse:
        """One line for what is not there."""
        return refusal(error.status_code, f"{error.detail}. There are POST /answer, GET /health and GET /metrics.")

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
        if dataset.answer_kind == "choice" and (lacking := [n for n, one in enumerate(questions) if not one.choices]):
            return refusal(422, f"questions.{lacking[0]} has no choices, and {dataset.name} asks for one of them.")
        start = time.monotonic()

        async def one(question: Question) -> Given:
            given = await cascade.answer(question)
            metrics.answered(given, time.monotonic() - start)
            return given

        try:
            given = await _all(one(question) for question in questions)
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


def refusal(status: int, why: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A request that is not answered, and the reason in one line."""
    return JSONResponse({"error": why}, status, headers)

"""The client of a teacher: any OpenAI-compatible endpoint, ours or the user's, through one code path.

    config = TeacherConfig(base_url="http://127.0.0.1:8000/v1", model="lab")
    async with Teacher(config, SamplingConfig(n=5)) as teacher:
        await teacher.check()
        async for reply in teacher.sample_many(requests):
            ...

Retries are this module's own, not the openai package's: it has to await a server's restart, to honour long
Retry-After headers, and to try again when a reply with status 200 is nonsense.
"""

import asyncio
import contextlib
import email.utils
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx2  # the HTTP library inside the openai package
import openai

from models.errors import TeacherFailed, TeacherUnavailable
from models.teacher_api import (
    NonsenseError,
    TeacherReply,
    TeacherRequest,
    TeacherSample,
    read_reply,
    request_body,
    request_path,
)
from models.teacher_refusals import (
    NO_QUOTA,
    RequestRefused,
    TeacherKey,
    endpoint_words,
    redactor,
    refusal_text,
    refused_request,
    wrong_model_text,
)
from models.teacher_settings import SamplingConfig, TeacherConfig

__all__ = [
    "RequestRefused",
    "SamplingConfig",
    "Teacher",
    "TeacherConfig",
    "TeacherKey",
    "TeacherReply",
    "TeacherRequest",
    "TeacherSample",
]

logger = logging.getLogger(__name__)
if logging.getLogger("httpx2").level == logging.NOTSET:
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it writes a line per request at INFO

MOST_RECOVERIES = 20  # per request: a server that is up and still drops this one's connection is not coming round
KEEP_ALIVE_S = 3.0  # below the 5 s after which vLLM's server closes an idle connection, so that none is found closed


@dataclass(eq=False)
class _AttemptError(Exception):
    """One attempt failed in a way that may pass.

    Attributes:
        what: for people.
        connection: whether there was no connection, or it broke.
        server: whether the server may be down or dying, so that the supervisor should look.
        wait_s: seconds the endpoint asked to wait, if it did.
    """

    what: str
    connection: bool = False
    server: bool = False
    wait_s: float | None = None


class Teacher:
    """Samples a teacher; many requests in flight, each retried until it is answered or hopeless.

    Args:
        config: where the teacher is.
        sampling: how it is sampled.
        recover: awaited when the server may be down; starts it again if need be and returns whether it is up.
            `VllmServer.ensure_alive` is one. Requests that fail meanwhile share one call. What it raises ends
            the sampling.
        key: the endpoint's; None takes it from QCRD_TEACHER_API_KEY or OPENAI_API_KEY.

    Raises:
        TeacherFailed: the key cannot be one.
    """

    def __init__(
        self,
        config: TeacherConfig,
        sampling: SamplingConfig,
        recover: Callable[[], Awaitable[bool]] | None = None,
        key: TeacherKey | None = None,
    ) -> None:
        self.config = config
        self.sampling = sampling
        self._recover = recover
        self._recovery: asyncio.Task[bool] | None = None
        key = key or TeacherKey.of_environment()
        key.check()
        self._key_place = key.place
        self._redact = redactor(key.value)
        self._client = openai.AsyncOpenAI(
            api_key=key.value or "none",
            base_url=config.base_url,
            max_retries=0,
            # The aiohttp transport needs half of httpx's processor time per request.
            http_client=openai.DefaultAioHttpClient(
                limits=httpx2.Limits(
                    max_connections=config.in_flight + 8,
                    max_keepalive_connections=config.in_flight + 8,
                    keepalive_expiry=KEEP_ALIVE_S,
                ),
                timeout=httpx2.Timeout(config.request_timeout_s, connect=config.connect_timeout_s),
                # A proxy that is set for the outside world cannot reach this machine's own server.
                trust_env=not _is_loopback(config.base_url),
            ),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes all connections; a recovery under way is cancelled."""
        if self._recovery is not None and not self._recovery.done():
            self._recovery.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._recovery
        await self._client.close()

    async def check(self) -> None:
        """Asks the endpoint what it serves, so that a wrong URL, key or model name shows before any sampling.

        An endpoint that does not list models passes; its first request will tell.

        Raises:
            TeacherFailed: it refuses the key, or lists models and ours is not among them.
            TeacherUnavailable: it cannot be reached.
        """
        offered: list[str] = []
        failure: TeacherFailed | None = None
        try:
            offered = await self.models()
        except openai.APIConnectionError as error:
            failure = TeacherUnavailable(f"cannot reach {self.config.base_url}: {self._cause(error)}")
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                quote = self._redact(endpoint_words(error.response.content))
                failure = TeacherFailed(refusal_text(error.status_code, self.config.base_url, quote, self._key_place))
        if failure is not None:
            raise failure
        if offered and self.config.model not in offered:
            raise TeacherFailed(wrong_model_text(self.config.model, self.config.base_url, offered))

    async def models(self) -> list[str]:
        """Names of the models the endpoint offers; empty where it answers with anything but a list of models.

        Raises:
            openai.APIError: it cannot be reached or refuses.
        """
        timeout = httpx2.Timeout(30.0, connect=self.config.connect_timeout_s)
        response = await self._client.get("/models", cast_to=httpx2.Response, options={"timeout": timeout})
        try:
            return [str(model["id"]) for model in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            return []

    async def sample(self, request: TeacherRequest) -> TeacherReply:
        """Samples one question.

        Raises:
            RequestRefused: this request cannot be answered, others can.
            TeacherFailed: the endpoint refused for good.
            TeacherUnavailable: it kept failing past the retries.
            ServerFailed: from `recover`.
        """
        failures = recoveries = 0
        while True:
            try:
                return await self._attempt(request)
            except _AttemptError as caught:
                trouble = caught
            if self._recover is not None and trouble.server:
                alive = await self._recover_once(self._recover)
                if alive and trouble.connection and recoveries < MOST_RECOVERIES:
                    recoveries += 1  # not this request's failure: it was under way when the server went down
                    continue
            failures += 1
            if failures > self.config.retries:
                raise TeacherUnavailable(
                    f"{self.config.base_url} failed {failures} times in a row for request {request.request_id}; "
                    f"last: {trouble.what}"
                )
            wait_s = self._wait(failures, trouble)
            logger.info("request %s: %s; again in %.1f s", request.request_id, trouble.what, wait_s)
            await asyncio.sleep(wait_s)

    async def sample_many(
        self, requests: Iterable[TeacherRequest], on_refused: Callable[[RequestRefused], None] | None = None
    ) -> AsyncGenerator[TeacherReply, None]:
        """Samples many questions, `in_flight` at a time, and yields each reply as it finishes, in no set order.

        `requests` may be endless: it is read only as places become free. When the caller is slow, at most
        `in_flight` finished replies wait for it. Wrap in `contextlib.aclosing` when leaving the loop early.

        Args:
            requests: what to ask.
            on_refused: called with a request that cannot be answered, and sampling goes on; without it, raised.

        Raises:
            What `sample` raises, after the replies that had already come in were yielded.
        """
        source = iter(requests)
        finished: asyncio.Queue[TeacherReply | Exception | None] = asyncio.Queue(maxsize=self.config.in_flight)

        async def work() -> None:
            # All workers draw from the one source; there is no await in the drawing, so none draws twice.
            try:
                for request in source:
                    try:
                        await finished.put(await self.sample(request))
                    except RequestRefused as refused:
                        if on_refused is None:
                            raise
                        on_refused(refused)
                await finished.put(None)
            except Exception as error:
                await finished.put(error)

        workers = [asyncio.create_task(work()) for _ in range(self.config.in_flight)]
        working = len(workers)
        try:
            while working:
                item = await finished.get()
                if isinstance(item, TeacherReply):
                    yield item
                elif item is None:
                    working -= 1
                else:
                    while not finished.empty():
                        if isinstance(paid_for := finished.get_nowait(), TeacherReply):
                            yield paid_for
                    raise item
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _attempt(self, request: TeacherRequest) -> TeacherReply:
        body = request_body(self.config.model, self.sampling, request, self.config.return_token_ids)
        # Errors are raised after the handlers, not in them: the openai package's exceptions hold the request with its
        # key, and would stay reachable as the context of ours.
        try:
            # The HTTP timeout is one of silence; this one ends a reply that trickles in, too.
            async with asyncio.timeout(self.config.request_timeout_s):
                response = await self._client.post(
                    request_path(self.sampling), body=body, cast_to=httpx2.Response, options={"max_retries": 0}
                )
            return read_reply(response.content, self.sampling, request)
        except NonsenseError as nonsense:
            failure: Exception = _AttemptError(self._redact(str(nonsense)))
        except TimeoutError:
            failure = _AttemptError(f"no reply within {self.config.request_timeout_s:g} s", server=True)
        except openai.APIConnectionError as error:
            # Told apart by its cause: openai 3.52 calls every error of aiohttp's connections a timeout, as its
            # transport turns a refused or lost connection into httpx's ConnectTimeout.
            if isinstance(error, openai.APITimeoutError) and not isinstance(error.__cause__, httpx2.ConnectTimeout):
                failure = _AttemptError(f"no reply within {self.config.request_timeout_s:g} s", server=True)
            else:
                failure = _AttemptError(f"no connection: {self._cause(error)}", connection=True, server=True)
        except openai.APIStatusError as error:
            failure = await self._explain(request, error)
        raise failure

    async def _explain(self, request: TeacherRequest, error: openai.APIStatusError) -> Exception:
        """The exception that an error status stands for; a `_AttemptError` where trying again may help."""
        status, url = error.status_code, self.config.base_url
        words = endpoint_words(error.response.content)
        quote = self._redact(words)
        if status == 429 and not NO_QUOTA.search(words):
            asked_s = retry_after_s(error.response.headers)
            if asked_s is not None and asked_s > self.config.retry_after_most_s:
                return TeacherUnavailable(
                    f"{url} asks to wait {asked_s:.0f} s (429), more than the {self.config.retry_after_most_s:.0f} s "
                    f"allowed by retry_after_most_s: {quote}"
                )
            return _AttemptError(f"429 too many requests: {quote}", wait_s=asked_s)
        if status >= 500 or status in (408, 409, 425):
            return _AttemptError(f"{status}: {quote}", server=True, wait_s=retry_after_s(error.response.headers))
        if status == 404:
            return TeacherFailed(await self._not_found(quote))
        return refused_request(request.request_id, status, words, quote) or TeacherFailed(
            refusal_text(status, url, quote, self._key_place)
        )

    async def _not_found(self, quote: str) -> str:
        """Says whether it is the model or the API that is not there."""
        url = self.config.base_url
        try:
            offered = await self.models()
        except openai.APIError:
            return f"no OpenAI-compatible API at {url} (404): {quote} - should the URL end in /v1?"
        if self.config.model in offered:
            return f"{url} serves {self.config.model!r} but not {request_path(self.sampling)} (404): {quote}"
        return wrong_model_text(self.config.model, url, offered)

    async def _recover_once(self, recover: Callable[[], Awaitable[bool]]) -> bool:
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.ensure_future(_awaited(recover))
            # Marks an error as seen even when every request that waits for it was cancelled.
            self._recovery.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._recovery)  # one cancelled request must not stop it for the others

    def _wait(self, failures: int, trouble: _AttemptError) -> float:
        """Seconds before the next try: what the endpoint asked for, else exponential; jitter spreads the crowd."""
        if trouble.wait_s is not None:
            return min(trouble.wait_s, self.config.retry_after_most_s) + random.uniform(0, 0.1)  # noqa: S311
        ceiling = min(self.config.backoff_most_s, self.config.backoff_first_s * 2.0 ** min(failures - 1, 30))
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311

    def _cause(self, error: openai.APIConnectionError) -> str:
        return self._redact(str(error.__cause__ or error) or type(error.__cause__).__name__)


async def _awaited(recover: Callable[[], Awaitable[bool]]) -> bool:
    return await recover()


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks to wait: a number or an HTTP date; None where there is none."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")

"""Asks one endpoint one thing at a time, and says what came of it. Who tries again, and how often, is `models.teacher`.

Endpoints differ in what they take; the refusals of the first requests teach that (`models.teacher_dialect`).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2  # the HTTP library inside the openai package
import openai

from models.errors import TeacherFailed, TeacherUnavailable
from models.teacher_api import TeacherReply, TeacherRequest, request_body, request_path
from models.teacher_dialect import Dialect
from models.teacher_refusals import (
    Refusal,
    RequestRefused,
    TeacherKey,
    redactor,
    refusal_text,
    trouble_with_prompt,
    unlisted_text,
    wrong_model_text,
)
from models.teacher_replies import ErrorInReplyError, NonsenseError, read_reply
from models.teacher_settings import MOST_IN_FLIGHT, SamplingConfig, TeacherConfig

logger = logging.getLogger(__name__)
if logging.getLogger("httpx2").level == logging.NOTSET:
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it writes a line per request at INFO

KEEP_ALIVE_S = 3.0  # below the 5 s after which vLLM's server closes an idle connection, so that none is found closed


@dataclass(eq=False)
class AttemptError(Exception):
    """One attempt failed in a way that may pass.

    Attributes:
        what: for people.
        connection: whether there was no connection, or it broke.
        replied: whether a reply came, if a bad one.
        server: whether the server may be down or dying, so that the supervisor should look.
        limited: whether it was one request too many for now.
        late: whether no reply came in time.
        elsewhere: whether another endpoint may answer at once.
        wait_s: seconds the endpoint asked to wait, if it did.
    """

    what: str
    connection: bool = False
    replied: bool = False
    server: bool = False
    limited: bool = False
    late: bool = False
    elsewhere: bool = False
    wait_s: float | None = None


@dataclass(eq=False)
class DoubtfulError(Exception):
    """A request was refused for no known reason: because of its question, or as every request would be.

    Attributes:
        what: the endpoint's words, with the status.
        if_all: the error, if it refuses every request.
    """

    what: str
    if_all: TeacherFailed


class TeacherEndpoint:
    """An endpoint, and what is known about it.

    Args:
        config: where it is.
        sampling: how it is sampled.
        key: the endpoint's.
        on_learnt: called with what a refusal taught about it, such as "no seeds".
        dialect: how it is asked, as far as that is known; what is learnt goes into it.

    Attributes:
        answered: requests it answered so far.
        slowest_s: seconds that the slowest of them took.

    Raises:
        TeacherFailed: the key cannot be one.
    """

    def __init__(
        self,
        config: TeacherConfig,
        sampling: SamplingConfig,
        key: TeacherKey,
        on_learnt: Callable[[str], None] | None,
        dialect: Dialect,
    ) -> None:
        self.config = config
        self.sampling = sampling
        self.answered = 0
        self.slowest_s = 0.0
        self._on_learnt = on_learnt
        self._dialect = dialect
        self._most_came = 0  # samples in one reply
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
                    max_connections=(config.in_flight or MOST_IN_FLIGHT) + 8,
                    max_keepalive_connections=(config.in_flight or MOST_IN_FLIGHT) + 8,
                    keepalive_expiry=KEEP_ALIVE_S,
                ),
                timeout=httpx2.Timeout(config.request_timeout_s, connect=config.connect_timeout_s),
                # A proxy that is set for the outside world cannot reach this machine's own server.
                trust_env=not is_loopback(config.base_url),
            ),
        )

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.close()

    async def check(self) -> str | None:
        """Asks what it serves, so that a wrong URL or key shows before any sampling.

        Returns:
            What to note: many endpoints list some models only, or under other names, so one that does not list ours is
            asked for it all the same. None where there is nothing, also where it lists no models.

        Raises:
            TeacherFailed: it refuses the key.
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
                quote = self._redact(_refusal(error).words)
                failure = TeacherFailed(refusal_text(error.status_code, self.config.base_url, quote, self._key_place))
        if failure is not None:
            raise failure
        if offered and self.config.model not in offered:
            return unlisted_text(self.config.model, self.config.base_url, offered)
        return None

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

    async def ask(self, request: TeacherRequest) -> TeacherReply:
        """Asks once, and again only where a refusal teaches how to. The reply may hold fewer samples than were wanted.

        Raises:
            AttemptError: it failed in a way that may pass.
            DoubtfulError: it refused for no known reason.
            RequestRefused: it refused this prompt.
            TeacherFailed, TeacherUnavailable: trying again would not help.
        """
        while True:
            asked = request.part(0, min(request.n, self._dialect.most_choices or request.n))
            standard = request_body(self.config.model, self.sampling, asked, self.config.return_token_ids)
            sent = self._dialect.body(standard, self.sampling.extra_body)
            outcome = await self._send(asked, sent)
            if isinstance(outcome, TeacherReply):
                return outcome
            learnt = None if trouble_with_prompt(outcome) else self._dialect.learn(outcome, sent)
            if learnt is None:
                raise await self._explain(request, outcome)
            if learnt:
                logger.info("%s takes %s: %s", self.config.base_url, learnt, self._redact(outcome.words))
                if self._on_learnt is not None:
                    self._on_learnt(learnt)

    async def _send(self, asked: TeacherRequest, sent: dict[str, Any]) -> TeacherReply | Refusal:
        start = time.monotonic()
        # Errors are raised after the handlers, not in them: the openai package's exceptions hold the request with its
        # key, and would stay reachable as the context of ours.
        try:
            # The HTTP timeout is one of silence; this one ends a reply that trickles in, too.
            async with asyncio.timeout(self.config.request_timeout_s):
                response = await self._client.post(
                    request_path(self.sampling), body=sent, cast_to=httpx2.Response, options={"max_retries": 0}
                )
            reply = read_reply(response.content, self.sampling, asked, sent)
            self.answered += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - start)
            self._count_samples(asked.n, len(reply.samples))
            return reply
        except NonsenseError as nonsense:
            failure = AttemptError(self._redact(str(nonsense)), replied=True)
        except ErrorInReplyError as disguised:
            return Refusal.inside(disguised.error)
        except TimeoutError:
            failure = AttemptError(f"no reply within {self.config.request_timeout_s:g} s", server=True, late=True)
        except openai.APIConnectionError as error:
            # Told apart by its cause: openai 3.52 calls every error of aiohttp's connections a timeout, as its
            # transport turns a refused or lost connection into httpx's ConnectTimeout.
            if isinstance(error, openai.APITimeoutError) and not isinstance(error.__cause__, httpx2.ConnectTimeout):
                failure = AttemptError(f"no reply within {self.config.request_timeout_s:g} s", server=True, late=True)
            else:
                failure = AttemptError(f"no connection: {self._cause(error)}", connection=True, server=True)
        except openai.APIStatusError as error:
            return _refusal(error)
        raise failure

    def _count_samples(self, asked: int, came: int) -> None:
        """Learns how many samples one request brings: as many as ever came, once fewer came than were asked for."""
        known, self._most_came = self._dialect.most_choices, max(self._most_came, came)
        if came < asked and (known is None or known > self._most_came):
            self._dialect.most_choices = self._most_came
            logger.info("%s gave %d samples of %d; asking for no more at once", self.config.base_url, came, asked)
        elif known is not None and came > known:
            self._dialect.most_choices = None  # fewer came by chance: this was asked before that was known

    async def _explain(self, request: TeacherRequest, refusal: Refusal) -> Exception:
        """The exception that a refusal stands for."""
        status, url, asked_s = refusal.status, self.config.base_url, refusal.wait_s
        quote = self._redact(refusal.words)
        if trouble := trouble_with_prompt(refusal):
            return RequestRefused(request.request_id, f"{trouble}: {quote}")
        if status == 429 and not refusal.quota:
            if asked_s is not None and asked_s > self.config.retry_after_most_s:
                return TeacherUnavailable(
                    f"{url} asks to wait {asked_s:.0f} s (429), more than the {self.config.retry_after_most_s:.0f} s "
                    f"allowed by retry_after_most_s: {quote}"
                )
            return AttemptError(f"429 too many requests: {quote}", limited=True, wait_s=asked_s)
        if status >= 500 or status in (408, 409, 425):
            return AttemptError(f"{status}: {quote}", replied=True, server=True, wait_s=asked_s)
        if status == 404:
            return TeacherFailed(await self._not_found(quote))
        failed = TeacherFailed(refusal_text(status, url, quote, self._key_place))
        return failed if status in (401, 402, 403, 429) else DoubtfulError(f"{status}: {quote}", failed)

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

    def _cause(self, error: openai.APIConnectionError) -> str:
        return self._redact(str(error.__cause__ or error) or type(error.__cause__).__name__)


def _refusal(error: openai.APIStatusError) -> Refusal:
    return Refusal.of(error.status_code, error.response.content, error.response.headers)


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")

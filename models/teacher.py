"""The client of a teacher: any OpenAI-compatible endpoint, ours or the user's, through one code path.

    config = TeacherConfig(base_url="http://127.0.0.1:8000/v1", model="lab")
    async with Teacher(config, SamplingConfig(n=5)) as teacher:
        await teacher.check()
        async for reply in teacher.sample_many(requests):
            ...

Retries are this module's own, not the openai package's: it has to await a server's restart, to honour long
Retry-After headers, to try again when a reply with status 200 is nonsense, and to tell whether a refusal concerns one
question or all.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Protocol, Self

from models.errors import TeacherFailed, TeacherUnavailable
from models.teacher_api import TeacherReply, TeacherRequest, TeacherSample
from models.teacher_dialect import Dialect
from models.teacher_endpoint import AttemptError, DoubtfulError, TeacherEndpoint
from models.teacher_pool import Pool
from models.teacher_refusals import RequestRefused, TeacherKey
from models.teacher_settings import MOST_IN_FLIGHT, SamplingConfig, TeacherConfig

__all__ = [
    "Further",
    "Payer",
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

MOST_RECOVERIES = 20  # per request: a server that is up and still drops this one's connection is not coming round
Further = Callable[[TeacherReply], list[TeacherRequest]]
"""What to ask because of a reply."""


class Payer(Protocol):
    """Who decides whether a request can be paid."""

    async def admit(self, request: TeacherRequest) -> bool:
        """Whether it may be sent; may wait for others to be settled."""

    async def settle(self, request: TeacherRequest, reply: TeacherReply | None) -> None:
        """Is told what came of an admitted request; None: nothing."""

    def spend(self, reply: TeacherReply) -> None:
        """Is told of a reply to a question of the client's own."""


ARRIVAL_LEAST_S = 10.0  # that requests under way are given to arrive when the endpoint has failed for good


class Teacher:
    """Samples a teacher; many requests in flight, each retried until it is answered or hopeless.

    Args:
        config: where the teacher is.
        sampling: how it is sampled.
        recover: awaited when the server may be down; starts it again if need be and returns whether it is up.
            `VllmServer.ensure_alive` is one. Requests that fail meanwhile share one call. What it raises ends
            the sampling.
        key: the endpoint's; None takes it from QCRD_TEACHER_API_KEY or OPENAI_API_KEY.
        on_learnt: called with what a refusal taught about the endpoint, such as "no seeds".
        payer: decides which requests of `sample_many` can be paid; None pays for all.
        dialects: what is known of the endpoints, by URL. What is learnt goes into it, so that clients with the same
            `sampling` that share one learn it once.

    Raises:
        TeacherFailed: the key cannot be one.
    """

    def __init__(
        self,
        config: TeacherConfig,
        sampling: SamplingConfig,
        recover: Callable[[], Awaitable[bool]] | None = None,
        key: TeacherKey | None = None,
        on_learnt: Callable[[str], None] | None = None,
        payer: Payer | None = None,
        dialects: dict[str, Dialect] | None = None,
    ) -> None:
        self.config = config
        self._payer = payer
        dialects = {} if dialects is None else dialects
        key = key or TeacherKey.of_environment()
        urls = dict.fromkeys((config.base_url, *config.other_urls))
        self._pool = Pool(
            [
                TeacherEndpoint(
                    config.model_copy(update={"base_url": url}),
                    sampling,
                    key,
                    on_learnt,
                    dialects.setdefault(url, Dialect.of(sampling)),
                )
                for url in urls
            ],
            config.in_flight,
        )
        self._urls = ", ".join(urls)
        self._recover = recover
        self._recovery: asyncio.Task[bool] | None = None
        self._over = asyncio.Event()  # the sampling ends: nothing more is tried
        self._doubt = asyncio.Lock()
        self._answers_none = False

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
        await self._pool.close()

    async def check(self) -> list[str]:
        """Asks the endpoints what they serve; see `Pool.check`."""
        return await self._pool.check()

    async def sample(self, request: TeacherRequest) -> TeacherReply:
        """Samples one question: what one reply brings, which from some endpoints is less than was asked for.

        Raises:
            RequestRefused: this request cannot be answered, others can.
            TeacherFailed: the endpoint refused for good.
            TeacherUnavailable: it kept failing past the retries.
            ServerFailed: from `recover`.
        """
        failures = recoveries = 0
        first = before = self._pool.answered
        while True:
            sent = self._pool.answered
            doubt: DoubtfulError | None = None
            try:
                return await self._pool.ask(request)
            except DoubtfulError as caught:
                doubt = caught
            except AttemptError as caught:
                trouble = caught
            if doubt is not None:
                if await self._answers_others(request, sent):
                    raise RequestRefused(request.request_id, f"refused, while others are answered ({doubt.what})")
                raise doubt.if_all
            if trouble.elsewhere and recoveries < MOST_RECOVERIES:
                recoveries += 1  # that endpoint's failure, not this request's
                continue
            if self._recover is not None and trouble.server:
                alive = await self._recover_once(self._recover)
                if alive and trouble.connection and recoveries < MOST_RECOVERIES:
                    recoveries += 1  # not this request's failure: it was under way when the server went down
                    continue
            if not (trouble.limited and self._pool.answered > before):
                failures += 1  # a rate limit that lets others through will let this one through, too
            before = self._pool.answered
            wait_s = self._wait(failures, trouble)
            if failures > self.config.retries and trouble.replied and await self._answers_others(request, first):
                raise RequestRefused(
                    request.request_id, f"failed {failures} times, while others are answered; last: {trouble.what}"
                )
            logger.info("request %s: %s; again in %.1f s", request.request_id, trouble.what, wait_s)
            if failures > self.config.retries or await self._over_within(wait_s):
                raise TeacherUnavailable(
                    f"{self._urls} failed {failures} times in a row for request {request.request_id}; "
                    f"last: {trouble.what}"
                )

    async def sample_many(
        self,
        requests: Iterable[TeacherRequest],
        on_refused: Callable[[RequestRefused], None] | None = None,
        further: Further | None = None,
    ) -> AsyncGenerator[TeacherReply, None]:
        """Samples many questions at a time, and yields each reply as it finishes, in no set order.

        A request may bring several replies: what the first one lacks is asked for again. `requests` may be endless: it
        is read only as places become free. When the caller is slow, only as many replies wait for it.
        Wrap in `contextlib.aclosing` when leaving the loop early.

        Args:
            requests: what to ask.
            on_refused: called with a request that cannot be answered, and sampling goes on; without it, raised.
            further: called with each reply; the requests that it returns are made next.

        Raises:
            What `sample` raises. What is under way then is given time to arrive, and is yielded first.
        """
        source = iter(requests)
        most = (self.config.in_flight or MOST_IN_FLIGHT) * len(self._pool.places)
        finished: asyncio.Queue[TeacherReply | Exception | None] = asyncio.Queue(maxsize=most)
        self._over.clear()
        self._pool.open()

        async def work() -> None:
            # All workers draw from the one source; there is no await in the drawing, so none draws twice.
            try:
                while not self._over.is_set() and (request := next(source, None)) is not None:
                    try:
                        await self._answer(request, finished, further)
                    except RequestRefused as refused:
                        if on_refused is None:
                            raise
                        on_refused(refused)
                await finished.put(None)
            except Exception as error:
                await finished.put(error)

        workers = [asyncio.create_task(work()) for _ in range(most)]
        working = len(workers)
        failure: Exception | None = None
        arrival: float | None = None  # the loop's time by which what is under way must have arrived
        try:
            while working:
                try:
                    async with asyncio.timeout_at(arrival):
                        item = await finished.get()
                except TimeoutError:
                    break
                if isinstance(item, TeacherReply):
                    yield item
                    continue
                working -= 1
                if item is not None and failure is None:
                    failure = item
                    self._over.set()
                    await self._pool.shut()
                    arrival = asyncio.get_running_loop().time() + self._arrival_s()
            if failure is not None:
                raise failure
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _answer(
        self,
        request: TeacherRequest,
        finished: asyncio.Queue[TeacherReply | Exception | None],
        further: Further | None,
    ) -> None:
        """Asks until all samples of a request are there, and those that `further` wants for them, or until they cannot
        be paid."""
        missing = [request]
        while missing and not self._over.is_set():
            asked = missing.pop(0)
            if self._payer is not None and not await self._payer.admit(asked):
                return
            reply: TeacherReply | None = None
            try:
                reply = await self.sample(asked)
            finally:
                if self._payer is not None:
                    await self._payer.settle(asked, reply)
            missing = [*asked.without({sample.index for sample in reply.samples}), *missing]
            if further is not None:
                missing += further(reply)
            await finished.put(reply)

    async def _answers_others(self, request: TeacherRequest, before: int) -> bool:
        """Whether the endpoint answers other questions than this request's, whose own trouble it is then.

        Args:
            before: how many requests it had answered when that one was sent.
        """
        async with self._doubt:  # of many that fail at once, one finds out for all
            if self._pool.answered == before and not self._answers_none:
                try:
                    reply = await self._pool.ask(_harmless(request))
                    if self._payer is not None:
                        self._payer.spend(reply)
                except AttemptError as error:
                    self._answers_none = not error.limited
                except (DoubtfulError, TeacherFailed):
                    self._answers_none = True
        return not self._answers_none

    def _arrival_s(self) -> float:
        """Seconds for what is under way to arrive: three times what the slowest reply took. Later ones do not come."""
        return min(self.config.request_timeout_s, max(ARRIVAL_LEAST_S, 3 * self._pool.slowest_s))

    async def _over_within(self, seconds: float) -> bool:
        """Sleeps, but no longer than until the sampling ends; returns whether it does."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
        return self._over.is_set()

    async def _recover_once(self, recover: Callable[[], Awaitable[bool]]) -> bool:
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.ensure_future(_awaited(recover))
            # Marks an error as seen even when every request that waits for it was cancelled.
            self._recovery.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._recovery)  # one cancelled request must not stop it for the others

    def _wait(self, failures: int, trouble: AttemptError) -> float:
        """Seconds before the next try: what the endpoint asked for, else exponential; jitter spreads the crowd."""
        if trouble.wait_s is not None:
            return min(trouble.wait_s, self.config.retry_after_most_s) + random.uniform(0, 0.1)  # noqa: S311
        ceiling = min(self.config.backoff_most_s, self.config.backoff_first_s * 2.0 ** min(max(failures - 1, 0), 30))
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311


async def _awaited(recover: Callable[[], Awaitable[bool]]) -> bool:
    return await recover()


def _harmless(request: TeacherRequest) -> TeacherRequest:
    """A request like this one, but with a question that no endpoint finds fault with, unless it does with all."""
    messages = [{"role": "system", "content": "Answer briefly."}] if request.messages[0]["role"] == "system" else []
    messages.append({"role": "user", "content": "What is 1 + 1?"})
    return TeacherRequest("harmless", "Q: What is 1 + 1?\nA:", messages, request.stop, request.n, request.seed)

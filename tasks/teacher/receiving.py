"""Asks an endpoint many questions and hands every finished one over soon, however the asking ends."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial

from models.teacher import (
    Further,
    Payer,
    RequestRefused,
    SamplingConfig,
    Teacher,
    TeacherConfig,
    TeacherKey,
    TeacherReply,
    TeacherRequest,
)
from models.teacher_dialect import Dialect
from storage.errors import StoreWriteFailed

STORE_EVERY_S = 0.8
"""Seconds between two part files at first; below a second, so that a finished question is stored within one."""
STORE_SHARE, STORE_AT_MOST_S = 1 / 200, 300.0
"""Later it is this share of the time that has passed, and at most so many seconds: days of a part file a second would
be more files than an object store lists in minutes. A kill -9 costs no more than that share of what was asked."""


def receive(
    requests: Sequence[TeacherRequest],
    store: Callable[[list[TeacherReply], float], None],
    config: TeacherConfig,
    sampling: SamplingConfig,
    *,
    on_refused: Callable[[RequestRefused], None],
    notice: Callable[[str], None],
    further: Further | None = None,
    on_learnt: Callable[[str], None] | None = None,
    recover: Callable[[], Awaitable[bool]] | None = None,
    key: TeacherKey | None = None,
    payer: Payer | None = None,
    dialects: dict[str, Dialect] | None = None,
) -> float:
    """Makes all requests. However it ends (an error, Ctrl-C), replies that have arrived are stored first.

    Args:
        store: called with replies and the seconds since the first request, each reply once. A request may bring
            several replies.
        config: where the endpoint is.
        sampling: how it is sampled.
        on_refused: called with each request that the endpoint refuses while it answers others.
        notice: called with sentences that say what is going on.
        further: called with each reply; returns what is to be asked because of it.
        on_learnt: called with what a refusal taught about the endpoint, such as "no seeds".
        recover: restarts a supervised server (`VllmServer.ensure_alive`).
        key: the endpoint's key; None takes it from the environment.
        payer: decides which requests can be paid; None pays for all.
        dialects: see `Teacher`.

    Returns:
        Seconds since the first request.

    Raises:
        TeacherFailed, TeacherUnavailable, ServerFailed: from the endpoint.
        StoreWriteFailed: from `store`.
    """
    teacher = partial(Teacher, config, sampling, recover, key, on_learnt, payer, dialects)
    return asyncio.run(_receive(requests, store, teacher, on_refused, further, notice))


def store_pause(elapsed_s: float) -> float:
    """Seconds until the next part file, after so many seconds of asking."""
    return min(max(STORE_EVERY_S, STORE_SHARE * elapsed_s), STORE_AT_MOST_S)


async def _receive(
    requests: Sequence[TeacherRequest],
    store: Callable[[list[TeacherReply], float], None],
    make_teacher: Callable[[], Teacher],
    on_refused: Callable[[RequestRefused], None],
    further: Further | None,
    notice: Callable[[str], None],
) -> float:
    finished: list[TeacherReply] = []

    def store_finished() -> None:
        batch = finished[:]
        del finished[: len(batch)]  # from here on they belong to the store, so that none is written twice
        store(batch, time.monotonic() - start)

    async def store_now_and_then() -> None:
        while True:
            await asyncio.sleep(store_pause(time.monotonic() - start))
            if finished:
                store_finished()

    async def collect(teacher: Teacher) -> None:
        async with aclosing(teacher.sample_many(iter(requests), on_refused, further)) as replies:
            async for reply in replies:
                finished.append(reply)

    async with make_teacher() as teacher:
        for note in await teacher.check():
            notice(note)
        start = time.monotonic()
        collecting = asyncio.create_task(collect(teacher))
        storing = asyncio.create_task(store_now_and_then())
        try:
            # If the store refuses a write, asking ends at once: replies cost money.
            await asyncio.wait([collecting, storing], return_when=asyncio.FIRST_COMPLETED)
            if storing.done():
                await storing
            await collecting
        finally:
            for task in (collecting, storing):
                task.cancel()
            outcomes = await asyncio.gather(collecting, storing, return_exceptions=True)
            if finished and not isinstance(outcomes[1], StoreWriteFailed):
                store_finished()
        return time.monotonic() - start

"""Several endpoints, and how many requests each has under way."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from aiohttp import web

from models.errors import TeacherFailed, TeacherUnavailable
from models.teacher import Teacher
from models.teacher_endpoint import AttemptError
from models.teacher_pool import FIRST_LIMIT, LESS, OUT_FIRST_S, WINDOW, Place
from models.teacher_settings import MOST_IN_FLIGHT
from tests.models.endpoint import SAMPLING, Endpoint, ask, config, good, hangs_up, says, serving

pytestmark = pytest.mark.usefixtures("planted_key")
LIMITED = AttemptError("429", limited=True)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def place(fixed: int | None = None) -> tuple[Any, Clock]:
    clock = Clock()
    return Place(None, fixed, clock), clock  # type: ignore[arg-type]


def test_the_number_grows_while_latency_holds_and_only_where_it_is_used() -> None:
    growing, _ = place()
    for _ in range(10_000):
        growing.answered(1.0, full=True)
    assert growing.limit == MOST_IN_FLIGHT
    idle, _ = place()
    for _ in range(1_000):
        idle.answered(1.0, full=False)
    assert idle.limit == FIRST_LIMIT


def test_it_shrinks_once_for_what_failed_together() -> None:
    shrinking, clock = place()
    for _ in range(10):
        shrinking.failed(LIMITED, 0.5)
    assert shrinking.limit == FIRST_LIMIT / 2, "the first time: it was doubled once too often"
    clock.now += 0.6
    shrinking.failed(AttemptError("no reply", server=True, late=True), 5.0)
    assert shrinking.limit == FIRST_LIMIT / 2 * LESS
    clock.now += 6
    shrinking.failed(AttemptError("500", replied=True), 0.5)
    assert shrinking.limit == FIRST_LIMIT / 2 * LESS, "an error is no sign of too many requests"
    for _ in range(100):
        clock.now += 10
        shrinking.failed(LIMITED, 0.5)
    assert shrinking.limit == 1


def test_it_shrinks_where_replies_wait_in_a_queue() -> None:
    queueing, clock = place()
    for _ in range(WINDOW):
        queueing.answered(1.0, full=True)
    most = queueing.limit
    for _ in range(WINDOW):
        clock.now += 1
        queueing.answered(3.0, full=True)
    assert queueing.limit < most


@pytest.mark.parametrize("sigma", [0.3, 0.5, 0.7])
def test_latency_that_varies_by_itself_is_no_queue(sigma: float) -> None:
    luck, (varying, clock) = random.Random(1), place()
    for _ in range(8_000):
        clock.now += 0.01
        varying.answered(luck.lognormvariate(0.0, sigma), full=True)
    assert varying.limit > 100


def test_what_takes_longer_for_good_is_no_queue_for_long() -> None:
    growing, clock = place()
    for seconds in [1.0] * 1_000 + [3.0] * 4_000:
        clock.now += 0.1
        growing.answered(seconds, full=True)
    assert growing.limit > 100


def test_a_fixed_number_stays() -> None:
    fixed, _ = place(7)
    for _ in range(100):
        fixed.answered(1.0, full=True)
        fixed.failed(LIMITED, 1.0)
    assert fixed.limit == 7


def test_an_endpoint_that_is_away_is_left_out_ever_longer_and_not_after_it_answers() -> None:
    away, clock = place()
    gone = AttemptError("no connection", connection=True, server=True)
    for _ in range(32):
        away.failed(gone, 0.1)
    assert away.out_for() == OUT_FIRST_S
    clock.now += OUT_FIRST_S
    assert away.out_for() == 0
    away.failed(gone, 0.1)
    assert away.out_for() == 2 * OUT_FIRST_S
    clock.now += 2 * OUT_FIRST_S
    away.answered(1.0, full=False)
    for _ in range(2):
        away.failed(AttemptError("503", replied=True, server=True), 0.1)
    assert away.out_for() == 0
    away.failed(AttemptError("503", replied=True, server=True), 0.1)
    assert away.out_for() == OUT_FIRST_S, "the third in a row"


async def sampled(endpoints: list[Endpoint], count: int, **settings: Any) -> Counter[str]:
    """Samples `count` questions; how many replies each question got."""
    first, *others = (endpoint.url for endpoint in endpoints)
    asked = config(endpoints[0], base_url=first, other_urls=tuple(others), **settings)
    replies: Counter[str] = Counter()
    async with Teacher(asked, SAMPLING) as teacher:
        async for reply in teacher.sample_many(ask(f"q{i}", n=1, seed=i) for i in range(count)):
            replies[reply.request_id] += 1
    return replies


def slowly(seconds: float) -> Any:
    async def answer(_: Endpoint, body: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.json_response(good(body))

    return answer


def test_requests_go_to_the_endpoint_with_the_fewest_under_way() -> None:
    async def scenario() -> tuple[Counter[str], int, int]:
        async with serving(*[slowly(0.2)] * 100) as slow, serving(*[slowly(0.02)] * 100) as quick:
            return await sampled([slow, quick], 60, in_flight=3), len(slow.bodies), len(quick.bodies)

    replies, slow, quick = asyncio.run(scenario())
    assert set(replies.values()) == {1}
    assert len(replies) == 60
    assert slow + quick == 60
    assert quick > 2 * slow > 0


def test_a_dead_endpoint_is_left_out_and_nobody_waits_for_it() -> None:
    async def scenario() -> tuple[Counter[str], list[str], int]:
        dead = Endpoint(url="http://127.0.0.1:9/v1")
        async with serving() as alive:
            replies = await sampled([dead, alive], 40, in_flight=4, retries=0)
            both = config(alive, base_url=dead.url, other_urls=(alive.url,))
            async with Teacher(both, SAMPLING) as teacher:
                return replies, await teacher.check(), len(alive.bodies)

    replies, notes, bodies = asyncio.run(scenario())
    assert (len(replies), bodies) == (40, 40)
    assert len(notes) == 1
    assert notes[0].startswith("cannot reach http://127.0.0.1:9/v1: ")
    assert notes[0].endswith("It is left out, and asked again later.")


def test_one_that_comes_back_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.teacher_pool.OUT_FIRST_S", 0.1)

    async def scenario() -> tuple[int, int, int]:
        async with serving(hangs_up) as first, serving(*[slowly(0.05)] * 100) as second:
            replies = await sampled([first, second], 40, in_flight=1)
            return len(replies), len(first.bodies), len(second.bodies)

    replies, first, second = asyncio.run(scenario())
    assert replies == 40
    assert first + second == 41
    assert first > 5


@pytest.mark.parametrize("reply", [(400, "no"), (404, "no such model"), (401, "no key"), (200, "<html>")])
@pytest.mark.parametrize("first", [True, False])
def test_of_several_one_that_refuses_everything_takes_no_question_with_it(reply: tuple[int, str], first: bool) -> None:
    async def scenario() -> tuple[int, int]:
        async with serving(*[says(*reply)] * 500) as refusing, serving(*[slowly(0.01)] * 500) as answering:
            both = [refusing, answering] if first else [answering, refusing]
            replies = await sampled(both, 100, in_flight=4, retries=1)
            return len(replies), len(refusing.bodies)

    replies, asked = asyncio.run(scenario())
    assert replies == 100
    assert asked < 40


def test_after_a_failure_for_good_nothing_more_is_sent() -> None:
    async def scenario() -> int:
        async with serving(slowly(0.05), says(402, "pay first"), *[slowly(0.2)] * 500) as endpoint:
            with pytest.raises(TeacherFailed, match="402"):
                await sampled([endpoint], 500)
            return len(endpoint.bodies)

    assert asyncio.run(scenario()) <= FIRST_LIMIT + 1


def test_none_that_answers_is_one_line_with_all_of_them() -> None:
    urls = ("http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1")

    async def scenario(check: bool) -> None:
        asked = config(Endpoint(url=urls[0]), other_urls=(urls[1],), retries=1)
        async with Teacher(asked, SAMPLING) as teacher:
            await (teacher.check() if check else teacher.sample(ask()))

    with pytest.raises(TeacherUnavailable, match=r"cannot reach http://127\.0\.0\.1:9/v1"):
        asyncio.run(scenario(check=True))
    with pytest.raises(TeacherUnavailable, match=f"^{urls[0]}, {urls[1]} failed 2 times in a row for request q1"):
        asyncio.run(scenario(check=False))


def test_under_a_rate_limit_the_number_settles_and_nothing_is_asked_twice() -> None:
    """Thirty requests at once are let through, the thirty-first is not: the number ends near thirty."""

    async def scenario() -> tuple[Counter[str], Counter[int], int]:
        under_way = 0

        async def limited(_: Endpoint, body: dict[str, Any]) -> web.StreamResponse:
            nonlocal under_way
            if under_way >= 30:
                return web.json_response({"error": {"message": "slow down"}}, status=429)
            under_way += 1
            await asyncio.sleep(0.02 * random.Random(body["seed"]).uniform(0.8, 1.2))
            under_way -= 1
            return web.json_response(good(body))

        async with serving(*[limited] * 5_000) as endpoint:
            replies = await sampled([endpoint], 1_500, backoff_first_s=0.02, backoff_most_s=0.05, retries=50)
            return replies, Counter(body["seed"] for body in endpoint.bodies), endpoint.most_under_way

    replies, asked, most = asyncio.run(scenario())
    assert set(replies.values()) == {1}
    assert len(replies) == 1_500
    assert sum(asked.values()) < 1.3 * 1_500, "few are refused"
    assert most < 64

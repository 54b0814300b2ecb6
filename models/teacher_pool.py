"""Which of a teacher's endpoints takes the next request, and how many each has under way.

One endpoint may be many machines, and nobody says how many requests it takes. So the number adapts, for each endpoint:
it grows while replies come about as fast as before, and shrinks with every 429 or timeout and when they take much
longer (queueing), as TCP does it (additive increase, multiplicative decrease; Chiu and Jain 1989). A set number stays.

Of several endpoints each request goes to the one with the fewest under way. One that cannot be reached is left out, and
asked again later.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from statistics import median

from models.errors import TeacherFailed, TeacherUnavailable
from models.teacher_api import TeacherReply, TeacherRequest
from models.teacher_endpoint import AttemptError, DoubtfulError, TeacherEndpoint
from models.teacher_refusals import RequestRefused
from models.teacher_settings import MOST_IN_FLIGHT

FIRST_LIMIT = 32
"""Requests under way at first where the number adapts."""
LESS, MORE = 0.9, 2.0
"""Times as many after a 429 or a timeout, and how many more after as many replies as may be under way."""
SLOWER = 2.0
"""Times the usual latency from which on replies wait in a queue."""
WINDOW, DRIFT = 32, 1.05
"""Replies whose median latency is looked at, and the factor by which the usual one may rise from window to window: what
takes longer for good, such as longer questions, is no queue."""
FAILURES = 3
"""Replies of a server in trouble, one after the other, after which it counts as away."""
OUT_FIRST_S, OUT_MOST_S = 2.0, 60.0
"""Seconds that an endpoint that is away is left out: the first time, and at most."""


class Place:
    """An endpoint, and how it does.

    Args:
        fixed: requests under way at most; None lets the number adapt.

    Attributes:
        under_way: requests now.
        limit: how many it may have.
    """

    def __init__(self, endpoint: TeacherEndpoint, fixed: int | None, clock: Callable[[], float] = time.monotonic):
        self.endpoint = endpoint
        self.under_way = 0
        self.limit = float(fixed or FIRST_LIMIT)
        self._adapts = fixed is None
        self._clock = clock
        self._doubling = True  # until the first trouble, as TCP's slow start
        self._latencies: list[float] = []
        self._usual: float | None = None  # median latency, seconds
        self._quiet_until = 0.0  # of what failed together, one failure counts
        self._failures = 0  # of the server, one after the other
        self._out_until = 0.0
        self._out_s = OUT_FIRST_S

    def free(self) -> bool:
        """Whether it may have one more request."""
        return self.under_way < int(self.limit)

    def out_for(self) -> float:
        """Seconds for which it is left out; 0 if it is not."""
        return max(0.0, self._out_until - self._clock())

    def answered(self, seconds: float, full: bool) -> None:
        """Notes a reply.

        Args:
            seconds: how long it took.
            full: whether as many were under way as may be, so that more could be tried.
        """
        self._failures, self._out_s = 0, OUT_FIRST_S
        if not self._adapts:
            return
        self._latencies.append(seconds)
        slower = False
        if len(self._latencies) == WINDOW:
            typical = median(self._latencies)
            self._latencies.clear()
            slower = self._usual is not None and typical > SLOWER * self._usual
            self._usual = typical if self._usual is None else min(typical, DRIFT * self._usual)
        if slower:
            self._shrink(seconds)
        elif full:
            self.limit = min(MOST_IN_FLIGHT, self.limit + (1.0 if self._doubling else MORE / self.limit))

    def failed(self, trouble: AttemptError, seconds: float) -> None:
        """Notes a failure."""
        self._failures += trouble.server or trouble.replied
        if trouble.connection or self._failures >= FAILURES:
            self.leave_out()
        elif self._adapts and (trouble.limited or trouble.late):
            self._shrink(seconds)

    def leave_out(self) -> None:
        """Leaves it out for a while, each time twice as long; what failed together counts once."""
        if self.out_for():
            return
        self._out_until = self._clock() + self._out_s
        self._out_s = min(2 * self._out_s, OUT_MOST_S)

    def _shrink(self, seconds: float) -> None:
        now = self._clock()
        if now >= self._quiet_until:
            self.limit = max(1.0, self.limit * (0.5 if self._doubling else LESS))  # doubled once too often
            self._doubling = False
            # What is under way now was sent under the old number and says nothing about the new one.
            self._quiet_until = now + max(seconds, self._usual or 0.0)


class Pool:
    """The endpoints of one teacher.

    Args:
        endpoints: at least one; they serve the same model.
        fixed: requests under way at each; None lets the number adapt.
    """

    def __init__(self, endpoints: Sequence[TeacherEndpoint], fixed: int | None) -> None:
        self.places = [Place(endpoint, fixed) for endpoint in endpoints]
        self._changed = asyncio.Condition()
        self._shut = False

    @property
    def answered(self) -> int:
        """Requests that were answered so far."""
        return sum(place.endpoint.answered for place in self.places)

    @property
    def slowest_s(self) -> float:
        """Seconds that the slowest of them took."""
        return max(place.endpoint.slowest_s for place in self.places)

    async def check(self) -> list[str]:
        """Asks every endpoint what it serves; see `TeacherEndpoint.check`. Of several, some may be away.

        Returns:
            What to note.
        """
        notes, away = [], []
        for place in self.places:
            try:
                note = await place.endpoint.check()
            except TeacherUnavailable as error:
                place.leave_out()
                away.append(error)
                continue
            notes += [note] if note else []
        if len(away) == len(self.places):
            raise away[0]
        return [*notes, *(f"{error}. It is left out, and asked again later." for error in away)]

    async def close(self) -> None:
        """Closes all connections."""
        await asyncio.gather(*(place.endpoint.close() for place in self.places))

    async def ask(self, request: TeacherRequest) -> TeacherReply:
        """Asks the endpoint with the fewest under way, as `TeacherEndpoint.ask` does, as soon as one is free.

        Raises:
            AttemptError: with `elsewhere` where another endpoint may answer at once.
            What `TeacherEndpoint.ask` raises else.
        """
        async with self._taken() as place:
            full = place.under_way >= int(place.limit)
            start = time.monotonic()
            try:
                reply = await place.endpoint.ask(request)
            except AttemptError as trouble:
                place.failed(trouble, time.monotonic() - start)
                trouble.elsewhere = place.out_for() > 0 and self._others(place)
                raise
            except (DoubtfulError, TeacherFailed) as refusal:
                # One that refuses everything is quick, so it would draw the most; what it says concerns itself alone.
                passing = isinstance(refusal, TeacherUnavailable) or not place.endpoint.answered
                if isinstance(refusal, RequestRefused) or not passing or not self._others(place):
                    raise
                place.leave_out()
                what = refusal.what if isinstance(refusal, DoubtfulError) else str(refusal)
            else:
                place.answered(time.monotonic() - start, full)
                return reply
            raise AttemptError(what, replied=True, elsewhere=True)

    def _others(self, place: Place) -> bool:
        """Whether another endpoint can be asked."""
        return any(other is not place and not other.out_for() for other in self.places)

    async def shut(self) -> None:
        """Nothing more is sent; who waits for a place gets an `AttemptError`."""
        self._shut = True
        async with self._changed:
            self._changed.notify_all()

    def open(self) -> None:
        """Requests are sent again."""
        self._shut = False

    @asynccontextmanager
    async def _taken(self) -> AsyncIterator[Place]:
        async with self._changed:
            place = None
            while not self._shut and (place := self._next()) is None:
                back_s = min((seconds for one in self.places if (seconds := one.out_for())), default=None)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(back_s):  # nobody is told when an endpoint is asked again
                        await self._changed.wait()
            if self._shut or place is None:
                raise AttemptError("the sampling ends")
            place.under_way += 1
        try:
            yield place
        finally:
            place.under_way -= 1
            async with self._changed:
                self._changed.notify(2)  # the freed place, and one that its growth made

    def _next(self) -> Place | None:
        """The endpoint to ask now; None while all that can be reached are full."""
        reachable = [place for place in self.places if not place.out_for()]
        if not reachable:  # then the one that comes back first is asked, and says what is wrong
            reachable = [min(self.places, key=Place.out_for)]
        free = [place for place in reachable if place.free()]
        return min(free, key=lambda place: place.under_way, default=None)

"""Does many small pieces of work together, as they come: the next group is what came while others were worked on.

So a single question waits for nobody, and many at a time cost little more than one.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Self, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class Overloaded(Exception):
    """Too many questions wait already; the same one may be asked again in a moment."""


class Grouping(Generic[In, Out]):
    """Work that is done in groups.

    Args:
        work: does a group, in a thread; returns the outcome of each piece, in their order. An outcome that is an
            exception is raised for its piece alone, what the work raises for all of them.
        who: does the work, in the error that too many wait.
        most: pieces in a group.
        waiting: pieces that may wait.
        groups: how many are worked on side by side.
    """

    def __init__(
        self,
        work: Callable[[Sequence[In]], Sequence[Out | Exception]],
        who: str,
        most: int,
        waiting: int,
        groups: int = 1,
    ) -> None:
        self._work = work
        self._who = who
        self._most = most
        self._groups = groups
        self._queue: asyncio.Queue[tuple[In, asyncio.Future[Out]]] = asyncio.Queue(waiting)
        self._threads = ThreadPoolExecutor(groups, who.replace(" ", "-"))
        self._loops: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._loops = [asyncio.create_task(self._run()) for _ in range(self._groups)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Pieces that wait."""
        return self._queue.qsize()

    async def do(self, piece: In, *, patient: bool = False) -> Out:
        """The outcome of one piece.

        Args:
            patient: wait for room where too many wait already.

        Raises:
            Overloaded: too many wait already.
            Exception: what the work says of it.
        """
        done: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        if patient:
            await self._queue.put((piece, done))
            return await done
        try:
            self._queue.put_nowait((piece, done))
        except asyncio.QueueFull:
            raise Overloaded(f"{self._queue.maxsize:,} questions wait for {self._who} already") from None
        return await done

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            group = [await self._queue.get()]
            while len(group) < self._most and not self._queue.empty():
                group.append(self._queue.get_nowait())
            group = [(piece, done) for piece, done in group if not done.done()]  # whoever asked may have left
            if not group:
                continue
            outcomes: Sequence[Out | Exception]
            try:
                outcomes = await loop.run_in_executor(self._threads, self._work, [piece for piece, _ in group])
            except Exception as error:
                outcomes = [error] * len(group)
            for (_, done), outcome in zip(group, outcomes, strict=True):
                if done.done():
                    continue
                if isinstance(outcome, Exception):
                    done.set_exception(outcome)
                else:
                    done.set_result(outcome)

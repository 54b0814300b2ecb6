"""Work that is done in groups, as it comes."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from tasks.cascade.grouping import Grouping, Overloaded


def test_what_comes_meanwhile_is_the_next_group() -> None:
    groups: list[list[int]] = []
    began, go_on = threading.Event(), threading.Event()

    def work(numbers: Sequence[int]) -> list[int | Exception]:
        groups.append(list(numbers))
        began.set()
        assert go_on.wait(10)
        return [ValueError("three") if number == 3 else 10 * number for number in numbers]

    async def scenario() -> list[int | BaseException]:
        async with Grouping(work, "the tens", most=4, waiting=7) as grouping:
            first = asyncio.create_task(grouping.do(0))
            await asyncio.to_thread(began.wait, 10)
            others = [asyncio.create_task(grouping.do(number)) for number in range(1, 8)]
            await asyncio.sleep(0)
            assert grouping.waiting == 7
            with pytest.raises(Overloaded, match=r"^7 questions wait for the tens already$"):
                await grouping.do(8)
            others[0].cancel()  # whoever asked has left
            go_on.set()
            return await asyncio.gather(first, *others, return_exceptions=True)

    outcomes = asyncio.run(scenario())
    assert groups == [[0], [2, 3, 4], [5, 6, 7]]  # the one that left took a place, and none of the work
    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert isinstance(outcomes[3], ValueError)
    assert [outcomes[place] for place in (0, 2, 4, 5, 6, 7)] == [0, 20, 40, 50, 60, 70]


def test_who_is_patient_waits_for_room() -> None:
    def work(numbers: Sequence[int]) -> list[int | Exception]:
        return [10 * number for number in numbers]

    async def scenario() -> list[int]:
        async with Grouping(work, "the tens", 2, 3) as grouping:
            return await asyncio.gather(*(grouping.do(number, patient=True) for number in range(20)))

    assert asyncio.run(scenario()) == [10 * number for number in range(20)]


def test_what_the_work_raises_is_raised_for_all_and_the_next_group_goes_on() -> None:
    def work(numbers: Sequence[int]) -> list[int | Exception]:
        if 1 in numbers:
            raise OSError("no disk")
        return list(numbers)

    async def scenario() -> None:
        async with Grouping(work, "nobody", most=2, waiting=4) as grouping:
            with pytest.raises(OSError, match="no disk"):
                await grouping.do(1)
            assert await grouping.do(2) == 2

    asyncio.run(scenario())

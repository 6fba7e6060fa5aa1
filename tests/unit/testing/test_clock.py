"""The fake clock: order, standing still, and going by itself."""

import asyncio

from roadworthy.clock import MICROS, Clock
from roadworthy.testing import FakeClock


async def sleeper(clock: Clock, seconds: float, log: list[tuple[float, float]]) -> None:
    await clock.sleep(seconds)
    log.append((seconds, clock.monotonic()))


async def test_time_stands_still_until_it_is_moved() -> None:
    clock, log = FakeClock(), list[tuple[float, float]]()
    start = clock.now()
    async with asyncio.TaskGroup() as group:
        for seconds in (5, 1, 3):
            group.create_task(sleeper(clock, seconds, log))
        await clock.advance(0.5)
        assert clock.sleeping == 3
        await clock.advance(3)
        assert len(log) == 2
        await clock.advance(10)
    assert log == [(1, 1.0), (3, 3.0), (5, 5.0)]
    assert clock.now() - start == round(13.5 * MICROS)


async def test_a_woken_sleeper_can_sleep_again_in_the_same_move() -> None:
    clock, log = FakeClock(), list[float]()

    async def ticker() -> None:
        for _ in range(3):
            await clock.sleep(1)
            log.append(clock.monotonic())

    async with asyncio.TaskGroup() as group:
        group.create_task(ticker())
        await clock.advance(10)
    assert log == [1.0, 2.0, 3.0]


async def test_an_automatic_clock_wakes_the_earliest_first() -> None:
    clock, log = FakeClock(auto=True), list[tuple[float, float]]()

    async def twice() -> None:
        await sleeper(clock, 1, log)
        await sleeper(clock, 2, log)

    async with asyncio.TaskGroup() as group:
        group.create_task(sleeper(clock, 10, log))
        group.create_task(twice())
    assert log == [(1, 1.0), (2, 3.0), (10, 10.0)]


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(5))
    await clock.advance(1)
    task.cancel()
    await clock.advance(10)
    assert clock.sleeping == 0
    await clock.sleep(0)

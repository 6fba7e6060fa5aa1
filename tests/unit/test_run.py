"""What a run knows of its own commits."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import pytest

from roadworthy import Agent, User
from roadworthy.errors import RunError, StoreUnavailable
from roadworthy.events import Noted
from roadworthy.live import Live
from roadworthy.run import Brief, Done, Past, Ports, Position, Refusal, Run, RunOptions, Unit
from roadworthy.testing import FakeClock, ScriptedModel

T = TypeVar("T")


class Writer:
    """A journal that commits when it is told to."""

    def __init__(self) -> None:
        self.posted: list[asyncio.Future[Any]] = []

    def post(self, unit: Unit[T]) -> asyncio.Future[T]:
        """Queue; `posted` is answered by the test."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.posted.append(future)
        return future

    async def commit(self, unit: Unit[T]) -> T | Refusal:
        """At once."""
        self.posted.append(asyncio.get_running_loop().create_future())
        return Refusal()


def a_run() -> tuple[Run, Writer]:
    writer = Writer()
    brief = Brief(
        agent=Agent("desk", model=ScriptedModel(["Hi."])),
        user=User("ana"),
        conversation=None,
        options=RunOptions(),
        messages=(),
    )
    ports = Ports(journal=writer, live=Live(), clock=FakeClock())
    return Run(brief, Position("r", 1, 0, None), Past(), ports), writer


async def did(run: Run, key: str) -> None:
    async def effect() -> Done[Noted]:
        return Done(Noted(key=key))

    await run.step(key, effect)


@pytest.mark.requirement("REC-8")
async def test_after_a_lost_outcome_nothing_more_is_recorded() -> None:
    run, writer = a_run()
    await did(run, "a")
    await did(run, "b")
    first, second = writer.posted
    first.set_exception(StoreUnavailable("full"))
    second.set_result(None)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="full"):
            await run.flushed()
    with pytest.raises(StoreUnavailable, match="full"):
        await run.record(Noted(key="c"))
    with pytest.raises(StoreUnavailable, match="full"):
        await did(run, "c")
    assert len(writer.posted) == 2


async def test_every_outcome_is_waited_for_whatever_became_of_the_ones_before() -> None:
    run, writer = a_run()
    await did(run, "a")
    await did(run, "b")
    first, second = writer.posted
    first.set_exception(RunError("a text that cannot be stored"))
    flushing = asyncio.ensure_future(run.flushed())
    await asyncio.wait([flushing], timeout=0.01)
    assert not flushing.done()
    second.set_exception(StoreUnavailable("full"))
    with pytest.raises(StoreUnavailable):
        await flushing
    with pytest.raises(StoreUnavailable):
        await run.flushed()


async def test_a_flush_that_is_cancelled_forgets_no_outcome() -> None:
    run, writer = a_run()
    await did(run, "a")
    flushing = asyncio.ensure_future(run.flushed())
    await asyncio.wait([flushing], timeout=0.01)
    flushing.cancel()
    await asyncio.wait([flushing])
    (posted,) = writer.posted
    assert not posted.cancelled()
    posted.set_exception(StoreUnavailable("full"))
    with pytest.raises(StoreUnavailable):
        await run.flushed()

"""Streams between processes: the text of a run that executes elsewhere, as it is written."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.events import RunEnded, RunEvent, StreamEvent, TextDelta
from roadworthy.messages import ModelRequest
from roadworthy.store.hot import Hot, PostgresHot, RedisHot
from roadworthy.testing import ScriptedModel

TEXT = "It is on its way, and it will be there before noon. " * 100
"""Longer than a notification of Postgres takes."""


def told(_: ModelRequest) -> str:
    """What the model says."""
    return TEXT


@pytest.fixture(params=["postgres", "redis"])
def redis(request: pytest.FixtureRequest) -> str | None:
    """What carries live events: Redis where it is given."""
    return request.getfixturevalue("redis_server") if request.param == "redis" else None


async def streamed(
    events: AsyncIterator[StreamEvent], seen: asyncio.Event
) -> tuple[str, list[RunEvent]]:
    """The text as somebody sees it who only reads the stream, and the facts."""
    text, facts = "", []
    async for event in events:
        if isinstance(event, TextDelta):
            text = text[: event.offset] + event.text
            assert TEXT.startswith(text) or text == "Here it is."
            if len(text) > 100:
                seen.set()
        elif isinstance(event, RunEvent):
            facts.append(event)
    return text, facts


@pytest.mark.requirement("ORC-5", "MEM-6")
async def test_a_stream_shows_what_another_process_writes(database: str, redis: str | None) -> None:

    seen = asyncio.Event()

    @tool(effect="read")
    async def look() -> str:
        """Look, once the user has read what was said."""
        await seen.wait()
        return "There."

    async def said(request: ModelRequest) -> list[str | ToolCall] | str:
        if request.ordinal:
            return "Here it is."
        while not worker._open.live.watched(request.run_id):  # noqa: ASYNC110 - real processes
            await asyncio.sleep(0.01)  # noqa: TID251 - what is said before is not live any more
        return [TEXT, ToolCall("look", {})]

    desk = Agent("desk", model=ScriptedModel(said), tools=[look])
    async with (
        Runtime(database, patterns=[desk], redis=redis) as worker,
        Runtime(database, patterns=[desk], redis=redis, execute=False) as api,
    ):
        _, facts = await streamed(api.stream(desk, "Where is it?"), seen)
    assert seen.is_set()
    assert [event.seq for event in facts] == list(range(len(facts)))
    assert isinstance(facts[-1], RunEnded)


async def test_without_anything_live_the_facts_come_all_the_same(database: str) -> None:
    """Redis is gone: nobody hears anything, and nothing is lost."""
    desk = Agent("desk", model=ScriptedModel(told))
    gone = "redis://127.0.0.1:1"
    async with (
        Runtime(database, patterns=[desk], redis=gone),
        Runtime(database, patterns=[desk], redis=gone, execute=False) as api,
    ):
        _, facts = await streamed(api.stream(desk, "Where is it?"), asyncio.Event())
        assert (await api.result(facts[0].run_id)).text == TEXT
    assert [event.seq for event in facts] == list(range(len(facts)))


async def test_who_stopped_watching_is_told_nothing_more(database: str, redis: str | None) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    def hears(run_id: str, _: object) -> None:
        heard.put_nowait(run_id)

    def hot() -> Hot:
        return RedisHot(redis, hears) if redis else PostgresHot(database, hears)

    here, there = hot(), hot()
    await here.open()
    await there.open()
    try:
        for run_id in ("a", "b"):
            while not there.wanted(run_id):
                here.leave(run_id)  # said again: the other may not have listened yet
                here.watch(run_id)
                await asyncio.sleep(0.02)  # noqa: TID251 - real processes
        here.leave("a")
        for run_id in ("a", "b"):
            there.tell(run_id, TextDelta(run_id=run_id, key="k", text="x"))
        async with asyncio.timeout(20):
            assert await heard.get() == "b"
        assert heard.empty()
    finally:
        await here.close()
        await there.close()


async def test_closing_while_it_connects_leaves_no_connection(database: str) -> None:
    def hears(run_id: str, _: object) -> None:
        del run_id

    for turns in range(40):
        hot = PostgresHot(database, hears)
        opening = asyncio.create_task(hot.open())
        await asyncio.sleep(0)  # noqa: TID251 - its tasks begin
        hot.watch("a")
        for _ in range(turns):
            await asyncio.sleep(0)  # noqa: TID251 - as far as it comes
        opening.cancel()
        await hot.close()
    await asyncio.get_running_loop().shutdown_default_executor()  # threads that still connect
    gc.collect()  # a connection that nobody closed says so here: warnings are errors

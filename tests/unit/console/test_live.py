"""The live channel: many sources in one stream, which ends and breaks as they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from starlette.requests import Request

from roadworthy import wire
from roadworthy.api import create_app
from roadworthy.console import Operator, live
from roadworthy.console.pages import Visit
from tests.unit.console.test_inbox import desk, waiting


async def told(*words: str, closed: list[str] | None = None) -> AsyncGenerator[str, None]:
    try:
        for word in words:
            yield word
        if closed is not None:
            await asyncio.Event().wait()
    finally:
        if closed is not None:
            closed.append("closed")


async def broken() -> AsyncGenerator[str, None]:
    yield "first"
    raise ValueError("it broke")


async def test_everything_is_told_until_all_sources_are_over() -> None:
    heard = [word async for word in live.merged([told("a", "b"), told("c"), told()])]
    assert sorted(heard) == ["a", "b", "c"]
    assert heard.index("a") < heard.index("b")


async def test_a_reader_who_leaves_closes_the_sources() -> None:
    closed: list[str] = []
    stream = live.merged([told("a", closed=closed), told("b", closed=closed)])
    assert await anext(stream) in ("a", "b")
    await stream.aclose()
    assert closed == ["closed", "closed"]


async def test_a_source_that_breaks_breaks_the_stream_and_closes_the_others() -> None:
    closed: list[str] = []
    with pytest.raises(ValueError, match="it broke"):
        async for _ in live.merged([broken(), told(closed=closed)]):
            pass
    assert closed == ["closed"]


async def test_a_stream_begins_by_naming_the_queue_and_tells_each_change(tmp_path: Path) -> None:
    async with desk(tmp_path) as (rt, _):
        app = create_app(rt)
        scope = {"type": "http", "headers": [], "query_string": b"", "app": app, "path": "/"}
        visit = Visit(
            request=Request(scope), console=app.state.console, operator=Operator("lea", "Lea")
        )
        answer = await live.channel(visit)
        frames = answer.body_iterator  # type: ignore[attr-defined]
        assert await anext(frames) == wire.frame("queue", "0")
        await anext(frames)
        await waiting(rt)
        assert "event: queue" in await anext(frames)
        await frames.aclose()

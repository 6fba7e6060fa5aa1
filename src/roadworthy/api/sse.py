"""Events as server-sent events: the event's name is its class, its id the position in the journal.

Routes hand an iterator of events in. Invariant: a reader who goes away never holds a run up.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TypeVar, cast

from fastapi.responses import StreamingResponse

from roadworthy import wire
from roadworthy.events import RunEvent, StreamEvent
from roadworthy.trace import Detail, plain_event

T = TypeVar("T")


def stream(events: AsyncIterator[StreamEvent], run_id: str, detail: Detail) -> StreamingResponse:
    """An answer that goes on until the run ends or waits."""
    found = answer(events, lambda event: frame(event, detail))
    found.headers["x-run-id"] = run_id
    return found


def answer(items: AsyncIterator[T], framed: Callable[[T], str]) -> StreamingResponse:
    """An answer that goes on as long as there are items."""
    frames, headers = wire.kept_alive(_frames(items, framed)), {"x-accel-buffering": "no"}
    return StreamingResponse(frames, media_type="text/event-stream", headers=headers)


def frame(event: StreamEvent, detail: Detail) -> str:
    """One event on the wire. JSON has no line breaks, so one data line is enough."""
    data = json.dumps(plain_event(event, detail), separators=(",", ":"))
    place = str(event.seq) if isinstance(event, RunEvent) else ""
    return wire.frame(type(event).__name__, data, place)


async def _frames(items: AsyncIterator[T], framed: Callable[[T], str]) -> AsyncIterator[str]:
    async with aclosing(cast("AsyncGenerator[T, None]", items)):
        async for item in items:
            yield framed(item)

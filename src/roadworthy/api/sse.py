"""Events as server-sent events: the event's name is its class, its id the position in the journal.

Routes hand an iterator of events in. Invariant: a reader who goes away never holds a run up.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi.responses import StreamingResponse

from roadworthy.events import RunEvent, StreamEvent
from roadworthy.trace import Detail, plain_event

ALIVE_SECONDS = 15.0
_ALIVE = ": alive\n\n"


def stream(events: AsyncIterator[StreamEvent], run_id: str, detail: Detail) -> StreamingResponse:
    """An answer that goes on until the run ends or waits."""
    headers = {"x-run-id": run_id, "x-accel-buffering": "no"}
    return StreamingResponse(
        _frames(events, detail), media_type="text/event-stream", headers=headers
    )


def frame(event: StreamEvent, detail: Detail) -> str:
    """One event on the wire. JSON has no line breaks, so one data line is enough."""
    data = json.dumps(plain_event(event, detail), separators=(",", ":"))
    place = f"id: {event.seq}\n" if isinstance(event, RunEvent) else ""
    return f"event: {type(event).__name__}\n{place}data: {data}\n\n"


async def _frames(events: AsyncIterator[StreamEvent], detail: Detail) -> AsyncIterator[str]:
    """A comment now and then keeps proxies from closing a quiet stream."""
    loop = asyncio.get_running_loop()
    following: asyncio.Future[StreamEvent] | None = None
    try:
        while True:
            following = following or loop.create_task(_next(events))
            done, _ = await asyncio.wait([following], timeout=ALIVE_SECONDS)
            if not done:
                yield _ALIVE
                continue
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield frame(event, detail)
    finally:
        if following is not None and not following.done():
            following.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await following
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


async def _next(events: AsyncIterator[StreamEvent]) -> StreamEvent:
    return await anext(events)

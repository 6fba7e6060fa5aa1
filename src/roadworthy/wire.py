"""Server-sent events on the wire: one frame, and a stream that proxies do not close.

The API's streams and the console's live channel are sent by it. Invariant: a reader who goes away
never holds a run up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

ALIVE_SECONDS = 15.0
_ALIVE = ": alive\n\n"


def frame(event: str, data: str, place: str = "") -> str:
    """One event. data: of one line, as JSON is; place: where a reader goes on after a break."""
    at = f"id: {place}\n" if place else ""
    return f"event: {event}\n{at}data: {data}\n\n"


async def kept_alive(frames: AsyncIterator[str]) -> AsyncIterator[str]:
    """These frames, with a comment now and then while there is none."""
    loop = asyncio.get_running_loop()
    following: asyncio.Future[str] | None = None
    try:
        while True:
            following = following or loop.create_task(_next(frames))
            done, _ = await asyncio.wait([following], timeout=ALIVE_SECONDS)
            if not done:
                yield _ALIVE
                continue
            try:
                told = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield told
    finally:
        if following is not None and not following.done():
            following.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await following
        close = getattr(frames, "aclose", None)
        if close is not None:
            await close()


async def _next(frames: AsyncIterator[str]) -> str:
    return await anext(frames)

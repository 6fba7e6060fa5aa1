"""The live channel: one stream a page, which says what of the page to fetch again.

The page's script and htmx listen. Invariant: a stream begins by naming everything, so a reader who
comes back after a break has missed nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import suppress

from starlette.responses import Response, StreamingResponse

from roadworthy import wire
from roadworthy.console.inbox import declared, packet_of
from roadworthy.console.pages import HEADERS, Visit, seen_run
from roadworthy.context import User
from roadworthy.escalation import Escalation
from roadworthy.events import RunEvent, StreamEvent, TextDelta, TextReplaced
from roadworthy.result import ENDS

_LOOK_AGAIN_SECONDS = 1.0


async def channel(visit: Visit) -> Response:
    """`queue` when the inbox changed; of the case that is looked at `case` when something was said;
    of the run that is looked at `run` and `text`."""
    sources = [_queue(visit)]
    run_id = visit.asked("run")
    if run_id:
        await seen_run(visit, run_id)
        sources.append(_run(visit, run_id))
    if visit.asked("case"):
        item = (await packet_of(visit, visit.asked("case"))).escalation
        sources.append(_case(visit, item))
    return stream(sources)


def stream(sources: Sequence[AsyncGenerator[str, None]]) -> Response:
    """An answer that goes on until its reader goes away."""
    return StreamingResponse(
        wire.kept_alive(merged(sources)),
        media_type="text/event-stream",
        headers={**HEADERS, "x-accel-buffering": "no"},
    )


async def merged(sources: Sequence[AsyncGenerator[str, None]]) -> AsyncGenerator[str, None]:
    """What any of them tells, as it comes; over when all are, broken when one breaks."""
    loop = asyncio.get_running_loop()
    coming = {loop.create_task(_next(source)): source for source in sources}
    try:
        while coming:
            done, _ = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                source = coming.pop(task)
                with suppress(StopAsyncIteration):
                    told = task.result()
                    coming[loop.create_task(_next(source))] = source
                    yield told
    finally:
        await _close(coming, sources)


async def _next(source: AsyncGenerator[str, None]) -> str:
    return await anext(source)


async def _close(
    coming: Iterable[asyncio.Task[str]], sources: Sequence[AsyncGenerator[str, None]]
) -> None:
    left = list(coming)
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)
    for task in left:
        task.cancelled() or task.exception()  # looked at, so that nobody logs it
    for source in sources:
        await source.aclose()


async def _queue(visit: Visit) -> AsyncGenerator[str, None]:
    """A number, now and each time the queue has changed. Without an inbox nothing does."""
    yield wire.frame("queue", "0")
    if not declared(visit.rt):
        await asyncio.Event().wait()  # the stream stays: a reader would come back at once
    async for change in visit.rt.inbox.changes():
        yield wire.frame("queue", str(change))


async def _case(visit: Visit, item: Escalation) -> AsyncGenerator[str, None]:
    """Each new message of the conversation that is looked at."""
    user = User(item.user, item.tenant)
    async for said in visit.rt.listen(item.place, user=user):
        yield wire.frame("case", str(said.n))


async def _run(visit: Visit, run_id: str) -> AsyncGenerator[str, None]:
    """Each event's position, and the answer's text as it is written."""
    after = _place(visit)
    while True:
        async for event in visit.rt.events(run_id, after):
            told = _told(event)
            if isinstance(event, RunEvent):
                after = event.seq
            if told is not None:
                yield told
        if (await visit.rt.find(run_id)).status in ENDS:
            return
        await visit.console.clock.sleep(_LOOK_AGAIN_SECONDS)


def _told(event: StreamEvent) -> str | None:
    if isinstance(event, RunEvent):
        return wire.frame("run", str(event.seq), str(event.seq))
    if isinstance(event, TextDelta):
        return wire.frame("text", json.dumps({"text": event.text, "offset": event.offset}))
    if isinstance(event, TextReplaced):
        return wire.frame("text", json.dumps({"text": event.text, "offset": 0}))
    return None


def _place(visit: Visit) -> int:
    """The position to go on from: where the stream broke, else where the page says."""
    said = visit.request.headers.get("last-event-id") or visit.asked("after", "-1")
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 19 else -1

"""Routes of a channel: what is said in a conversation, read and followed by who shows it.

Invariant: a channel sees one voice: persons of the staff speak as the agent, unless `detail=full`.
"""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import StreamingResponse

from roadworthy import wire
from roadworthy.api import sse
from roadworthy.api.desk import AtDesk
from roadworthy.api.inbox import AtInbox
from roadworthy.api.inbox_bodies import Lines, LineSeen
from roadworthy.api.problems import ApiError
from roadworthy.context import User
from roadworthy.escalation.views import Said
from roadworthy.trace import Detail

routes = APIRouter(prefix="/v1/conversations/{conversation}", tags=["conversations"])
_STREAM = {200: {"content": {"text/event-stream": {}}, "description": "Messages as they come"}}
Conversation = Annotated[str, Path(max_length=200)]
Who = Annotated[str, Query(min_length=1, max_length=200)]
Tenant = Annotated[str, Query(max_length=200)]
After = Annotated[int, Query(ge=0, le=2**62, description="Only messages behind this place")]
_Detail = Annotated[
    Detail, Query(description='"full", for staff: which are a person\'s, and whose')
]


@routes.get("/messages")
async def messages(
    conversation: Conversation,
    desk: AtDesk,
    _: AtInbox,
    user: Who,
    tenant: Tenant = "",
    after: After = 0,
    detail: _Detail = "user",
) -> Lines:
    """What was said in a user's own conversation behind a place, at most 1,000 messages; another's
    is not found."""
    found = await desk.rt.said(conversation, user=User(user, tenant), after=after)
    if found is None:
        raise _unknown(conversation)
    return Lines(messages=[LineSeen.of(one, full=detail == "full") for one in found])


@routes.get("/live", response_class=StreamingResponse, responses=_STREAM)  # type: ignore[arg-type]
async def live(  # noqa: PLR0913 - one per parameter of the query
    conversation: Conversation,
    desk: AtDesk,
    _: AtInbox,
    user: Who,
    tenant: Tenant = "",
    after: After = 0,
    detail: _Detail = "user",
    last_event_id: Annotated[str | None, Header(max_length=200)] = None,
) -> StreamingResponse:
    """The same, and each message as it comes, until the client leaves; `Last-Event-ID` goes on
    where a dropped connection ended."""
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdecimal():
        after = max(after, min(int(last_event_id), 2**62))
    who = User(user, tenant)
    if await desk.rt.said(conversation, user=who, after=after) is None:
        raise _unknown(conversation)

    def frame(one: Said) -> str:
        line = LineSeen.of(one, full=detail == "full").model_dump()
        return wire.frame("message", json.dumps(line, separators=(",", ":")), str(one.n))

    return sse.answer(desk.rt.listen(conversation, user=who, after=after), frame)


def _unknown(conversation: str) -> ApiError:
    message = f"This user has no conversation {conversation!r} here."
    mend = "Give the user who began it, and the tenant."
    return ApiError(404, "unknown_conversation", message, mend)

"""Routes of the inbox: everything `rt.inbox` does, for a help desk or a page of one's own.

Invariant: who acts says so in `by`, and a request sent again under its key is done once.
"""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import StreamingResponse

from roadworthy import wire
from roadworthy.api import sse
from roadworthy.api.desk import AtDesk
from roadworthy.api.inbox_bodies import (
    Attempted,
    By,
    Call,
    Close,
    Decide,
    Draft,
    Escalations,
    EscalationSeen,
    Further,
    HandBack,
    PacketSeen,
    Say,
    Snooze,
    Tags,
    To,
    Whose,
    Wish,
)
from roadworthy.api.problems import ApiError
from roadworthy.errors import ConfigurationError, UnknownApproval
from roadworthy.escalation.views import Status
from roadworthy.people import People
from roadworthy.trace import limits_of

routes = APIRouter(prefix="/v1", tags=["escalations"])
_ONE = "/escalations/{escalation}"
Id = Annotated[str, Path(max_length=200)]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="Sent again to the same escalation it changes nothing: it was done before.",
    ),
]
_STREAM = {200: {"content": {"text/event-stream": {}}, "description": "A number each time"}}


def _people(
    desk: AtDesk,
    tenant: Annotated[
        str | None, Query(max_length=200, description="Only this tenant's are found")
    ] = None,
) -> People:
    people = desk.rt.inbox.of(tenant)
    try:
        _ = people.declared
    except ConfigurationError as error:
        raise ApiError(404, "no_inbox", str(error), "Runtime(..., inbox=Inbox())") from error
    return people


AtInbox = Annotated[People, Depends(_people)]

# --- looking ---------------------------------------------------------------------------------


@routes.get("/escalations")
async def list_escalations(
    people: AtInbox,
    status: Annotated[Status | None, Query(description="Left out: all that is open")] = None,
    queue: Annotated[str | None, Query(max_length=200)] = None,
    assignee: Annotated[str | None, Query(max_length=200)] = None,
    most: Annotated[int, Query(ge=1, le=1_000)] = 200,
) -> Escalations:
    """What waits for a person, first things first."""
    found = await people.list(status=status, queue=queue, assignee=assignee, most=most)
    return Escalations(escalations=[EscalationSeen.of(item) for item in found])


@routes.get("/escalations/changes", response_class=StreamingResponse, responses=_STREAM)  # type: ignore[arg-type]
async def changes(people: AtInbox) -> StreamingResponse:
    """A number at once, and another each time anything in the queue has changed: look again then.

    It goes on until the client leaves.
    """
    return sse.answer(people.changes(), _number)


@routes.get(_ONE)
async def see_escalation(escalation: Id, people: AtInbox) -> PacketSeen:
    """Its packet: the conversation, what was tried, why it is here, what waits to be decided."""
    return PacketSeen.of(await people.packet(escalation))


def _number(number: int) -> str:
    return wire.frame("changed", json.dumps({"number": number}), str(number))


# --- whose it is -----------------------------------------------------------------------------


@routes.post(_ONE + "/claim")
async def claim(escalation: Id, body: By, people: AtInbox, key: Key = None) -> EscalationSeen:
    """Keep it from others for a while."""
    return EscalationSeen.of(await people.claim(escalation, body.by, key=key))


@routes.post(_ONE + "/release")
async def release(escalation: Id, body: By, people: AtInbox, key: Key = None) -> EscalationSeen:
    """Give a claim up."""
    return EscalationSeen.of(await people.release(escalation, body.by, key=key))


@routes.post(_ONE + "/assign")
async def assign(escalation: Id, body: To, people: AtInbox, key: Key = None) -> EscalationSeen:
    """Make it somebody else's, with the conversation when it is taken over."""
    return EscalationSeen.of(await people.assign(escalation, body.to, body.by, key=key))


@routes.post(_ONE + "/take")
async def take(escalation: Id, body: By, people: AtInbox, key: Key = None) -> EscalationSeen:
    """Take the conversation over: the agent is silent from now on. Waits until an action that is
    under way is done."""
    return EscalationSeen.of(await people.take(escalation, body.by, key=key))


@routes.post("/conversations/{conversation}/take")
async def take_conversation(
    conversation: Annotated[str, Path(max_length=200)], body: Whose, people: AtInbox
) -> EscalationSeen:
    """Take over a conversation that nobody escalated. Asked again it is yours already."""
    found = await people.take_conversation(conversation, body.by, tenant=body.tenant)
    return EscalationSeen.of(found)


# --- speaking and acting ---------------------------------------------------------------------


@routes.post(_ONE + "/say")
async def say(escalation: Id, body: Say, people: AtInbox, key: Key = None) -> EscalationSeen:
    """Words to the user, on the channel they write on; takes over when nobody has."""
    return EscalationSeen.of(await people.say(escalation, body.text, body.by, key=key))


@routes.post(_ONE + "/draft")
async def draft(escalation: Id, body: Wish, people: AtInbox, key: Key = None) -> Draft:
    """A reply that the agent writes for the owner; the user does not see it."""
    return Draft(text=await people.draft(escalation, body.by, wish=body.wish, key=key))


@routes.post(_ONE + "/call")
async def call(escalation: Id, body: Call, people: AtInbox, key: Key = None) -> Attempted:
    """Have one of the agent's tools do something: same checks, same record."""
    done = await people.call(escalation, body.tool, body.arguments, body.by, key=key)
    plain = {name: getattr(done, name) for name in Attempted.model_fields}
    return Attempted.model_validate(plain | {"arguments": dict(done.arguments)})


@routes.post(_ONE + "/decide", status_code=202)
async def decide(escalation: Id, body: Decide, people: AtInbox) -> Decide:
    """Decide one of its pending calls. Answers with what was asked; where four eyes are declared it
    may still need a second person."""
    packet = await people.packet(escalation)
    if body.approval not in {approval.id for approval in packet.pending}:
        raise UnknownApproval(f"{body.approval!r} does not wait here; it may be decided already.")
    await people.decide(
        body.approval, body.decision, body.by, arguments=body.arguments, note=body.note
    )
    return body


# --- giving it back --------------------------------------------------------------------------


@routes.post(_ONE + "/hand-back")
async def hand_back(
    escalation: Id, body: HandBack, people: AtInbox, desk: AtDesk, key: Key = None
) -> EscalationSeen:
    """The agent has the conversation again; the same run goes on."""
    limits = None
    if body.limits is not None:
        item = await people.get(escalation)
        limits = body.limits.over(limits_of(await desk.rt.record(item.run_id)))
    done = await people.hand_back(
        escalation, body.by, instruction=body.instruction, limits=limits, key=key
    )
    return EscalationSeen.of(done)


@routes.post(_ONE + "/close")
async def close(escalation: Id, body: Close, people: AtInbox, key: Key = None) -> EscalationSeen:
    """A person settled it: the run ends, nothing more is said."""
    done = await people.close(escalation, body.by, resolution=body.resolution, key=key)
    return EscalationSeen.of(done)


# --- keeping house ---------------------------------------------------------------------------


@routes.post(_ONE + "/note")
async def note(escalation: Id, body: Say, people: AtInbox, key: Key = None) -> EscalationSeen:
    """A note for other operators; neither the user nor the agent sees it."""
    return EscalationSeen.of(await people.note(escalation, body.text, body.by, key=key))


@routes.post(_ONE + "/tags")
async def tag(escalation: Id, body: Tags, people: AtInbox, key: Key = None) -> EscalationSeen:
    """Replace its tags."""
    return EscalationSeen.of(await people.tag(escalation, body.tags, body.by, key=key))


@routes.post(_ONE + "/snooze")
async def snooze(escalation: Id, body: Snooze, people: AtInbox, key: Key = None) -> EscalationSeen:
    """Out of sight until then."""
    return EscalationSeen.of(await people.snooze(escalation, body.until, body.by, key=key))


@routes.post(_ONE + "/escalate")
async def escalate(
    escalation: Id, body: Further, people: AtInbox, key: Key = None
) -> EscalationSeen:
    """Put it further up: back into a queue, before others."""
    done = await people.escalate(
        escalation,
        body.by,
        reason=body.reason,
        queue=body.queue,
        priority=body.priority,
        key=key,
    )
    return EscalationSeen.of(done)

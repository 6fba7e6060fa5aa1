"""Requests and answers of the inbox as pydantic models. Times: microseconds since 1970 UTC.

Invariant: as in `bodies`: unknown fields are refused, and every bound is in the schema.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from roadworthy.api.bodies import LimitsBody, Name, StrictBody
from roadworthy.escalation.views import Escalation, Owner, Said
from roadworthy.packet import Packet
from roadworthy.trace import plain_json

Words = Annotated[str, Field(min_length=1, max_length=20_000, pattern=r"\S")]
MaybeWords = Annotated[str, Field(max_length=20_000)]


class By(StrictBody):
    """Who acts: the name that others see in the inbox."""

    by: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]


class To(By):
    """Whose it is from now on."""

    to: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]


class Say(By):
    """Words, to the user or (a note) to other operators."""

    text: Words


class Wish(By):
    """What the draft should say."""

    wish: MaybeWords = ""


class Call(By):
    """One of the agent's tools, and the arguments it is called with."""

    tool: Name
    arguments: dict[str, Any] = Field(default_factory=dict)


class Decide(By):
    """A word on one of the packet's `pending` calls. `arguments` belong to "edit"."""

    approval: Name
    decision: Literal["approve", "edit", "reject", "respond"]
    arguments: dict[str, Any] | None = None
    note: MaybeWords = ""


class HandBack(By):
    """What the agent is told. limits: raised, where a limit brought the run here."""

    instruction: MaybeWords = ""
    limits: LimitsBody | None = None


class Close(By):
    """How it was settled."""

    resolution: MaybeWords = ""


class Tags(By):
    """All its tags from now on."""

    tags: Annotated[list[Name], Field(max_length=50)]


class Snooze(By):
    """Until when it is out of sight, in microseconds UTC; null: it is back at once."""

    until: Annotated[int, Field(ge=0, le=2**62)] | None = None


class Further(By):
    """Why it goes further up; into which queue, at which priority (1 first)."""

    reason: Words
    queue: Name | None = None
    priority: Annotated[int, Field(ge=1, le=1_000)] | None = None


class Whose(By):
    """Of which tenant the conversation is."""

    tenant: Annotated[str, Field(max_length=200)] = ""


class EscalationSeen(BaseModel):
    """One item of the queue."""

    id: str
    run_id: str
    tenant: str
    user: str
    conversation: str | None
    agent: str
    kind: Literal["decision", "handover", "notice"]
    trigger: str
    reason: str
    queue: str
    skill: str
    priority: int = Field(description="1 first")
    status: Literal["open", "taken", "resolved"] = Field(description="taken: a person owns it")
    assignee: str | None
    locked_until: int | None
    due_at: int | None
    snoozed_until: int | None
    created_at: int
    updated_at: int
    resolved_at: int | None
    resolution: str
    tags: list[str]
    level: int
    version: int = Field(description="Every change raises it")

    @classmethod
    def of(cls, item: Escalation) -> EscalationSeen:
        """From the runtime's own."""
        return cls.model_validate({name: getattr(item, name) for name in cls.model_fields})


class Escalations(BaseModel):
    """First things first; of resolved ones the newest first."""

    escalations: list[EscalationSeen]


class LineSeen(BaseModel):
    """One message. n: its place, to read on from."""

    n: int
    who: Literal["user", "agent", "person"]
    by: str = Field(description="Which person; with detail=user always empty")
    text: str
    at: int

    @classmethod
    def of(cls, one: Said, *, full: bool) -> LineSeen:
        """As a channel shows it, where persons speak as the agent; or in full, for the staff."""
        who, by = (one.who, one.by) if full else ("user" if one.who == "user" else "agent", "")
        return cls(n=one.n, who=who, by=by, text=one.text, at=one.at)


class Lines(BaseModel):
    """Messages in order."""

    messages: list[LineSeen]


class PacketSeen(BaseModel):
    """All that an operator needs. pending: calls to decide; schemas: of tools' arguments; tools:
    what the owner may have called; suggested: a reply that nobody was sent."""

    escalation: EscalationSeen
    owner: Owner
    person: str | None
    conversation: list[dict[str, Any]]
    summary: str
    decisions: list[str]
    tried: list[dict[str, Any]]
    why: list[dict[str, Any]]
    pending: list[dict[str, Any]]
    schemas: dict[str, Any]
    tools: list[str]
    memory: list[str]
    similar: list[dict[str, Any]]
    suggested: str
    log: list[dict[str, Any]]

    @classmethod
    def of(cls, packet: Packet) -> PacketSeen:
        """From the runtime's own."""
        plain = {
            field.name: _plain(getattr(packet, field.name)) for field in dataclasses.fields(packet)
        }
        return cls.model_validate(plain | {"escalation": EscalationSeen.of(packet.escalation)})


class Draft(BaseModel):
    """A reply that nobody was sent."""

    text: str


class Attempted(BaseModel):
    """What came of a call that a person had done."""

    tool: str
    arguments: dict[str, Any]
    outcome: Literal["ok", "failed", "refused", "unknown", "waiting"]
    result: str
    at: int
    by: str


def _plain(value: object) -> Any:  # noqa: ANN401 - what pydantic checks next
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return plain_json(value)

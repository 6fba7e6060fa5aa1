"""What operators and windows are shown: an `Escalation`, its `LogEntry`s, what was `Said`.

Made by `rows` and `said`. Invariant: plain values, no rows, no payload addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from roadworthy.messages import Message

Kind: TypeAlias = Literal["decision", "handover", "notice"]
Status: TypeAlias = Literal["open", "taken", "resolved"]
Owner: TypeAlias = Literal["agent", "waiting", "person"]


@dataclass(frozen=True, kw_only=True)
class Escalation:
    """One item in the queue. Times in microseconds since 1970 UTC.

    kind "decision": calls wait to be decided, the agent still owns the conversation; "handover":
    the run waits for a person; "notice": the run is over, somebody should look. handover: the key
    of its wait. status "taken": a person owns the conversation. due_at: until when somebody must
    have taken it; once taken, until when its owner must have said or done something. level: how
    often it was escalated further. version: every change raises it.
    """

    WORDS: ClassVar[tuple[str, ...]] = ("reason", "resolution")

    id: str
    run_id: str
    handover: str
    tenant: str
    user: str
    conversation: str | None
    agent: str
    kind: Kind
    trigger: str
    reason: str
    queue: str
    skill: str
    priority: int
    status: Status
    assignee: str | None
    locked_until: int | None
    due_at: int | None
    snoozed_until: int | None
    created_at: int
    updated_at: int
    resolved_at: int | None
    resolution: str
    tags: tuple[str, ...]
    level: int
    version: int

    @property
    def place(self) -> str:
        """Where its words are said: the conversation, or the run that has none."""
        return self.conversation or self.run_id


@dataclass(frozen=True)
class LogEntry:
    """One change of an escalation, or a note. at: microseconds UTC."""

    WORDS: ClassVar[tuple[str, ...]] = ("text",)

    at: int
    by: str
    action: str
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Said:
    """One message of a conversation, as everybody saw it. n: its place, from 1."""

    WORDS: ClassVar[tuple[str, ...]] = ("message",)

    n: int
    run_id: str
    handover: str
    who: Literal["user", "agent", "person"]
    by: str
    message: Message
    at: int

    @property
    def text(self) -> str:
        """Its words."""
        return self.message.text

"""What an operator reads before acting: the `Packet` of an escalation, from what is recorded.

`people` makes it, the console, the API and the terminal show it. Invariant: a pure view; nothing
in it asks a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from msgspec.structs import replace

from roadworthy.escalation import rows, said
from roadworthy.escalation.views import Escalation, LogEntry, Owner, Said
from roadworthy.events import (
    ApprovalAsked,
    ApprovalDecided,
    DecisionMade,
    LoopNoticed,
    ModelReplied,
    Noted,
    RunEvent,
    ToolIntended,
    ToolOutcome,
    ToolRefused,
    ToolSucceeded,
    VerdictGiven,
)
from roadworthy.messages import JsonObject, Message
from roadworthy.result import ENDS, Approval
from roadworthy.store import recorded, runs, waits
from roadworthy.store.database import Tx
from roadworthy.store.runs import RunRow
from roadworthy.store.waits import WaitRow
from roadworthy.transcript import transcript

_MOST_TEXT = 2_000
_MOST_LINES = 1_000  # the newest; all are in `rt.said`
Outcome: TypeAlias = Literal["ok", "failed", "refused", "unknown", "waiting"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One message. at: microseconds UTC. by: which person. n: its place, 0 when it has none."""

    WORDS: ClassVar[tuple[str, ...]] = ("text",)

    who: Literal["user", "agent", "person"]
    text: str
    at: int
    by: str = ""
    n: int = 0


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One action that was tried. by: the person who had it done, "" for the agent."""

    WORDS: ClassVar[tuple[str, ...]] = ("arguments", "result")

    tool: str
    arguments: JsonObject
    outcome: Outcome
    result: str
    at: int
    by: str = ""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A reason for or against going on alone."""

    WORDS: ClassVar[tuple[str, ...]] = ("text",)

    text: str
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Similar:
    """A case that persons resolved before."""

    WORDS: ClassVar[tuple[str, ...]] = ("reason", "resolution")

    id: str
    reason: str
    resolution: str
    at: int


@dataclass(frozen=True, kw_only=True)
class Packet:
    """All an operator needs. pending: calls to decide. schemas: tool -> JSON schema of its
    arguments. tools: what the owner may call. suggested: a reply nobody was sent."""

    WORDS: ClassVar[tuple[str, ...]] = (
        "escalation",
        "conversation",
        "summary",
        "decisions",
        "tried",
        "why",
        "pending",
        "memory",
        "similar",
        "suggested",
        "log",
    )

    escalation: Escalation
    owner: Owner
    person: str | None
    conversation: tuple[Line, ...] = ()
    summary: str = ""
    decisions: tuple[str, ...] = ()
    tried: tuple[Attempt, ...] = ()
    why: tuple[Check, ...] = ()
    pending: tuple[Approval, ...] = ()
    schemas: Mapping[str, JsonObject] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    memory: tuple[str, ...] = ()
    similar: tuple[Similar, ...] = ()
    suggested: str = ""
    log: tuple[LogEntry, ...] = ()


def read_packet(tx: Tx, item: Escalation) -> tuple[Packet, RunRow]:
    """The packet of an escalation, and its run."""
    row = runs.get(tx, item.run_id)
    events = recorded.events(tx, item.run_id)
    newest = said.last(tx, item.tenant, item.place)
    talk = said.after(tx, item.tenant, item.place, max(0, newest - _MOST_LINES), _MOST_LINES)
    history: list[Message] = []
    if not talk:
        history = transcript(events)
    waiting = waits.of_run(tx, item.run_id)
    by = {w.key: str(w.detail["by"]) for w in waiting if w.kind == "errand"}
    owner, person = said.owner_of(tx, item.tenant, item.conversation or "")
    if item.conversation is None and item.kind == "handover" and item.status != "resolved":
        owner, person = (
            ("person" if item.status == "taken" else "waiting"),
            item.assignee or "",
        )
    lines = lines_of(talk, history, row.created_at)
    tried = attempts_of(events, by)
    packet = Packet(
        escalation=item,
        owner=owner,
        person=person or None,
        conversation=lines,
        summary=summary_of(item, lines, tried),
        decisions=decisions_of(events),
        tried=tried,
        why=checks_of(item, events),
        pending=_pending(waiting, rows.votes(tx, item.id)),
        similar=_similar(rows.alike(tx, item, 5)),
        suggested=suggestion_of(events, lines),
        log=tuple(rows.entries(tx, item.id)),
    )
    return packet, row


def lines_of(talk: Sequence[Said], history: Sequence[Message], at: int) -> tuple[Line, ...]:
    """The conversation; of one from before the inbox, what runs remember. at: for those."""
    if talk:
        return tuple(Line(who=s.who, text=s.text, at=s.at, by=s.by, n=s.n) for s in talk)
    return tuple(
        Line(who="user" if m.role == "user" else "agent", text=m.text, at=at)
        for m in history
        if m.text and not m.by_runtime and m.role != "tool"
    )


def attempts_of(events: Sequence[RunEvent], by: Mapping[str, str]) -> tuple[Attempt, ...]:
    """Every call that was asked for, with what came of it. by: key of a person's errand -> who."""
    found: dict[str, Attempt] = {}
    for event in events:
        call = event.key.partition("/approval")[0].partition("/unknown")[0]
        if isinstance(event, ToolOutcome):
            found[call] = _attempt(event, by)
        elif isinstance(event, ApprovalAsked) and event.kind != "version":
            state: Outcome = "unknown" if event.kind == "unknown_outcome" else "waiting"
            found[call] = _open(event, event.reason, state)
        elif isinstance(event, ToolIntended):
            found[call] = _open(event, "Begun; what came of it is not known.", "unknown")
    return tuple(found.values())


def decisions_of(events: Sequence[RunEvent]) -> tuple[str, ...]:
    """What the agent decided, in plain words."""
    said = {
        "use_tools": "used",
        "ask_user": "asked the user",
        "answer": "answered",
        "escalate": "asked for a person",
        "revise": "had to write again",
    }
    found: list[str] = []
    for event in events:
        if isinstance(event, DecisionMade):
            tools = f" {', '.join(event.tools)}" if event.decision == "use_tools" else ""
            found.append(f"Turn {_turn(event.key)}: {said[event.decision]}{tools}")
        elif isinstance(event, ApprovalDecided):
            note = f": {event.note}" if event.note else ""
            found.append(f"{event.by or 'Nobody in time'} decided: {event.decision}{note}")
        elif isinstance(event, LoopNoticed):
            found.append(f"{event.tool} came to the same state {event.repeat} times")
    return tuple(found)


def checks_of(item: Escalation, events: Sequence[RunEvent]) -> tuple[Check, ...]:
    """Why it is here: what failed first, then what did not."""
    found = [Check(text=item.reason, passed=False)]
    verdicts = (e for e in events if isinstance(e, VerdictGiven) and e.action != "allow")
    found += [Check(text=f"{e.guardrail}: {e.text}"[:_MOST_TEXT], passed=False) for e in verdicts]
    ok = [e for e in events if isinstance(e, ToolSucceeded)]
    if ok:
        names = ", ".join(dict.fromkeys(event.tool for event in ok))
        found.append(Check(text=f"Worked: {names}", passed=True))
    seen = {check.text: check for check in reversed(found)}
    return tuple(check for check in found if seen.pop(check.text, None) is not None)


def summary_of(item: Escalation, lines: Sequence[Line], tried: Sequence[Attempt]) -> str:
    """Two sentences: what the user wants, what was done, why it stopped."""
    asked = next((line.text for line in lines if line.who == "user"), "")
    worked = sum(1 for attempt in tried if attempt.outcome == "ok")
    done = f"{len(tried)} actions, {worked} of them worked" if tried else "no action so far"
    who = item.user if item.user != "anonymous" else "The user"
    words = asked.strip() if len(asked) <= 160 else f"{asked[:157]}..."
    stop = "" if words.endswith((".", "!", "?")) else "."
    return f"{who} wrote: “{words}”{stop} The agent {item.agent}: {done}. {item.reason}"


def suggestion_of(events: Sequence[RunEvent], delivered: Sequence[Line]) -> str:
    """The newest draft, else the agent's last words that nobody was sent."""
    drafts = [e for e in events if isinstance(e, ModelReplied) and "/errand/" in e.key]
    if drafts:
        return drafts[-1].reply.text
    last = next((e for e in reversed(events) if isinstance(e, ModelReplied)), None)
    text = "" if last is None else last.reply.text
    return "" if any(line.text == text for line in delivered) else text


def _attempt(event: ToolOutcome, by: Mapping[str, str]) -> Attempt:
    outcome: Outcome = "ok" if isinstance(event, ToolSucceeded) else "failed"
    if isinstance(event, ToolRefused):
        outcome = "refused"
    return Attempt(
        tool=event.tool,
        arguments=event.arguments,
        outcome=outcome,
        result=event.result.content[:_MOST_TEXT],
        at=event.at,
        by=by.get(event.key.rpartition("/tool/")[0], ""),
    )


def _open(event: ApprovalAsked | ToolIntended, said_so: str, state: Outcome) -> Attempt:
    return Attempt(
        tool=event.tool,
        arguments=event.arguments,
        outcome=state,
        result=said_so,
        at=event.at,
    )


def _turn(key: str) -> str:
    parts: Any = key.split("/")
    return str(parts[1]) if len(parts) > 1 else ""


def approval_of(wait: WaitRow) -> Approval:
    """A call that waits to be decided, as persons see it."""
    return Approval(
        id=wait.id,
        run_id=wait.run_id,
        tool=wait.tool,
        arguments=wait.detail["arguments"],
        asks=wait.asks,  # type: ignore[arg-type]
        kind=wait.kind,  # type: ignore[arg-type]
        reason=wait.detail.get("reason", ""),
        expires=wait.expires,
    )


def _pending(waiting: Sequence[WaitRow], votes: Sequence[rows.Vote]) -> tuple[Approval, ...]:
    """What waits to be decided; that one person has agreed to it already is said with it."""
    kinds = ("approval", "unknown_outcome", "failure", "version")
    found = [approval_of(w) for w in waiting if w.kind in kinds and w.answered_at is None]
    by = {vote.approval: vote.by for vote in votes}
    return tuple(
        replace(each, reason=f"{each.reason} {by[each.id]} agreed: it needs a second person.")
        if each.id in by
        else each
        for each in found
    )


def _similar(found: Sequence[Escalation]) -> tuple[Similar, ...]:
    return tuple(
        Similar(id=i.id, reason=i.reason, resolution=i.resolution, at=i.resolved_at or 0)
        for i in found
    )


def outcome_of(tx: Tx, run_id: str, keys: Sequence[str]) -> tuple[RunEvent | None, bool]:
    """The outcome under one of these keys, and whether the run is over."""
    events = recorded.events(tx, run_id)
    kinds = (ModelReplied, ToolOutcome, Noted)
    found = next((e for e in reversed(events) if e.key in keys and isinstance(e, kinds)), None)
    return found, runs.get(tx, run_id).status in ENDS

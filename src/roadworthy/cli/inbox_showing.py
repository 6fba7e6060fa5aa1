"""Escalations in the terminal, in plain words: the list, and one with all that is known of it.

`roadworthy inbox` calls it. Invariant: never JSON, and text of users and models is cleaned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from roadworthy.cli.screen import clean, when
from roadworthy.escalation.views import Escalation
from roadworthy.packet import Attempt, Line, Packet
from roadworthy.result import Approval

_MARKS = {"ok": "✓", "failed": "✗", "refused": "✗", "unknown": "?", "waiting": "…"}
_ASKS = {
    "approval": "waits for your word",
    "unknown_outcome": "did it happen? approve: it did not, run it; respond: it did, with result",
    "failure": "failed. approve: try again; respond: with its result; reject: leave it",
    "version": "the agent changed. approve: go on; reject: stop",
}


def listing(items: Sequence[Escalation], now: int) -> Table:
    """What waits, first things first, by number."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("id", no_wrap=True, min_width=max(len(item.id) for item in items))
    for name in ("since", "user", "agent", "queue", "state", "why"):
        table.add_column(name, no_wrap=name != "why")
    for number, item in enumerate(items, 1):
        late = item.status == "open" and item.due_at is not None and item.due_at < now
        table.add_row(
            str(number),
            item.id,
            when(item.created_at),
            clean(item.user),
            clean(item.agent),
            clean(item.queue),
            state_of(item, now),
            clean(item.reason),
            style="red" if late else "yellow" if item.status == "open" else None,
        )
    return table


def state_of(item: Escalation, now: int) -> str:
    """How it stands, in a few words."""
    if item.status == "taken":
        return f"{clean(item.assignee or '')} has it"
    if item.status == "resolved":
        return "resolved"
    if item.snoozed_until is not None and item.snoozed_until > now:
        return f"asleep until {when(item.snoozed_until)}"
    if item.assignee and (item.locked_until or 0) > now:
        return f"{clean(item.assignee)} looks at it"
    late = item.due_at is not None and item.due_at < now
    return "overdue" if late else "waits"


def show_packet(out: Console, packet: Packet, now: int) -> None:
    """All that is known of one."""
    item = packet.escalation
    out.print(f"{clean(item.user)} and {clean(item.agent)} · {state_of(item, now)}", style="bold")
    out.print(clean(packet.summary))
    _block(out, "Why it is here", (f"{'✓' if c.passed else '✗'} {c.text}" for c in packet.why))
    _block(out, "What the agent decided", packet.decisions)
    _block(out, "What was tried", (line for each in packet.tried for line in _tried(each)))
    _block(out, "What the agent remembers", packet.memory)
    _block(out, "Resolved before", (f"{s.reason} → {s.resolution}" for s in packet.similar))
    notes = (f"{e.by}: {e.text}" for e in packet.log if e.action == "note")
    _block(out, "Notes", notes)
    _block(out, "Conversation", (spoken(line) for line in packet.conversation))
    for number, approval in enumerate(packet.pending, 1):
        what = approval.tool or "The run"
        _block(out, f"{number}. {what}: {_ASKS[approval.kind]}", _pending(approval))
    if packet.suggested:
        _block(out, "Suggested reply", packet.suggested.splitlines())


def spoken(line: Line) -> str:
    """One message, and who wrote it."""
    return f"{line.by or line.who}: {line.text}"


def plain(value: object) -> str:
    """A value as a person would write it."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {plain(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(each) for each in value) or "none"
    if value is None or value == "":
        return "none" if value is None else "empty"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _tried(one: Attempt) -> Iterator[str]:
    who = f" (by {one.by})" if one.by else ""
    yield f"{_MARKS[one.outcome]} {one.tool}{who}: {plain(one.arguments)}"
    if one.result:
        yield f"    {_result(one.result)}"


def _result(text: str) -> str:
    """What a tool answered; a table or object without its punctuation."""
    return text.translate(str.maketrans("", "", '{}[]"')) if text[:1] in '{["' else text


def _pending(approval: Approval) -> Iterator[str]:
    yield from (f"{name}: {plain(value)}" for name, value in approval.arguments.items())
    if approval.reason:
        yield approval.reason


def _block(out: Console, title: str, lines: Iterator[str] | Sequence[str]) -> None:
    found = list(lines)
    if not found:
        return
    out.print(Text(f"\n{clean(title)}", style="bold"))
    for line in found:
        first, *more = clean(line).split("\n")
        out.print(f"  {first}")
        for rest in more:
            out.print(f"    {rest}")

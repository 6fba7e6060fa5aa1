"""What the scenarios share: a runtime on a fresh file, and questions about what was recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from roadworthy import Message, RunEvent, Runtime, ToolResult
from roadworthy.events import StreamEvent

E = TypeVar("E")
Given: TypeAlias = Any
"""What a test, or a careless user, hands in."""


def url(folder: Path) -> str:
    """A store of its own."""
    return f"sqlite:///{folder}/t.db"


async def journal(rt: Runtime, run_id: str) -> list[RunEvent]:
    """What is recorded of a run that stands still."""
    return [event async for event in rt.events(run_id) if isinstance(event, RunEvent)]


async def of_kind(rt: Runtime, run_id: str, kind: type[E]) -> list[E]:
    """The recorded events of one kind."""
    return [event for event in await journal(rt, run_id) if isinstance(event, kind)]


def kinds(events: Iterable[StreamEvent]) -> list[str]:
    """The names of events, in order."""
    return [type(event).__name__ for event in events]


def results(messages: Iterable[Message]) -> list[ToolResult]:
    """Every result of a call among the messages."""
    return [part for m in messages for part in m.parts if isinstance(part, ToolResult)]


def unanswered(messages: Sequence[Message]) -> list[str]:
    """Ids of the calls whose result is not in the very next message, as providers demand it."""
    found: list[str] = []
    for index, message in enumerate(messages):
        if not message.tool_calls:
            continue
        following = messages[index + 1 : index + 2]
        answered = Counter(result.call_id for result in results(following))
        found += [call.id for call in message.tool_calls if not answered[call.id]]
    return found

"""How often tools took place in the earlier runs of a conversation, for rules that count them.

`turn` asks before it plans. Invariant: read once a run and recorded, for those runs are over; what
may have happened counts, as within a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from roadworthy.events import (
    Noted,
    RunEvent,
    ToolAttemptFailed,
    ToolFailed,
    ToolIntended,
    ToolOutcome,
    ToolRefused,
    ToolRungLeft,
    ToolSucceeded,
    call_key,
)
from roadworthy.meter import Meter
from roadworthy.run import Done, Run
from roadworthy.store import recorded
from roadworthy.tool_calls.cache import Reader

_TYPES: tuple[type[RunEvent], ...] = (
    ToolIntended,
    ToolAttemptFailed,
    ToolRungLeft,
    ToolSucceeded,
    ToolFailed,
    ToolRefused,
)


async def look_back(read: Reader, run: Run, tools: Iterable[str]) -> None:
    """Learn it of those of these tools for which it counts."""
    for tool in dict.fromkeys(tools):
        if (
            run.conversation is None
            or tool in run.earlier
            or not run.agent.rulebook.looks_back(tool)
        ):
            continue
        run.earlier[tool] = await _times(read, run, tool)


async def _times(read: Reader, run: Run, tool: str) -> int:
    async def effect() -> Done[Noted]:
        names = [kind.__name__ for kind in _TYPES]
        events = await read(lambda tx: recorded.of_tool_before(tx, run.id, tool, names))
        return Done(Noted(key=key, value=times(tool, events)))

    key = f"rules/earlier/{tool}"
    known = (await run.step(key, effect)).value
    return int(known)


def times(tool: str, events: Sequence[RunEvent]) -> int:
    """How often a tool may have taken place, by the events of runs that are over."""
    meter, begun, over = Meter(), set[tuple[str, str]](), set[tuple[str, str]]()
    for event in events:
        call = event.run_id, call_key(event.key)
        match event:
            case ToolIntended():
                begun.add(call)
            case ToolRungLeft() if event.next == "alternative":
                begun.add(call)
            case ToolAttemptFailed() if event.ruled_out:
                begun.discard(call)
            case ToolOutcome():
                over.add(call)
            case _:
                pass
        if isinstance(event, ToolSucceeded | ToolFailed):
            meter.count(event)
    return meter.happened[tool] + len(begun - over)

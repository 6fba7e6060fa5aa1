"""What became of an effect whose outcome is unknown, as far as the record and its tool know.

`call` and `ladder` ask. Invariant: what may have happened counts as open until it is ruled out by
`reconcile` or a person.
"""

from __future__ import annotations

import asyncio

from roadworthy.context import RunContext
from roadworthy.events import ToolAttemptFailed
from roadworthy.run import Run
from roadworthy.tool_calls.plan import Planned
from roadworthy.tool_calls.private import reconciled
from roadworthy.tools.execution import ToolThreads


def left_unknown(run: Run, key: str) -> bool:
    """Whether an earlier attempt at an effect failed and may have had it all the same, as far as
    the record says. One that a process died in is an open intent."""
    lost = 0
    for event in run.past.attempts.get(key, ()):
        if isinstance(event, ToolAttemptFailed):
            if event.applied == "unknown":
                lost = event.attempt
            elif event.ruled_out:
                lost = 0
    said = run.past.answers.get(f"{key}/unknown/{lost}") if lost else None
    return bool(lost) and (said is None or said["decision"] != "approve")


async def reconcile(
    run: Run, threads: ToolThreads, planned: Planned, context: RunContext[object]
) -> object:
    """("applied", value), "not_applied" or "unknown", as the tool's own function finds out."""
    tool = planned.tool
    if tool.reconcile is None:
        return "unknown"
    try:
        async with asyncio.timeout(tool.timeout or run.limits.tool_seconds):
            found = await threads.call(tool.reconcile, (context,), planned.values)
    except Exception:  # noqa: BLE001 - border: a user's function; not knowing is its answer
        return "unknown"
    return await reconciled(run, tool, found)

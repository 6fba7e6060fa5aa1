"""Tools of the runtime's own, offered where they are of use: `find_tool` and `read_more`.

`turns` offers them, `turn` has them served. Invariant: they only read, and count as calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from roadworthy.events import ToolOutcome
from roadworthy.messages import ToolCall, ToolSpec
from roadworthy.run import Done, Run
from roadworthy.store.database import Tx
from roadworthy.tool_calls import choice, more
from roadworthy.tools.registry import Registry


def own_tools(run: Run, registry: Registry) -> tuple[ToolSpec, ...]:
    """Those this turn has, behind the agent's own."""
    return choice.find_tool(run, registry) + more.offered(run)


async def serve(
    read: Callable[[Callable[[Tx], bytes]], Awaitable[bytes]],
    run: Run,
    registry: Registry,
    step: tuple[str, ToolCall],
) -> Done[ToolOutcome]:
    """The outcome of a call of one of them. step: its key, and the call."""
    key, call = step
    if run.meter.tool_calls >= run.limits.tool_calls:
        return Done(more.refusal(key, call, "No tool calls are left. Answer now.", "limit"))
    if call.tool == choice.FIND_TOOL:
        return choice.look_for(run, registry, key, call)
    return await more.read_on(read, run, key, call)

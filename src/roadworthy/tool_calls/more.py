"""Results too long to be shown at once: the whole is kept in the store, the model reads on in it.

`turn` cuts and serves, `turns` offers `read_more` where there is something to read. Invariant: a
handle opens only what is cut among the run's own messages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec

from roadworthy.events import ToolOutcome, ToolRefused, ToolSucceeded
from roadworthy.messages import ToolCall, ToolResult, ToolSpec
from roadworthy.run import Done, Run
from roadworthy.store import payloads
from roadworthy.store.database import Tx
from roadworthy.tool_calls.plan import Planned
from roadworthy.tools.pages import Page, page
from roadworthy.tools.registry import argument_hash
from roadworthy.tools.tables import heading
from roadworthy.transcript import handle

READ_MORE = ToolSpec(
    name="read_more",
    description=(
        "Read on in a result that was cut. Ask for less instead, where the tool can: a narrower "
        "search, fewer fields."
    ),
    parameters={
        "type": "object",
        "properties": {
            "handle": {"type": "string", "description": "As given where the result was cut."},
            "offset": {
                "type": "integer",
                "minimum": 0,
                "description": "The character to go on from, as given there.",
            },
        },
        "required": ["handle", "offset"],
        "additionalProperties": False,
    },
)


def shortened(run: Run, planned: Planned, done: Done[ToolOutcome]) -> Done[ToolOutcome]:
    """The outcome with no more of its result than may be shown; the whole is kept in its commit."""
    outcome, most = done.outcome, planned.tool.result_bytes or run.limits.result_bytes
    whole = outcome.result.content
    if len(whole) * 4 <= most or len(data := whole.encode("utf-8", "replace")) <= most:
        return done
    address = run.position.seal.address(data)
    shown = page(whole, 0, most)
    result = msgspec.structs.replace(
        outcome.result, content=shown.text + _rest(shown, address), rest=address
    )

    def also(tx: Tx) -> Any:  # noqa: ANN401 - as the outcome's own
        payloads.keep(tx, data, run.position.seal)
        return done.also(tx) if done.also is not None else None

    return replace(done, outcome=msgspec.structs.replace(outcome, result=result), also=also)


def offered(run: Run) -> tuple[ToolSpec, ...]:
    """The tool, in runs that have a cut result."""
    return (READ_MORE,) if run.cut.among(run.messages) else ()


async def read_on(
    read: Callable[[Callable[[Tx], bytes]], Awaitable[bytes]], run: Run, key: str, call: ToolCall
) -> Done[ToolOutcome]:
    """One page, or why there is none."""
    asked = call.arguments
    name, start = asked.get("handle"), asked.get("offset", 0)
    cut = run.cut.among(run.messages)
    address = cut.get(name) if isinstance(name, str) else None
    if call.malformed is not None or address is None:
        known = ", ".join(cut)
        return Done(refusal(key, call, f"There is no such handle. Handles are: {known}."))
    if not isinstance(start, int) or isinstance(start, bool) or start < 0:
        return Done(refusal(key, call, "offset must be a number of characters, 0 or more."))
    await run.flushed()
    text = (await read(lambda tx: payloads.fetch_one(tx, address))).decode("utf-8", "replace")
    if start >= len(text):
        return Done(refusal(key, call, f"The result ends at {len(text)}; nothing is left."))
    head = heading(text) if start else ""
    shown = page(text, start, max(run.limits.result_bytes - len(head.encode()), 500))
    content = head + shown.text + _rest(shown, address)
    return Done(answer(key, call, content))


def answer(key: str, call: ToolCall, content: str) -> ToolSucceeded:
    """What a tool of the runtime's own found."""
    digest = argument_hash(call.tool, {"shown": content})[:16]
    return ToolSucceeded(
        key=key,
        tool=call.tool,
        arguments=call.arguments,
        arguments_hash=argument_hash(call.tool, call.arguments),
        result=ToolResult(tool=call.tool, call_id=call.id, content=content),
        result_hash=digest,
    )


def refusal(key: str, call: ToolCall, content: str, code: str = "invalid_arguments") -> ToolRefused:
    """Why a tool of the runtime's own does nothing."""
    result = ToolResult(tool=call.tool, call_id=call.id, content=content, status="refused")
    arguments = call.arguments if call.malformed is None else {"malformed": call.malformed[:2_000]}
    return ToolRefused(key=key, tool=call.tool, arguments=arguments, result=result, code=code)


def _rest(shown: Page, address: str) -> str:
    if shown.end >= shown.total:
        return "\n[the end]"
    return (
        f"\n[cut: characters {shown.start} to {shown.end} of {shown.total}. Read on with "
        f'{READ_MORE.name}(handle="{handle(address)}", offset={shown.end})]'
    )

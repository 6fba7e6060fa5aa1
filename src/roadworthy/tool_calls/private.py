"""Where clear text meets a tool: arguments are revealed to it, what comes back is concealed.

Used by `plan`, `turn` and `call`. Invariant: what is planned, recorded, hashed or kept of a call
is concealed, whole before it is cut; only its typed values, which are never stored, are clear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from sys import maxsize
from typing import Any

from roadworthy.agent import Tool
from roadworthy.context import RunContext
from roadworthy.errors import ToolError
from roadworthy.messages import JsonObject, ToolCall
from roadworthy.run import Run
from roadworthy.tools import execution
from roadworthy.tools.execution import MOST_TEXT, AttemptFailed, ToolThreads
from roadworthy.tools.registry import Accepted, Refused, Registry, argument_hash
from roadworthy.tools.results import Rendered, render


async def check(run: Run, registry: Registry, call: ToolCall) -> Accepted | Refused:
    """Whether the call may go on. It is judged, and its values read, by what it means in clear."""
    veil = run.veil
    if not veil.on:
        return registry.check(call)
    checked = registry.check(await veil.reveal(call))
    if isinstance(checked, Refused):
        return replace(checked, message=await veil.conceal(checked.message))
    canonical = await veil.conceal(checked.canonical)
    return replace(checked, canonical=canonical, hash=argument_hash(checked.tool.name, canonical))


def in_clear(
    run: Run, tool: Tool[Any], values: Mapping[str, Any], arguments: JsonObject
) -> JsonObject:
    """The arguments as plain JSON for a rule to judge; never recorded."""
    if not run.veil.on:
        return arguments
    try:
        return tool.reader.canonical(values)
    except ToolError:  # a user's type without a JSON form
        return arguments


async def attempt(
    run: Run,
    threads: ToolThreads,
    tool: Tool[Any],
    context: RunContext[Any],
    values: Mapping[str, Any],
    left: Callable[[], None] | None = None,
) -> object:
    """One try, as `execution.attempt`; with a privacy its result is rendered and concealed."""
    if not run.veil.on:
        return await execution.attempt(threads, tool, context, values, left)
    try:
        value = await execution.attempt(threads, tool, context, values, left)
        return await _concealed(run, tool, value)
    except AttemptFailed as error:
        raise AttemptFailed(
            error.code,
            await _said(run, error),
            applied=error.applied,
            transient=error.transient,
            fault=error.fault,
        ) from None


async def reconciled(run: Run, tool: Tool[Any], found: object) -> object:
    """What `reconcile` found, its value concealed."""
    match found:
        case ("applied", value) if run.veil.on:
            return "applied", await _concealed(run, tool, value)
        case _:
            return found


async def _said(run: Run, error: AttemptFailed) -> str:
    whole = str(error.__cause__ or "")
    before = str(error)[: len(str(error)) - min(len(whole), MOST_TEXT)]
    return before + (await run.veil.conceal(whole))[:MOST_TEXT]


async def _concealed(run: Run, tool: Tool[Any], value: object) -> object:
    """The whole result, cut only afterwards, so that no half of a value is left over."""
    try:
        whole = render(value, tool.name, most=maxsize)
    except ToolError:
        return value  # it has no text; whoever renders it says so
    text = render(await run.veil.conceal(whole.text), tool.name).text
    return Rendered(text, await run.veil.conceal(whole.files))

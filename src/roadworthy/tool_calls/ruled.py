"""An agent's rules, and what one run may use, against one call.

`plan`, `turn`, `approval` and `absent` ask. Invariant: what was recorded before this reply, the
reply itself and the declarations decide, so a resumed run and a replay are refused the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from roadworthy.agent import Agent
from roadworthy.context import RunContext
from roadworthy.errors import RunError
from roadworthy.messages import JsonObject, ToolCall
from roadworthy.rules import Broken, OnlyAfterApproval, Over
from roadworthy.run import Run
from roadworthy.standins import Asks
from roadworthy.tool_calls.private import in_clear
from roadworthy.tools.registry import Accepted

log = logging.getLogger("roadworthy.run")


def check_only(agent: Agent[Any, Any], only: Sequence[str] | None, *, complete: bool) -> None:
    """complete: no tools of the agent are still to come.

    Raises: RunError: `RunOptions(tools=)` names tools that are none, or that can never be called.
    """
    given: object = only
    if given is None:
        return
    if isinstance(given, str) or not all(isinstance(name, str) for name in only or ()):
        raise RunError(f"RunOptions(tools={given!r:.80}): give a list of the tools' names.")
    belt = agent.toolbelt
    for name in only or ():
        if name not in belt and complete:
            raise RunError(
                f"RunOptions(tools=): {agent.name!r} has no tool {name!r:.60}. It has: "
                f"{', '.join(belt) or 'none'}."
            )
        for what, other in _leans_on(agent, name):
            if other not in (only or ()):
                raise RunError(f"RunOptions(tools=): {what} {other!r}. Allow that too.")


def _leans_on(agent: Agent[Any, Any], name: str) -> Iterator[tuple[str, str]]:
    """The other tools of the agent that one tool does not go without."""
    for need in agent.rulebook.needed(name):
        yield f"{name!r} could never run, because a rule requires before it", need
    tool = agent.toolbelt.get(name)
    for other in () if tool is None else tool.alternatives:
        if other.name in agent.toolbelt:
            yield f"where {name!r} fails, it is stood in for by", other.name


def not_allowed(run: Run) -> frozenset[str]:
    """The agent's tools that this run may not use."""
    only = run.options.tools
    return frozenset() if only is None else frozenset(run.agent.toolbelt).difference(only)


def forbidden(run: Run, name: str) -> str | None:
    """What the model is told of a tool that this run may not use."""
    only = run.options.tools
    if only is None or name in only:
        return None
    names = ", ".join(known for known in run.agent.toolbelt if known in only)
    return f"{name} is not allowed in this run. " + (
        f"Allowed are: {names}." if names else "No tool is; answer without."
    )


def broken_by(run: Run, call: Accepted, ahead: int) -> Broken | None:
    """The rule that an otherwise acceptable call would break.

    ahead: how many calls of its tool come before it in the same reply; they may all take place.
    """
    book, tool, meter = run.agent.rulebook, call.tool, run.meter
    if not book.governs(tool.name):
        return None
    broken = book.out_of_order(tool.name, meter.succeeded) or out_of_bounds(run, call)
    if broken is not None or _done_before(run, call):
        return broken
    times, earlier = meter.happened[tool.name] + ahead, run.earlier.get(tool.name, 0)
    return book.too_often(tool.name, times, earlier)


def out_of_bounds(run: Run, call: Accepted) -> Broken | None:
    """The bound that an argument passes."""
    clear = in_clear(run, call.tool, call.values, call.canonical)
    return run.agent.rulebook.out_of_bounds(call.tool.name, clear)


def _done_before(run: Run, call: Accepted) -> bool:
    """Whether it is only to be answered with what the same call came to."""
    changes = call.tool.effect != "read" and not call.tool.repeatable
    return changes and call.hash in run.effects_done


def holds(
    rule: OnlyAfterApproval, context: RunContext[object], call: ToolCall, clear: JsonObject
) -> bool:
    """Whether a person has to agree by this rule. One that cannot say means yes."""
    if rule.when is None:
        return True
    if isinstance(rule.when, Over):
        return rule.when.holds(clear)
    try:
        said: object = rule.when(context, call)
    except Exception:  # border: a user's function; without its word a person decides
        log.exception("%s failed", rule, extra={"run": context.run_id})
        return True
    return said is not False


def strictest(said: Asks | None, others: Sequence[Asks]) -> Asks | None:
    """The operator before the user before nobody."""
    everyone = {said, *others}
    return next((asks for asks in ("operator", "user") if asks in everyone), None)

"""Tools that are not there in every turn: their own rules decide, once a turn, and it is recorded.

`turns` asks before it offers tools, `plan` refuses what was not offered. Invariant: a rule that
fails, or says anything but a bool, leaves its tool out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from roadworthy.agent import Tool
from roadworthy.run import Run
from roadworthy.tool_calls.ruled import not_allowed

log = logging.getLogger("roadworthy.run")


async def absent(run: Run) -> frozenset[str]:
    """The tools this turn has not."""
    forbidden = not_allowed(run)
    rules, key = run.agent.conditional, f"turn/{run.turn}/tools"
    unruled = f"turn/{run.turn}/model" in run.past.outcomes and key not in run.past.outcomes
    if not rules or unruled:  # answered before there was a rule
        return forbidden
    away = await run.value(key, lambda: [t.name for t in rules if not _is_there(run, t)])
    return forbidden.union(away)


def not_now(run: Run, name: str, names: Sequence[str]) -> str:
    """What the model is told of a call to a tool this turn has not."""
    others = ", ".join(known for known in names if known not in run.away)
    return f"{name} is not available in this turn. " + (
        f"Available are: {others}." if others else "No tool is available; answer without."
    )


def _is_there(run: Run, tool: Tool[object]) -> bool:
    rule: Callable[..., object] = tool.available or (lambda _: True)
    try:
        said = rule(run.context(tool=tool.name))
    except Exception:  # border: a user's function; without its word the tool is not offered
        log.exception("available= of %s failed", tool.name, extra={"run": run.id})
        return False
    if not isinstance(said, bool):
        log.error("available= of %s said %.60r, no bool", tool.name, said, extra={"run": run.id})
    return said is True

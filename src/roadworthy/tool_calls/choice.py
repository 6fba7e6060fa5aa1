"""Which of an agent's many tools a turn shows, and `find_tool` for the others.

`turns` asks before each call of the model. Invariant: the choice is recorded, and within a run a
tool moves only when `find_tool` found others or one was called: the request's beginning stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from roadworthy.agent import WARN_TOOLS
from roadworthy.events import ToolOutcome
from roadworthy.messages import Message, ToolCall, ToolResult, ToolSpec
from roadworthy.run import Done, Run
from roadworthy.tool_calls.more import answer, refusal
from roadworthy.tools.meaning import local_meaning
from roadworthy.tools.registry import Registry
from roadworthy.tools.words import words

FIND_TOOL = "find_tool"
_FOUND, _NAMED, _SAID, _FEW_WORDS = 5, 100, 300, 4


async def chosen(run: Run, registry: Registry) -> tuple[str, ...] | None:
    """The tools this turn shows, in order. None: all of them."""
    key = f"turn/{run.turn}/shown"
    unruled = f"turn/{run.turn}/model" in run.past.outcomes and key not in run.past.outcomes
    if not run.agent.selects or unruled:  # answered before there was a choice
        return None
    if key not in run.past.outcomes:
        await asyncio.to_thread(local_meaning)  # its first call takes long
    return tuple(await run.value(key, lambda: list(_choice(run, registry))))


def find_tool(run: Run, registry: Registry) -> tuple[ToolSpec, ...]:
    """The tool that finds others, where there are any that this turn does not show."""
    if run.selected is None:
        return ()
    hidden = [n for n in registry.names if n not in run.selected and n not in run.away]
    if not hidden:
        return ()
    more = f" and {len(hidden) - _NAMED} more" if len(hidden) > _NAMED else ""
    text = (
        "Find tools that you need and do not see here, by what they should do; what is found can "
        f"be called from the next turn on. There are: {', '.join(hidden[:_NAMED])}{more}."
    )
    what = {"type": "string", "description": "What the tool should do, or its name."}
    schema = {
        "type": "object",
        "properties": {"query": what},
        "required": ["query"],
        "additionalProperties": False,
    }
    return (ToolSpec(name=FIND_TOOL, description=text, parameters=schema),)


def look_for(run: Run, registry: Registry, key: str, call: ToolCall) -> Done[ToolOutcome]:
    """What a call of `find_tool` finds."""
    query = call.arguments.get("query")
    if call.malformed is not None or not isinstance(query, str) or not query.strip():
        return Done(refusal(key, call, f"{FIND_TOOL}: query must be a text that is not empty."))
    names = registry.selector.best(query, _FOUND, _there(run, registry))
    if not names:
        said = "No tool has to do with that. Use other words, or answer without."
        return Done(answer(key, call, said))
    lines = (f"- {spec.name}: {spec.description[:_SAID]}" for spec in registry.specs_of(names))
    return Done(answer(key, call, "\n".join(["Yours from the next turn on:", *lines])))


def _choice(run: Run, registry: Registry) -> Iterable[str]:
    """What was shown, called and found; else the likeliest for the user's words."""
    known, there = frozenset(registry.names), _there(run, registry)
    called = dict.fromkeys(c.tool for m in run.messages for c in m.tool_calls if c.tool in known)
    before = run.selected
    if before is None:
        fresh = [name for name in there if name not in called]
        likely = registry.selector.best(_asked(run.messages), WARN_TOOLS, fresh)
        rest = [name for name in fresh if name not in likely]
        return [*called, *likely, *rest[: WARN_TOOLS - len(likely)]]
    found = [name for name in _found(run.messages) if name in known and name not in called]
    unused = dict.fromkeys([*found, *(name for name in before if name not in called)])
    kept = {*called, *list(unused)[:WARN_TOOLS]}
    return [name for name in dict.fromkeys([*before, *called, *found]) if name in kept]


def _there(run: Run, registry: Registry) -> list[str]:
    return [name for name in registry.names if name not in run.away]


def _asked(messages: Iterable[Message]) -> str:
    """The user's last words; where they are few, with those before them."""
    said = [m.text for m in messages if m.role == "user" and not m.by_runtime]
    few = len(words(said[-1])) < _FEW_WORDS if said else False
    return "\n".join(said[-2:] if few else said[-1:])


def _found(messages: list[Message]) -> Iterator[str]:
    """What `find_tool` found in the last turn."""
    for message in reversed(messages):
        if message.role == "assistant":
            return
        for part in message.parts:
            if isinstance(part, ToolResult) and part.tool == FIND_TOOL and part.status == "ok":
                lines = part.content.splitlines()
                yield from (li[2:].partition(":")[0] for li in lines if li.startswith("- "))

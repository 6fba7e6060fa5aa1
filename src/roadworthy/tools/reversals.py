"""What `undo=` may declare, checked against the tool whose effect is to be taken back.

`declare` asks it. Invariant: an undo whose arguments come from nowhere never comes to exist.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from roadworthy.agent import Tool
from roadworthy.messages import JsonObject
from roadworthy.tools.fallbacks import fits, properties
from roadworthy.undo import RESULT, Undo, is_result

Reversal: TypeAlias = Tool[Any] | Undo[Tool[Any]]


def reversal(declared: Reversal | None) -> Undo[Tool[Any]] | None:
    """What was declared, as an Undo: a bare tool takes the arguments of the same name."""
    return Undo(declared) if isinstance(declared, Tool) else declared


def wrong_undo(made: Tool[Any]) -> str | None:
    """What is wrong with the undo of a tool, and how to mend it."""
    undo: object = made.undo
    if undo is None:
        return None
    if not isinstance(undo, Undo):
        return f"undo={undo!r:.60} is no tool and no Undo(tool, arguments)."
    other: object = undo.tool
    if not isinstance(other, Tool):
        return f"undo={other!r:.60} is no tool; put @tool above it."
    return _wrong_effect(made, other) or _wrong_mapping(made, other, undo)


def _wrong_effect(made: Tool[Any], other: Tool[Any]) -> str | None:
    if made.effect == "read":
        return 'undo= is for effects; a tool with effect="read" leaves nothing to take back.'
    if other.effect == "read":
        return f'its undo {other.name!r} has effect="read", so it takes nothing back.'
    return "undo= must be another tool, of another name." if other.name == made.name else None


def _wrong_mapping(made: Tool[Any], other: Tool[Any], undo: Undo[Tool[Any]]) -> str | None:
    """Whether every argument it needs comes from somewhere."""
    ours, theirs = properties(made.parameters), properties(other.parameters)
    for target in (*undo.arguments, *undo.fixed):
        if target not in theirs:
            return f"its undo {other.name!r} has no parameter {target!r}."
    for target, source in undo.arguments.items():
        wrong = _wrong_source(ours, source)
        if wrong:
            return f"its undo {other.name!r} maps {source!r} to {target!r}: {wrong}"
    same = {name: name for name in theirs if name in ours}
    sources = {**same, **undo.arguments}
    for target in other.parameters.get("required", ()):
        if target not in sources and target not in undo.fixed:
            return (
                f"its undo {other.name!r} gets no {target!r}. Say where it comes from: "
                f'Undo({other.name}, {{"{target}": "result.id"}}), or the name of an argument.'
            )
    for target, source in sources.items():
        if source in ours and target not in undo.fixed and not fits(ours[source], theirs[target]):
            return f"its undo {other.name!r} takes another type for {target!r}."
    return None


def _wrong_source(ours: JsonObject, source: str) -> str | None:
    if not is_result(source):
        known = ", ".join([*ours, RESULT])
        return None if source in ours else f"there is no such argument. There are: {known}."
    if RESULT in ours:
        return f"it has an argument named {RESULT!r} too, so nobody can tell which; rename that."
    return None if all(source.split(".")) else "a step of the path is empty."

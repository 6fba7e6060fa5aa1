"""What `fallback=` may declare: the rungs of a tool's ladder, checked against the tool.

`declare` asks it. Invariant: a rung that could not stand in for its tool, or might do an effect
twice, never comes to exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast, get_args

from roadworthy.agent import Alternative, Rung, Tool
from roadworthy.errors import ToolError
from roadworthy.messages import JsonObject
from roadworthy.standins import AskPerson, Asks, Default, LastGood
from roadworthy.tools.results import render

Fallback: TypeAlias = Tool[Any] | Rung[Any] | Sequence[Tool[Any] | Rung[Any]]

_KINDS = (Alternative, LastGood, Default, AskPerson)
_WIDER = {("integer", "number")}  # every value of the first is one of the second


def rungs(fallback: Fallback | None) -> tuple[Rung[Any], ...]:
    """What was declared, as rungs: a bare tool is an Alternative."""
    if fallback is None:
        return ()
    several = isinstance(fallback, Sequence)
    given = cast("Sequence[Tool[Any] | Rung[Any]]", fallback if several else (fallback,))
    return tuple(Alternative(each) if isinstance(each, Tool) else each for each in given)


def wrong_fallback(made: Tool[Any]) -> str | None:
    """What is wrong with the rungs of a tool, and how to mend it."""
    if not made.fallback:
        return None
    given: Sequence[object] = made.fallback
    for rung in given:
        if not isinstance(rung, _KINDS):
            return f"fallback={rung!r:.60} is no tool, Alternative, LastGood, Default or AskPerson."
    if made.later:
        return "fallback= is not for later=True: only its result or its failure ends it."
    wrong = next((found for rung in made.fallback if (found := _wrong(made, rung))), None)
    return wrong or _wrong_order(made.fallback)


def _wrong_order(given: Sequence[Rung[Any]]) -> str | None:
    places = [_KINDS.index(type(rung)) for rung in given]
    doubled = any(places.count(place) > 1 for place in places if place)
    if places != sorted(places) or doubled:
        return (
            "fallback= goes from best to last: alternatives, then one LastGood, one Default, one "
            "AskPerson."
        )
    if {Default, AskPerson} <= set(map(type, given)):
        return "fallback= ends with Default or with AskPerson: a Default always answers."
    return None


def _wrong(made: Tool[Any], rung: Rung[Any]) -> str | None:
    match rung:
        case Alternative():
            return _wrong_alternative(made, rung) or _wrong_mapping(made, rung)
        case AskPerson():
            known = get_args(Asks)
            return None if rung.asks in known else f"AskPerson({rung.asks!r}): one of {known}."
        case LastGood() | Default():
            return _wrong_stand_in(made, rung)


def _wrong_stand_in(made: Tool[Any], rung: LastGood | Default) -> str | None:
    if made.effect != "read":
        return f'{type(rung).__name__} needs effect="read": it would claim an effect nobody had.'
    if isinstance(rung, LastGood):
        good = 0 < rung.seconds < float("inf")
        return None if good else "LastGood(seconds) must be more than 0."
    try:
        render(rung.value, made.name)
    except ToolError as error:
        return f"its Default cannot be shown: {error}"
    return None


def _wrong_alternative(made: Tool[Any], rung: Alternative[Any]) -> str | None:
    other: object = rung.tool
    if not isinstance(other, Tool):
        return f"fallback={other!r:.60} is no tool; put @tool above it."
    if other.name == made.name:
        return "fallback= must be another tool, of another name."
    if (made.effect == "read") != (other.effect == "read"):
        return f"its fallback {other.name!r} must read where it reads and act where it acts."
    if other.later:
        return f"its fallback {other.name!r} must give its result at once, not later=True."
    if made.approval is not None or other.approval is not None:
        return (
            "a tool and its fallback must need no approval: a person agrees to one call, not to "
            "another way of it."
        )
    return None


def _wrong_mapping(made: Tool[Any], rung: Alternative[Any]) -> str | None:
    """Whether every argument has a place to go, and what is needed comes from somewhere."""
    ours, theirs = properties(made.parameters), properties(rung.tool.parameters)
    name = rung.tool.name
    for target, source in rung.arguments.items():
        if source not in ours or target not in theirs:
            return f"its fallback {name!r} maps {source!r} to {target!r}; one does not exist."
    for target in rung.fixed:
        if target not in theirs:
            return f"its fallback {name!r} has no parameter {target!r} to fix."
    sources = {**{same: same for same in ours}, **rung.arguments}
    taken = {*rung.arguments.values(), *rung.without}
    lost = [each for each in ours if each not in theirs and each not in taken]
    given = {t for t, s in sources.items() if t in rung.arguments or s not in taken} | {*rung.fixed}
    missing = [each for each in rung.tool.parameters.get("required", ()) if each not in given]
    if lost or missing:
        what = f"gets no {missing[0]!r}" if missing else f"has no place for {lost[0]!r}"
        return (
            f"its fallback {name!r} {what}. Map names by Alternative({name}, arguments="
            '{"theirs": "ours"}), or say fixed= or without=.'
        )
    for target in given - {*rung.fixed}:
        if target in theirs and not fits(ours[sources[target]], theirs[target]):
            return f"its fallback {name!r} takes another type for {target!r}."
    return None


def fits(ours: JsonObject, theirs: JsonObject) -> bool:
    """False only where two plain types cannot mean each other; the call is checked again."""
    mine, its = ours.get("type"), theirs.get("type")
    plain = isinstance(mine, str) and isinstance(its, str)
    return not plain or mine == its or (mine, its) in _WIDER


def properties(schema: JsonObject) -> JsonObject:
    found: JsonObject = schema.get("properties", {})
    return found

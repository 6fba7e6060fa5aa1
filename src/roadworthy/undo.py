"""`Undo`: which other tool takes an effect back, and with what; and which effects still stand.

Tools declare it, `tool_calls` records it with the effect, `ending` and `compensation` read that.
Invariant: what would be called is fixed by the record of the effect, not by what is declared later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from roadworthy.events import ToolSucceeded
from roadworthy.messages import JsonObject

RESULT = "result"
_NONE: Any = object()


class Undoing(Protocol):
    """A tool, as far as this looks at it."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def parameters(self) -> JsonObject:
        """The schema of its arguments."""
        ...


ToolT = TypeVar("ToolT", bound=Undoing)


@dataclass(frozen=True)
class Undo(Generic[ToolT]):
    """`undo=` of a tool: the tool that takes its effect back, and where that one's arguments come
    from.

    Parameters of the same name get what the original call was given. arguments: its parameter ->
    the original's parameter, or "result" (all of what it returned), or "result.booking.id" (what
    lies there in it). fixed: its parameters that get a constant.
    """

    tool: ToolT
    arguments: Mapping[str, str] = field(default_factory=dict)
    fixed: JsonObject = field(default_factory=dict)

    def mapped(self, given: JsonObject, result: str | None) -> JsonObject | None:
        """What it is to be called with. given: the original call's arguments. result: its text;
        None: nobody has one. None: something needed is not there, so a person has to look."""
        theirs: JsonObject = self.tool.parameters.get("properties", {})
        given = {name: value for name, value in given.items() if value is not None}
        found = {name: given[name] for name in theirs if name in given}
        for name, source in self.arguments.items():
            if source in given:
                found[name] = given[source]
            elif is_result(source):
                value = _NONE if result is None else _at(source, result, theirs.get(name, {}))
                if value is _NONE:
                    return None
                found[name] = value
            else:  # an argument that was left out
                found.pop(name, None)
        found |= self.fixed
        return found if all(name in found for name in _needed(self.tool)) else None

    def recorded(self, given: JsonObject, result: str | None) -> dict[str, Any]:
        """What the effect's outcome says of it."""
        return {"undo_by": self.tool.name, "undo": self.mapped(given, result)}

    def declared(self) -> JsonObject:
        """As data."""
        return {
            "tool": self.tool.name,
            "arguments": dict(self.arguments),
            "fixed": dict(self.fixed),
        }


def is_result(source: str) -> bool:
    """Whether an argument comes from what the original returned."""
    return source == RESULT or source.startswith(f"{RESULT}.")


def _needed(tool: Undoing) -> Sequence[str]:
    needed: Sequence[str] = tool.parameters.get("required", ())
    return needed


def _at(source: str, result: str, wanted: JsonObject) -> Any:  # noqa: ANN401 - JSON
    """What lies at the place. Whoever takes text gets all of the result as it was written."""
    if source == RESULT and wanted.get("type") == "string":
        return result
    try:
        value = json.loads(result)
    except ValueError:
        return result if source == RESULT else _NONE
    for step in source.split(".")[1:]:
        value = value.get(step, _NONE) if isinstance(value, dict) else _NONE
    return _NONE if value is None else value


def standing(deeds: Sequence[ToolSucceeded]) -> list[ToolSucceeded]:
    """The effects, in order, that took place and were not taken back by a later one of them."""
    found: dict[int, ToolSucceeded] = {}
    by: dict[str, list[int]] = {}  # the places in it, by the tool that takes the effect back
    for place, deed in enumerate(deeds):
        if deed.effect == "read" or deed.source in ("repeat", "cache"):
            continue
        open_ones = by.get(deed.tool, [])
        undone = next((at for at in reversed(open_ones) if takes_back(deed, found[at])), None)
        if undone is not None:
            open_ones.remove(undone)
            del found[undone]
            continue
        found[place] = deed
        if deed.undo is not None:
            by.setdefault(deed.undo_by, []).append(place)
    return list(found.values())


def takes_back(call: Any, deed: ToolSucceeded) -> bool:  # noqa: ANN401 - any event of a call
    """Whether a call is the one that undoes an effect."""
    if deed.undo is None or call.tool != deed.undo_by:
        return False
    return all(call.arguments.get(name, _NONE) == value for name, value in deed.undo.items())


def undoable(deeds: Sequence[ToolSucceeded]) -> Iterator[ToolSucceeded]:
    """Those that still stand and can be taken back by what is on record, the newest first."""
    return (deed for deed in reversed(standing(deeds)) if deed.undo is not None)

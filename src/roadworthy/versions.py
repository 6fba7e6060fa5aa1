"""Which declaration a run is pinned to, what changed since, and what the policy says to that.

The executor asks when it takes a run up. Invariant: pure functions of two declarations as data and
of recorded events; what an older release did not record of a declaration counts as unchanged.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from roadworthy.agent import Agent, OnChange
from roadworthy.errors import VersionHeld
from roadworthy.events import (
    ApprovalAsked,
    DeclarationChanged,
    RunEvent,
    RunStarted,
    ToolAttemptFailed,
    ToolIntended,
    ToolOutcome,
    call_key,
)
from roadworthy.limits import to_dollars
from roadworthy.messages import JsonObject

Verdict: TypeAlias = Literal["continue", "drain", "ask"]

_WORDS_ONLY = frozenset({"title", "description", "examples"})
_NAMED = frozenset({"properties", "$defs", "definitions", "patternProperties"})
_VALUES = frozenset({"default", "const", "enum"})
_LONGEST = 60


@dataclass(frozen=True)
class Change:
    """One difference between two declarations. part: which; what: in plain words.

    alters: a call of `tool` that was begun or approved before may mean something else now.
    """

    part: str
    what: str
    tool: str = ""
    alters: bool = False

    def __str__(self) -> str:
        """As people read it."""
        head = f"tool {self.tool}" if self.tool else self.part
        if not self.what:
            return head
        return f"{head}{' ' if self.what in ('added', 'removed') else ': '}{self.what}"


NOT_ON_RECORD = Change("declaration", "what it was is not on record", alters=True)


@dataclass(frozen=True)
class Declaration:
    """An agent as data, as runs are pinned to it."""

    data: JsonObject

    @classmethod
    def of(
        cls, agent: Agent[Any, Any], *, output: JsonObject | None, version: str = ""
    ) -> Declaration:
        """output: the schema of its answer. version: of the runtime, where it has none itself."""
        data = dict(agent.declared())
        return cls(data | {"output_schema": output, "version": agent.version or version})

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the whole declaration: 32 hex digits."""
        return hashlib.sha256(self.body.encode()).hexdigest()[:32]

    @functools.cached_property
    def body(self) -> str:
        """As it is stored."""
        return json.dumps(self.data, sort_keys=True)


@dataclass(frozen=True)
class Pending:
    """A call whose effect was begun, or put before a person, and has no outcome."""

    key: str
    tool: str


def pinned(events: Iterable[RunEvent]) -> str:
    """The fingerprint of the declaration a run goes by."""
    known = ""
    for event in events:
        if isinstance(event, RunStarted):
            known = event.fingerprint
        elif isinstance(event, DeclarationChanged):
            known = event.new
    return known


def pending(events: Iterable[RunEvent]) -> tuple[Pending, ...]:
    """The calls that are neither done nor refused, though they were begun or a person was asked."""
    found: dict[str, Pending] = {}
    for event in events:
        key = call_key(event.key)
        if isinstance(event, ToolIntended) and event.effect != "read":
            found[key] = Pending(key, event.tool)
        elif isinstance(event, ApprovalAsked) and event.kind == "approval":
            key = event.key.partition("/approval")[0]
            found[key] = Pending(key, event.tool)
        elif isinstance(event, ToolOutcome) or (
            isinstance(event, ToolAttemptFailed) and event.applied == "no"
        ):
            found.pop(key, None)
    return tuple(found.values())


def judge(changes: Sequence[Change], waiting: Sequence[Pending], policy: OnChange) -> Verdict:
    """What becomes of a run whose declaration changed so, with these calls pending."""
    if not changes:
        return "continue"
    if policy == "drain":
        return "drain"
    altered = {change.tool for change in changes if change.alters}
    touched = any(call.tool in altered or "" in altered for call in waiting)
    return "ask" if policy == "ask" or touched else "continue"


def held(
    run_id: str, name: str, changes: Sequence[Change], *, pid: int | None = None
) -> VersionHeld:
    """Why a run stays queued. pid: of the process that leaves it, when it is another one."""
    what = f": {'; '.join(map(str, changes))}" if changes else ""
    where = "here" if pid is None else f"in process {pid}, which executes the runs of this store"
    return VersionHeld(
        f"Run {run_id} stays queued: {name!r} is declared otherwise {where} than when the run "
        f'began{what}, and on_change="drain" leaves it to a process that has the old one. '
        + VersionHeld.mend
    )


# --- what changed ---------------------------------------------------------------------------


def diff(old: JsonObject | None, new: JsonObject) -> tuple[Change, ...]:
    """What changed between two declarations, in the order people look for it.

    old: None when it is not on record.
    """
    if old is None:
        return (NOT_ON_RECORD,)
    return tuple(_changes(old, new))


def _changes(old: JsonObject, new: JsonObject) -> Iterator[Change]:
    if old.get("instructions") != new.get("instructions"):
        yield Change("instructions", "")
    if old.get("model") != new.get("model"):
        yield Change("model", f"{old.get('model')} -> {new.get('model')}")
    yield from _fields("settings", old, new)
    yield from _tools(old.get("tools", {}), new.get("tools", {}))
    if _differ("output", old, new) or _differ("output_schema", old, new):
        yield Change("output", "")
    if _differ("output_mode", old, new):
        yield Change("output mode", f"{old['output_mode']} -> {new['output_mode']}")
    yield from _fields("limits", old, new)
    if _differ("guardrails", old, new):
        yield Change("guardrails", _sets(old["guardrails"], new["guardrails"]))
    if (was := old.get("rules", [])) != (now := new.get("rules", [])):
        yield Change("rules", _sets(was, now))
    if (chose := old.get("select")) != (chooses := new.get("select")):
        yield Change("select", f"{chose} -> {chooses}")
    if _differ("may", old, new):
        yield Change("may", _sets(old["may"], new["may"]))
    if _differ("version", old, new):
        yield Change("version", f"{old['version'] or 'none'} -> {new['version'] or 'none'}")


_UNSAID = frozenset({"available", "result_bytes", "invalidates"})  # left out where not declared


def _differ(name: str, old: JsonObject, new: JsonObject) -> bool:
    return name in old and name in new and old[name] != new[name]


def _fields(part: str, old: JsonObject, new: JsonObject) -> Iterator[Change]:
    before, now = old.get(part, {}), new.get(part, {})
    for name in sorted({*before} & {*now}):
        if before[name] != now[name]:
            yield Change(part, f"{name} {_short(before[name])} -> {_short(now[name])}")


def _tools(old: JsonObject, new: JsonObject) -> Iterator[Change]:
    for name in old:
        if name not in new:
            yield Change("tools", "removed", name, alters=True)
    for name, now in new.items():
        if name in old:
            for what, alters in _tool(old[name], now):
                yield Change("tools", what, name, alters=alters)
        else:
            yield Change("tools", "added", name)


def _tool(old: JsonObject, new: JsonObject) -> Iterator[tuple[str, bool]]:
    """(what, whether it alters a pending call) of one tool."""
    for what in _parameters(_bare(old.get("parameters", {})), _bare(new.get("parameters", {}))):
        yield what, True
    if _differ("effect", old, new):
        yield f"effect {old['effect']} -> {new['effect']}", True
    same = _bare(old.get("parameters")) == _bare(new.get("parameters"))
    if _differ("description", old, new) or (same and _differ("parameters", old, new)):
        yield "description", False
    for name in sorted({*old, *new} - {"parameters", "effect", "description"}):
        unsaid = name in _UNSAID and old.get(name) != new.get(name)
        if unsaid or _differ(name, old, new):
            yield _policy(name, old.get(name), new.get(name)), False


def _policy(name: str, old: object, new: object) -> str:
    if name == "cost_nanos" and isinstance(old, int) and isinstance(new, int):
        return f"cost ${to_dollars(old)} -> ${to_dollars(new)}"
    return f"{name} {_short(old)} -> {_short(new)}"


def _parameters(old: JsonObject, new: JsonObject) -> list[str]:
    """What changed between two schemas without their words, by parameter where it can be told."""
    before, now = old.get("properties", {}), new.get("properties", {})
    needed, needs = set(old.get("required", ())), set(new.get("required", ()))
    found = [f"parameter {name} removed" for name in before if name not in now]
    for name, schema in now.items():
        if name not in before:
            how = "required" if name in needs else "optional"
            found.append(f"parameter {name} added ({how})")
        elif schema != before[name]:
            found.append(f"parameter {name} changed")
        elif (name in needs) != (name in needed):
            found.append(f"parameter {name} is {'required' if name in needs else 'optional'} now")
    rest = ("properties", "required")
    if not found and _without(old, rest) != _without(new, rest):
        found.append("parameters changed")
    return found


def _bare(schema: Any) -> Any:  # noqa: ANN401 - any part of a JSON schema
    """A schema without the words that only a reader sees."""
    if isinstance(schema, list | tuple):
        return [_bare(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    bare: dict[str, Any] = {}
    for name, part in schema.items():
        if name in _WORDS_ONLY:
            continue
        if name in _NAMED and isinstance(part, Mapping):
            bare[name] = {known: _bare(inner) for known, inner in part.items()}
        else:
            bare[name] = part if name in _VALUES else _bare(part)
    return bare


def _without(schema: JsonObject, names: Sequence[str]) -> dict[str, Any]:
    return {name: part for name, part in schema.items() if name not in names}


def _sets(old: Iterable[str], new: Iterable[str]) -> str:
    """What came and what went, or that the order is another."""
    before, now = list(old), list(new)
    gone = [f"-{_last(name)}" for name in before if name not in now]
    came = [f"+{_last(name)}" for name in now if name not in before]
    return " ".join(gone + came) or "in another order"


def _last(name: str) -> str:
    return ":".join(name.split(":")[:2])


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

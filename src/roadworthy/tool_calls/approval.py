"""Persons in the way of a call: may it run, and did it happen?

Used by `turn` and `call`. Invariant: a decision binds to exactly the arguments that were shown,
and is used for one attempt only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from roadworthy.clock import MICROS
from roadworthy.events import ApprovalAsked, ApprovalDecided, ToolIntended
from roadworthy.messages import ToolCall
from roadworthy.run import Done, Run
from roadworthy.stops import Stop, Suspend, Wait
from roadworthy.tool_calls.plan import Planned
from roadworthy.tool_calls.private import in_clear
from roadworthy.tool_calls.ruled import holds, strictest

_ASKS = (None, "user", "operator")


def wait_id(run_id: str, key: str) -> str:
    """The public id of what a run waits for; the same key always gives the same id."""
    return "apr_" + hashlib.sha256(f"{run_id}\0{key}".encode()).hexdigest()[:20]


async def asks_whom(run: Run, planned: Planned, edited: str = "") -> str | None:
    """Whose approval the call needs, as the tool declares it; decided once and recorded. edited:
    what tells it apart when a person changed the call."""
    tool, rules = planned.tool, run.agent.rulebook.approvals(planned.tool.name)
    declared = tool.approval
    ways = (tool, *tool.alternatives)  # what is agreed to may be carried out by another
    if any(run.agent.escalation.asks_operator(each.severity) for each in ways):
        return "operator"
    if not rules and (declared is None or isinstance(declared, str)):
        return declared
    call = ToolCall(tool.name, dict(planned.values), id=planned.call.id)

    def judged() -> object:
        context = run.context(tool=tool.name)
        said = declared(context, call) if callable(declared) else declared
        if said not in _ASKS:
            return said
        clear = in_clear(run, tool, planned.values, planned.arguments)
        return strictest(said, [rule.asks for rule in rules if holds(rule, context, call, clear)])

    if callable(declared) or any(callable(rule.when) for rule in rules):
        asks = await run.value(f"{planned.key}/asks{edited}", judged)
    else:
        asks = judged()
    if asks not in _ASKS:
        raise Stop(
            "error", f"approval= of {planned.tool.name} said {asks!r}, not user or operator."
        )
    return cast("str | None", asks)


async def approval(run: Run, planned: Planned, asks: str) -> ApprovalDecided | Wait:
    """The decision on a call, a rule's where one agrees, or what to wait for."""
    key, reason = _key(run, planned), _reason(run, planned)
    wait = Wait(
        id=wait_id(run.id, key),
        key=key,
        kind="approval",
        tool=planned.tool.name,
        asks=cast(Any, asks),
        detail={"arguments": planned.arguments, "reason": reason},
        arguments_hash=planned.arguments_hash,
        reason=reason,
    )

    async def effect() -> Done[ApprovalDecided]:
        answer = run.past.answers.get(key)
        if answer is None and asks == "operator" and asked_before(run, planned) is None:
            answer = _by_rule(run, planned)
        if answer is None:
            raise Suspend([replace(wait, expires=_expires(run, key))])
        return Done(decided(key, wait.id, answer))

    try:
        return await run.step(key, effect)
    except Suspend as suspend:
        if suspend.waits[0].id != wait.id:
            raise
        return suspend.waits[0]


def _by_rule(run: Run, planned: Planned) -> Mapping[str, Any] | None:
    """What a declared rule decides in an operator's stead."""
    clear = in_clear(run, planned.tool, planned.values, planned.arguments)
    rule = run.agent.rulebook.agrees(planned.tool.name, clear)
    return None if rule is None else {"decision": "approve", "by": f"rule:{rule}"}


def _expires(run: Run, key: str) -> int | None:
    """Until when it may be decided: counted from when it was asked first."""
    asked = [e for e in run.past.attempts.get(key, ()) if isinstance(e, ApprovalAsked)]
    if asked:
        return asked[0].expires
    seconds = run.agent.escalation.decide_seconds
    return None if seconds is None else run.clock.now() + int(seconds * MICROS)


def asked_before(run: Run, planned: Planned) -> ApprovalAsked | None:
    """What a person was shown first of this call. The question stands, whatever its tool declares
    by now."""
    asked = run.past.attempts.get(f"{planned.key}/approval", ())
    return next((event for event in asked if isinstance(event, ApprovalAsked)), None)


def _key(run: Run, planned: Planned) -> str:
    """Where the decision on these arguments stands: others than were shown are asked about anew,
    unless the call was turned down or answered for."""
    base, number = f"{planned.key}/approval", 1
    key, asked = base, run.past.attempts
    while f"{base}/{number + 1}" in asked:
        run.visited.add(key)
        number += 1
        key = f"{base}/{number}"
    shown = {e.arguments_hash for e in asked.get(key, ()) if isinstance(e, ApprovalAsked)}
    if not shown or planned.arguments_hash in shown or planned.key in run.past.outcomes:
        return key
    if run.past.answers.get(key, {}).get("decision") in ("reject", "respond"):
        return key
    run.visited.add(key)
    return f"{base}/{number + 1}"


def unknown_outcome(run: Run, call: Planned | ToolIntended, attempt: int, why: str) -> Wait:
    """The question to a person: did this attempt happen?"""
    key = f"{call.key}/unknown/{attempt}"
    return Wait(
        id=wait_id(run.id, key),
        key=key,
        kind="unknown_outcome",
        tool=call.tool if isinstance(call, ToolIntended) else call.tool.name,
        asks="operator",
        detail={"arguments": call.arguments, "reason": why},
        arguments_hash=call.arguments_hash,
        reason=why,
    )


def decided(key: str, approval_id: str, answer: Mapping[str, Any]) -> ApprovalDecided:
    """A person's answer as an event."""
    return ApprovalDecided(
        key=key,
        approval_id=approval_id,
        decision=answer["decision"],
        by=answer.get("by", ""),
        arguments=answer.get("arguments"),
        note=answer.get("note", ""),
    )


def _reason(run: Run, planned: Planned) -> str:
    said = f"{planned.tool.name} is {planned.effect} and needs a person's word"
    if run.agent.escalation.asks_operator(planned.tool.severity):
        return f"{said}: it is of {planned.tool.severity} severity."
    rules = run.agent.rulebook.approvals(planned.tool.name)
    return f"{said}: {', '.join(map(str, rules))}." if rules else f"{said}."

"""What undoing a run means: the calls that take its effects back, and the agent that makes them.

`house` registers that agent beside its owner, `undoing` plans by the record. Invariant: only what
surely took place is taken back, newest first, each at most once; all else is named for a person.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from roadworthy.agent import MOST_TOOLS, Agent, Tool
from roadworthy.errors import DeclarationError
from roadworthy.events import (
    RunEvent,
    ToolAttemptFailed,
    ToolIntended,
    ToolOutcome,
    ToolSucceeded,
    call_key,
)
from roadworthy.limits import Limits, Price
from roadworthy.messages import (
    DeltaSink,
    JsonObject,
    Message,
    ModelRequest,
    Part,
    Reply,
    Text,
    TokenUsage,
    ToolCall,
    ToolResult,
)
from roadworthy.rules import AtMost, Requires
from roadworthy.standins import AskPerson
from roadworthy.store import runs
from roadworthy.store.database import Tx
from roadworthy.store.runs import RunRow
from roadworthy.tools.names import named
from roadworthy.undo import standing, takes_back


@dataclass(frozen=True, kw_only=True)
class Step:
    """One effect to take back. tool: whose it was. by, arguments: the call that does it."""

    tool: str
    by: str
    arguments: JsonObject


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What undoing a run comes to. steps: in the order they are done. left: what no machine takes
    back, and why."""

    steps: tuple[Step, ...]
    left: tuple[str, ...] = ()

    def with_arguments(self, given: Sequence[JsonObject]) -> Plan:
        """The same steps with these arguments."""
        steps = zip(self.steps, given, strict=True)
        return replace(self, steps=tuple(replace(step, arguments=each) for step, each in steps))

    def encoded(self) -> str:
        """For the first message of the run that does it."""
        steps = [[step.tool, step.by, step.arguments] for step in self.steps]
        return json.dumps({"steps": steps, "left": self.left}, ensure_ascii=False)

    @classmethod
    def decoded(cls, text: str) -> Plan:
        """From there."""
        found = json.loads(text)
        steps = (Step(tool=tool, by=by, arguments=given) for tool, by, given in found["steps"])
        return cls(steps=tuple(steps), left=tuple(found["left"]))


def plan_of(events: Sequence[RunEvent]) -> Plan:
    """What a run that has ended did, backwards."""
    deeds = standing([event for event in events if isinstance(event, ToolSucceeded)])
    doubts = _doubtful(events)
    steps: list[Step] = []
    left = [f"{each.tool} (nobody knows whether it took place)" for each in doubts]
    for deed in reversed(deeds):
        if deed.undo is None:
            left.append(f"{deed.tool} ({_why_not(deed)})")
        elif any(takes_back(each, deed) for each in doubts):
            left.append(f"{deed.tool} ({deed.undo_by} may have taken it back before)")
        else:
            steps.append(Step(tool=deed.tool, by=deed.undo_by, arguments=deed.undo))
    return Plan(steps=tuple(steps), left=tuple(left))


def _why_not(deed: ToolSucceeded) -> str:
    if deed.undo_by:
        return f"what {deed.undo_by} needs to take it back is not on record"
    if deed.source == "person":
        return "a person gave its result"
    return "it declares no undo"


def _doubtful(events: Sequence[RunEvent]) -> list[ToolIntended]:
    """The effects that were begun and of which nobody knows what became."""
    open_ones: dict[str, ToolIntended] = {}
    for event in events:
        if isinstance(event, ToolIntended) and event.effect != "read":
            open_ones.setdefault(event.key, event)
        elif isinstance(event, ToolAttemptFailed) and event.ruled_out:
            open_ones.pop(event.key, None)
    over = {event.key for event in events if isinstance(event, ToolOutcome)}
    return [event for key, event in open_ones.items() if call_key(key) not in over]


# --- the agent that does it ----------------------------------------------------------------


class Backwards:
    """A model that asks for the steps of a plan one by one, and stops at the first that fails: what
    was done before may rest on what then still stands."""

    name = "roadworthy:undo"
    price: Price | None = Price.free()

    async def request(self, request: ModelRequest, on_text: DeltaSink | None = None) -> Reply:
        """The next step, or what all came to."""
        plan = Plan.decoded(next(m.text for m in request.messages if m.role == "user"))
        parts = [part for message in request.messages for part in message.parts]
        results = [part for part in parts if isinstance(part, ToolResult)]
        failed = bool(results) and results[-1].status != "ok"
        done = len(results) - failed
        if failed or done == len(plan.steps):
            said = tuple(_ended(plan, done, failed=failed))
        else:
            step = plan.steps[done]
            said = (ToolCall(step.by, step.arguments, id=f"step-{done + 1}"),)
        message = Message(role="assistant", parts=said, provider=self.name)
        return Reply(
            message=message,
            usage=TokenUsage(),
            model=self.name,
            finish="tools" if message.tool_calls else "stop",
        )


def _ended(plan: Plan, done: int, *, failed: bool) -> Iterator[Part]:
    """What was taken back; and what was not, for a person."""
    undone = ", ".join(f"{step.tool} (by {step.by})" for step in plan.steps[:done])
    left = [*plan.left]
    if failed:
        step = plan.steps[done]
        left.append(f"{step.tool} ({step.by} did not succeed)")
        left += [f"{later.tool} (it came before that)" for later in plan.steps[done + 1 :]]
    said = f"Undone: {undone}." if undone else "Nothing was undone."
    if left:
        rest = f"Not undone, a person has to look: {'; '.join(left)}."
        yield Text(text=f"{said} {rest}")
        yield ToolCall("escalate", {"reason": rest}, id="rest")
    else:
        yield Text(text=said)


def undo_name(agent: str) -> str:
    """The pattern that undoes what this one did."""
    return named("", [f"{agent}-undo"])[f"{agent}-undo"]


def undoer(owner: Agent[Any, Any]) -> Agent[Any, str] | None:
    """The agent that takes back what its owner's tools did; None where none declares an undo.

    Its tools run as its owner's would: the same dependencies, approvals and bounds. What fails for
    good is put before a person, who may have it tried again or do it by hand.
    Raises: DeclarationError: two tools for it have one name.
    """
    found: dict[str, Tool[Any]] = {}
    for tool in owner.toolbelt.values():
        for each in (tool, *tool.alternatives):
            if each.undo is None:
                continue
            other = each.undo.tool
            if found.setdefault(other.name, other) != other:
                raise DeclarationError(
                    f"Agent {owner.name!r}: two tools to undo with are named {other.name!r}; "
                    "rename one with @tool(name=...)."
                )
    if not found:
        return None
    rules = [rule for rule in owner.rules if not isinstance(rule, Requires | AtMost)]
    return Agent(
        undo_name(owner.name),
        description=f"Takes back what {owner.name} did.",
        model=Backwards(),
        tools=[_certain(tool) for tool in found.values()],
        deps=owner.deps,
        limits=limits_for(owner, MOST_TOOLS),
        guardrails=[guard for guard in owner.guardrails if guard.stage == "output"],
        may=("escalate",),
        version=owner.version,
        on_change=owner.on_change,
        rules=[rule for rule in rules if rule.tool in found],
        select=len(found) > MOST_TOOLS,
    )


def limits_for(owner: Agent[Any, Any], steps: int) -> Limits:
    """Enough for so many steps; their time and money are bound as the owner's."""
    return replace(owner.limits, turns=steps + 1, tool_calls=steps + 1, tokens=None)


def _certain(tool: Tool[Any]) -> Tool[Any]:
    """Equal calls are other steps here, and nothing that failed is passed over in silence."""
    asked = () if tool.later else (AskPerson(),)
    return replace(tool, repeatable=True, undo=None, fallback=tuple(tool.fallback) or asked)


# --- what is on record of it ---------------------------------------------------------------


def undo_key(run_id: str) -> str:
    """The idempotency key of the run that undoes this one: there is one, however often asked."""
    return f"undo:{run_id}"


def undone_by(tx: Tx, row: RunRow) -> str | None:
    """The run that undoes this one, if somebody asked for that."""
    found = runs.id_by_key(tx, row.tenant, undo_key(row.id))
    if found is None or runs.get(tx, found).pattern != undo_name(row.pattern):
        return None
    return found

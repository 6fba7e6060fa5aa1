"""A run's events as the story of its steps: what was done, on what, with which money.

`story` is a pure function of events. Invariant: `before` and `after` of the steps add up to what
the run has spent, charges of unknown outcome included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from roadworthy import events as e
from roadworthy.estimate import estimate
from roadworthy.limits import Limits, to_dollars
from roadworthy.messages import JsonObject, Message
from roadworthy.trace.plain import plain_json

Kind: TypeAlias = Literal["run", "model", "decision", "tool", "guard", "person", "budget", "loop"]
State: TypeAlias = Literal["open", "ok", "error", "refused", "waiting", "note"]
_TURN = re.compile(r"turn/(\d+)/")


@dataclass(kw_only=True)
class Step:
    """One step of a run. Times in microseconds UTC, money in nano-dollars.

    reserved: the worst case held for it; settled: what it cost; assumed: charged at worst case
    because the truth is unknown. before, after: spent by the run around it. detail: what a reader
    opens (arguments, result, reply, alternatives). troubles: failed attempts, in order.
    """

    key: str
    kind: Kind
    title: str
    turn: int
    began: int
    ended: int | None = None
    state: State = "open"
    reserved: int = 0
    settled: int = 0
    assumed: int = 0
    before: int = 0
    after: int = 0
    tokens: tuple[int, int] = (0, 0)
    phase: str = ""
    attempts: int = 0
    troubles: list[str] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)


def story(events: Iterable[e.RunEvent]) -> list[Step]:
    """The steps in the order they began."""
    teller = _Teller()
    for event in events:
        teller.tell(event)
    return teller.steps


def limits_of(events: Iterable[e.RunEvent]) -> Limits:
    """What bounds the run now: as started, or as last reopened, handed back or declared with."""
    found = Limits()
    for event in events:
        if isinstance(event, e.RunStarted | e.RunReopened | e.HandedBack | e.DeclarationChanged):
            found = found if event.limits is None else Limits(**event.limits)
    return found


class _Teller:
    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._by_key: dict[tuple[str, Kind], Step] = {}
        self._spent = 0

    def tell(self, event: e.RunEvent) -> None:
        """Take one event into the story."""
        for kind, teller in _TELLERS.items():
            if isinstance(event, kind):
                teller(self, event)
                break

    def note(self, event: e.RunEvent, kind: Kind, title: str, state: State = "note") -> Step:
        """A step that is over at once."""
        step = Step(
            key=event.key,
            kind=kind,
            title=title,
            turn=self._turn(event.key),
            began=event.at,
            ended=event.at,
            state=state,
            before=self._spent,
            after=self._spent,
        )
        self.steps.append(step)
        return step

    def step(self, event: e.RunEvent, kind: Kind, title: str, began: int | None = None) -> Step:
        """The step of this event's key, begun now unless it is known."""
        key = e.call_key(event.key)  # an alternative is a part of its call
        known = self._by_key.get((key, kind))
        if known is None:
            known = self.note(event, kind, title, "open")
            known.began = event.at if began is None else began
            known.ended = None
            known.key = key
            self._by_key[key, kind] = known
        return known

    def close(self, step: Step, event: e.RunEvent, state: State, cost: int = 0) -> None:
        """The step's outcome, at this cost."""
        step.ended, step.state = event.at, state
        self.pay(step, cost)

    def pay(self, step: Step, nanos: int) -> None:
        """A part of what the step cost."""
        step.settled += nanos
        self._spent += nanos
        step.after = self._spent

    def assume(self, step: Step, nanos: int) -> None:
        """A charge nobody knows stands at its worst case."""
        step.assumed += nanos
        self._spent += nanos
        step.after = self._spent

    def _turn(self, key: str) -> int:
        found = _TURN.match(key)
        return int(found[1]) if found else (self.steps[-1].turn if self.steps else 0)


# --- one function per kind of event ---------------------------------------------------------


def _started(t: _Teller, event: e.RunStarted) -> None:
    step = t.note(event, "run", "request accepted", "ok")
    step.detail = {"input": _said(event.input), "limits": dict(event.limits)}
    if event.options:
        step.detail["options"] = plain_json(event.options)


def _segment(t: _Teller, event: e.SegmentStarted) -> None:
    if event.segment > 1:
        t.note(event, "run", f"went on (segment {event.segment})")


def _left(t: _Teller, event: e.SegmentLeft) -> None:
    t.note(event, "run", "its process closed; it goes on in the next")


def _changed(t: _Teller, event: e.DeclarationChanged) -> None:
    title = "goes on under another declaration"
    if event.changed:
        title += f": {'; '.join(event.changed)}"
    t.note(event, "run", title).detail = {"old": event.old, "new": event.new}


def _asked_model(t: _Teller, event: e.ModelIntended) -> None:
    step = t.step(event, "model", event.model)
    step.title, step.state, step.ended = event.model, "open", None
    step.reserved, step.attempts, step.phase = event.nanos, event.attempt, event.phase


def _replied(t: _Teller, event: e.ModelReplied) -> None:
    step = t.step(event, "model", event.model, event.at - event.micros)
    step.tokens = (event.input_tokens, event.output_tokens)
    step.phase = event.phase
    step.detail["reply"] = _said(event.reply.message)
    if event.reply.tool_calls:
        calls = [{"tool": c.tool, "arguments": c.arguments} for c in event.reply.tool_calls]
        step.detail["calls"] = plain_json(calls)
    t.close(step, event, "ok", event.nanos)


def _model_failed(t: _Teller, event: e.ModelFailed) -> None:
    step = t.step(event, "model", event.model)
    step.troubles.append(_trouble(event.attempt, event.code, event.message))
    t.assume(step, event.assumed)
    if event.gave_up:
        t.close(step, event, "error")


def _decided(t: _Teller, event: e.DecisionMade) -> None:
    words = event.decision.replace("_", " ")
    title = f"{words}: {', '.join(event.tools)}" if event.tools else words
    step = t.note(event, "decision", title, "ok")
    step.detail = {"alternatives": list(event.alternatives)}


def _intended(t: _Teller, event: e.ToolIntended) -> None:
    step = t.step(event, "tool", event.tool)
    step.reserved, step.attempts = event.nanos, event.attempt
    step.detail |= {
        "arguments": plain_json(event.arguments),
        "effect": event.effect,
        "idempotency_key": event.idempotency_key,
    }


def _attempt_failed(t: _Teller, event: e.ToolAttemptFailed) -> None:
    step = t.step(event, "tool", event.tool)
    step.attempts = event.attempt
    step.troubles.append(_trouble(event.attempt, event.code, event.message))
    t.pay(step, event.nanos)
    t.assume(step, event.assumed)


def _rung_left(t: _Teller, event: e.ToolRungLeft) -> None:
    step = t.step(event, "tool", event.tool)
    after = f" after {event.attempts} attempts" if event.attempts > 1 else ""
    step.troubles.append(f"{event.tool} given up{after} ({event.code}); next: {event.next}")


def _breaker(t: _Teller, event: e.BreakerRefused) -> None:
    step = t.step(event, "model", event.model)
    step.troubles.append(f"{event.model} not asked: its breaker is open")


def _acknowledged(t: _Teller, event: e.ToolAcknowledged) -> None:
    step = t.step(event, "tool", event.tool)
    step.state = "waiting"
    step.detail |= {"acknowledged": event.message, "expires": event.expires}
    t.pay(step, event.nanos)


def _outcome(t: _Teller, event: e.ToolOutcome) -> None:
    micros: int = getattr(event, "micros", 0)
    step = t.step(event, "tool", event.tool, event.at - micros)
    step.attempts = getattr(event, "attempts", 0)
    step.detail |= {
        "arguments": plain_json(event.arguments),
        "result": event.result.content,
        "files": plain_json(event.result.files),
        "result_tokens": estimate(event.result.told),
    }
    for name in ("effect", "source", "code", "by", "age", "waited"):
        if getattr(event, name, None):
            step.detail[name] = getattr(event, name)
    states: Mapping[type, State] = {e.ToolSucceeded: "ok", e.ToolFailed: "error"}
    t.close(step, event, states.get(type(event), "refused"), getattr(event, "nanos", 0))


def _refused_money(t: _Teller, event: e.BudgetRefused) -> None:
    amount = _amount(event.unit, event.need), _amount(event.unit, event.left)
    step = t.note(event, "budget", f"{event.scope} budget refused", "refused")
    step.detail = {"window": event.window, "needed": amount[0], "left": amount[1]}


def _warned(t: _Teller, event: e.BudgetWarned) -> None:
    title = f"{event.percent} % of the {event.scope} budget is used"
    t.note(event, "budget", title).detail = {
        "window": event.window,
        "bound": _amount(event.unit, event.cap),
    }


def _exceeded(t: _Teller, event: e.ReservationExceeded) -> None:
    step = t.note(event, "budget", "the true cost passed its reservation", "error")
    step.detail = {
        "reserved": _amount("usd", event.reserved),
        "actual": _amount("usd", event.actual),
    }


def _verdict(t: _Teller, event: e.VerdictGiven) -> None:
    state: State = "ok" if event.action in ("allow", "redact") else "refused"
    step = t.note(event, "guard", f"{event.guardrail}: {event.action} {event.stage}", state)
    step.detail = {"text": event.text}


def _looped(t: _Teller, event: e.LoopNoticed) -> None:
    state: State = "error" if event.stopped else "note"
    step = t.note(event, "loop", f"{event.tool}: the same state {event.repeat} times", state)
    step.detail = {"kind": event.kind, "stopped": event.stopped}


def _approval_asked(t: _Teller, event: e.ApprovalAsked) -> None:
    what = "another declaration" if event.kind == "version" else event.tool
    t.close(step := t.step(event, "person", f"{what} awaits a person"), event, "waiting")
    step.ended = None
    step.detail = {
        "approval": event.approval_id,
        "arguments": plain_json(event.arguments),
        "asks": event.asks,
        "kind": event.kind,
        "reason": event.reason,
    }


def _approval_decided(t: _Teller, event: e.ApprovalDecided) -> None:
    step = t.step(event, "person", "decided")
    by = event.by or "nobody in time"
    step.title = f"{event.decision} by {by}"
    step.detail |= {"decision": event.decision, "by": event.by, "note": event.note}
    if event.arguments is not None:
        step.detail["edited"] = plain_json(event.arguments)
    t.close(step, event, "refused" if event.decision == "reject" else "ok")


def _input(t: _Teller, event: e.InputReceived) -> None:
    t.note(event, "person", "the user answered", "ok").detail = {"input": _said(event.input)}


def _escalated(t: _Teller, event: e.EscalationRaised) -> None:
    step = t.note(event, "person", f"escalation: {event.trigger}", "waiting")
    step.detail = {"detail": event.detail}


def _cancelled(t: _Teller, event: e.CancelRequested) -> None:
    t.note(event, "run", f"cancel asked by {event.by}" if event.by else "cancel asked")


def _reopened(t: _Teller, event: e.RunReopened) -> None:
    t.note(event, "run", "reopened").detail = {"limits": plain_json(event.limits)}


def _waiting(t: _Teller, event: e.RunWaiting) -> None:
    what = "a result" if event.kind == "later" else f"the {event.kind}"
    step = t.note(event, "run", f"{event.status} for {what}", "waiting")
    if event.result.question:
        step.detail = {"question": event.result.question}


def _ended(t: _Teller, event: e.RunEnded) -> None:
    state: State = "ok" if event.status == "completed" else "error"
    step = t.note(event, "run", f"{event.status} ({event.reason})", state)
    step.detail = {"text": event.result.text, "report": plain_json(event.result.report)}


_TELLERS: Mapping[type[e.RunEvent], Callable[[_Teller, Any], None]] = {
    e.RunStarted: _started,
    e.SegmentStarted: _segment,
    e.SegmentLeft: _left,
    e.DeclarationChanged: _changed,
    e.ModelIntended: _asked_model,
    e.ModelReplied: _replied,
    e.ModelFailed: _model_failed,
    e.DecisionMade: _decided,
    e.ToolIntended: _intended,
    e.ToolAttemptFailed: _attempt_failed,
    e.ToolRungLeft: _rung_left,
    e.BreakerRefused: _breaker,
    e.ToolAcknowledged: _acknowledged,
    e.ToolOutcome: _outcome,
    e.BudgetRefused: _refused_money,
    e.BudgetWarned: _warned,
    e.ReservationExceeded: _exceeded,
    e.VerdictGiven: _verdict,
    e.LoopNoticed: _looped,
    e.ApprovalAsked: _approval_asked,
    e.ApprovalDecided: _approval_decided,
    e.InputReceived: _input,
    e.EscalationRaised: _escalated,
    e.CancelRequested: _cancelled,
    e.RunReopened: _reopened,
    e.RunWaiting: _waiting,
    e.RunEnded: _ended,
}


def _said(message: Message) -> str | JsonObject:
    files = [plain_json(part) for part in message.parts if type(part).__name__ == "File"]
    return {"text": message.text, "files": files} if files else message.text


def _trouble(attempt: int, code: str, message: str) -> str:
    return f"attempt {attempt}: {code}" + (f": {message}" if message else "")


def _amount(unit: str, amount: int) -> str:
    return f"${to_dollars(amount):f}" if unit == "usd" else f"{amount} tokens"

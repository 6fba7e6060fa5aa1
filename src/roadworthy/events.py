"""The journal's vocabulary: `RunEvent`s are facts of a run; live events are only streamed.

Written by the loop through `Run`, read by recovery, results, costs and views. Invariant: changes
are additive, or a new `v` with an upcaster in `store.codec` kept for ever.

Only an OUTCOME (a class with `outcome = True`) satisfies a step of its `key`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias

from msgspec import Struct, field

from roadworthy.limits import Phase
from roadworthy.messages import JsonObject, Message, Reply, ToolResult
from roadworthy.result import (
    ApprovalKind,
    Decision,
    EndStatus,
    Reason,
    RunResult,
    WaitStatus,
)

Source: TypeAlias = Literal[
    "call",
    "cache",
    "repeat",
    "reconciled",
    "person",
    "fallback",
    "later",
    "last_good",
    "default",
]
_ALTERNATIVE = "/alternative/"


def alternative_key(key: str, number: int) -> str:
    """Where the attempts of a call's alternative stand; the first is 1."""
    return f"{key}{_ALTERNATIVE}{number}"


def call_key(key: str) -> str:
    """The call that a key belongs to, be it an alternative's."""
    return key.partition(_ALTERNATIVE)[0]


class RunEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fact. `key` names the step it belongs to; run_id, seq and at come from its row.

    `payload` names the fields that hold text of users, models or tools: they are stored apart,
    once per content, where they can be erased. at: microseconds since 1970 UTC.
    """

    v: ClassVar[int] = 1
    outcome: ClassVar[bool] = False
    payload: ClassVar[tuple[str, ...]] = ()

    key: str = ""
    run_id: str = ""
    seq: int = 0
    at: int = 0


class RunStarted(RunEvent, frozen=True, kw_only=True):
    """A request was accepted. `input` is the user's message as stored."""

    payload = ("input", "options")

    agent: str
    fingerprint: str
    input: Message
    limits: JsonObject
    options: JsonObject = field(default_factory=dict)
    prices: str = ""
    release: str = ""


class SegmentStarted(RunEvent, frozen=True, kw_only=True):
    """A process began to execute the run, from its start or after a wait or a crash."""

    segment: int
    epoch: int


class SegmentLeft(RunEvent, frozen=True, kw_only=True):
    """The process closed, or was drained, before the run came to an end or a wait."""


class DeclarationChanged(RunEvent, frozen=True, kw_only=True):
    """The run goes on under another declaration: from its next unrecorded turn, as `changed` says.

    limits: those in force from there, where they changed too.
    """

    old: str
    new: str
    changed: tuple[str, ...] = ()
    limits: JsonObject | None = None


class Noted(RunEvent, frozen=True, kw_only=True):
    """Outcome of a step that reads something variable (time, instructions): its value."""

    outcome = True
    payload = ("value",)

    value: Any = None


class ModelIntended(RunEvent, frozen=True, kw_only=True):
    """A paid call is about to be made; its worst case is reserved under `reservation`."""

    attempt: int
    model: str
    reservation: str
    nanos: int
    input_bound: int
    max_tokens: int
    phase: Phase = "execute"
    request_hash: str = ""


class ModelReplied(RunEvent, frozen=True, kw_only=True):
    """Outcome: the model answered, at this cost. micros: latency of the last attempt."""

    outcome = True
    payload = ("reply",)

    attempt: int
    model: str
    reply: Reply
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    nanos: int = 0
    micros: int = 0
    phase: Phase = "execute"
    request_hash: str = ""


class ModelFailed(RunEvent, frozen=True, kw_only=True):
    """One attempt failed. `assumed` nanos are charged at worst case when the truth is unknown."""

    payload = ("message",)

    attempt: int
    model: str
    code: str
    message: str = ""
    assumed: int = 0
    retry_at: int | None = None
    phase: Phase = "execute"
    gave_up: bool = False


class DecisionMade(RunEvent, frozen=True, kw_only=True):
    """What the agent does next after a reply, and what else stood open."""

    decision: Literal["use_tools", "ask_user", "answer", "escalate", "revise"]
    tools: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()


class ToolIntended(RunEvent, frozen=True, kw_only=True):
    """A call with consequences is about to run under `idempotency_key`.

    Of a tool with `later=True` that is the id of its wait: the key itself is a secret.
    """

    payload = ("arguments",)

    tool: str
    arguments: JsonObject
    arguments_hash: str
    effect: Literal["read", "write", "irreversible"]
    idempotency_key: str
    attempt: int
    nanos: int = 0


class ToolAttemptFailed(RunEvent, frozen=True, kw_only=True):
    """One attempt gave no outcome; another follows at `retry_at`, if that is set.

    nanos: its declared cost, spent in `phase`. assumed: the same, when nobody knows whether it was
    charged. ruled_out: no attempt so far has had its effect.
    """

    payload = ("message",)

    tool: str
    attempt: int
    code: str
    message: str = ""
    applied: Literal["no", "unknown"] = "unknown"
    retry_at: int | None = None
    nanos: int = 0
    assumed: int = 0
    phase: Phase = "execute"
    ruled_out: bool = False


class ToolRungLeft(RunEvent, frozen=True, kw_only=True):
    """A rung of a call's ladder gave no result; from here on the next one is tried.

    number: its place, 0 for the tool itself. round: 1, and one more each time a person had the
    ladder climbed again. code: why it was left, "breaker_open" when it was not even tried.
    """

    payload = ("message",)

    tool: str
    rung: Literal["tool", "alternative", "last_good"]
    number: int
    next: Literal["alternative", "last_good", "default", "person"]
    code: str
    message: str = ""
    attempts: int = 0
    round: int = 1


class BreakerRefused(RunEvent, frozen=True, kw_only=True):
    """A model was not asked, for its breaker is open until then. Microseconds UTC."""

    model: str
    until: int


class ToolAcknowledged(RunEvent, frozen=True, kw_only=True):
    """A call with `later=True` was begun; its result is delivered by `expires`, or it failed.

    nanos: what the attempt cost. message: what the tool returned at once.
    """

    payload = ("message",)

    tool: str
    attempt: int
    expires: int
    message: str = ""
    nanos: int = 0


class ToolOutcome(RunEvent, frozen=True, kw_only=True):
    """Base of the three outcomes of a call. `result` is what the model is told."""

    outcome = True
    payload: ClassVar[tuple[str, ...]] = ("arguments", "result")

    tool: str
    result: ToolResult
    arguments: JsonObject = field(default_factory=dict)
    arguments_hash: str = ""


class ToolSucceeded(ToolOutcome, frozen=True, kw_only=True):
    """The call ran, or something stood in for it.

    source: how the result came about; `last_good` and `default` are degraded answers. by: the
    alternative that gave it. age: of a last good answer, in microseconds. micros: latency. waited:
    microseconds of it before the tool had a place free. nanos: declared cost of the attempts that
    have no event of their own, spent in `phase`. undo_by, undo: the tool that takes the effect back
    and its arguments, where that is declared; None: only a person can say what they are. asked: who
    gave a result of source `person`.
    """

    payload = ("arguments", "result", "undo")

    result_hash: str = ""
    effect: Literal["read", "write", "irreversible"] = "read"
    source: Source = "call"
    attempts: int = 1
    micros: int = 0
    nanos: int = 0
    by: str = ""
    age: int = 0
    waited: int = 0
    phase: Phase = "execute"
    undo_by: str = ""
    undo: JsonObject | None = None
    asked: Literal["user", "operator"] = "operator"


class ToolFailed(ToolOutcome, frozen=True, kw_only=True):
    """The call ran and failed; the model was told."""

    code: str
    result_hash: str = ""
    effect: Literal["read", "write", "irreversible"] = "read"
    attempts: int = 1
    micros: int = 0
    nanos: int = 0
    waited: int = 0
    phase: Phase = "execute"


class ToolRefused(ToolOutcome, frozen=True, kw_only=True):
    """The call never ran: unknown, malformed, out of bounds, rejected, or a sibling stopped it."""

    code: str


class BudgetRefused(RunEvent, frozen=True, kw_only=True):
    """A reservation did not fit. need and left in nano-dollars or tokens, as `unit` says."""

    scope: str
    window: str
    unit: Literal["usd", "tokens"]
    need: int
    left: int
    busy: bool = False


class BudgetWarned(RunEvent, frozen=True, kw_only=True):
    """Spending crossed 50, 80 or 95 per cent of a bound."""

    scope: str
    window: str
    unit: Literal["usd", "tokens"]
    percent: int
    cap: int


class ReservationExceeded(RunEvent, frozen=True, kw_only=True):
    """The true cost passed the reserved worst case. Recorded as it is; paid work stops."""

    reserved: int
    actual: int


class VerdictGiven(RunEvent, frozen=True, kw_only=True):
    """A guardrail objected to something, or changed it."""

    payload = ("text",)

    guardrail: str
    stage: Literal["input", "output"]
    action: Literal["allow", "redact", "revise", "block", "escalate"]
    text: str = ""


class LoopNoticed(RunEvent, frozen=True, kw_only=True):
    """Outcome: the same state came again. `stopped`: it was the last time."""

    outcome = True

    kind: Literal["same_call", "cycle", "varied_call"]
    tool: str
    repeat: int
    stopped: bool = False


class ApprovalAsked(RunEvent, frozen=True, kw_only=True):
    """A call waits for a person, bound to exactly these arguments; or, of kind "version", the whole
    run, bound to exactly this change of its agent."""

    payload = ("arguments", "reason")

    approval_id: str
    tool: str
    arguments: JsonObject
    arguments_hash: str
    asks: Literal["user", "operator"]
    kind: ApprovalKind = "approval"
    reason: str = ""
    expires: int | None = None


class ApprovalDecided(RunEvent, frozen=True, kw_only=True):
    """A person decided a waiting call."""

    outcome = True
    payload = ("arguments", "note")

    approval_id: str
    decision: Decision
    by: str
    arguments: JsonObject | None = None
    note: str = ""


class InputReceived(RunEvent, frozen=True, kw_only=True):
    """Outcome: the user answered a question of the agent."""

    outcome = True
    payload = ("input",)

    input: Message


class EscalationRaised(RunEvent, frozen=True, kw_only=True):
    """The run goes to a person; without an inbox it ends. by: the person who took it over."""

    payload = ("detail",)

    trigger: str
    detail: str = ""
    by: str = ""


class HandedBack(RunEvent, frozen=True, kw_only=True):
    """Outcome: a person gave the run back to its agent, or, if `ends`, settled it themselves.

    talk: what user and person said meanwhile. deeds: what came of the tools the person used.
    limits: those in force from here, where raised.
    """

    outcome = True
    payload = ("instruction", "talk", "deeds")

    by: str
    instruction: str = ""
    ends: bool = False
    talk: tuple[Message, ...] = ()
    deeds: tuple[str, ...] = ()
    limits: JsonObject | None = None


class CancelRequested(RunEvent, frozen=True, kw_only=True):
    """Somebody cancelled the run."""

    by: str = ""


class RunReopened(RunEvent, frozen=True, kw_only=True):
    """An ended run goes on, after a limit or budget was raised."""

    limits: JsonObject | None = None


class Delivered(RunEvent, frozen=True, kw_only=True):
    """Outcome: this text was handed to the user's channel."""

    outcome = True
    payload = ("text",)

    text: str


class RunWaiting(RunEvent, frozen=True, kw_only=True):
    """The run waits, as a row: nothing is held meanwhile. deadline: microseconds UTC."""

    payload = ("result",)

    status: WaitStatus
    kind: Literal["user", "person", "timer", "later"]
    result: RunResult[Any]
    deadline: int | None = None


class RunEnded(RunEvent, frozen=True, kw_only=True):
    """The run is over. Unused reservations were released in the same commit."""

    payload = ("result",)

    status: EndStatus
    reason: Reason
    result: RunResult[Any]


class TextDelta(Struct, frozen=True, kw_only=True):
    """Live: a piece of the answer, already checked. offset in characters of this attempt."""

    run_id: str
    key: str
    text: str
    attempt: int = 1
    offset: int = 0


class TextReplaced(Struct, frozen=True, kw_only=True):
    """Live: forget the text streamed so far and show this (a new attempt, or a late verdict)."""

    run_id: str
    key: str
    text: str = ""


class ToolProgress(Struct, frozen=True, kw_only=True):
    """Live: what a long tool says it is doing."""

    run_id: str
    key: str
    tool: str
    text: str


LiveEvent: TypeAlias = TextDelta | TextReplaced | ToolProgress
StreamEvent: TypeAlias = RunEvent | LiveEvent


def _leaves(cls: type[RunEvent]) -> list[type[RunEvent]]:
    below = cls.__subclasses__()
    return [leaf for sub in below for leaf in _leaves(sub)] if below else [cls]


EVENT_TYPES: Mapping[str, type[RunEvent]] = {cls.__name__: cls for cls in _leaves(RunEvent)}

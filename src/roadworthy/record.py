"""A run as recorded: what its events say when it is taken up again.

The executor builds runs from it. Invariant: pure functions of what was recorded; a resumed run and
a replay are told the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from roadworthy.agent import OnChange
from roadworthy.clock import MICROS
from roadworthy.events import (
    ApprovalDecided,
    CancelRequested,
    DeclarationChanged,
    HandedBack,
    ModelFailed,
    ModelIntended,
    ModelReplied,
    RunEnded,
    RunEvent,
    RunReopened,
    RunStarted,
    RunWaiting,
    SegmentLeft,
    SegmentStarted,
    ToolOutcome,
)
from roadworthy.handovers import Errand, Handover, Handovers
from roadworthy.limits import Limits
from roadworthy.messages import JsonObject, Message
from roadworthy.run import Past, RunOptions
from roadworthy.stops import Stop, Suspend, Wait
from roadworthy.store.codec import Seal
from roadworthy.store.runs import RunRow
from roadworthy.store.waits import WaitRow
from roadworthy.tool_calls import decided, wait_id
from roadworthy.trace import limits_of
from roadworthy.versions import Declaration, Pending, diff, judge, pending, pinned

MOST_DEATHS = 3
_PRIORITY = RunOptions().priority


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A run as recorded."""

    row: RunRow
    events: Sequence[RunEvent]
    waits: Sequence[WaitRow]
    commands: Sequence[tuple[int, str, str, str]] = ()  # (id, run, kind, by), not carried out yet
    backs: Sequence[HandedBack] = ()  # the last of the events: not journaled yet
    history: Sequence[Message]
    seal: Seal

    @property
    def started(self) -> RunStarted:
        """Its first event."""
        first = self.events[0]
        assert isinstance(first, RunStarted)  # noqa: S101 - written in the run's first commit
        return first


def options_to(options: RunOptions) -> Mapping[str, Any]:
    """Options as plain data, for the journal; {} when none are set."""
    plain: dict[str, Any] = {}
    if options.model is not None:
        plain["model"] = options.model
    if options.limits is not None:
        plain["limits"] = options.limits.declared()
    if options.tags:
        plain["tags"] = dict(options.tags)
    if options.priority != _PRIORITY:
        plain["priority"] = options.priority
    if options.tools is not None:
        plain["tools"] = sorted(options.tools)
    if options.history:
        plain["history"] = msgspec.to_builtins(list(options.history))
    return plain


def options_from(plain: Mapping[str, Any]) -> RunOptions:
    """Options back from the journal."""
    from_limits = plain.get("limits")
    options = RunOptions(
        model=plain.get("model"),
        tags=plain.get("tags", {}),
        priority=plain.get("priority", _PRIORITY),
        tools=plain.get("tools"),
        history=msgspec.convert(plain.get("history", []), list[Message]),
    )
    return options if from_limits is None else options_with_limits(options, from_limits)


def options_with_limits(options: RunOptions, limits: Mapping[str, Any]) -> RunOptions:
    """The options with limits from the journal."""
    return dataclasses.replace(options, limits=Limits(**limits))


def past_of(loaded: Loaded) -> Past:
    """What is recorded, by step key."""
    earlier_limits, passed = _earlier_limits(loaded.events)
    outcomes: dict[str, RunEvent] = {}
    attempts: dict[str, list[RunEvent]] = {}
    reserved, seconds, begun = False, 0.0, None
    last = reopened = reserves = 0
    reopened_at = -1
    for event in loaded.events:
        if isinstance(event, SegmentStarted):
            seconds += (last - begun) / MICROS if begun is not None else 0.0
            begun = event.at
        elif isinstance(event, RunReopened):
            reserved, reopened, reserves = False, reopened + 1, reserves + 1
            reopened_at = event.seq
        elif isinstance(event, RunWaiting):
            reserved, reserves = False, reserves + 1
        elif isinstance(event, ModelIntended):
            reserved = True
        if not isinstance(event, RunReopened | HandedBack):  # ended or with a person: not active
            last = event.at
        if event.outcome:
            outcomes[event.key] = event
        elif event.key:
            attempts.setdefault(event.key, []).append(event)
    seconds += (last - begun) / MICROS if begun is not None else 0.0
    return Past(
        outcomes=outcomes,
        attempts=attempts,
        answers=_answers(loaded.waits),
        earlier_seconds=seconds,
        reopened=reopened,
        reopened_at=reopened_at,
        earlier_limits=earlier_limits,
        passed=passed,
        earlier_ends=_earlier_ends(loaded.events),
        handovers=_handovers(loaded.waits, outcomes),
        reserved=reserved,
        reserves=reserves,
    )


def _earlier_limits(events: Sequence[RunEvent]) -> tuple[list[tuple[int, Limits]], int]:
    """Which limits governed which turns, where they were changed on the way: (last turn, limits);
    and the last turn answered before the run was last reopened, -1 when it never was."""
    found: list[tuple[int, Limits]] = []
    limits: Mapping[str, Any] = {}
    answered, passed = 0, -1
    for event in events:
        if isinstance(event, RunStarted):
            limits = event.limits
        elif isinstance(event, ModelReplied) and event.key.endswith("/model"):
            answered = int(event.key.split("/")[1])
        elif isinstance(event, HandedBack) and event.limits is None:
            continue
        elif isinstance(event, RunReopened | DeclarationChanged | HandedBack):
            if isinstance(event, RunReopened):
                passed = answered
            found.append((answered, Limits(**limits)))
            limits = event.limits or limits
    return found, passed


def _earlier_ends(events: Sequence[RunEvent]) -> list[tuple[int, RunEvent]]:
    """The closing calls of ends that were reopened: they were paid, no step comes back to them."""
    found: list[tuple[int, RunEvent]] = []
    since: list[RunEvent] = []
    answered = 0
    for event in events:
        if isinstance(event, ModelReplied | ModelFailed) and "/closing" in event.key:
            since.append(event)
        elif isinstance(event, ModelReplied) and event.key.endswith("/model"):
            answered = int(event.key.split("/")[1])
        elif isinstance(event, RunReopened):
            found += [(answered, event) for event in since]
            since.clear()
    return found


def returned(loaded: Loaded) -> Loaded:
    """With the handovers that persons have ended since the last segment, as events to journal."""
    known = {event.key for event in loaded.events if isinstance(event, HandedBack)}
    backs = [
        HandedBack(
            key=wait.key,
            run_id=loaded.row.id,
            seq=len(loaded.events) + 1 + place,  # behind the event that begins the segment
            at=loaded.row.updated_at,
            by=wait.answer["by"],
            instruction=wait.answer.get("instruction", ""),
            ends=wait.answer.get("ends", False),
            talk=msgspec.convert(wait.answer.get("talk", ()), tuple[Message, ...]),
            deeds=_deeds(loaded.events, wait.key),
            limits=wait.answer.get("limits"),
        )
        for place, wait in enumerate(
            each
            for each in _in_order(loaded.waits)
            if each.kind == "handover" and each.answer and each.key not in known
        )
    ]
    if not backs:
        return loaded
    return dataclasses.replace(loaded, events=[*loaded.events, *backs], backs=backs)


def _deeds(events: Sequence[RunEvent], handover: str) -> tuple[str, ...]:
    """What came of the tools that a person used."""
    return tuple(
        f"{event.tool}: {event.result.content}"
        for event in events
        if isinstance(event, ToolOutcome) and event.key.startswith(f"{handover}/errand/")
    )


def _in_order(waits: Sequence[WaitRow]) -> list[WaitRow]:
    return sorted(waits, key=lambda wait: (len(wait.key), wait.key))


def _handovers(waits: Sequence[WaitRow], outcomes: Mapping[str, RunEvent]) -> Handovers:
    if not any(wait.kind == "handover" for wait in waits):
        return Handovers()
    errands: dict[str, list[Errand]] = {}
    for wait in _in_order(waits):
        if wait.kind == "errand":
            detail = dict(wait.detail)
            errands.setdefault(wait.key.partition("/errand/")[0], []).append(
                Errand(
                    key=wait.key,
                    kind=detail["kind"],
                    tool=wait.tool,
                    detail=detail,
                    by=detail["by"],
                )
            )
    found = []
    for wait in _in_order(waits):
        if wait.kind != "handover":
            continue
        back = outcomes.get(wait.key)
        found.append(
            Handover(
                key=wait.key,
                trigger=wait.detail["trigger"],
                why=wait.detail["why"],
                by=wait.detail.get("by", ""),
                back=back if isinstance(back, HandedBack) else None,
                errands=tuple(errands.get(wait.key, ())),
            )
        )
    return Handovers(tuple(found))


def _answers(waits: Sequence[WaitRow]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for wait in waits:
        if wait.answered_at is not None and wait.answer is not None:
            answer = dict(wait.answer) | {"arguments_hash": wait.arguments_hash}
            if "input" in answer:
                answer["input"] = msgspec.convert(answer["input"], Message)
            found[wait.key] = answer
    return found


def _deaths(events: Sequence[RunEvent]) -> int:
    """How many segments in a row ended without an outcome, a wait or an end."""
    deaths = 0
    for event in reversed(events):
        if isinstance(event, SegmentStarted):
            deaths += 1
        elif event.outcome or isinstance(event, RunWaiting | RunEnded | RunReopened):
            break
        elif isinstance(event, SegmentLeft):
            deaths -= 1  # its segment was closed, not killed
    return deaths


def poison(events: Sequence[RunEvent]) -> Stop | None:
    """Why a run that has ended too many processes takes no further step."""
    if _deaths(events) < MOST_DEATHS:
        return None
    return Stop("poison", f"{MOST_DEATHS} processes died executing it; it is parked.")


def is_cancelled(events: Sequence[RunEvent]) -> bool:
    """Whether somebody cancelled the run."""
    cancelled = False
    for event in events:
        if isinstance(event, CancelRequested):
            cancelled = True
        elif isinstance(event, RunReopened):
            cancelled = False
    return cancelled


# --- another declaration than the run went by ----------------------------------------------


@dataclass(frozen=True)
class Succession:
    """What a run's new segment begins with when its agent is declared otherwise by now.

    events: facts to journal. barred: why no new step may begin. pin: goes by it from now on.
    """

    events: tuple[RunEvent, ...] = ()
    barred: Stop | Suspend | None = None
    pin: Declaration | None = None


def succession(
    loaded: Loaded, old: JsonObject | None, new: Declaration, policy: OnChange
) -> Succession:
    """What the policy makes of a run that goes by another declaration than `new`.

    old: the one it goes by, as data. A person's decision binds to exactly these two.
    """
    known = pinned(loaded.events)
    answered = _version_answer(loaded, version_key(known, new.fingerprint))
    if answered is not None and answered.decision == "reject":
        return _stopped(loaded, answered)
    if known == new.fingerprint:
        return Succession()
    turned_down = {
        wait.key.partition("/approval")[0]
        for wait in loaded.waits
        if wait.kind == "approval" and wait.answer and wait.answer["decision"] == "reject"
    }
    calls = [call for call in pending(loaded.events) if call.key not in turned_down]
    changes = diff(old, new.data)
    changed = tuple(map(str, changes))
    go_on = DeclarationChanged(
        old=known, new=new.fingerprint, changed=changed, limits=_new_limits(loaded, new)
    )
    if judge(changes, calls, policy) != "ask":  # what is to be drained is here only to be stopped
        return Succession((go_on,), None, new)
    if answered is None:
        return Succession((), Suspend([_version_wait(loaded, new, changed, calls)]))
    return Succession((answered, go_on), None, new)


def _stopped(loaded: Loaded, decision: ApprovalDecided) -> Succession:
    wait = next(wait for wait in loaded.waits if wait.id == decision.approval_id)
    what = "; ".join(wait.detail["arguments"]["changed"])
    note = f" {decision.note}" if decision.note else ""
    why = f"{decision.by} stopped it, because its agent changed: {what}.{note}"
    known = any(isinstance(e, ApprovalDecided) and e.key == wait.key for e in loaded.events)
    return Succession(() if known else (decision,), Stop("declaration_changed", why))


def version_key(old: str, new: str) -> str:
    """Where a person's decision on going on under another declaration stands."""
    return f"version/{old[:8]}/{new[:8]}"


def _version_answer(loaded: Loaded, key: str) -> ApprovalDecided | None:
    """A person's decision on this change. Whoever stopped the run over another one stopped it."""
    for row in loaded.waits:
        if row.kind == "version" and row.answered_at is not None:
            decision = decided(row.key, row.id, row.answer)
            if row.key == key or decision.decision == "reject":
                return decision
    return None


def _version_wait(
    loaded: Loaded, new: Declaration, changed: Sequence[str], calls: Sequence[Pending]
) -> Wait:
    key = version_key(pinned(loaded.events), new.fingerprint)
    reason = f"Its agent changed while the run was under way: {'; '.join(changed)}."
    if calls:
        names = ", ".join(sorted({call.tool for call in calls}))
        reason += f" Begun or approved, and not done: {names}."
    return Wait(
        id=wait_id(loaded.row.id, key),
        key=key,
        kind="version",
        tool="",
        asks="operator",
        detail={
            "arguments": {
                "agent": loaded.row.pattern,
                "changed": list(changed),
                "pending": [{"key": call.key, "tool": call.tool} for call in calls],
            },
            "reason": reason,
        },
        arguments_hash=new.fingerprint,
        reason=reason,
    )


def _new_limits(loaded: Loaded, new: Declaration) -> JsonObject | None:
    """The declaration's limits, where they replace others. Those given for the run stay."""
    events = loaded.events
    own = "limits" in loaded.started.options or any(
        isinstance(event, RunReopened) and event.limits is not None for event in events
    )
    limits: JsonObject = new.data["limits"]
    return None if own or limits == limits_of(events).declared() else limits

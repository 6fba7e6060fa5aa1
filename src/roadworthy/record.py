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

from roadworthy.agent import Agent
from roadworthy.clock import MICROS
from roadworthy.events import (
    CancelRequested,
    DeclarationChanged,
    ModelFailed,
    ModelIntended,
    ModelReplied,
    RunEnded,
    RunEvent,
    RunReopened,
    RunStarted,
    RunWaiting,
    SegmentStarted,
)
from roadworthy.limits import Limits
from roadworthy.messages import Message
from roadworthy.run import Past, RunOptions, Stop
from roadworthy.store.codec import Seal
from roadworthy.store.runs import RunRow
from roadworthy.store.waits import WaitRow

MOST_DEATHS = 3
_PRIORITY = RunOptions().priority


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A run as recorded."""

    row: RunRow
    events: Sequence[RunEvent]
    waits: Sequence[WaitRow]
    commands: Sequence[tuple[int, str, str, str]] = ()  # (id, run, kind, by), not carried out yet
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
        history=msgspec.convert(plain.get("history", []), list[Message]),
    )
    return options if from_limits is None else options_with_limits(options, from_limits)


def options_with_limits(options: RunOptions, limits: Mapping[str, Any]) -> RunOptions:
    """The options with limits from the journal."""
    return dataclasses.replace(options, limits=Limits(**limits))


def past_of(loaded: Loaded) -> Past:
    """What is recorded, by step key."""
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
        if not isinstance(event, RunReopened):  # ended, it was not active
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
        earlier_limits=_earlier_limits(loaded.events),
        earlier_ends=_earlier_ends(loaded.events),
        reserved=reserved,
        reserves=reserves,
    )


def _earlier_limits(events: Sequence[RunEvent]) -> list[tuple[int, Limits]]:
    """Which limits governed which turns, for a run that was reopened: (last turn, limits)."""
    found: list[tuple[int, Limits]] = []
    limits: Mapping[str, Any] = {}
    answered = 0
    for event in events:
        if isinstance(event, RunStarted):
            limits = event.limits
        elif isinstance(event, ModelReplied) and event.key.endswith("/model"):
            answered = int(event.key.split("/")[1])
        elif isinstance(event, RunReopened):
            found.append((answered, Limits(**limits)))
            limits = event.limits or limits
    return found


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


def changes(loaded: Loaded, agent: Agent[Any, Any]) -> list[RunEvent]:
    """A declaration that changed since the run last executed is on record."""
    known = loaded.started.fingerprint
    for event in loaded.events:
        if isinstance(event, DeclarationChanged):
            known = event.new
    now = agent.fingerprint
    return [] if now == known else [DeclarationChanged(old=known, new=now)]

"""One run in execution: its recorded outcomes, its messages, and `step`, the one door to effects.

`runtime` builds it, `loop` and what lies between use it. Invariant: a step whose outcome is
recorded is never executed again; everything that decides between steps comes from records.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

from roadworthy.agent import Agent
from roadworthy.clock import Clock
from roadworthy.context import RunContext, User
from roadworthy.errors import StoreError
from roadworthy.events import (
    LiveEvent,
    ModelFailed,
    ModelIntended,
    Noted,
    RunEvent,
    SegmentLeft,
    TextDelta,
    TextReplaced,
    ToolAttemptFailed,
    ToolIntended,
    ToolProgress,
    ToolSucceeded,
)
from roadworthy.handovers import Handovers
from roadworthy.limits import Limits, Usage
from roadworthy.messages import Message
from roadworthy.meter import Meter
from roadworthy.privacy import Privacy, Veil
from roadworthy.stops import RecordEnds, Stop, Suspend, handover_wait
from roadworthy.transcript import Cut, as_told, runtime_note

T = TypeVar("T")
OutcomeT = TypeVar("OutcomeT", bound=RunEvent)


# --- what is committed together ------------------------------------------------------------


@dataclass(slots=True)
class Position:
    """Where a run's journal stands, held by the process that executes it. `seal` is the store's."""

    run_id: str
    epoch: int
    next_seq: int
    seal: Any


@dataclass(frozen=True)
class Refusal:
    """Returned by a unit's `apply`: undo what it did and journal these events instead."""

    events: tuple[RunEvent, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Unit(Generic[T]):
    """Events of one run, and `apply` for other rows, in one transaction.

    `apply` is a plain function of the store's transaction: it may be repeated and does no I/O;
    what it returns is the unit's result. `must`: an outcome in hand, kept and retried while the
    store cannot commit. `takes`: `apply` takes the run over, and sets the position anew.
    """

    position: Position | None = None
    events: Sequence[RunEvent] = ()
    apply: Callable[[Any], T | Refusal] | None = None
    must: bool = False
    takes: bool = False


class JournalPort(Protocol):
    """The store's writer, or the refusing one of a replay."""

    def post(self, unit: Unit[T]) -> asyncio.Future[T]:
        """Queue; the future resolves once it is durable."""
        ...

    async def commit(self, unit: Unit[T]) -> T | Refusal:
        """Queue and wait until it is durable."""
        ...


class LivePort(Protocol):
    """Whoever watches a run now."""

    def publish(self, run_id: str, event: LiveEvent) -> None:
        """Show a live event; nobody watching is fine."""
        ...

    def watched(self, run_id: str) -> bool:
        """Whether anybody streams this run."""
        ...


# --- the run -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Overrides of one run, journaled so that a resumed run keeps them.

    model: a tier or `provider:name`. limits: replaces the agent's. tags: for reports. history:
    earlier messages of a conversation begun elsewhere. when_busy: what a message does while the
    conversation's active run is not over. priority: 1 is executed first, where workers are busy.
    tools: names of the only ones that this run may use; None: all of its agent's.
    """

    model: str | None = None
    limits: Limits | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    history: Sequence[Message] = ()
    when_busy: Literal["queue", "reject"] = "queue"
    priority: int = 100
    tools: Sequence[str] | None = None


@dataclass(frozen=True)
class Done(Generic[OutcomeT]):
    """What an effect came to: its outcome, facts beside it, and rows to change with it.

    `then` is called once they are queued: whoever looks after it looks at what follows them.
    """

    outcome: OutcomeT
    beside: tuple[RunEvent, ...] = ()
    also: Callable[[Any], Any] | None = None
    then: Callable[[], None] | None = None


@dataclass(slots=True)
class Known:
    """How much of the messages a model has counted exactly, and their running hash."""

    model: str = ""
    head: bytes = b""
    counted: int = 0
    tokens: int = 0
    hash: bytes = b""
    hashed: int = 0


@dataclass(frozen=True, kw_only=True)
class Past:
    """What is recorded of a run, by step key."""

    outcomes: Mapping[str, RunEvent] = field(default_factory=dict)
    attempts: Mapping[str, Sequence[RunEvent]] = field(default_factory=dict)
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    earlier_seconds: float = 0.0
    reopened: int = 0
    reopened_at: int = -1  # place of the last reopening among the events
    earlier_limits: Sequence[tuple[int, Limits]] = ()  # (last turn they governed, limits)
    passed: int = -1  # last turn answered before the last reopening
    earlier_ends: Sequence[tuple[int, RunEvent]] = ()  # (last turn, closing call) of reopened ends
    reserved: bool = False
    reserves: int = 0  # closing reserves given back, by waits and ends
    handovers: Handovers = field(default_factory=Handovers)


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The outside of a run. logs: whether what is said is kept for persons and windows."""

    journal: JournalPort
    live: LivePort
    clock: Clock
    privacy: Privacy | None = None
    logs: bool = False


@dataclass(frozen=True, kw_only=True)
class Brief:
    """Who asks what of whom: the run's agent, user, conversation, options and messages so far."""

    agent: Agent[Any, Any]
    user: User
    conversation: str | None
    options: RunOptions
    messages: Sequence[Message]


class Run:
    """One run in execution. `messages` grows by what is recorded, never changes behind."""

    def __init__(self, brief: Brief, position: Position, past: Past, ports: Ports) -> None:
        self.id = position.run_id
        self.agent = brief.agent
        self.user = brief.user
        self.conversation = brief.conversation
        self.options = brief.options
        self.limits = brief.options.limits or brief.agent.limits
        self.position = position
        self.messages = list(brief.messages)
        self.meter = Meter(earlier_seconds=past.earlier_seconds)
        self.past = past
        self.logs, self.clock, self.live = ports.logs, ports.clock, ports.live
        self.veil = Veil(ports.privacy, self.user.tenant, self.conversation or self.id)
        self.known = Known()
        self._told: list[Message] = []  # `messages`, as models get them
        self.cut = Cut()  # the results among them that are not whole
        self.reserved = past.reserved  # whether the closing answer's reserve is held
        self.done: list[str] = []  # for the report: what succeeded
        self.returned: set[str] = set()  # handovers whose talk is among the messages
        self.deeds: list[ToolSucceeded] = []  # the effects among it
        self.earlier: dict[str, int] = {}  # how often tools took place in earlier runs, if counted
        self.effects_done: dict[str, ToolSucceeded] = {}  # since the user last spoke
        self.deps: Any = None
        self.turn = 0
        self.away: frozenset[str] = frozenset()  # tools that this turn has not
        self.read_at: dict[str, str] = {}  # what the cache knew when a call began, by its key
        self.selected: tuple[str, ...] | None = None  # those of many that this turn shows
        self.last_call = False  # the model was told that no tool calls are left
        self.warned = 0  # per cent of the limits the model was last told about
        self.shown = ""  # the text streamed last
        self.cancelled = False
        self.closing = False  # only the closing answer is still to come
        self.visited: set[str] = set()  # keys of the steps that were asked for
        self.barred: Stop | Suspend | None = None  # why no new step may begin, recorded ones aside
        self.assumed: set[str] = set()  # reservations of dead processes, assumed in this segment
        self.differences: list[str] | None = None  # collected by a replay, else None
        self._journal = ports.journal
        self._started = ports.clock.monotonic()
        self._pending: list[asyncio.Future[Any]] = []
        self._lost: StoreError | None = None  # a commit that failed: nothing more is recorded
        self._scopes: set[asyncio.Timeout] = set()

    # --- effects -------------------------------------------------------------------------

    async def step(
        self,
        key: str,
        effect: Callable[[], Awaitable[Done[OutcomeT]]],
        verify: Callable[[OutcomeT], None] | None = None,
    ) -> OutcomeT:
        """The outcome recorded under `key`, or do `effect` once and record its outcome.

        The outcome is queued at once and not waited for. The queue is first in, first out, so it
        is durable before the next intent is, and without an intent nothing leaves the process.
        `verify` compares a recorded outcome with what would be asked now; only a replay calls it.
        Raises: what `effect` raises; Fenced, StoreUnavailable.
        """
        self.visited.add(key)
        for event in self.past.attempts.get(key, ()):
            self.meter.count(event)
        known = self.past.outcomes.get(key)
        if known is not None:
            outcome = cast(OutcomeT, known)
            if self.differences is not None and verify is not None:
                verify(outcome)
        else:
            self.check_cancelled()
            if not self.closing and self.late_key in self.past.outcomes:
                raise self.out_of_time()
            if self.differences is not None:
                raise RecordEnds(key)
            self._check_lost()
            done = await effect()
            outcome = done.outcome
            unit: Unit[Any] = Unit(
                position=self.position, events=(outcome, *done.beside), apply=done.also, must=True
            )
            self._pending.append(self._journal.post(unit))
            if done.then is not None:
                done.then()
        self.meter.count(outcome)
        return outcome

    async def record(
        self, *events: RunEvent, also: Callable[[Any], T] | None = None, must: bool = False
    ) -> T | Refusal:
        """Facts that satisfy no step: intents, failed attempts, notices."""
        if self.differences is not None:
            raise RecordEnds(events[0].key if events else "")
        self._check_lost()
        for event in events:
            self.meter.count(event)
        unit = Unit(position=self.position, events=events, apply=also, must=must)
        result = await self._journal.commit(unit)
        await self.flushed()
        return result

    def leave(self) -> None:
        """The process closes: the next one is told that nobody died. Not waited for."""
        if self.differences is None:
            left: Unit[Any] = Unit(position=self.position, events=(SegmentLeft(),))
            future = self._journal.post(left)
            future.add_done_callback(asyncio.Future.exception)  # whoever took over knows better

    async def value(self, key: str, read: Callable[[], object]) -> Any:  # noqa: ANN401 - JSON
        """Something variable (time, an instruction function), read once and recorded."""

        async def effect() -> Done[Noted]:
            return Done(Noted(key=key, value=await self.veil.conceal(read())))

        return (await self.step(key, effect)).value

    async def flushed(self) -> None:
        """Wait until all outcomes of this run are durable. After a commit they are: no wait then.

        Raises: Fenced, StoreUnavailable: again at each call, for what followed the lost outcome in
            this process has no ground to stand on. What a unit's `apply` raised: once.
        """
        waiting = [future for future in self._pending if not future.done()]
        if waiting:
            await asyncio.wait(waiting)  # who is cancelled here cancels no commit
        ended = [future for future in self._pending if future.done()]
        self._pending = [future for future in self._pending if not future.done()]
        errors = [error for future in ended if (error := future.exception()) is not None]
        self._lost = next((e for e in errors if isinstance(e, StoreError)), self._lost)
        self._check_lost()
        if errors:
            raise errors[0]

    def _check_lost(self) -> None:
        if self._lost is not None:
            raise self._lost

    # --- what is known of earlier attempts -----------------------------------------------

    def open_intent(self, key: str) -> ModelIntended | ToolIntended | None:
        """An intent without outcome: a process died between the two."""
        found: ModelIntended | ToolIntended | None = None
        for event in self.past.attempts.get(key, ()):
            if isinstance(event, ModelIntended | ToolIntended):
                found = event
            elif isinstance(event, ModelFailed) or (
                isinstance(event, ToolAttemptFailed) and event.applied == "no"
            ):
                found = None
        return found

    def tried(self, key: str) -> int:
        """How many attempts at this step are recorded."""
        return max(
            (getattr(event, "attempt", 0) for event in self.past.attempts.get(key, ())), default=0
        )

    # --- the user's and the model's view --------------------------------------------------

    def context(self, key: str = "", attempt: int = 1, tool: str = "") -> RunContext[Any]:
        """What a user's function is handed. `key` becomes its idempotency key."""

        def report(text: str) -> None:
            self.live.publish(self.id, ToolProgress(run_id=self.id, key=key, tool=tool, text=text))

        return RunContext(
            run_id=self.id,
            user=self.user,
            deps=self.deps,
            conversation=self.conversation,
            agent=self.agent.name,
            key=key,
            attempt=attempt,
            now=self.clock.now(),
            tags=self.options.tags,
            report=report,
        )

    def show(self, key: str, text: str, attempt: int = 1, offset: int = 0) -> None:
        """Stream a piece of checked text."""
        self.shown = (self.shown if offset else "") + text
        delta = TextDelta(run_id=self.id, key=key, text=text, attempt=attempt, offset=offset)
        self.live.publish(self.id, delta)

    def replace(self, key: str, text: str = "") -> None:
        """Take back what was streamed under this key."""
        self.shown = text
        self.live.publish(self.id, TextReplaced(run_id=self.id, key=key, text=text))

    def note(self, text: str) -> None:
        """Tell the model something of the runtime, as part of the conversation."""
        self.messages.append(runtime_note(text))

    def told(self) -> tuple[Message, ...]:
        """The messages as models get them; each is looked at once."""
        self._told += map(as_told, self.messages[len(self._told) :])
        return tuple(self._told)

    def govern(self, turn: int) -> Limits:
        """The limits of this turn: those in force when it was answered, else the newest."""
        newest = self.options.limits or self.agent.limits
        earlier = (limits for last, limits in self.past.earlier_limits if turn <= last)
        self.limits = next(earlier, newest)
        for last, event in self.past.earlier_ends:
            if turn == last + 1:
                self.meter.count(event)
        return self.limits

    @property
    def passed(self) -> bool:
        """Whether the run was reopened after this turn: what stopped it then stops it no more."""
        return self.turn <= self.past.passed

    @property
    def late_key(self) -> str:
        """Where it is on record that time was over in the middle of this turn."""
        return f"turn/{self.turn}/late/{self.past.reopened}"

    def out_of_time(self) -> Stop:
        """The stop of a run whose time is over."""
        why = f"The limit of {self.limits.seconds:g} active seconds is reached."
        return Stop("time_limit", why)

    @property
    def seconds(self) -> float:
        """Active time so far, earlier segments included; waiting does not count."""
        return self.meter.earlier_seconds + self.clock.monotonic() - self._started

    @property
    def usage(self) -> Usage:
        """What was used so far."""
        return self.meter.usage(self.clock.monotonic() - self._started)

    def cancel(self) -> None:
        """Somebody cancelled the run: interrupt what may be interrupted, stop at the next step."""
        self.cancelled = True
        self._interrupt()

    def _interrupt(self) -> None:
        for scope in self._scopes:
            if not scope.expired():  # by somebody before, or by its own time
                scope.reschedule(0)

    def overtaken_by(self) -> Suspend:
        """How the run is left when a person takes it over while it executes."""
        judged = ("takeover", "A person took the conversation over.")
        return Suspend([handover_wait(self.id, self.past.handovers.next_key, judged)])

    def take(self) -> None:
        """A person takes over: interrupt what may be interrupted, suspend before the next step."""
        self.barred = self.barred or self.overtaken_by()
        self._interrupt()

    def overtaken(self, turn: int) -> bool:
        """Whether a person gave the run back after this turn's reply: what it wanted is stale."""
        if turn == 0:
            return self.past.handovers.any_back
        reply = self.past.outcomes.get(f"turn/{turn}/model")
        return reply is not None and self.past.handovers.back_after(reply.seq)

    def check_cancelled(self) -> None:
        """Raises: Stop: somebody cancelled the run, or it may do no more. Suspend: a person says
        whether it may; one that only has to be closed asks nobody."""
        if isinstance(self.barred, Stop):
            raise self.barred
        if self.cancelled:
            raise Stop("cancelled", "The run was cancelled.")
        if self.barred is not None and not self.closing:
            raise self.barred

    @asynccontextmanager
    async def interruptible(self, seconds: float | None) -> AsyncIterator[asyncio.Timeout]:
        """A block that a cancel or a time limit may interrupt.

        Raises: TimeoutError: after `seconds`. Stop: the run was cancelled meanwhile.
        """
        self.check_cancelled()
        try:
            async with asyncio.timeout(seconds) as scope:
                self._scopes.add(scope)
                try:
                    yield scope
                finally:
                    self._scopes.discard(scope)
        except TimeoutError:
            self.check_cancelled()
            raise

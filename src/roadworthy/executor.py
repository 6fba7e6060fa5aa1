"""From a run id to its next end or wait: claim, load, re-execute, hand over.

The engine calls `execute`; `replay` does the same without touching anything. Invariant: whatever a
run's own code does, its segment ends in a journaled state or is left for another process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import msgspec

from roadworthy.agent import Agent
from roadworthy.context import User
from roadworthy.ending import Desk, close
from roadworthy.errors import (
    ConfigurationError,
    Fenced,
    PatternUnknown,
    StoreError,
    StoreVersionError,
    VersionHeld,
)
from roadworthy.events import (
    CancelRequested,
    RunEnded,
    RunEvent,
    RunReopened,
    RunWaiting,
    SegmentStarted,
)
from roadworthy.house import House, Roster
from roadworthy.loop import converse
from roadworthy.messages import Message
from roadworthy.record import (
    Loaded,
    Succession,
    is_cancelled,
    options_from,
    options_with_limits,
    past_of,
    poison,
    succession,
)
from roadworthy.result import MARKS, RunResult
from roadworthy.run import (
    Brief,
    JournalPort,
    Ports,
    Position,
    RecordEnds,
    Refusal,
    Run,
    Stop,
    Unit,
)
from roadworthy.store import declarations, runs, waits
from roadworthy.store.codec import Seal
from roadworthy.store.database import Tx
from roadworthy.store.ownership import holder_of
from roadworthy.store.runs import RunRow
from roadworthy.transcript import transcript
from roadworthy.versions import held, pinned

log = logging.getLogger("roadworthy.runtime")


@dataclass(frozen=True)
class Replayed:
    """A recorded run re-executed: where it would differ today, and what it comes to."""

    differences: tuple[str, ...]
    result: RunResult[Any] | None


class Executor:
    """Executes the runs of the registered patterns."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.roster = Roster(house)
        self._active: dict[str, Run] = {}
        self._unreadable: dict[str, StoreVersionError] = {}  # written by a newer release
        self.holder: Callable[[], str] = lambda: house.holder  # what a claim is signed with
        self._drained: set[str] = set()  # left to a process that has the declaration they go by
        self.arriving: set[str] = set()  # claimed by the commit that accepts them, not begun yet

    # --- declarations --------------------------------------------------------------------

    async def admit(self, agent: Agent[Any, Any]) -> None:
        """Make an agent's runs executable here, its toolsets opened.

        Raises: ToolsetUnavailable, DeclarationError.
        """
        self.register(await self.house.toolsets.whole(agent))

    async def complete(self, name: str) -> None:
        """See to it that a pattern has its tools, also where none were opened at the start.

        Raises: PatternUnknown, ToolsetUnavailable.
        """
        await self.admit(self.agent(name))

    def register(self, agent: Agent[Any, Any]) -> None:
        """Make an agent's runs executable here; a newer declaration of a name replaces the old."""
        if self.roster.register(agent):
            self.look_anew()

    @property
    def names(self) -> list[str]:
        """The patterns whose runs can execute here."""
        return self.roster.names

    @property
    def active(self) -> frozenset[str]:
        """The runs that execute here now."""
        return frozenset(self._active)

    def knows(self, name: str) -> bool:
        """Whether runs of this pattern can execute here."""
        return self.roster.knows(name)

    def agent(self, name: str) -> Agent[Any, Any]:
        """Raises: PatternUnknown."""
        return self.roster.agent(name)

    def desk(self, name: str) -> Desk:
        """What a pattern works with. Raises: PatternUnknown."""
        return self.roster.desk(name)

    def leaves(self, run_id: str) -> bool:
        """Whether a run was looked at and is left to another process, of another version."""
        return run_id in self._drained or run_id in self._unreadable

    def look_anew(self) -> None:
        """What was left to processes of another version may be for this one now."""
        self._drained.clear()

    # --- executing -----------------------------------------------------------------------

    def begin(self, loaded: Loaded, position: Position) -> Run:
        """A claimed run executes here from now on: commands for it reach it."""
        run = self._build(loaded, position, self.house.journal)
        self._active[run.id] = run
        return run

    async def execute(self, run_id: str, job: int | None = None) -> RunResult[Any] | None:
        """One segment: what the run ended with or waits for. None: it must not execute here now.

        job: the engine's number of it, where it has one.

        Raises: StoreError, VersionHeld: it is left as it is; the latter is said once.
        """
        try:
            run = self._active.get(run_id) or await self._take(run_id, job)
            if run is None:
                return None
            return self.typed(await run.veil.reveal(await self._segment(run)), run.agent.name)
        except asyncio.CancelledError:
            if run_id in self._active:
                self._active[run_id].leave()
            raise
        except Fenced:
            log.warning("run %s was taken over", run_id, extra={"run": run_id})
        except StoreVersionError as error:
            self._unreadable[run_id] = error
            raise
        finally:
            self._active.pop(run_id, None)
            await self.house.toolsets.leave(run_id)
        return None

    async def _take(self, run_id: str, job: int | None) -> Run | None:
        """Claim a recorded run, load it and open its next segment."""
        house = self.house
        claimed = await house.journal.commit(Unit(apply=lambda tx: self._claim(tx, run_id, job)))
        if isinstance(claimed, VersionHeld) and run_id not in self._drained:
            self._drained.add(run_id)
            raise claimed
        if not isinstance(claimed, tuple):
            return None
        epoch, segment = claimed
        try:
            loaded = await self.load(run_id)
        except StoreVersionError:
            await house.journal.commit(Unit(apply=lambda tx: runs.hand_back(tx, run_id, epoch)))
            raise
        run = self.begin(loaded, Position(run_id, epoch, len(loaded.events), loaded.seal))
        begun = SegmentStarted(segment=segment, epoch=epoch)
        requested, commands = self._commands(run, loaded)
        parked = poison(loaded.events)
        changed = Succession() if parked else await self._succession(loaded)
        pin = changed.pin
        now = house.clock.now()

        def also(tx: Tx) -> None:
            for command_id in commands:
                waits.do_command(tx, command_id, now)
            if pin is not None:
                declarations.pin(tx, run.id, loaded.row.pattern, pin.fingerprint, pin.body)

        await run.record(begun, *changed.events, *requested, also=also)
        run.barred = parked or changed.barred
        return run

    async def _succession(self, loaded: Loaded) -> Succession:
        """What it means that the agent is declared otherwise than the run goes by, if it is."""
        name = loaded.row.pattern
        new, known = self.roster.declaration(name), pinned(loaded.events)
        if known == new.fingerprint and not any(wait.kind == "version" for wait in loaded.waits):
            return Succession()
        old = await self.house.read(lambda tx: declarations.get(tx, known))
        return succession(loaded, old, new, self.roster.policy(name))

    def _claim(self, tx: Tx, run_id: str, job: int | None) -> tuple[int, int] | VersionHeld | None:
        """(epoch, segment), or not executable now (None), or not by this process."""
        row = runs.hold(tx, run_id)
        if not self.knows(row.pattern) or run_id in self._unreadable:
            return None
        now, holder = self.house.clock.now(), self.holder()
        in_turn = not waits.commands_for(tx, run_id)  # one that is only to stop need not queue
        drained = self.roster.drained(tx, row)
        if drained is None:
            return runs.claim(tx, row, holder, now, in_turn=in_turn, job=job)
        if run_id not in self._drained:
            runs.hand_back(tx, run_id, row.epoch)
            waits.refuse(tx, run_id, holder, now, kind=waits.DRAINED)
        return drained

    def _drains(self, tx: Tx, run_id: str) -> VersionHeld | None:
        row = runs.get(tx, run_id)
        return self.roster.drained(tx, row) if row.status == "queued" else None

    async def _segment(self, run: Run) -> RunResult[Any]:
        desk = self.desk(run.agent.name)
        result: RunResult[Any] | None = None
        try:
            async with AsyncExitStack() as stack:
                await self._open_deps(run, stack)
                result = await converse(run, desk)
        except Stop as stop:
            result = await close(run, desk, stop)
        except StoreError:
            raise
        except Exception as error:  # border: a bug ends the run, never the process
            expected = isinstance(error, ConfigurationError)
            if not expected or result is not None:
                log.exception("run %s failed", run.id, extra={"run": run.id})
            if result is None:  # else it ended or waits already: its dependencies failed to close
                why = str(error) if expected else f"{type(error).__name__}: {error}"
                result = await close(run, desk, Stop("error", await run.veil.conceal(why)))
        log.info(
            "%s %s: $%s", result.status, result.reason, result.usage.usd, extra={"run": run.id}
        )
        return result

    async def _open_deps(self, run: Run, stack: AsyncExitStack) -> None:
        factory = run.agent.deps
        if factory is None or run.barred is not None:
            return
        opened = factory(run.context())
        if not hasattr(opened, "__aenter__"):
            raise ConfigurationError(
                f"Agent {run.agent.name!r}: deps must be an async context manager factory; put "
                "@asynccontextmanager above an async generator that yields the dependencies."
            )
        run.deps = await stack.enter_async_context(opened)

    def _commands(self, run: Run, loaded: Loaded) -> tuple[list[RunEvent], list[int]]:
        """Take the commands left for this run; what they ask is journaled with its segment."""
        requested: list[RunEvent] = []
        done: list[int] = []
        for command_id, _, _, by in loaded.commands:
            requested.append(CancelRequested(by=by))
            done.append(command_id)
        if requested:
            run.cancel()
        return requested, done

    async def obey(self, command_id: int, run_id: str, by: str) -> None:
        """Carry out a command for a run that executes here."""
        run, now = self._active.get(run_id), self.house.clock.now()
        if run is None:
            return
        run.cancel()
        requested = Unit(  # heard twice at once, it is recorded once
            position=run.position,
            events=(CancelRequested(by=by),),
            apply=lambda tx: True if waits.do_command(tx, command_id, now) else Refusal(),
        )
        try:
            await self.house.journal.commit(requested)  # not `record`: its waits are its own
        except Fenced:  # it was reopened, or taken over: who executes it next obeys
            return

    def executes(self, run_id: str) -> bool:
        """Whether a run executes here now."""
        return run_id in self._active

    # --- loading -------------------------------------------------------------------------

    async def load(self, run_id: str) -> Loaded:
        """Everything recorded of a run, in one read. Raises: UnknownRun, StoreVersionError."""

        def read(tx: Tx) -> Loaded:
            row = runs.get(tx, run_id)
            events = runs.events(tx, run_id)
            history: list[Message] = []
            if row.conversation is not None:
                for earlier in runs.events_before(tx, row.tenant, row.conversation, row.ordinal):
                    history += transcript(earlier)
            seal = Seal(runs.tenant_key_of(tx, row.tenant))
            return Loaded(
                row=row,
                events=events,
                waits=waits.of_run(tx, run_id),
                commands=waits.commands_for(tx, run_id),
                history=history,
                seal=seal,
            )

        return await self.house.read(read)

    def _build(self, loaded: Loaded, position: Position, journal: JournalPort) -> Run:
        row, started = loaded.row, loaded.started
        agent = self.agent(row.pattern)
        options = options_from(started.options)
        raised = [e.limits for e in loaded.events if isinstance(e, RunReopened) and e.limits]
        if raised:
            options = options_with_limits(options, raised[-1])
        brief = Brief(
            agent=agent,
            user=User(row.user, row.tenant),
            conversation=row.conversation,
            options=options,
            messages=(*options.history, *loaded.history, started.input),
        )
        house = self.house
        ports = Ports(journal=journal, live=house.live, clock=house.clock, privacy=house.privacy)
        run = Run(brief, position, past_of(loaded), ports)
        if is_cancelled(loaded.events):
            run.cancel()
        return run

    async def result(self, run_id: str, *, here: bool) -> RunResult[Any] | None:
        """The latest result of a run: its end, or what it waits for. None while it executes.

        here: no other process executes runs. Raises: UnknownRun, StoreVersionError; PatternUnknown:
        the process that executes runs does not know its agent.
        """
        row = await self.house.read(lambda tx: runs.get(tx, run_id))
        if run_id in self._unreadable:
            raise self._unreadable[run_id]
        if row.status in ("queued", "running"):
            await self.check_known(row, here=here)
            return None
        found = _last_result((await self.load(run_id)).events)
        return self.typed(await self.house.veil(row).reveal(found), row.pattern) if found else None

    async def check_known(self, row: RunRow, *, here: bool) -> None:
        """Raises: PatternUnknown, VersionHeld: the process that executes runs leaves this one."""
        if here:
            self.agent(row.pattern)
            if row.status == "queued" and self.roster.drains(row):
                drained = await self.house.read(lambda tx: self._drains(tx, row.id))
                if drained is not None:
                    raise drained
        elif row.status == "queued":
            refused = await self.house.read(lambda tx: _refused(tx, row.id))
            if refused is None:
                return
            pid, kind = refused
            if kind == waits.DRAINED:
                raise held(row.id, row.pattern, (), pid=pid)
            raise PatternUnknown(
                f"Process {pid} executes the runs of this store and has no pattern "
                f"{row.pattern!r}. Register it there: Runtime(..., patterns=[{row.pattern}]). "
                f"Run {row.id} stays queued until then."
            )

    def typed(self, result: RunResult[Any], pattern: str) -> RunResult[Any]:
        """The result with its output as the declared type (plain data for unknown patterns)."""
        desk = self.desk(pattern) if self.knows(pattern) else None
        if result.output is None or desk is None or desk.output is None:
            return result
        try:
            return msgspec.structs.replace(result, output=desk.output.load(result.output))
        except ValueError:  # the declared output has changed since: the plain data stand
            return result

    # --- replay --------------------------------------------------------------------------

    async def replay(self, run_id: str) -> Replayed:
        """Re-execute a recorded run with no model and no tool call, and compare.

        Raises: UnknownRun, PatternUnknown.
        """
        loaded = await self.load(run_id)
        await self.complete(loaded.row.pattern)
        desk = self.desk(loaded.row.pattern)
        position = Position(run_id, -1, len(loaded.events), loaded.seal)
        run = self._build(loaded, position, self.house.journal)
        run.differences = differences = list[str]()
        recorded = _last_result(loaded.events)
        if recorded is not None and "outside" in MARKS[recorded.reason]:
            run.barred = Stop(recorded.reason, recorded.report.why)
        result = None
        try:
            result = await converse(run, desk)
        except RecordEnds as end:
            objected = f"{end}/asked" in run.past.outcomes  # a question that was never asked
            if recorded is not None and recorded.over and not objected:
                differences.append(f"{end}: the recorded run ended before this step")
        if result is not None and recorded is not None and recorded.over:
            for name in ("status", "reason", "text"):
                now, then = getattr(result, name), getattr(recorded, name)
                if now != then:
                    differences.append(f"{name}: recorded {then!r}, now {now!r}")
            differences += _unvisited(run)
        return Replayed(tuple(differences), result)


def _refused(tx: Tx, run_id: str) -> tuple[int, str] | None:
    """The process that executes runs, when it has said that it leaves this one, and why."""
    holder = holder_of(tx)
    kind = None if holder is None else waits.refused(tx, run_id, holder[0])
    return None if holder is None or kind is None else (holder[1], kind)


def _last_result(events: Iterable[RunEvent]) -> RunResult[Any] | None:
    """What the last RunEnded or RunWaiting came to, as recorded."""
    found = None
    for event in events:
        if isinstance(event, RunEnded | RunWaiting):
            found = event.result
    return found


def _unvisited(run: Run) -> list[str]:
    """Recorded steps that a replay to the end never came to; how it ends is compared apart."""
    ends = (
        "deliver/",
        "/closing/",
        "/closing_short/",
        "/closing_checked/",
        "/time/",
        "/late/",
        "/asked",
        "version/",  # who let it go on under another declaration
    )
    return [
        f"{key}: recorded, not asked for now"
        for key in run.past.outcomes
        if key not in run.visited and not any(end in key for end in ends)
    ]

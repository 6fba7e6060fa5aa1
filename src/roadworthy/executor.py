"""From a run id to its next end or wait: claim, load, re-execute, hand over.

The engine calls `execute`. Invariant: whatever a
run's own code does, its segment ends in a journaled state or is left for another process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from roadworthy.agent import Agent
from roadworthy.context import User
from roadworthy.ending import TAKE, Desk
from roadworthy.errors import (
    ConfigurationError,
    Fenced,
    PatternUnknown,
    StoreError,
    StoreVersionError,
    VersionHeld,
)
from roadworthy.events import CancelRequested, HandedBack, RunReopened, SegmentStarted
from roadworthy.handover import stopped
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
    returned,
    succession,
)
from roadworthy.result import RunResult
from roadworthy.run import Brief, JournalPort, Ports, Position, Refusal, Run, Unit
from roadworthy.stops import Stop, Suspend
from roadworthy.store import declarations, recorded, runs, waits
from roadworthy.store.codec import Seal
from roadworthy.store.database import Tx
from roadworthy.store.ownership import holder_of
from roadworthy.store.runs import RunRow
from roadworthy.transcript import transcript
from roadworthy.versions import held, pinned

log = logging.getLogger("roadworthy.runtime")
_FEW = 200  # events; to decode them takes the writer a few milliseconds


@dataclass(frozen=True)
class _Taken:
    """A claimed run and its new segment. loaded: None when much is recorded; then the segment is
    not open yet. barred: why no new step may begin."""

    begun: SegmentStarted
    loaded: Loaded | None = None
    barred: Stop | Suspend | None = None


class Executor:
    """Executes the runs of the registered patterns."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.roster = Roster(house)
        self._active: dict[str, Run] = {}
        self._unreadable: dict[str, StoreVersionError] = {}  # written by a newer release
        self.holder: Callable[[], str] = lambda: house.holder  # what a claim is signed with
        self._seals: dict[str, Seal] = {}  # by tenant
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
        run = self.build(loaded, position, self.house.journal)
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
        """Claim a recorded run, load it and open its next segment: in one commit, when little is
        recorded. The writer serves all runs, so it does not read a long record."""
        house, position = self.house, Position(run_id, -1, 0, None)
        claim = Unit(position=position, apply=lambda tx: self._claim(tx, position, job), takes=True)
        taken = await house.journal.commit(claim)
        if isinstance(taken, VersionHeld) and run_id not in self._drained:
            self._drained.add(run_id)
            raise taken
        if not isinstance(taken, _Taken):
            return None
        if taken.loaded is not None:
            return self._begun(taken.loaded, position, taken.barred)
        try:
            loaded = await self.load(run_id)
        except StoreVersionError:
            epoch = position.epoch
            await house.journal.commit(Unit(apply=lambda tx: runs.hand_back(tx, run_id, epoch)))
            raise
        position.next_seq, position.seal = len(loaded.events), loaded.seal
        loaded = returned(loaded)
        run = self._begun(loaded, position, None)
        opening = Unit(position=position, apply=lambda tx: self._open(tx, loaded, taken.begun))
        run.barred = cast("Stop | Suspend | None", await house.journal.commit(opening))
        return run

    def _begun(self, loaded: Loaded, position: Position, barred: Stop | Suspend | None) -> Run:
        run = self.begin(loaded, position)
        run.barred = barred
        if any(kind == "cancel" for _, _, kind, _ in loaded.commands):
            run.cancel()
        return run

    def _claim(self, tx: Tx, position: Position, job: int | None) -> _Taken | VersionHeld | None:
        """The run, or not executable now (None), or not by this process. Its row is locked."""
        run_id = position.run_id
        row = runs.get(tx, run_id)
        if not self.knows(row.pattern) or run_id in self._unreadable:
            return None
        now, holder = self.house.clock.now(), self.holder()
        commands = waits.commands_for(tx, run_id)
        drained = self.roster.drained(tx, row)
        if drained is not None:
            if run_id not in self._drained:
                runs.hand_back(tx, run_id, row.epoch)
                waits.refuse(tx, run_id, holder, now, kind=waits.DRAINED)
            return drained
        in_turn = all(kind != "cancel" for _, _, kind, _ in commands)  # to stop it need not queue
        claimed = runs.claim(tx, row, holder, now, in_turn=in_turn, job=job)
        if claimed is None:
            return None
        position.epoch, segment = claimed
        begun = SegmentStarted(segment=segment, epoch=position.epoch)
        events = None
        if row.conversation is None or row.ordinal <= 1:  # else others are read with it
            events = recorded.all_of_few(tx, run_id, _FEW)
        if events is None:
            return _Taken(begun)
        loaded = Loaded(
            row=row,
            events=events,
            waits=waits.of_run(tx, run_id) if segment > 1 or commands else (),  # it never waited
            commands=commands,
            history=(),
            seal=self._seal(tx, row.tenant),
        )
        position.next_seq, position.seal = len(events), loaded.seal
        loaded = returned(loaded)
        return _Taken(begun, loaded, self._open(tx, loaded, begun))

    def _open(self, tx: Tx, loaded: Loaded, begun: SegmentStarted) -> Stop | Suspend | None:
        """Journal what a segment begins with. Returns why no new step may begin in it, if so."""
        run_id = loaded.row.id
        parked = poison(loaded.events)
        changed = Succession() if parked else self._succession(tx, loaded)
        tx.emit(begun)
        for event in (*loaded.backs, *changed.events):
            tx.emit(event)
        with_person = any(wait.kind == "handover" and not wait.answer for wait in loaded.waits)
        for command_id, _, kind, by in loaded.commands:  # those that were left for it are taken
            if kind == "cancel":
                tx.emit(CancelRequested(by=by))
            elif with_person:
                continue  # it is, when the run suspends
            waits.do_command(tx, command_id, self.house.clock.now())
        if (pin := changed.pin) is not None:
            declarations.pin(tx, run_id, loaded.row.pattern, pin.fingerprint, pin.body)
        return parked or changed.barred

    def _succession(self, tx: Tx, loaded: Loaded) -> Succession:
        """What it means that the agent is declared otherwise than the run goes by, if it is."""
        name = loaded.row.pattern
        new, known = self.roster.declaration(name), pinned(loaded.events)
        if known == new.fingerprint and not any(wait.kind == "version" for wait in loaded.waits):
            return Succession()
        return succession(loaded, declarations.get(tx, known), new, self.roster.policy(name))

    def _seal(self, tx: Tx, tenant: str) -> Seal:
        """The tenant's payload key, which never changes."""
        seal = self._seals.get(tenant)
        if seal is None:
            seal = self._seals[tenant] = Seal(runs.tenant_key_of(tx, tenant))
        return seal

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
            result = await stopped(run, desk, stop)
        except StoreError:
            raise
        except Exception as error:  # border: a bug ends the run, never the process
            expected = isinstance(error, ConfigurationError)
            if not expected or result is not None:
                log.exception("run %s failed", run.id, extra={"run": run.id})
            if result is None:  # else it ended or waits already: its dependencies failed to close
                why = str(error) if expected else f"{type(error).__name__}: {error}"
                result = await stopped(run, desk, Stop("error", await run.veil.conceal(why)))
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

    async def obey(self, command: tuple[int, str, str, str]) -> None:
        """Carry out a command (id, run, kind, by) for a run that executes here."""
        command_id, run_id, kind, by = command
        run, now = self._active.get(run_id), self.house.clock.now()
        if run is None:
            return
        if kind == TAKE:
            run.take()  # done with when the run suspends
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
            events = recorded.events(tx, run_id)
            history: list[Message] = []
            if row.conversation is not None:
                for earlier in recorded.events_before(
                    tx, row.tenant, row.conversation, row.ordinal
                ):
                    history += transcript(earlier)
            return Loaded(
                row=row,
                events=events,
                waits=waits.of_run(tx, run_id),
                commands=waits.commands_for(tx, run_id),
                history=history,
                seal=self._seal(tx, row.tenant),
            )

        return await self.house.read(read)

    def build(self, loaded: Loaded, position: Position, journal: JournalPort) -> Run:
        row, started = loaded.row, loaded.started
        agent = self.agent(row.pattern)
        options = options_from(started.options)
        raised = [
            e.limits for e in loaded.events if isinstance(e, RunReopened | HandedBack) and e.limits
        ]
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
        ports = Ports(
            journal=journal,
            live=house.live,
            clock=house.clock,
            privacy=house.privacy,
            logs=house.inbox is not None,
        )
        run = Run(brief, position, past_of(loaded), ports)
        if is_cancelled(loaded.events):
            run.cancel()
        return run

    async def result(self, run_id: str, *, here: bool) -> RunResult[Any] | None:
        """The latest result of a run: its end, or what it waits for. None while it executes.

        here: no other process executes runs. Raises: UnknownRun, StoreVersionError; PatternUnknown:
        the process that executes runs does not know its agent.
        """

        def read(tx: Tx) -> tuple[RunRow, tuple[int, str] | None, RunResult[Any] | None]:
            row = runs.get(tx, run_id)
            if row.status in runs.OPEN:
                return row, None if here else _refused(tx, row), None
            return row, None, recorded.last_result(tx, run_id)

        row, refused, found = await self.house.read(read)
        if run_id in self._unreadable:
            raise self._unreadable[run_id]
        if row.status in runs.OPEN:
            await self._check(row, refused, here=here)
        return self.typed(await self.house.veil(row).reveal(found), row.pattern) if found else None

    async def check_known(self, row: RunRow, *, here: bool) -> None:
        """Raises: PatternUnknown, VersionHeld: the process that executes runs leaves this one."""
        refused = None if here else await self.house.read(lambda tx: _refused(tx, row))
        await self._check(row, refused, here=here)

    async def _check(self, row: RunRow, refused: tuple[int, str] | None, *, here: bool) -> None:
        if here:
            self.agent(row.pattern)
            if row.status == "queued" and self.roster.drains(row):
                drained = await self.house.read(lambda tx: self._drains(tx, row.id))
                if drained is not None:
                    raise drained
        elif refused is not None:
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


def _refused(tx: Tx, row: RunRow) -> tuple[int, str] | None:
    """The process that executes runs, when it has said that it leaves this one, and why."""
    holder = holder_of(tx) if row.status == "queued" else None
    kind = None if holder is None else waits.refused(tx, row.id, holder[0])
    return None if holder is None or kind is None else (holder[1], kind)

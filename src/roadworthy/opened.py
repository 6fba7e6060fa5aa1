"""What an open runtime works with: its parts, how they are wired, and what watchers are told.

`runtime` opens and closes one. Invariant: whoever waits for a run hears of its end, its wait, or
why nothing moves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from roadworthy.agent import Agent, OnChange
from roadworthy.breakers import Circuits
from roadworthy.budget import Ledger
from roadworthy.clock import Clock
from roadworthy.context import User
from roadworthy.engine.inline import InlineEngine
from roadworthy.engine.jobs import EngineSettings
from roadworthy.errors import PatternUnknown, StoreUnavailable, VersionHeld
from roadworthy.escalation import said
from roadworthy.escalation.policy import Inbox
from roadworthy.escalation.views import Said
from roadworthy.events import RunEnded, RunEvent, RunWaiting, StreamEvent
from roadworthy.executor import Executor
from roadworthy.house import House
from roadworthy.intake import Intake
from roadworthy.keeper import FileKeeper, Keeper
from roadworthy.limits import Budget
from roadworthy.live import Live, Shown, Told
from roadworthy.messages import Message
from roadworthy.models.catalog import Catalog
from roadworthy.people import LOOK_SECONDS, People
from roadworthy.privacy import Privacy, Veil
from roadworthy.reception import Request
from roadworthy.result import RunResult
from roadworthy.store import recorded, runs
from roadworthy.store.database import Database, Tx
from roadworthy.store.hot import Hot, PostgresHot, RedisHot
from roadworthy.store.journal import Journal
from roadworthy.store.runs import RunRow
from roadworthy.store.sqlite import SqliteDatabase
from roadworthy.timetable import Timetable
from roadworthy.tools.execution import ToolThreads
from roadworthy.tools.toolsets import Toolsets
from roadworthy.trace import plain_event
from roadworthy.transcript import transcript

log = logging.getLogger("roadworthy.run")
TROUBLE_SECONDS = 5.0
_ROW = ("type", "key", "run_id", "seq", "at")


class Opened:
    """Journal, engine, keeper and what else lives as long as a runtime is open."""

    def __init__(  # noqa: PLR0913 - the composition root
        self,
        database: Database,
        clock: Clock,
        catalog: Catalog,
        *,
        budgets: Sequence[Budget],
        busy_seconds: float,
        on_event: Callable[[StreamEvent], None] | None,
        privacy: Privacy | None = None,
        inbox: Inbox | None = None,
        version: str = "",
        on_change: OnChange = "continue",
        execute: bool = True,
        engine: EngineSettings,
        redis: str | None = None,
        inline: bool = False,
    ) -> None:
        self.clock = clock
        self.executes = execute
        self.live = Live(on_event)
        self.journal = Journal(database, clock, self._publish, self._watched)
        self.threads = ToolThreads()
        self.house = House(
            database=database,
            journal=self.journal,
            live=self.live,
            clock=clock,
            catalog=catalog,
            ledger=Ledger(self.journal, clock, budgets, busy_seconds),
            threads=self.threads,
            toolsets=Toolsets(clock),
            circuits=Circuits(clock, self.journal),
            privacy=privacy,
            inbox=inbox,
            version=version,
            on_change=on_change,
        )
        self.journal.on_trouble = self._say_trouble_soon
        self.executor = Executor(self.house)
        self.house.toolsets.changed = self.executor.register
        self.keeper: Keeper
        if inline or isinstance(database, SqliteDatabase):
            here = InlineEngine(self._execute)
            self.keeper = FileKeeper(self.executor, here, execute=execute)
        else:
            self.live.hot = self._hot(database.url, redis)
            self.keeper = self._cluster(engine, work=execute)
        self.intake = Intake(self.executor)
        self.people = People(self.executor, self.intake, self.keeper, self.live)
        self.timetable = Timetable(self.executor, self.intake, self.keeper)
        self.keeper.fire = self.timetable.fire

    async def check(self, request: Request) -> None:
        """A missing key, package or price is said here, before anything is accepted.

        In a thread, because opening a provider imports its library (about a second, once).
        Raises: ConfigurationError, PriceUnknown.
        """
        wanted = request.options.model or request.pattern.model
        catalog, tenant = self.house.catalog, request.user.tenant
        if not catalog.is_checked(wanted, tenant):
            await asyncio.to_thread(catalog.check, wanted, tenant)

    def _cluster(self, settings: EngineSettings, *, work: bool) -> Keeper:
        from roadworthy.cluster import ClusterKeeper  # noqa: PLC0415 - an extra, 0.5 s to import

        return ClusterKeeper(self.executor, self.live, self._execute, work=work, settings=settings)

    def _hot(self, url: str, redis: str | None) -> Hot:
        return RedisHot(redis, self.live.heard) if redis else PostgresHot(url, self.live.heard)

    async def open(self, patterns: Sequence[Agent[Any, Any]]) -> None:
        """Begin; what is unfinished of these patterns goes on.

        Raises: ToolsetUnavailable, DeclarationError: of toolsets. Who only looks opens none.
        """
        if self.executes:
            await self.house.toolsets.open(patterns)
        for pattern in patterns:
            if self.executes:
                await self.executor.admit(pattern)
            else:
                self.executor.register(pattern)
        if self.live.hot is not None:
            await self.live.hot.open()
        await self.keeper.open()

    async def close(self, grace: float) -> None:
        """Let running segments finish within `grace` seconds; what does not goes on elsewhere."""
        await self.keeper.close(grace)
        await self.house.toolsets.close()
        if self.live.hot is not None:
            await self.live.hot.close()
        await self.journal.close()
        self.threads.close()
        await self.house.catalog.close()

    async def _execute(self, run_id: str, job: int | None = None) -> bool:
        """One segment. False: it did not execute here."""
        following: str | None = None
        result: RunResult[Any] | None = None
        left: Exception | None = None
        try:
            result = await self.executor.execute(run_id, job)
            if result is not None and (result.conversation is not None or not result.over):
                following = await self.house.read(lambda tx: _following(tx, run_id))
        except Exception as error:
            left = error
            raise
        finally:
            self.live.tell(run_id, None if following == run_id else left or result)
            if result is not None and result.status == "escalated":
                self.live.look()  # what waited behind it went to the person as well
        if following is not None:
            self.keeper.wake(following)
        return result is not None

    async def shown(self, event: StreamEvent, row: RunRow) -> StreamEvent:
        """An event as users see it: what they are told in clear text, outputs typed."""
        event = await self.house.veil(row).shown(event)
        return self.typed(event, row.pattern) if isinstance(event, RunEvent) else event

    async def held_up(self, row: RunRow) -> str:
        """Why the process that executes runs leaves this one; "" when it does not."""
        try:
            await self.executor.check_known(row, here=self.keeper.owner)
        except (PatternUnknown, VersionHeld) as error:
            return str(error) if row.status in runs.OPEN else ""
        return ""

    def typed(self, event: RunEvent, pattern: str) -> RunEvent:
        """An event with its output as the declared type."""
        if isinstance(event, RunEnded | RunWaiting) and event.result.output is not None:
            return msgspec.structs.replace(event, result=self.executor.typed(event.result, pattern))
        return event

    async def record_after(self, run_id: str, after: int) -> tuple[RunRow, list[RunEvent]]:
        """A run and its journaled events after a position, in one snapshot."""
        return await self.house.read(
            lambda tx: (runs.get(tx, run_id), recorded.events(tx, run_id, after))
        )

    async def history(self, conversation: str, user: User | None) -> list[Message]:
        """All messages of a conversation in clear, or of this user's own only."""
        tenant = user.tenant if user is not None else ""

        def read(tx: Tx) -> list[Message]:
            owner = runs.conversation_user(tx, tenant, conversation)
            if user is not None and owner != user.id:
                return []
            found: list[Message] = []
            for earlier in recorded.events_before(tx, tenant, conversation, None):
                found += transcript(earlier)
            return found

        veil = Veil(self.house.privacy, tenant, conversation)
        return await veil.reveal(await self.house.read(read))

    async def said(self, conversation: str, user: User, after: int) -> list[Said] | None:
        """See `Runtime.said`."""
        _ = self.people.declared
        veil = Veil(self.house.privacy, user.tenant, conversation)

        def read(tx: Tx) -> list[Said] | None:
            if runs.conversation_user(tx, user.tenant, conversation) != user.id:
                return None
            return said.after(tx, user.tenant, conversation, after)

        found = await self.house.read(read)
        return None if found is None else [await veil.reveal(one) for one in found]

    async def listen(self, conversation: str, user: User, after: int) -> AsyncIterator[Said]:
        """See `Runtime.listen`."""
        while True:
            for one in await self.said(conversation, user, after) or ():
                after = one.n
                yield one
            await asyncio.sleep(LOOK_SECONDS)  # noqa: TID251 - other processes write there

    def _watched(self, run_id: str) -> bool:
        """Whether anybody looks at a run's events here."""
        return self.live.followed(run_id) or log.isEnabledFor(logging.DEBUG)

    def _publish(self, run_id: str, event: RunEvent) -> None:
        """A committed event, for who watches and for ROADWORTHY_LOG=debug."""
        self.live.publish(run_id, event)
        if log.isEnabledFor(logging.DEBUG):
            told = plain_event(event)
            facts = {k: v for k, v in told.items() if v and k not in _ROW}
            said = f"{event.key} {told['type']} {facts}"
            log.debug("%.400s", said, extra={"run": run_id})

    def _say_trouble_soon(self) -> None:
        """Who waits for a run is told when the store stays in trouble, again and again."""
        asyncio.get_running_loop().call_later(TROUBLE_SECONDS, self._say_trouble)

    def _say_trouble(self) -> None:
        if self.journal.trouble is not None:
            self.live.tell_all(StoreUnavailable(self.journal.trouble))
            self._say_trouble_soon()

    async def until(self, told: asyncio.Queue[Told]) -> Told:
        """What is told next; None after a moment when another process executes the run."""
        try:
            async with asyncio.timeout(self.keeper.patience):
                return await told.get()
        except TimeoutError:
            return None

    async def follow(self, queue: asyncio.Queue[Shown], after: int) -> AsyncIterator[StreamEvent]:
        """Live events after a position; ends where the journal must be read again."""
        while True:
            try:
                async with asyncio.timeout(self.keeper.glance):
                    event = await queue.get()
            except TimeoutError:
                return  # another process executes it: poll
            if event is None:
                return  # there is news of another process in the journal
            if isinstance(event, Exception):
                raise event
            if isinstance(event, RunEvent):
                if event.seq <= after:
                    continue
                if event.seq > after + 1:
                    return  # some were missed
                after = event.seq
            yield event


def _following(tx: Tx, run_id: str) -> str | None:
    """The run itself when somebody spoke as it went to wait, or the next of its conversation."""
    row = runs.get(tx, run_id)
    if row.status == "queued":
        return run_id
    if row.conversation is None or row.status in ("queued", "running", "waiting", "escalated"):
        return None
    return runs.next_in_conversation(tx, row.tenant, row.conversation)

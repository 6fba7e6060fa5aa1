"""What a runtime does beside runs on Postgres: dispatch runs, hear what happens elsewhere.

The runtime starts one per process in place of `FileKeeper`. Invariant: a run that should execute
has a job, or gets one within seconds, whoever died; whoever waits here is told of ends elsewhere.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from roadworthy.checkup import Finding
from roadworthy.clock import MICROS
from roadworthy.engine.distributed import DbosEngine
from roadworthy.engine.jobs import EngineSettings, Health, Job, Worker
from roadworthy.errors import Overloaded, StoreError, StoreUnavailable, VersionHeld
from roadworthy.executor import Executor
from roadworthy.keeper import GOSSIP_SECONDS, POLL_SECONDS, TELL_SECONDS, Keeper
from roadworthy.live import Live
from roadworthy.run import Unit
from roadworthy.store import jobs, runs, waits
from roadworthy.store.database import Tx
from roadworthy.store.runs import RunRow
from roadworthy.tool_calls import forget_expired

log = logging.getLogger("roadworthy.runtime")
SWEEP_SECONDS = 1.0
LEFT_SECONDS = 30.0  # a run of a dead worker whose job got lost: longer than any lease
LOOK_SECONDS = 0.25
GLANCE_SECONDS = 1.0
UNHEARD_SECONDS = 5.0  # a notification that got lost is made up for
PATIENCE_SECONDS = 60.0  # who waits is told
COUNT_SECONDS = 0.2
CLOCKS_APART = 1.0
RETRY_SECONDS = 5.0
_AT_ONCE = 100  # the first of them begins when all are enqueued
_MOST_ENQUEUED = 1_000  # the rest stays in the store, where each tenant gets its turn


class ClusterKeeper(Keeper):
    """The housekeeping of one of many processes. work: whether runs execute in this one too.

    perform: one segment; False when it did not execute here.
    """

    def __init__(
        self,
        executor: Executor,
        live: Live,
        perform: Callable[[str, int], Awaitable[bool]],
        *,
        work: bool,
        settings: EngineSettings,
    ) -> None:
        super().__init__(executor)
        self._live = live
        self._perform = perform
        self._work = work
        self._poked = asyncio.Event()
        self._looked = 0.0  # when it was last looked what has no job, by the event loop's time
        self._told = 0.0  # when who waits here was last told
        self._soon: asyncio.TimerHandle | None = None
        self._full = False  # whether some were left to wait in the store, when last looked
        self._most_waiting = settings.most_waiting
        self._counted: dict[int, tuple[float, int]] = {}  # by priority: until when, how many
        self._swept = ""  # up to which run those that wait long were looked at
        self._refused: set[str] = set()  # patterns that are not known here, said once
        self.engine = DbosEngine(
            self._house.database.url, self._segment, settings, clock=self._house.clock
        )
        self.drained = self.engine.drained
        executor.holder = self._holder
        self._house.threads.guard = self._check_lease

    @property
    def glance(self) -> float | None:
        """Whoever streams is told too, as long as what is live passes between processes."""
        return GLANCE_SECONDS

    @property
    def patience(self) -> float | None:
        """Whoever waits for a result is told."""
        return PATIENCE_SECONDS

    async def open(self) -> None:
        """Connect; with work, take jobs."""
        await DbosEngine.set_up(self._house.database.url)
        self._changed = self._house.database.watch()
        with suppress(StoreError):  # a store in trouble is somebody else's news
            await self.gossip()  # before the first call: what is open stays open
        await self.engine.open(work=self._work)
        self._poked.set()
        self._start(
            self._every(0, "dispatch", self._dispatch),
            self._every(POLL_SECONDS, "listening", self._listen),
            self._every(SWEEP_SECONDS, "housekeeping", self._keep),
            self._every(LEFT_SECONDS / 3, "sweeping", self._sweep),
            self._every(GOSSIP_SECONDS, "gossip", self.gossip),
            self._every(TELL_SECONDS, "notices", self.tell),
        )

    async def close(self, grace: float) -> None:
        """Hand over what does not finish."""
        await self.engine.drain(grace)
        await self._stop()  # before what it uses
        await self.engine.close(0)

    async def drain(self, seconds: float) -> None:
        """Hand over what does not finish; requests are still accepted for others."""
        await self.engine.drain(seconds)

    async def workers(self) -> Sequence[Worker]:
        """Who holds a lease now."""
        return await self.engine.workers()

    async def ask_to_drain(self, worker: str) -> bool:
        """It sees it with its next beat."""
        return await self.engine.ask_to_drain(worker)

    async def checkup(self) -> list[Finding]:
        """And the clock, the workers, what the engine says, and what carries live streams."""
        found, health = await super().checkup(), await self.engine.health()
        apart = await asyncio.to_thread(self._house.database.clock_apart, self._house.clock.now())
        found.append(
            Finding(level="ok", what=f"the clocks here and there are {apart:.3f} s apart")
            if abs(apart) < CLOCKS_APART
            else Finding(
                level="warning",
                what=f"this machine's clock is {apart:.1f} s off the database's",
                mend="Set both by NTP: deadlines and budget windows go by these clocks.",
            )
        )
        found.append(
            Finding(level="ok", what=f"{health.workers} workers live")
            if health.workers
            else Finding(
                level="failure",
                what="no worker lives: nothing executes",
                mend="Start one: roadworthy worker FILE.",
            )
        )
        look = "Look at `roadworthy workers list` and at the workers' logs."
        found += [Finding(level="warning", what=alarm, mend=look) for alarm in health.alarms]
        carried = self._live.hot is not None and await self._live.hot.carries()
        found.append(
            Finding(level="ok", what="live streams pass between processes")
            if carried
            else Finding(
                level="warning",
                what="live streams do not pass between processes; facts do",
                mend="Check ROADWORTHY_REDIS, or unset it: Postgres carries them then.",
            )
        )
        return found

    async def health(self) -> Health:
        """Queues, lag, workers, alarms."""
        return await self.engine.health()

    def _holder(self) -> str:
        """What a claim is signed with."""
        self._check_lease()
        return self.engine.executor or self._house.holder

    def _check_lease(self) -> None:
        """Others may have this worker's runs already: it claims nothing and acts no more.

        Not `Fenced`: nobody may have taken over yet, so the job must stay to be moved.
        """
        if not self.engine.holds:
            raise StoreUnavailable("This worker's lease is over; its runs go on elsewhere.")

    async def admit(self, priority: int) -> None:
        """Counted a few times a second, so the bound is not exact and costs nothing."""
        most, now = self._most_waiting, self._house.clock.monotonic()
        if most is None:
            return
        until, waiting = self._counted.get(priority, (0.0, 0))
        if now >= until:
            waiting = await self._house.read(lambda tx: jobs.waiting(tx, priority, most))
            self._counted[priority] = now + COUNT_SECONDS, waiting
        if waiting >= most:
            raise Overloaded(f"{most} runs wait to begin already.", RETRY_SECONDS)

    def wake(self, run_id: str) -> None:
        """Its commit made it dispatchable; the next round enqueues it with all others."""
        del run_id
        self._poked.set()

    async def hear(self) -> None:
        """Carry out commands for runs that execute here; what else they woke is dispatched."""
        self._look_soon()
        for command in await self._house.read(waits.commands):
            run_id = command[1]
            if self._executor.executes(run_id):
                await self._executor.obey(command)
                continue
            row = await self._house.read(functools.partial(runs.get, run_id=run_id))
            if row.status == "queued":  # it is only to stop, so it need not wait for its turn
                await self.engine.enqueue(_job(row))

    # --- jobs ----------------------------------------------------------------------------

    def _look_soon(self) -> None:
        """Others dispatch what they accept and wake; that they could not is rare, so one looks at
        once after a pause, and else a few times a second."""
        if self._soon is None:
            at = self._looked + LOOK_SECONDS
            self._soon = asyncio.get_running_loop().call_at(at, self._poked.set)

    async def _dispatch(self) -> None:
        """Enqueue what has no job yet, many at once; again when somebody asks, or in a second."""
        try:
            async with asyncio.timeout(SWEEP_SECONDS):
                await self._poked.wait()
        except TimeoutError:
            pass  # what other processes accepted before they died is dispatched too
        self._poked.clear()
        self._looked = asyncio.get_running_loop().time()
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        names, database = self._executor.names, self._house.database

        def take(connection: object) -> Sequence[Job]:
            tx = Tx(database, connection)
            with database.guarded():
                room = _MOST_ENQUEUED - jobs.enqueued(tx, _MOST_ENQUEUED)
                rows = jobs.take(tx, names, min(room, _AT_ONCE)) if room > 0 else []
                self._full = len(rows) >= room
                return [_job(row) for row in rows]

        if await self.engine.dispatch(take) == _AT_ONCE:
            self._poked.set()

    async def _segment(self, run_id: str, number: int) -> None:
        """The body of a job."""
        if self._executor.executes(run_id):
            raise StoreUnavailable(f"Run {run_id} has not left this process yet.")
        try:
            executed = await self._perform(run_id, number)
        except VersionHeld:  # it was said; a worker of the other version takes it
            executed = False
        if not executed:
            row = await self._house.read(lambda tx: runs.get(tx, run_id))
            if row.status == "queued" and row.dispatch == number:
                await self._not_here(row)
        if self._full:  # there is room for another job
            self._look_soon()

    async def _not_here(self, row: RunRow) -> None:
        """It could not begin here: unknown to this worker, or behind its conversation."""
        if row.pattern not in self._refused and not self._executor.knows(row.pattern):
            self._refused.add(row.pattern)
            log.warning("no pattern %r here; its runs go to other workers", row.pattern)
        now = self._house.clock.now()
        await self._house.journal.commit(
            Unit(apply=lambda tx: runs.again(tx, row.id, row.dispatch, now))
        )

    async def _sweep(self) -> None:
        """Runs whose job was lost, with a dead worker or in the engine, get a new one."""
        now = self._house.clock.now()
        before = now - int(LEFT_SECONDS * MICROS)
        lost = await self._left_by_the_dead(before) + await self._without_a_job(before)

        def again(tx: Tx) -> None:
            for row in lost:
                runs.again(tx, row.id, row.dispatch, now)

        if lost:
            log.warning("%d runs whose job was lost are dispatched again", len(lost))
            await self._house.journal.commit(Unit(apply=again))
            self._poked.set()

    async def _left_by_the_dead(self, before: int) -> list[RunRow]:
        left = await self._house.read(lambda tx: jobs.left_running(tx, before, _AT_ONCE))
        if not left:
            return []
        alive = {worker.id for worker in await self.engine.workers()}
        return [row for row in left if row.owner not in alive]

    async def _without_a_job(self, before: int) -> list[RunRow]:
        """Some of those that wait long, each time the next: a long queue is no loss."""
        after = self._swept
        rows = await self._house.read(lambda tx: jobs.left_queued(tx, before, after, _AT_ONCE))
        self._swept = rows[-1].id if len(rows) == _AT_ONCE else ""
        lost = {job.run_id for job in await self.engine.lost(*map(_job, rows))}
        return [row for row in rows if row.id in lost]

    # --- the rest ------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Another process changed something: carry out commands, tell who waits for an end."""
        if not self._changed():
            return
        await self.hear()
        await self._tell()

    async def _tell(self) -> None:
        """Who waits here for runs of other processes is told of those that ended or wait."""
        self._told = asyncio.get_running_loop().time()
        expected = self._live.expected - self._executor.active
        if expected:
            for run_id in await self._house.read(lambda tx: jobs.settled(tx, sorted(expected))):
                self._live.tell(run_id, None)

    async def _keep(self) -> None:
        now = self._house.clock.now()
        await self.due()
        if asyncio.get_running_loop().time() - self._told >= UNHEARD_SECONDS:
            await self._tell()
        await self._house.journal.commit(Unit(apply=lambda tx: forget_expired(tx, now)))


def _job(row: RunRow) -> Job:
    """A run's present job."""
    return Job(
        run_id=row.id,
        segment=row.dispatch,
        conversation=row.conversation,
        tenant=row.tenant,
        priority=row.priority,
    )

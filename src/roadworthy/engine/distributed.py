"""The engine of many machines: segments of runs are jobs that any living worker takes.

The runtime starts it in place of `inline.py`. Invariant: a job is never lost. Until its body has
returned it is in its queue or held by a worker whose lease runs; when a lease ends, any other
worker moves its jobs. Bodies may execute again, so the store must fence them.
Measurements: docs/decisions/0012-dbos-as-dispatcher.md.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from roadworthy.clock import MICROS, Clock, SystemClock, moment
from roadworthy.engine.dbos import Dispatch, slowed_queues
from roadworthy.engine.health import look
from roadworthy.engine.held import Held
from roadworthy.engine.jobs import EngineSettings, Health, Job, Tick, Worker
from roadworthy.engine.leases import Holder, Lease, Leases, Line
from roadworthy.errors import RoadworthyError, StoreUnavailable

log = logging.getLogger("roadworthy.engine")

_ROUNDS = 60  # every so many beats: orphans, retention, old leases


async def _no_tick(tick: Tick) -> None:
    log.warning("schedule %s fired and nobody listens", tick.schedule)


def _plain(url: str) -> str:
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)


class DbosEngine:
    """Enqueues segments and, when it works, executes them by calling `execute(run_id, segment)`.

    `execute` may be called again for a segment that began elsewhere. It raises Fenced when another
    process owns the run and StoreUnavailable to be called again here; else only bugs escape. It
    bears cancellation: the segment then continues on another worker. `on_tick` is called with what
    `schedule` promised, at least once for each instant, on one worker.
    """

    def __init__(
        self,
        url: str,
        execute: Callable[[str, int], Awaitable[None]],
        settings: EngineSettings | None = None,
        *,
        on_tick: Callable[[Tick], Awaitable[None]] = _no_tick,
        clock: Clock | None = None,
    ) -> None:
        self._execute = execute
        self._on_tick = on_tick
        self._settings = settings or EngineSettings()
        self._clock = clock or SystemClock()
        self._dispatch = Dispatch(_plain(url), self._settings)
        self._leases = Leases(_plain(url), self._settings.lease)
        self._facts = Line(_plain(url), 10.0)  # its own: a long count must not hold up a beat
        self._held = Held(self._settings, self._clock, self._hand_back)
        self._lease: Lease | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._drain: asyncio.Task[None] | None = None
        self.drained = asyncio.Event()

    # --- life ----------------------------------------------------------------------------

    @staticmethod
    async def set_up(url: str) -> None:
        """Create or migrate the engine's tables: at deploy, before workers of this release.

        Any number of processes may do it at once. Raises: StoreUnavailable.
        """
        await Dispatch.migrate(_plain(url))
        await Leases.set_up(_plain(url))

    async def open(self, *, work: bool) -> None:
        """Connect; with `work` also take jobs. Without it, this process executes nothing.

        Raises: StoreUnavailable: also when `set_up` was never called; ConfigurationError: another
        engine works in this process.
        """
        await self._dispatch.connect()
        if not work:
            return
        try:
            await self._dispatch.register()
            await self._begin()
        except BaseException:
            await self.close(0)
            raise
        loop = asyncio.get_running_loop()
        self._loops = [loop.create_task(self._beats()), loop.create_task(self._tends())]

    async def drain(self, seconds: float) -> None:
        """Take no more; give what executes so long, then hand it to other workers.

        Afterwards this process still enqueues. Its lease is gone when this returns.
        """
        if self._drain is None:
            if not self._loops:  # it never took anything
                return
            self._drain = asyncio.get_running_loop().create_task(self._drain_within(seconds))
        elif not self._drain.done():  # somebody else asked for it, with another patience
            _, late = await asyncio.wait({self._drain}, timeout=seconds)
            if late:
                await self._held.interrupt()
        await asyncio.shield(self._drain)

    async def close(self, grace: float) -> None:
        """Drain with `grace` seconds, then let go of the database."""
        await self.drain(grace)
        for loop in self._loops:
            loop.cancel()
        if self._loops:
            await asyncio.wait(self._loops, timeout=5.0)
        if self._lease is not None:  # it was just beginning again
            await self._leave(self._lease)
        await self._dispatch.close()
        await self._leases.close()
        await self._facts.close()

    async def _drain_within(self, seconds: float) -> None:
        self._halt()
        if self._lease is not None:
            await self._best(self._leases.ask_to_drain(self._lease.id))  # so that `workers` tells
        await self._held.finish(seconds)
        if self._lease is not None:
            await self._leave(self._lease)
        self.drained.set()

    async def _leave(self, lease: Lease) -> None:
        """What executes still is cancelled, and continues elsewhere at once."""
        self._lease = None  # from here on nothing is renewed
        await self._held.interrupt()
        await self._best(self._dispatch.move([lease.id]))
        await self._best(self._leases.drop(lease.id))
        await self._dispatch.stop()

    # --- jobs ----------------------------------------------------------------------------

    async def enqueue(self, *jobs: Job) -> None:
        """Have segments executed somewhere; the same segment again is the same job.

        Together they cost one commit, or one for each job of the same conversation. Conversations
        keep this order to the millisecond; the store's own rule is what keeps it for certain.
        Raises: StoreUnavailable: repeat all of them.
        """
        await self._dispatch.enqueue(jobs)

    async def dispatch(self, take: Callable[[Any], Sequence[Job]]) -> int:
        """Have executed what `take` finds; how many. It is called with the driver's connection of
        the transaction that enqueues: what it marks there is enqueued, or neither happened.

        Raises: StoreUnavailable: nothing was enqueued. What `take` raises.
        """
        return await self._dispatch.dispatch(take)

    async def cancel(self, run_id: str, segment: int) -> None:
        """Take a job out of its queue, or interrupt it: here at once, elsewhere within a second.

        Raises: StoreUnavailable.
        """
        await self._dispatch.cancel(f"{run_id}:{segment}")
        self._held.cancel(f"{run_id}:{segment}")

    async def lost(self, *jobs: Job) -> list[Job]:
        """Which of these neither wait nor execute anywhere. Raises: StoreUnavailable."""
        there = await self._dispatch.open_among([job.id for job in jobs]) if jobs else set()
        return [job for job in jobs if job.id not in there]

    @property
    def running(self) -> frozenset[str]:
        """The jobs that execute here now, as `run:segment`."""
        return frozenset(self._held.running)

    @property
    def executor(self) -> str | None:
        """This worker's identity; a new one after a lost lease. None: it takes nothing."""
        return self._lease.id if self._lease else None

    @property
    def holds(self) -> bool:
        """Whether this worker's lease runs for certain: nobody else has its jobs."""
        return self._lease is not None and self._lease.left > 0

    async def schedule(self, name: str, cron: str, payload: str = "") -> None:
        """Call `on_tick` on some worker by cron (five fields, or six with seconds first; UTC).

        The same name again replaces it. Raises: DeclarationError: not a cron expression;
        StoreUnavailable.
        """
        await self._dispatch.schedule(name, cron, payload)

    async def unschedule(self, name: str) -> None:
        """Forget a schedule; one that is not there is fine. Raises: StoreUnavailable."""
        await self._dispatch.unschedule(name)

    # --- what is going on ------------------------------------------------------------------

    async def workers(self) -> list[Worker]:
        """Who holds a lease now, on any machine. Raises: StoreUnavailable."""
        return await self._leases.live()

    async def ask_to_drain(self, executor: str) -> bool:
        """Ask a worker, on any machine, to drain. False: no such worker lives."""
        return await self._leases.ask_to_drain(executor)

    async def health(self) -> Health:
        """Facts for `/health` and metrics. Raises: StoreUnavailable."""
        return await look(
            self._facts,
            self._settings,
            executor=self.executor,
            workers=len(await self._leases.live()),
            polls=slowed_queues.polls(self._clock),
        )

    async def sweep(self, keep: float | None = None) -> int:
        """Delete jobs that ended `keep` seconds ago, in batches; how many.

        A deleted job's id is free again: enqueueing that segment once more would execute it, which
        the store answers by doing nothing. Raises: StoreUnavailable.
        """
        seconds = self._settings.keep if keep is None else keep
        before = moment(self._clock.now() - int(seconds * MICROS))
        return await self._dispatch.delete_ended(before.isoformat())

    # --- bodies: what DBOS calls through `dbos.py` -------------------------------------------

    def holding(self, key: str) -> AbstractContextManager[None]:
        """A job was claimed for this process."""
        return self._held.holding(key)

    async def segment(self, run_id: str, number: int) -> None:
        """The body of a job."""
        await self._held.perform(f"{run_id}:{number}", lambda: self._execute(run_id, number))

    async def tick(self, key: str, tick: Tick) -> None:
        """The body of a schedule's job."""
        await self._held.perform(key, lambda: self._on_tick(tick))

    async def _hand_back(self, key: str) -> None:
        if self._lease is not None:
            await self._dispatch.move([self._lease.id], key)

    # --- leases ------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """A new identity with a lease, then jobs."""
        names = [queue.name for queue in self._settings.queues]
        holder = Holder.here(names, self._settings.version)
        lease = Lease(self._leases, holder, self._settings.lease, self._clock)
        await lease.begin()
        self._lease, self._held.taking = lease, True
        try:
            await self._dispatch.launch(lease.id, self)
        except RoadworthyError:
            self._halt()
            await self._leave(lease)
            raise

    async def _beats(self) -> None:
        """Renew the lease from the event loop: a loop that does not come round must lose it."""
        while True:
            await self._clock.sleep(self._settings.beat)
            if self._lease is None:  # drained
                return
            try:
                state = await self._lease.renew()
                if state == "draining" and self._drain is None:
                    log.warning("%s was asked to drain", self._lease.id)
                    drain = self._drain_within(self._settings.drain)
                    self._drain = asyncio.get_running_loop().create_task(drain)
                elif state == "lost":
                    await self._start_again(self._lease)
            except StoreUnavailable as error:
                log.warning("the lease cannot be renewed: %s", error)
            except Exception:
                log.exception("the lease is not being renewed")

    async def _start_again(self, old: Lease) -> None:
        """Others took over: stop everything at once, and begin under a new identity."""
        log.warning("%s lost its lease; its %d jobs continue elsewhere", old.id, len(self._held))
        self._halt()
        if self._drain is not None:  # then it only ends sooner
            await self._held.interrupt()
            return
        await self._leave(old)
        while not await self._begun_again():
            await self._clock.sleep(self._settings.beat)
        if self._draining and self._lease is not None:  # it was asked for meanwhile
            await self._leave(self._lease)

    async def _begun_again(self) -> bool:
        if self._draining:
            return True
        try:
            await self._begin()
        except StoreUnavailable as error:
            log.warning("no new lease yet: %s", error)
            return False
        return True

    @property
    def _draining(self) -> bool:
        return self._drain is not None

    async def _tends(self) -> None:
        """Cancels, and the reaper. Every worker may reap: each move is one conditional update."""
        rounds = 0
        while True:
            try:
                if running := list(self._held.running):
                    for key in await self._dispatch.cancelled(running):
                        self._held.cancel(key)
                dead = await self._leases.dead()
                if rounds % _ROUNDS == 0:
                    dead += sorted(await self._dispatch.holders() - await self._leases.known())
                    await self._leases.forget()
                    await self.sweep()
                if dead and (moved := await self._dispatch.move(dead)):
                    log.warning("moved %d jobs of dead workers", moved)
                rounds += 1
            except StoreUnavailable as error:
                log.warning("dead workers' jobs are not being moved: %s", error)
            except Exception:
                log.exception("dead workers' jobs are not being moved")
            await self._clock.sleep(self._settings.beat)

    def _halt(self) -> None:
        """Claim nothing more. What a poll in flight still claims goes back at once."""
        self._held.taking = False
        self._dispatch.halt()

    async def _best(self, attempt: Awaitable[object]) -> None:
        """Something that others will do if we cannot."""
        try:
            await attempt
        except StoreUnavailable as error:
            log.warning("left to other workers: %s", error)

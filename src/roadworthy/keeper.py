"""What a runtime does beside runs: hold the file's lease, hear other processes, mind deadlines.

The runtime starts one per process: `FileKeeper` on a SQLite file, `cluster.ClusterKeeper` on
Postgres. Invariant of a file: only the lease holder executes runs; the others leave commands and
rows that it finds within 50 ms.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from roadworthy import overdue
from roadworthy.breakers.rows import Standing
from roadworthy.checkup import Finding, of_breakers, of_notices, of_queue, of_store, standing
from roadworthy.engine.inline import InlineEngine
from roadworthy.engine.jobs import Health, Worker
from roadworthy.errors import StoreError
from roadworthy.executor import Executor
from roadworthy.messengers import Messenger
from roadworthy.run import Unit
from roadworthy.store import jobs, waits
from roadworthy.store.database import Tx
from roadworthy.store.ownership import RENEW_SECONDS, leave, take, this_process
from roadworthy.tool_calls import forget_expired
from roadworthy.tool_calls.later import expire

log = logging.getLogger("roadworthy.runtime")
POLL_SECONDS = 0.05
GLANCE_SECONDS = 0.1
GOSSIP_SECONDS = TELL_SECONDS = 1.0


class Keeper(ABC):
    """The housekeeping of one process.

    owner: runs execute in this process and in no other. glance: seconds after which a stream looks
    into the journal for what happened elsewhere; None when everything happens here.
    """

    owner = False

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._house = executor.house
        self._tasks: list[asyncio.Task[None]] = []
        self.drained = asyncio.Event()  # nothing executes here any more
        self.messenger = Messenger(executor.house)
        self.fire: Callable[[], Awaitable[None]] | None = None  # starts what is scheduled

    @property
    def glance(self) -> float | None:
        """See above."""
        return None if self.owner else GLANCE_SECONDS

    @property
    def patience(self) -> float | None:
        """Seconds after which whoever waits for a result looks by itself."""
        return self.glance

    @abstractmethod
    async def open(self) -> None:
        """Begin; what is unfinished goes on."""

    @abstractmethod
    async def close(self, grace: float) -> None:
        """Let running segments finish within `grace` seconds, then stop."""

    async def admit(self, priority: int) -> None:
        """Before a request is accepted. Raises: Overloaded: too many wait already."""
        del priority  # one process has no queue of others' runs

    @abstractmethod
    def wake(self, run_id: str) -> None:
        """A run became executable: have it executed, here or elsewhere."""

    @abstractmethod
    async def hear(self) -> None:
        """Carry out what was left for runs that execute here."""

    @abstractmethod
    async def drain(self, seconds: float) -> None:
        """Take no more; what executes has so long, then it goes on elsewhere."""

    async def workers(self) -> Sequence[Worker]:
        """Who executes runs, where many can."""
        return ()

    async def ask_to_drain(self, worker: str) -> bool:
        """Ask a worker on any machine to drain. False: no such worker lives."""
        del worker
        return False

    async def checkup(self) -> list[Finding]:
        """What `roadworthy doctor` tells. Raises: StoreError."""
        house = self._house
        queue = await of_queue(house, self._executor.names)
        told = await of_notices(house)
        return [await of_store(house), *queue, *await of_breakers(house), *told]

    async def breakers(self) -> list[Standing]:
        """What is left alone now, by the word of all processes. Raises: StoreError."""
        return await standing(self._house)

    async def health(self) -> Health | None:
        """Facts about dispatch, where there is any."""
        return None

    def _start(self, *loops: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.get_running_loop()
        self._tasks += [loop.create_task(each) for each in loops]

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:  # none when opening failed: that error is the one to show
            await asyncio.wait(self._tasks)

    async def _every(self, seconds: float, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Real time: other processes count on it."""
        level = logging.WARNING
        while True:
            await asyncio.sleep(seconds)  # noqa: TID251 - see above
            try:
                await work()
                level = logging.WARNING
            except StoreError as error:
                log.log(level, "%s waits for the store: %s", what, error)
                level = logging.DEBUG  # said once, not at each round
            except Exception:  # border: housekeeping goes on, whatever one round met
                log.exception("%s failed; it is tried again", what)

    async def gossip(self) -> None:
        """Exchange with other processes what fails at the far side. Raises: StoreError."""
        await self._house.circuits.sync(self._house.read)

    async def tell(self) -> None:
        """Tell people what waits for them. Raises: StoreError."""
        await self.messenger.work()

    async def due(self) -> None:
        """Act on the deadlines and schedules whose time has come by the injected clock."""
        await self._expire()
        await self._mind_queue()
        if self.fire is not None:
            await self.fire()

    async def catch_up(self) -> None:
        """What is done each second, at once."""
        await self.due()
        await self.tell()

    async def _expire(self) -> None:
        """A wait whose deadline has passed is answered with what that means for its kind."""
        now = self._house.clock.now()
        for wait_id in await self._house.read(lambda tx: waits.due(tx, now)):

            def answer(tx: Tx, wait_id: str = wait_id) -> str | None:
                wait = waits.by_id(tx, wait_id)
                return wait.run_id if wait is not None and expire(tx, wait, now) else None

            woken = await self._house.journal.commit(Unit(apply=answer))
            if isinstance(woken, str):
                self.wake(woken)

    async def _mind_queue(self) -> None:
        """The clocks of the escalations, where there is an inbox."""
        inbox, now = self._house.inbox, self._house.clock.now()
        if inbox is None:
            return
        for item in await self._house.read(lambda tx: overdue.due(tx, now)):

            def act(tx: Tx, item: tuple[str, str] = item) -> str | None:
                return overdue.mind(tx, item, inbox, now)

            await self._house.journal.commit(Unit(apply=act))


class FileKeeper(Keeper):
    """The housekeeping of a process on a SQLite file: its lease, or a guest's commands."""

    def __init__(self, executor: Executor, engine: InlineEngine, *, execute: bool = True) -> None:
        """execute: False never takes the lease: this process looks and leaves commands."""
        super().__init__(executor)
        self._engine = engine
        self._me = this_process(executor.house.holder)
        self._batches = self._foreign = -1
        self._doubt = False
        self._execute = execute
        self._refused: set[str] = set()  # runs whose pattern is not known here, said once

    async def open(self) -> None:
        """Take the lease if it is free and start what is unfinished."""
        self._changed = self._house.database.watch()
        with suppress(StoreError):  # a store in trouble is somebody else's news
            await self.gossip()  # before the first call: what is open stays open
        await self._renew()
        self._start(
            self._every(RENEW_SECONDS, "housekeeping", self._keep),
            self._every(POLL_SECONDS, "listening", self._listen),
            self._every(GOSSIP_SECONDS, "gossip", self.gossip),
            self._every(TELL_SECONDS, "notices", self.tell),
        )

    async def close(self, grace: float) -> None:
        """Finish what runs, and give the lease up."""
        await self._engine.close(grace)
        await self._stop()
        if self.owner:
            await self._house.journal.commit(Unit(apply=lambda tx: leave(tx, self._me)))

    async def tell(self) -> None:
        """Only the owner does: guests may know another inbox, or none."""
        if self.owner:
            await super().tell()

    async def drain(self, seconds: float) -> None:
        """There is no other process: what does not finish goes on at the next opening."""
        await self._engine.close(seconds)
        self.drained.set()

    def wake(self, run_id: str) -> None:
        """The owner executes it; a guest's commit is heard by the owner."""
        if self.owner:
            self._engine.start(run_id)

    async def start_unfinished(self) -> None:
        """Hand every executable run to the engine."""
        for run_id, pattern in await self._house.read(jobs.unfinished):
            begun = run_id in self._engine.running or run_id in self._executor.arriving
            if begun or self._executor.leaves(run_id):
                continue
            if self._executor.knows(pattern):
                self._engine.start(run_id)
            elif run_id not in self._refused:
                await self._refuse(run_id, pattern)

    async def _refuse(self, run_id: str, pattern: str) -> None:
        """Whoever waits for it in another process is told, instead of waiting in vain."""
        log.warning(
            "no pattern %r is registered here: it stays queued", pattern, extra={"run": run_id}
        )
        holder, now = self._house.holder, self._house.clock.now()
        await self._house.journal.commit(
            Unit(apply=lambda tx: waits.refuse(tx, run_id, holder, now))
        )
        self._refused.add(run_id)

    async def _renew(self) -> None:
        if not self._execute:
            return
        now = self._house.clock.now()
        try:
            held = await self._house.journal.commit(Unit(apply=lambda tx: take(tx, self._me, now)))
        except StoreError as error:
            log.warning("the lease cannot be renewed: %s", error)
            return
        if held and not self.owner:
            self.owner = True
            self._executor.look_anew()
            await self._house.journal.commit(Unit(apply=lambda tx: forget_expired(tx, now)))
            await self.start_unfinished()
        elif not held and self.owner:
            log.warning("another process executes the runs of this store now")
            self.owner = False

    async def _keep(self) -> None:
        await self._renew()
        if self.owner:
            await self.due()
            await self.start_unfinished()  # also what was left while the store was full

    async def _listen(self) -> None:
        """When another process committed, look what it left."""
        if self._others_committed():
            await self.hear()

    def _others_committed(self) -> bool:
        """The watch sees our own commits too; the writer's connection sees only those of others,
        but only up to its last batch. What came after it is looked for once we are idle."""
        journal, changed = self._house.journal, self._changed()
        ours, told = journal.batches != self._batches, journal.foreign != self._foreign
        self._batches, self._foreign = journal.batches, journal.foreign
        self._doubt, before = ours and (changed or self._doubt), self._doubt
        only_others = self._house.database.hears_only_others
        return told or (changed and only_others) or (not ours and (changed or before))

    async def hear(self) -> None:
        """Carry out what was left for runs of this process, and start what is executable."""
        if not self.owner:
            return
        for command in await self._house.read(waits.commands):
            if self._executor.executes(command[1]):
                await self._executor.obey(command)
            else:
                self._engine.start(command[1])
        await self.start_unfinished()

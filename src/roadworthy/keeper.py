"""What a runtime does beside runs: hold the file's lease, hear other processes, mind deadlines.

The runtime starts one per process. Invariant: only the lease holder executes runs; the others
leave commands and rows that it finds within 50 ms.
"""

from __future__ import annotations

import asyncio
import logging

from roadworthy.engine.inline import InlineEngine
from roadworthy.errors import StoreError
from roadworthy.executor import Executor
from roadworthy.run import Unit
from roadworthy.store import runs, waits
from roadworthy.store.codec import Seal
from roadworthy.store.database import Tx
from roadworthy.store.ownership import RENEW_SECONDS, leave, take, this_process
from roadworthy.tool_calls import forget_expired

log = logging.getLogger("roadworthy.runtime")
POLL_SECONDS = 0.05


class Keeper:
    """The housekeeping of one process."""

    def __init__(self, executor: Executor, engine: InlineEngine, *, execute: bool = True) -> None:
        """execute: False never takes the lease: this process looks and leaves commands."""
        self._executor = executor
        self._house = executor.house
        self._engine = engine
        self._me = this_process(executor.house.holder)
        self._tasks: list[asyncio.Task[None]] = []
        self._batches = self._foreign = -1
        self._doubt = False
        self._execute = execute
        self._refused: set[str] = set()  # runs whose pattern is not known here, said once
        self.owner = False

    async def open(self) -> None:
        """Take the lease if it is free and start what is unfinished."""
        self._changed = self._house.database.watch()
        await self._renew()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep()), loop.create_task(self._listen())]

    async def close(self) -> None:
        """Stop, and give the lease up."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:  # none when opening failed: that error is the one to show
            await asyncio.wait(self._tasks)
        if self.owner:
            await self._house.journal.commit(Unit(apply=lambda tx: leave(tx, self._me)))

    async def start_unfinished(self) -> None:
        """Hand every executable run to the engine."""
        for run_id, pattern in await self._house.read(runs.unfinished):
            begun = run_id in self._engine.running or run_id in self._executor.arriving
            if begun:
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
            await self._house.journal.commit(Unit(apply=lambda tx: forget_expired(tx, now)))
            await self.start_unfinished()
        elif not held and self.owner:
            log.warning("another process executes the runs of this store now")
            self.owner = False

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)  # noqa: TID251 - real: another process counts on it
            try:
                await self._renew()
                if self.owner:
                    await self._expire()
                    await self.start_unfinished()  # also what was left while the store was full
            except StoreError as error:
                log.warning("the store is not kept just now: %s", error)
            except Exception:  # border: housekeeping goes on, whatever one round met
                log.exception("housekeeping failed; it is tried again")

    async def _listen(self) -> None:
        """When another process committed, look what it left."""
        while True:
            await asyncio.sleep(POLL_SECONDS)  # noqa: TID251 - a poll of a file, not of run time
            try:
                if self._others_committed() and self.owner:
                    await self.hear()
            except StoreError as error:
                log.warning("commands cannot be read: %s", error)
            except Exception:  # border: as above
                log.exception("what other processes left cannot be carried out; tried again")

    def _others_committed(self) -> bool:
        """The watch sees our own commits too; the writer's connection sees only those of others,
        but only up to its last batch. What came after it is looked for once we are idle."""
        journal, changed = self._house.journal, self._changed()
        ours, told = journal.batches != self._batches, journal.foreign != self._foreign
        self._batches, self._foreign = journal.batches, journal.foreign
        self._doubt, before = ours and (changed or self._doubt), self._doubt
        return told or (not ours and (changed or before))

    async def hear(self) -> None:
        """Carry out what was left for runs of this process, and start what is executable."""
        for command_id, run_id, _, by in await self._house.read(waits.commands):
            if self._executor.executes(run_id):
                await self._executor.obey(command_id, run_id, by)
            else:
                self._engine.start(run_id)
        await self.start_unfinished()

    async def _expire(self) -> None:
        """A wait whose deadline has passed is answered with its safe default: no."""
        now = self._house.clock.now()
        due = await self._house.read(lambda tx: waits.due(tx, now))
        for wait_id in due:

            def answer(tx: Tx, wait_id: str = wait_id) -> None:
                wait = waits.by_id(tx, wait_id)
                if wait is not None and wait.kind == "approval":
                    row = runs.hold(tx, wait.run_id)
                    seal = Seal(runs.tenant_key_of(tx, row.tenant))
                    reply = {"decision": "reject", "by": "", "note": "Nobody decided in time."}
                    waits.answer(tx, wait_id, reply, seal, now)
                    runs.wake(tx, wait.run_id, now)

            await self._house.journal.commit(Unit(apply=answer))

"""The jobs that a worker has claimed and executes now, and what becomes of each way they end.

`engine/distributed.py` puts them in. Invariant: a job's body either returns, and the job is over,
or it is cancelled with nothing recorded, and the job can move to another worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from roadworthy.clock import Clock
from roadworthy.engine.jobs import EngineSettings
from roadworthy.errors import Fenced, StoreError, StoreUnavailable

log = logging.getLogger("roadworthy.engine")

_UNWINDING = 5.0  # seconds that an interrupted body has


class Held:
    """Claimed jobs by key. `hand_back(key)` puts one back into its queue."""

    def __init__(
        self,
        settings: EngineSettings,
        clock: Clock,
        hand_back: Callable[[str], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._hand_back = hand_back
        self._tasks: dict[str, asyncio.Task[Any]] = {}  # until the job's outcome is written
        self._going: set[asyncio.Task[None]] = set()
        self.running: set[str] = set()
        self.taking = False

    def __len__(self) -> int:
        return len(self._tasks)

    @contextmanager
    def holding(self, key: str) -> Iterator[None]:
        """A job was claimed for this process. While it takes nothing, the job goes back at once.

        Raises: asyncio.CancelledError: it must not execute here.
        """
        task = asyncio.current_task()
        if not self.taking or task is None:
            going = asyncio.get_running_loop().create_task(self._back(key))
            self._going.add(going)
            going.add_done_callback(self._going.discard)
            raise asyncio.CancelledError
        self._tasks[key] = task
        self.running.add(key)
        task.add_done_callback(lambda _: self._tasks.pop(key, None))
        try:
            yield
        finally:
            self.running.discard(key)

    async def perform(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        """Execute the body of a job. Raises: its bugs; CancelledError: the job moves on."""
        pause = self._settings.beat
        while True:
            again, limit = False, asyncio.timeout(self._settings.segment)
            try:
                async with limit:
                    await work()
            except Fenced:
                log.warning("%s was taken over", key)
            except StoreUnavailable as error:  # nobody else could do better: again, here
                log.warning("%s waits for the store: %s", key, error)
                again = True
            except StoreError as error:  # another release may be able to
                log.warning("%s is handed back: %s", key, error)
                await self._clock.sleep(pause)
                await self._leave(key)
            except TimeoutError:
                if not limit.expired():
                    raise
                log.exception("%s took over %s s: handed back", key, self._settings.segment)
                await self._leave(key)
            except Exception:  # the engine keeps it to itself
                log.exception("%s failed; its run gets another job", key)
                raise
            if not again:
                return
            await self._clock.sleep(pause)
            pause = min(2 * pause, 30.0)

    def cancel(self, key: str) -> None:
        """Interrupt one job if it executes here."""
        if key in self.running:
            self._tasks[key].cancel()

    async def finish(self, seconds: float) -> None:
        """Give all jobs this long to end by themselves."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=seconds)

    async def interrupt(self) -> None:
        """Cancel all jobs; returns when they unwound, or would not."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_UNWINDING)

    async def _leave(self, key: str) -> None:
        await self._back(key)
        raise asyncio.CancelledError

    async def _back(self, key: str) -> None:
        try:
            await self._hand_back(key)
        except StoreUnavailable as error:  # it moves when this worker's lease ends
            log.warning("%s cannot be handed back: %s", key, error)

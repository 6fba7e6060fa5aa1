"""The engine of one process: many runs at once as tasks on one event loop.

The runtime starts it and hands it run ids. Invariant: a run has at most one task here, and a
waiting run has none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from roadworthy.errors import StoreError

log = logging.getLogger("roadworthy.engine")


class InlineEngine:
    """Executes runs by calling `execute(run_id)`, at most `most` at once."""

    def __init__(self, execute: Callable[[str], Awaitable[object]], most: int = 1_000) -> None:
        self._execute = execute
        self._slots = asyncio.Semaphore(most)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()

    def start(self, run_id: str) -> None:
        """Execute a run now; one that executes already looks again when it is done."""
        if run_id in self._tasks:
            self._again.add(run_id)
            return
        task = asyncio.get_running_loop().create_task(self._run(run_id), name=run_id)
        self._tasks[run_id] = task

    @property
    def running(self) -> frozenset[str]:
        """The ids of runs that execute here now."""
        return frozenset(self._tasks)

    async def close(self, grace: float) -> None:
        """Give running segments `grace` seconds, then leave them to the next process."""
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=grace + 1)

    async def _run(self, run_id: str) -> None:
        try:
            async with self._slots:
                await self._execute(run_id)
        except StoreError as error:
            log.warning("run %s is left as it is: %s", run_id, error, extra={"run": run_id})
        except Exception:
            log.exception("run %s left its segment with an error", run_id, extra={"run": run_id})
        finally:
            del self._tasks[run_id]
            if run_id in self._again:
                self._again.discard(run_id)
                self.start(run_id)

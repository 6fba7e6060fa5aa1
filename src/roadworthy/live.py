"""Whoever watches a run now, in this process: streams of events, and who waits for an end.

The journal publishes committed events here, the loop live ones. Invariant: a slow or gone watcher
never holds a run up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeAlias

from roadworthy.events import LiveEvent, RunEvent, StreamEvent
from roadworthy.result import RunResult
from roadworthy.store.hot import Hot

log = logging.getLogger("roadworthy.runtime")
_MOST_BEHIND = 10_000
Told: TypeAlias = RunResult[Any] | Exception | None
Shown: TypeAlias = StreamEvent | Exception | None


class Live:
    """Fan-out by run id. Used on one event loop only."""

    def __init__(self, hook: Callable[[StreamEvent], None] | None = None) -> None:
        self.hot: Hot | None = None  # to and from other processes
        self._watchers: defaultdict[str, list[asyncio.Queue[Shown]]] = defaultdict(list)
        self._expecting: defaultdict[str, list[asyncio.Queue[Told]]] = defaultdict(list)
        self._hook = hook

    def watch(self, run_id: str) -> asyncio.Queue[Shown]:
        """A queue that gets what is published from now on."""
        queue: asyncio.Queue[Shown] = asyncio.Queue(_MOST_BEHIND)
        self._watchers[run_id].append(queue)
        if self.hot is not None:
            self.hot.watch(run_id)
        return queue

    def leave(self, run_id: str, queue: asyncio.Queue[Shown]) -> None:
        """Stop watching."""
        self._watchers[run_id].remove(queue)
        if not self._watchers[run_id]:
            del self._watchers[run_id]
            if self.hot is not None:
                self.hot.leave(run_id)

    def expect(self, run_id: str) -> asyncio.Queue[Told]:
        """A queue that gets what each segment of the run in this process comes to."""
        queue: asyncio.Queue[Told] = asyncio.Queue()
        self._expecting[run_id].append(queue)
        return queue

    def tell(self, run_id: str, told: Told) -> None:
        """A segment is over: its result, or why it was left; None: look into the store."""
        for queue in self._expecting.get(run_id, ()):
            queue.put_nowait(told)
        if isinstance(told, Exception):
            for watcher in self._watchers.get(run_id, ()):
                if watcher.full():
                    watcher.get_nowait()
                watcher.put_nowait(told)

    def tell_all(self, error: Exception) -> None:
        """Whoever waits for any run is told why nothing moves; the runs go on when it can."""
        for run_id in {*self._expecting, *self._watchers}:
            self.tell(run_id, error)

    def look(self) -> None:
        """What somebody waits for or watches here may have changed without being published."""
        for run_id in list(self._expecting):
            self.tell(run_id, None)
        for run_id in list(self._watchers):
            self._show(run_id, None)

    def forget(self, run_id: str, queue: asyncio.Queue[Told]) -> None:
        """Stop expecting."""
        self._expecting[run_id].remove(queue)
        if not self._expecting[run_id]:
            del self._expecting[run_id]

    def watched(self, run_id: str) -> bool:
        """Whether anybody streams this run, here or elsewhere."""
        return run_id in self._watchers or (self.hot is not None and self.hot.wanted(run_id))

    @property
    def expected(self) -> frozenset[str]:
        """The runs that somebody here waits for."""
        return frozenset(self._expecting)

    def followed(self, run_id: str) -> bool:
        """Whether an event of this run reaches anybody: a stream, or the hook of all runs."""
        return self._hook is not None or self.watched(run_id)

    def publish(self, run_id: str, event: LiveEvent | RunEvent) -> None:
        """Show an event. A watcher too far behind loses it and re-reads the journal."""
        if self._hook is not None:
            self._tell(event)
        self._show(run_id, event)
        if self.hot is not None and self.hot.wanted(run_id):
            self.hot.tell(run_id, event)

    def heard(self, run_id: str, event: LiveEvent | None) -> None:
        """What another process shows of a run that is watched here; None: look into the journal."""
        self._show(run_id, event)

    def _show(self, run_id: str, event: Shown) -> None:
        for queue in self._watchers.get(run_id, ()):
            if queue.full() and (event is None or isinstance(event, RunEvent)):
                queue.get_nowait()  # facts have room always: the gap is seen, an end never missed
            if not queue.full():
                queue.put_nowait(event)

    def _tell(self, event: LiveEvent | RunEvent) -> None:
        try:
            assert self._hook is not None  # noqa: S101 - asked by the only caller
            self._hook(event)
        except Exception:  # border: a user's hook only looks on
            log.warning("on_event failed", exc_info=True)

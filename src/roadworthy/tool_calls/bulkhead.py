"""How many calls of one tool run at once in a process, so that a slow one cannot take all threads.

`call` enters before it intends. Invariant: a place is given back once, when the function has
returned, however long after its time limit that is.
"""

from __future__ import annotations

import asyncio
from typing import Any

from roadworthy.agent import Tool
from roadworthy.deadline import in_time
from roadworthy.run import Run
from roadworthy.tools.execution import AttemptFailed, ToolThreads, takes_thread

_PART = 4  # of the threads, for a plain function that declares nothing


class Place:
    """A place of a tool. begun: it is the running function's to give back, by `left`."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places: asyncio.Semaphore | None = places
        self.begun = False

    def left(self) -> None:
        """Give it back."""
        places, self._places = self._places, None
        if places is not None:
            places.release()


class Bulkheads:
    """The places of all tools of a process."""

    def __init__(self, threads: ToolThreads) -> None:
        self._default = max(1, threads.most // _PART)
        self._places: dict[str, asyncio.Semaphore | None] = {}

    async def enter(self, run: Run, tool: Tool[Any], seconds: float) -> Place | None:
        """A place, at once or within `seconds`. None: the tool is not bounded here.

        Raises: AttemptFailed: all stayed taken, nothing was begun. Stop: the run is over.
        """
        try:
            places = self._places[tool.identity]
        except KeyError:
            places = self._places[tool.identity] = self._bounds(tool)
        if places is None:
            return None
        if places.locked():
            try:
                async with in_time(run, seconds):
                    await places.acquire()
            except TimeoutError as error:
                most = tool.concurrency or self._default
                raise AttemptFailed(
                    "busy",
                    f"all {most} calls it may have at once stayed busy for {seconds:g} s",
                    applied="no",
                    transient=True,
                ) from error
        else:
            await places.acquire()
        return Place(places)

    def _bounds(self, tool: Tool[Any]) -> asyncio.Semaphore | None:
        if tool.concurrency is None and not takes_thread(tool):
            return None  # it takes no thread
        return asyncio.Semaphore(tool.concurrency or self._default)

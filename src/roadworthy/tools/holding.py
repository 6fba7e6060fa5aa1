"""Something opened, entered and left in a task of its own, wherever it is asked for.

`toolsets` and `mcp` hold what they open so. Invariant: whatever the opened thing does becomes a
`ToolsetUnavailable` or a line in the log; nothing of it hangs on to the task that asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

from roadworthy.errors import RoadworthyError, ToolsetUnavailable

log = logging.getLogger("roadworthy.tools")
T = TypeVar("T")
CLOSE_SECONDS = 8.0


class Held(Generic[T]):
    """A context manager between its opening and its closing. seconds: it may take to open."""

    def __init__(
        self, name: str, opens: Callable[[], AbstractAsyncContextManager[T]], seconds: float
    ) -> None:
        self._name, self._opens, self._seconds = name, opens, seconds
        self._ready: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._hold(), name=name)

    async def opened(self) -> T:
        """What it yields, once it is open. Raises: ToolsetUnavailable, DeclarationError."""
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(self._ready)
        except TimeoutError:
            await self.close()
            raise ToolsetUnavailable(f"{self._name} did not open in {self._seconds:g} s.") from None
        except asyncio.CancelledError:
            await self.close()
            raise

    async def close(self) -> None:
        """Leave it: politely, and by force when that takes too long."""
        self._closing.set()
        if not self._ready.done():
            self._task.cancel()
        done, _ = await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
        if not done:
            log.warning("%s did not close in %g s", self._name, CLOSE_SECONDS)
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)

    async def _hold(self) -> None:
        try:
            async with self._opens() as found:
                if not self._ready.done():
                    self._ready.set_result(found)
                await self._closing.wait()
        except asyncio.CancelledError:
            self._failed(ToolsetUnavailable(f"{self._name} was closed."))
        except Exception as error:  # noqa: BLE001 - border: a toolset's own code
            why = _ours(error)
            if why is None:
                why = ToolsetUnavailable(f"{self._name} cannot be opened: {told(error)}")
                why.__cause__ = error
            self._failed(why)

    def _failed(self, why: RoadworthyError) -> None:
        if self._ready.done():
            if why.__cause__ is not None:
                log.warning("%s failed: %s", self._name, told(why.__cause__))
            return
        self._ready.set_exception(why)
        self._ready.exception()  # looked at, also when nobody waits any more


def _ours(error: BaseException) -> RoadworthyError | None:
    """The first of our own errors in it: task groups of libraries wrap what passes them."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _ours(each))), None)
    return error if isinstance(error, RoadworthyError) else None


def told(error: BaseException) -> str:
    """What happened, in one line; of a group the first that says something."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    said = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__

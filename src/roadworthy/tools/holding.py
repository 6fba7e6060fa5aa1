"""One opened toolset, entered and left in a task of its own, wherever it is asked for.

`toolsets` holds them. Invariant: whatever a toolset's code does becomes a `ToolsetUnavailable` or a
line in the log; nothing of it hangs on to the task that asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from roadworthy.agent import Tool, Toolset
from roadworthy.context import RunContext
from roadworthy.errors import RoadworthyError, ToolsetUnavailable

log = logging.getLogger("roadworthy.tools")
CLOSE_SECONDS = 8.0


class Held:
    """A toolset between its opening and its closing. `tools`: what it yielded, by name."""

    def __init__(self, toolset: Toolset[Any], run: RunContext[None]) -> None:
        self.toolset = toolset
        self.tools: Mapping[str, Tool[Any]] = {}
        self._run = run
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._hold(), name=f"toolset {toolset.name}")

    async def opened(self) -> Mapping[str, Tool[Any]]:
        """Its tools, once it is open. Raises: ToolsetUnavailable; DeclarationError."""
        try:
            async with asyncio.timeout(self.toolset.seconds):
                await asyncio.shield(self._ready)
        except TimeoutError:
            await self.close()
            raise ToolsetUnavailable(
                f"Toolset {self.toolset.name!r} did not open in {self.toolset.seconds:g} s."
            ) from None
        except asyncio.CancelledError:
            await self.close()
            raise
        return self.tools

    async def close(self) -> None:
        """Leave it: politely, and by force when that takes too long."""
        self._closing.set()
        if not self._ready.done():
            self._task.cancel()
        done, _ = await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
        if not done:
            log.warning("toolset %s did not close in %g s", self.toolset.name, CLOSE_SECONDS)
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)

    async def _hold(self) -> None:
        try:
            async with self.toolset.open(self._run) as tools:
                self.tools = {tool.name: tool for tool in tools}
                if not self._ready.done():
                    self._ready.set_result(None)
                await self._closing.wait()
        except asyncio.CancelledError:
            self._failed(ToolsetUnavailable(f"Toolset {self.toolset.name!r} was closed."))
        except RoadworthyError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - border: a toolset's own code
            said = f"Toolset {self.toolset.name!r} cannot be opened: {told(error)}"
            self._failed(ToolsetUnavailable(said), error)

    def _failed(self, why: RoadworthyError, error: Exception | None = None) -> None:
        if self._ready.done():
            if error is not None:
                log.warning("toolset %s failed: %s", self.toolset.name, told(error))
            return
        why.__cause__ = error
        self._ready.set_exception(why)
        with contextlib.suppress(RoadworthyError):
            self._ready.exception()  # looked at, also when nobody waits any more


def told(error: BaseException) -> str:
    """What happened, in one line; of a group the first that says something."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    said = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__

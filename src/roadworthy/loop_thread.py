"""The rim for sync code: an event loop in a thread of its own.

`Runtime` uses it for `with` and `run_sync`, so both work in scripts, notebooks and servers.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from roadworthy.errors import ConfigurationError

T = TypeVar("T")


class LoopThread:
    """An event loop that runs in a daemon thread until `close`."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="roadworthy-loop", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the loop and wait. Ctrl+C cancels the waiting, not the run.

        Raises: ConfigurationError: called on the loop itself, which would wait for ever.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise ConfigurationError(
                "A sync call inside the runtime's own event loop would wait for itself for ever. "
                "Inside async tools and hooks use `await rt.run(...)`, or make the tool a plain "
                "function: it gets a thread of its own."
            )
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        """Stop the loop and wait for its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop this code runs on, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

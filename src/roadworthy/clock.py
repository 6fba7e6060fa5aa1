"""Time, injected: the one place that reads the system clock.

What waits, expires or measures takes a `Clock`; tests pass `roadworthy.testing.FakeClock`.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol

MICROS = 1_000_000


class Clock(Protocol):
    """What the runtime needs of time."""

    def now(self) -> int:
        """Microseconds since 1970, UTC. For rows and deadlines."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back. For durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """Microseconds since 1970, UTC."""
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(seconds)


def moment(micros: int) -> datetime:
    """A row's time as an aware UTC datetime."""
    return datetime.fromtimestamp(micros / MICROS, tz=UTC)

"""`FakeClock`: time that moves when a test says so.

Passed wherever a Clock is taken. Invariant: sleepers wake in the order of their deadlines, and
`now` and `monotonic` never disagree.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools

from roadworthy.clock import MICROS

_START = 1_767_225_600 * MICROS  # 2026-01-01
_TURNS = 10  # of the event loop, so that what was woken can run and sleep again


class FakeClock:
    """A clock that stands still until `advance`.

    start: microseconds since 1970. auto: sleeping moves the time itself and returns at once, for
    tests in which only the order matters.
    """

    def __init__(self, start: int = _START, *, auto: bool = False) -> None:
        self.auto = auto
        self._start = self._now = start
        self._ticking = False
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now(self) -> int:
        """Microseconds since 1970, UTC."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        return (self._now - self._start) / MICROS

    async def sleep(self, seconds: float) -> None:
        """Wait until the time has moved on by this much; at least one turn of the event loop."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        until = self._now + max(0, round(seconds * MICROS))
        heapq.heappush(self._sleepers, (until, next(self._order), woken))
        if until <= self._now:
            loop.call_soon(self._wake, until)
        elif self.auto and not self._ticking:
            self._tick(_TURNS)
        await woken

    @property
    def sleeping(self) -> int:
        """How many sleep now."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move the time on and let everyone whose time has come run, the earliest first."""
        until = self._now + round(seconds * MICROS)
        await _settled()
        while self._sleepers and self._sleepers[0][0] <= until:
            self._wake(self._sleepers[0][0])
            await _settled()
        self._now = max(self._now, until)

    def _tick(self, turns: int) -> None:
        """Wake the earliest sleeper once nobody else has anything left to do."""
        self._ticking = bool(self._sleepers)
        if self._ticking and not turns:
            self._wake(self._sleepers[0][0])
        if self._ticking:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._tick, turns - 1 if turns else _TURNS)

    def _wake(self, until: int) -> None:
        self._now = max(self._now, until)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)


async def _settled() -> None:
    """Let whoever was woken run."""
    loop = asyncio.get_running_loop()
    for _ in range(_TURNS):
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn

"""A run's own time: what begins in it ends in it, give or take a grace.

`calls` and `tool_calls` bound model calls and reads by it; effects only by their own timeouts.
Invariant: that time was over is recorded before it stops the run, so that a replay stops there too.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from roadworthy.events import Noted
from roadworthy.run import Done, Run
from roadworthy.stops import Stop

GRACE = 0.5  # seconds past the limit, for what is about to end


def time_left(run: Run) -> float:
    """Seconds of the run's limit that are left. A closing answer is not bound by it."""
    return math.inf if run.closing else run.limits.seconds - run.seconds


@asynccontextmanager
async def in_time(run: Run, seconds: float) -> AsyncIterator[None]:
    """`run.interruptible`, and no longer than the run's own time.

    Raises: TimeoutError: after `seconds`. Stop: the run's time is over, or it was cancelled.
    """
    most = max(0.0, time_left(run)) + GRACE
    expired = False
    try:
        async with run.interruptible(min(seconds, most)) as scope:
            try:
                yield
            finally:
                expired = scope.expired()
    except TimeoutError as error:
        if most >= seconds or not expired:
            raise
        raise await time_is_over(run) from error


async def time_is_over(run: Run) -> Stop:
    """The stop, once it is on record."""

    async def effect() -> Done[Noted]:
        return Done(Noted(key=run.late_key, value="time_limit"))

    if run.late_key not in run.visited:
        await run.step(run.late_key, effect)
    return run.out_of_time()

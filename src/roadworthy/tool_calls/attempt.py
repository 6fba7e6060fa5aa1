"""One attempt at a tool: past its breaker, in a place of its bulkhead, within its time.

`call` makes one after the other. Invariant: nothing is intended before there is a place for it, and
the breaker is told once what came of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from roadworthy.breakers import Admission, Ended
from roadworthy.deadline import in_time
from roadworthy.run import Run
from roadworthy.tool_calls.bulkhead import Place
from roadworthy.tool_calls.hands import Hands
from roadworthy.tool_calls.plan import Planned
from roadworthy.tool_calls.private import attempt
from roadworthy.tools.execution import AttemptFailed

SHUT = "breaker_open"


class Attempt:
    """key: the idempotency key the tool is handed. waited: seconds for a free place."""

    def __init__(self, hands: Hands, run: Run, planned: Planned, key: str) -> None:
        self._hands, self._run, self._planned, self._key = hands, run, planned, key
        self._seconds = planned.tool.timeout or run.limits.tool_seconds
        self.waited = 0.0

    async def admitted(self) -> Admission | None:
        """Whether the breaker lets it be made. Raises: AttemptFailed: it is open."""
        tool = self._planned.tool
        if tool.breaker is None:
            return None
        name = f"tool:{tool.identity}"
        found = await self._hands.circuits.admit(name, tool.breaker, self._seconds)
        if isinstance(found, Admission):
            return found
        why = "it failed too often just now and is left alone"
        raise AttemptFailed(SHUT, why, applied="no", transient=False)

    async def go(
        self, number: int, admission: Admission | None, intend: Callable[[], Awaitable[None]]
    ) -> object:
        """What the tool returns. intend: makes it durable that it is about to be called.

        Raises: AttemptFailed; Stop.
        """
        how: Ended = "neither"
        place: Place | None = None
        clock = self._run.clock
        try:
            asked = clock.monotonic()
            place = await self._hands.bulkheads.enter(self._run, self._planned.tool, self._seconds)
            self.waited = clock.monotonic() - asked
            await intend()
            value = await self._once(number, place)
            how = "worked"
        except AttemptFailed as failure:
            how = "failed" if failure.far_side else "worked" if failure.definite else "neither"
            raise
        else:
            return value
        finally:
            if place is not None and not place.begun:
                place.left()
            if admission is not None:
                await admission.ended(how)

    async def _once(self, number: int, place: Place | None) -> object:
        run, planned = self._run, self._planned
        context = run.context(self._key, number, planned.tool.name)
        seconds = max(0.0, self._seconds - self.waited)

        async def work() -> object:
            left = None
            if place is not None:
                place.begun, left = True, place.left
            threads, values = self._hands.threads, planned.values
            return await attempt(run, threads, planned.tool, context, values, left)

        try:
            if planned.changes:  # an effect is never interrupted, only timed
                async with asyncio.timeout(seconds):
                    return await work()
            async with in_time(run, seconds):
                return await work()
        except TimeoutError as error:
            raise AttemptFailed(
                "timeout",
                f"no answer in {self._seconds:g} s",
                applied="unknown",
                transient=True,
                far_side=True,
            ) from error

"""One attempt at a tool: past its breaker, in a place of its bulkhead, within its time.

`call` makes one after the other. Invariant: nothing is intended before there is a place for it, and
the breaker is told once what came of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from roadworthy.agent import Tool
from roadworthy.breakers import Admission, Circuits, Ended
from roadworthy.deadline import in_time
from roadworthy.run import Run
from roadworthy.tool_calls.bulkhead import Place
from roadworthy.tool_calls.hands import Hands
from roadworthy.tool_calls.plan import Planned
from roadworthy.tool_calls.private import attempt
from roadworthy.tools.execution import AttemptFailed
from roadworthy.tools.faults import NO_FAULT, Fault

SHUT = "breaker_open"


class Gate:
    """The breakers of a tool: of all that call it, and of a tenant that asked too much of it.

    What is behind a tool is down for all, but "too many requests" is said to one caller: it counts
    only in a breaker of that tenant, which is there once that was said.
    """

    def __init__(self, circuits: Circuits, tool: Tool[Any], tenant: str, seconds: float) -> None:
        assert tool.breaker is not None  # noqa: S101 - who has none has no gate
        self._circuits, self._breaker, self._seconds = circuits, tool.breaker, seconds
        self._name = f"tool:{tool.identity}"
        self._own_name = f"{self._name} of tenant {tenant}" if tenant else self._name
        self._shared: Admission | None = None
        self._own: Admission | None = None

    async def passed(self) -> bool:
        """Whether both let the call be made."""
        if self._own_name != self._name and self._circuits.knows(self._own_name):
            self._own = await self._admission(self._own_name)
            if self._own is None:
                return False
        self._shared = await self._admission(self._name)
        if self._shared is None and self._own is not None:
            await self._own.ended("neither")
        return self._shared is not None

    async def _admission(self, name: str) -> Admission | None:
        found = await self._circuits.admit(name, self._breaker, self._seconds)
        return found if isinstance(found, Admission) else None

    async def ended(self, how: Ended, fault: Fault) -> None:
        """Tell them what came of it."""
        busy = how == "failed" and fault.busy and self._own_name != self._name
        if busy and self._own is None:
            self._own = await self._admission(self._own_name)
        if self._own is not None:
            await self._own.ended(how if busy or how != "failed" else "neither", fault.cause)
        if self._shared is not None:
            await self._shared.ended("worked" if busy else how, fault.cause)


class Attempt:
    """key: the idempotency key the tool is handed. waited: seconds for a free place."""

    def __init__(self, hands: Hands, run: Run, planned: Planned, key: str) -> None:
        self._hands, self._run, self._planned, self._key = hands, run, planned, key
        self._seconds = planned.tool.timeout or run.limits.tool_seconds
        self.waited = 0.0

    async def admitted(self) -> Gate | None:
        """Whether the breakers let it be made. Raises: AttemptFailed: one is open."""
        tool = self._planned.tool
        if tool.breaker is None:
            return None
        gate = Gate(self._hands.circuits, tool, self._run.user.tenant, self._seconds)
        if await gate.passed():
            return gate
        why = "it failed too often just now and is left alone"
        raise AttemptFailed(SHUT, why, applied="no", transient=False)

    async def go(
        self, number: int, gate: Gate | None, intend: Callable[[], Awaitable[None]]
    ) -> object:
        """What the tool returns. intend: makes it durable that it is about to be called.

        Raises: AttemptFailed; Stop.
        """
        how: Ended = "neither"
        fault = NO_FAULT
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
            fault = failure.fault
            how = "failed" if fault.far_side else "worked" if failure.definite else "neither"
            raise
        else:
            return value
        finally:
            if place is not None and not place.begun:
                place.left()
            if gate is not None:
                await gate.ended(how, fault)

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
                fault=Fault(far_side=True, passing=True, cause="timeout"),
            ) from error

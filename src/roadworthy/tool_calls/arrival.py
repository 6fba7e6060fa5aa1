"""The result of a call with `later=True`, from its begin to its arrival.

`call` holds one for such a tool. Invariant: there is something to answer before the call begins,
and its first answer stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roadworthy.clock import MICROS
from roadworthy.events import ToolAcknowledged
from roadworthy.run import Run
from roadworthy.stops import Suspend
from roadworthy.store import waits
from roadworthy.store.database import Tx
from roadworthy.tool_calls import later
from roadworthy.tool_calls.cache import Reader
from roadworthy.tool_calls.charge import Charge
from roadworthy.tool_calls.plan import Planned


class Arrival:
    """What is awaited for one call. token: its key, and the right to answer it."""

    def __init__(self, run: Run, planned: Planned, token: str) -> None:
        self._run, self._planned = run, planned
        self._wait_id = later.wait_id(token)

    async def expect(self) -> None:
        """From now on there is something to answer, however quick the answer is."""
        run, wait = self._run, later.wait_for(self._run, self._planned)
        row, now = later.wait_row(run, wait), run.clock.now()
        await run.record(also=lambda tx: waits.add(tx, row, run.position.seal, now))

    async def begun(self, attempt: int, message: str, charge: Charge) -> later.Answer:
        """It is begun: nothing is held until its result is there. Returns one that is there.

        Raises: Suspend.
        """
        run, planned, wait = self._run, self._planned, self._wait_id
        expires = run.clock.now() + int(planned.tool.later_seconds * MICROS)
        paid = charge.paid()
        event = ToolAcknowledged(
            key=planned.key,
            tool=planned.tool.name,
            attempt=attempt,
            expires=expires,
            message=message,
            nanos=charge.nanos,
        )

        def also(tx: Tx) -> Mapping[str, Any] | None:
            if paid is not None:
                paid(tx)
            waits.set_deadline(tx, wait, expires)
            return _answer(tx, wait)

        answer = await run.record(event, also=also, must=True)
        charge.released()()
        if isinstance(answer, Mapping):  # it was quicker than we are
            return answer
        raise Suspend([later.wait_for(run, planned, expires)])

    async def delivered(self, read: Reader) -> later.Answer | None:
        """The result, when it is there although the call seemed to fail."""
        wait = self._wait_id
        return await read(lambda tx: _answer(tx, wait))

    async def closed(self, code: str, why: str) -> later.Answer | None:
        """What the wait of this call is answered with: this, or what came before."""
        run, wait = self._run, self._wait_id
        answer, now = later.failure(code, why, ours=True), run.clock.now()

        def also(tx: Tx) -> Mapping[str, Any] | None:
            waits.answer(tx, wait, answer, run.position.seal, now)
            return _answer(tx, wait)

        recorded = await run.record(also=also)
        return recorded if isinstance(recorded, Mapping) else None


def _answer(tx: Tx, wait: str) -> Mapping[str, Any] | None:
    found = waits.by_id(tx, wait)
    return None if found is None else found.answer

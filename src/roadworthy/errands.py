"""What came of an errand that a person left with a run: waited for by who asked.

`people` calls it. Invariant: it only reads; who goes away before the answer changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from roadworthy.events import RunEvent
from roadworthy.house import House
from roadworthy.live import Live, Told
from roadworthy.packet import outcome_of

_ANSWER_SECONDS = 120.0


async def outcome(
    house: House, live: Live, run_id: str, keys: Sequence[str], patience: float
) -> RunEvent | None:
    """The outcome of an errand, when there is one; None: the run came to something else.

    patience: seconds after which to look again, as other processes tell nobody here.
    """
    told = live.expect(run_id)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            found, over = None, False
            while found is None and not over:
                found, over = await house.read(lambda tx: outcome_of(tx, run_id, keys))
                if found is None and not over:
                    await _heard(told, patience)
            return found
    except TimeoutError:
        return None
    finally:
        live.forget(run_id, told)


async def _heard(told: asyncio.Queue[Told], patience: float) -> None:
    """A segment of the run is over here, or a moment has passed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await told.get()

"""The declared cost of a call's attempts: reserved before each, settled with what came of it.

`call` holds one for each tool it tries. Invariant: an attempt is paid for once, whatever it came
to, and nothing stays reserved when the call is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from roadworthy.budget import Amount, Ask, Exhausted, Held, Ledger, bearer_of, settle
from roadworthy.events import ToolAcknowledged, ToolAttemptFailed, ToolIntended
from roadworthy.run import Run
from roadworthy.stops import Stop

Charged: TypeAlias = Literal["settled", "assumed"]


async def assume_open(run: Run, key: str) -> None:
    """A process died during a paid attempt of this call: its cost stands as assumed."""
    intent: ToolIntended | None = None
    for event in run.past.attempts.get(key, ()):
        if isinstance(event, ToolIntended) and event.nanos:
            intent = event
        elif isinstance(event, ToolAttemptFailed | ToolAcknowledged):
            intent = None
    if intent is None or (reservation := f"{run.id}:{key}:{intent.attempt}") in run.assumed:
        return
    run.assumed.add(reservation)
    amount = Amount(nanos=intent.nanos)
    failed = ToolAttemptFailed(
        key=key, tool=intent.tool, attempt=intent.attempt, code="crashed", assumed=amount.nanos
    )
    await run.record(failed, also=lambda tx: settle(tx, reservation, amount, "assumed", key=key))


class Charge:
    """What is held for the attempt that runs, or that the outcome is of."""

    def __init__(self, ledger: Ledger, run: Run, key: str) -> None:
        self._ledger, self._run, self._key = ledger, run, key
        self._held: Held | None = None

    @property
    def nanos(self) -> int:
        """The cost of the last attempt, unless its own event has it or none was made."""
        return 0 if self._held is None else self._held.amount.nanos

    async def intend(self, intent: ToolIntended) -> None:
        """Record what is about to happen, its cost reserved in the same commit.

        Raises: Stop: the budget does not cover it.
        """
        run = self._run
        run.check_cancelled()
        if not intent.nanos:
            await run.record(intent)
            return
        amount = Amount(nanos=intent.nanos)
        ask = Ask(
            key=self._key,
            reservation=f"{run.id}:{self._key}:{intent.attempt}",
            full=amount,
            least=amount,
            fit=lambda there: amount if amount.within(there) else None,
            intent=lambda _: intent,
        )
        held = await self._ledger.reserve(run.position, bearer_of(run), ask)
        await run.flushed()
        if isinstance(held, Exhausted):
            raise Stop("budget", f"The budget does not cover the tool {intent.tool}.")
        self._held = held

    def paid(self, state: Charged = "settled") -> Callable[[Any], None] | None:
        """Settles this attempt's cost in the commit of what it came to."""
        held = self._held
        if held is None:
            return None
        return lambda tx: settle(tx, held.reservation, held.amount, state, key=self._key)

    def released(self) -> Callable[[], None]:
        """Whoever waits for the accounts may look again; called once it is settled."""
        held, self._held = self._held, None
        return lambda: None if held is None else self._ledger.released(held.accounts)

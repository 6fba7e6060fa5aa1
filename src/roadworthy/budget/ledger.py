"""Reserving under concurrency: try, wait for others' releases in order, shrink, or refuse.

`calls` and `tool_calls` reserve here; settling rides in their outcome's unit. Invariant: no
balance is cached; every decision is made inside the writer's transaction.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roadworthy.budget import rows
from roadworthy.budget.accounts import Account, Amount, Bearer, accounts_of
from roadworthy.clock import MICROS, Clock
from roadworthy.events import BudgetRefused, RunEvent
from roadworthy.limits import Budget
from roadworthy.run import Position, Refusal, Unit
from roadworthy.store.database import Tx
from roadworthy.store.journal import Journal

BUSY_SECONDS = 5.0
_POLL_SECONDS = 0.05  # other processes release too; ours wake us at once
_MOST_KNOWN = 20_000
_PLENTY = 2**62
_HOUR = 3600 * MICROS


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a call needs.

    full: worst case as wanted. least: worst case of the smallest useful call. fit: the largest
    amount up to `full` within what is available (None: below least). intent: the event to
    journal with the reservation. reserve: (id, amount) to hold beside it, once a run, for the
    closing answer. own: that reserve once it is held: nobody else will release it. release: a
    reservation given up for this one, in the same commit.
    """

    key: str
    reservation: str
    full: Amount
    least: Amount
    fit: Callable[[Amount], Amount | None]
    intent: Callable[[Amount], RunEvent]
    reserve: tuple[str, Amount] | None = None
    own: str | None = None
    release: str | None = None


@dataclass(frozen=True)
class Held:
    """The reservation stands, at this amount, and its intent is durable."""

    reservation: str
    amount: Amount
    accounts: tuple[Account, ...]


@dataclass(frozen=True)
class Exhausted:
    """It does not fit. busy: only because of what others held for longer than we waited."""

    account: Account
    need: int
    left: int
    busy: bool = False


@dataclass(frozen=True)
class _Short:
    account: Account
    free: Amount  # available now
    most: Amount  # available if all others' holds were released


class Ledger:
    """One per process. Balances live in the store, waiters here."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        budgets: Sequence[Budget],
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._budgets = tuple(budgets)
        self._busy_seconds = busy_seconds
        self._known: set[tuple[str, int]] = set()
        self._made: dict[tuple[Bearer, int], tuple[Account, ...]] = {}
        self._waiting: defaultdict[str, deque[asyncio.Event]] = defaultdict(deque)

    async def reserve(self, position: Position, bearer: Bearer, ask: Ask) -> Held | Exhausted:
        """Hold the worst case of a call in every scope and journal its intent, in one commit.

        A refusal is journaled as BudgetRefused. Raises: Fenced, StoreUnavailable.
        """
        accounts = self._accounts(bearer)
        crowded = next((a for a in accounts if self._waiting.get(a.id)), None)
        if crowded is None:
            outcome = await self._try(position, accounts, ask, ask.full)
            if isinstance(outcome, Held):
                return outcome
            verdict = self._judge(ask, outcome)
            if isinstance(verdict, Exhausted):
                return await self._refuse(position, ask, verdict)
            if verdict.within(outcome.free):
                outcome = await self._try(position, accounts, ask, verdict)
                if isinstance(outcome, Held):
                    return outcome
            crowded = outcome.account
        return await self._wait(position, accounts, ask, crowded)

    def released(self, accounts: Sequence[Account]) -> None:
        """Something was settled: let the first waiter of each account try again."""
        for account in accounts:
            waiting = self._waiting.get(account.id)
            if waiting:
                waiting[0].set()

    def _accounts(self, bearer: Bearer) -> tuple[Account, ...]:
        """Made once an hour for each bearer: every time bucket ends at a full hour."""
        now = self._clock.now()
        key = bearer, now // _HOUR
        found = self._made.get(key)
        if found is None:
            if len(self._made) > _MOST_KNOWN:
                self._made.clear()
            found = self._made[key] = accounts_of(bearer, self._budgets, now)
        return found

    async def _wait(
        self, position: Position, accounts: tuple[Account, ...], ask: Ask, crowded: Account
    ) -> Held | Exhausted:
        """First come, first served, until the deadline; then take what is free, or refuse."""
        queue, mine = self._waiting[crowded.id], asyncio.Event()
        queue.append(mine)
        deadline = self._clock.monotonic() + self._busy_seconds
        try:
            if queue[0] is mine:
                mine.set()
            while True:
                late = self._clock.monotonic() >= deadline
                if queue[0] is mine or late:
                    outcome = await self._attempt(position, accounts, ask, late=late)
                    if outcome is not None:
                        return outcome
                mine.clear()
                await self._pause(mine)
        finally:
            queue.remove(mine)
            if queue:
                queue[0].set()
            else:
                self._waiting.pop(crowded.id, None)

    async def _attempt(
        self, position: Position, accounts: tuple[Account, ...], ask: Ask, *, late: bool
    ) -> Held | Exhausted | None:
        outcome = await self._try(position, accounts, ask, ask.full)
        if isinstance(outcome, Held):
            return outcome
        verdict = self._judge(ask, outcome)
        if isinstance(verdict, Exhausted):
            return await self._refuse(position, ask, verdict)
        target = verdict if verdict.within(outcome.free) else None
        if late and target is None:
            target = ask.fit(outcome.free)
        if target is not None:
            again = await self._try(position, accounts, ask, target)
            if isinstance(again, Held):
                return again
        if not late:
            return None
        account = outcome.account
        busy = Exhausted(
            account, ask.least.of(account.unit), outcome.free.of(account.unit), busy=True
        )
        return await self._refuse(position, ask, busy)

    async def _pause(self, mine: asyncio.Event) -> None:
        signal = asyncio.ensure_future(mine.wait())
        timer = asyncio.ensure_future(self._clock.sleep(_POLL_SECONDS))
        try:
            await asyncio.wait({signal, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            signal.cancel()
            timer.cancel()

    def _judge(self, ask: Ask, short: _Short) -> Exhausted | Amount:
        """Could it ever fit without the holds of others, and at what size?"""
        target = ask.fit(short.most)
        if target is not None:
            return target
        unit = short.account.unit
        beside = ask.reserve[1].of(unit) if ask.reserve else 0
        return Exhausted(short.account, ask.least.of(unit) + beside, short.most.of(unit) + beside)

    async def _refuse(self, position: Position, ask: Ask, verdict: Exhausted) -> Exhausted:
        account = verdict.account
        refused = BudgetRefused(
            key=ask.key,
            scope=account.scope,
            window=account.window,
            unit=account.unit,
            need=verdict.need,
            left=verdict.left,
            busy=verdict.busy,
        )
        await self._journal.commit(Unit(position=position, events=(refused,)))
        return verdict

    async def _try(
        self, position: Position, accounts: tuple[Account, ...], ask: Ask, amount: Amount
    ) -> Held | _Short:
        unknown = [a for a in accounts if (a.id, a.cap) not in self._known]
        parts = ((ask.reservation, amount), *filter(None, (ask.reserve,)))
        short: list[_Short] = []

        def apply(tx: Tx) -> Held | _Short | Refusal:
            rows.ensure(tx, unknown)
            if ask.release is not None:
                rows.settle(tx, ask.release, Amount(), "released", key=ask.key)
            tight = rows.hold(tx, position.run_id, parts, accounts)
            if tight is None:
                tx.emit(ask.intent(amount))
                return Held(ask.reservation, amount, accounts)
            short[:] = [_shortage(tx, tight, accounts, ask)]
            return short[0] if ask.release is None else Refusal()  # then what it gave up comes back

        outcome = await self._journal.commit(Unit(position=position, apply=apply))
        if isinstance(outcome, Held):
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            self._known.update((a.id, a.cap) for a in unknown)
            return outcome
        return short[0]


def _shortage(tx: Tx, tight: Account, accounts: Sequence[Account], ask: Ask) -> _Short:
    """What the call itself could have, in all accounts together, beside its closing reserve."""
    own = rows.held(tx, ask.own) if ask.own else None
    beside = ask.reserve[1] if ask.reserve else Amount()
    free, most = {"usd": _PLENTY, "tokens": _PLENTY}, {"usd": _PLENTY, "tokens": _PLENTY}
    for account in accounts:
        unit = account.unit
        now, at_most = rows.left(tx, account)
        free[unit] = min(free[unit], now - beside.of(unit))
        most[unit] = min(most[unit], at_most - beside.of(unit) - (own.of(unit) if own else 0))
    return _Short(tight, Amount(free["usd"], free["tokens"]), Amount(most["usd"], most["tokens"]))

"""The ledger's rows: conditional updates as plain functions of a transaction.

Composed into the journal's units. Invariant per account: settled + assumed + held <= cap, unless
a provider charged more than was reserved; then the truth is recorded and the account closes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from sqlalchemy import bindparam, case, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from roadworthy.budget.accounts import Account, Amount
from roadworthy.events import BudgetWarned, ReservationExceeded
from roadworthy.store.database import Row, Statement, Tx
from roadworthy.store.schema import account as a
from roadworthy.store.schema import reservation as r

_P = bindparam
WARN_AT = (50, 80, 95)

_new = upsert(a)
_ENSURE = Statement(
    _new.on_conflict_do_update(
        index_elements=["id"],
        set_={
            "cap": _new.excluded.cap,
            "closed": case((a.c.cap == _new.excluded.cap, a.c.closed), else_=0),
            "warned": case((a.c.cap == _new.excluded.cap, a.c.warned), else_=0),
        },
    )
)
_HOLD = Statement(
    update(a)
    .where(
        a.c.id == _P("account_id"),
        a.c.closed == 0,
        a.c.settled + a.c.assumed + a.c.held + _P("amount") <= a.c.cap,
    )
    .values(held=a.c.held + _P("amount"))
)
_UNHOLD = Statement(
    update(a).where(a.c.id == _P("account_id")).values(held=a.c.held - _P("amount"))
)
_STATE = Statement(
    select(a.c.cap, a.c.settled, a.c.assumed, a.c.held, a.c.closed).where(
        a.c.id == _P("account_id")
    )
)
_SETTLE = Statement(
    update(a)
    .where(a.c.id == _P("account_id"))
    .values(
        held=a.c.held - _P("reserved"),
        settled=a.c.settled + _P("settled_now"),
        assumed=a.c.assumed + _P("assumed_now"),
    )
    .returning(a.c.settled + a.c.assumed, a.c.cap, a.c.warned, a.c.scope, a.c.window, a.c.unit)
)
_WARNED = Statement(update(a).where(a.c.id == _P("account_id")).values(warned=_P("percent")))
_CLOSE = Statement(update(a).where(a.c.id == _P("account_id")).values(closed=1))
_RESERVE = Statement(insert(r))
_OPEN_BY_ID = Statement(
    select(r.c.nanos, r.c.tokens, r.c.accounts).where(
        r.c.id == _P("reservation_id"), r.c.state == "held"
    )
)
_END = Statement(
    update(r)
    .where(r.c.id == _P("reservation_id"), r.c.state == "held")
    .values(state=_P("state_now"), actual_nanos=_P("nanos_now"), actual_tokens=_P("tokens_now"))
    .returning(r.c.nanos, r.c.tokens, r.c.accounts)
)
_HELD_OF_RUN = Statement(
    select(r.c.id, r.c.nanos, r.c.tokens).where(r.c.run_id == _P("run_id"), r.c.state == "held")
)


def ensure(tx: Tx, accounts: Iterable[Account]) -> None:
    """Create accounts, or give them a changed cap (which reopens a closed one and warns anew)."""
    for account in accounts:
        tx.run(_ENSURE, **account._asdict(), settled=0, assumed=0, held=0, warned=0, closed=0)


def hold(
    tx: Tx, run_id: str, reservation: str, amount: Amount, accounts: Sequence[Account]
) -> Account | None:
    """Reserve in every account. Returns the account where it does not fit; the caller undoes."""
    for account in accounts:
        if not tx.run(_HOLD, account_id=account.id, amount=amount.of(account.unit)):
            return account
    tx.run(
        _RESERVE,
        id=reservation,
        run_id=run_id,
        state="held",
        nanos=amount.nanos,
        tokens=amount.tokens,
        actual_nanos=0,
        actual_tokens=0,
        accounts="\n".join(account.id for account in accounts),
    )
    return None


def unhold(
    tx: Tx, accounts: Sequence[Account], before: Sequence[Amount], tight: Account, part: Amount
) -> None:
    """Take back what an attempt held until it met `tight`: all of `before`, some of `part`."""
    for index, account in enumerate(accounts):
        reached = index < accounts.index(tight)
        mine = sum(amount.of(account.unit) for amount in before)
        mine += part.of(account.unit) if reached else 0
        tx.run(_UNHOLD, account_id=account.id, amount=mine)


def held(tx: Tx, reservation: str) -> Amount | None:
    """What an open reservation holds."""
    row = tx.one(_OPEN_BY_ID, reservation_id=reservation)
    return None if row is None else Amount(row[0], row[1])


def left(tx: Tx, account: Account) -> tuple[int, int]:
    """(free now, free if nothing were held) in the account's unit; 0 when it is closed."""
    row = tx.one(_STATE, account_id=account.id)
    if row is None:
        return account.cap, account.cap
    cap, settled, assumed, holds, closed = row
    if closed:
        return 0, 0
    return cap - settled - assumed - holds, cap - settled - assumed


def settle(
    tx: Tx,
    reservation: str,
    actual: Amount,
    state: Literal["settled", "assumed", "released"] = "settled",
    *,
    key: str = "",
) -> None:
    """End a reservation at its true amount. Doing it again changes nothing.

    Emits BudgetWarned at 50, 80 and 95 per cent, and ReservationExceeded when the truth passed
    the reservation: then the accounts it passed close for new paid work.
    """
    row = tx.one(
        _END,
        reservation_id=reservation,
        state_now=state,
        nanos_now=actual.nanos,
        tokens_now=actual.tokens,
    )
    if row is None:
        return
    reserved = Amount(row[0], row[1])
    if actual.nanos > reserved.nanos:
        tx.emit(ReservationExceeded(key=key, reserved=reserved.nanos, actual=actual.nanos))
    for account_id in row[2].split("\n") if row[2] else ():
        _settle_account(tx, account_id, reserved, actual, state, key)


def release_all(tx: Tx, run_id: str, reserve: str) -> None:
    """End what an ended run still holds: its `reserve` was never used and comes back; a call of
    unknown outcome may have been charged and stands at worst case."""
    for reservation, nanos, tokens in tx.rows(_HELD_OF_RUN, run_id=run_id):
        if reservation == reserve:
            settle(tx, reservation, Amount(), "released")
        else:
            settle(tx, reservation, Amount(nanos, tokens), "assumed")


def _settle_account(
    tx: Tx, account_id: str, reserved: Amount, actual: Amount, state: str, key: str
) -> None:
    unit = "usd" if account_id.endswith('"usd"]') else "tokens"
    charged = actual.of(unit)
    row = tx.one(
        _SETTLE,
        account_id=account_id,
        reserved=reserved.of(unit),
        settled_now=0 if state == "assumed" else charged,
        assumed_now=charged if state == "assumed" else 0,
    )
    if row is None:
        return
    if charged > reserved.of(unit):
        tx.run(_CLOSE, account_id=account_id)
    _warn(tx, account_id, row, key)


def _warn(tx: Tx, account_id: str, row: Row, key: str) -> None:
    spent, cap, warned, scope, window, unit = row
    reached = max((p for p in WARN_AT if cap and spent * 100 >= cap * p), default=0)
    if reached > warned:
        tx.run(_WARNED, account_id=account_id, percent=reached)
        tx.emit(
            BudgetWarned(key=key, scope=scope, window=window, unit=unit, percent=reached, cap=cap)
        )

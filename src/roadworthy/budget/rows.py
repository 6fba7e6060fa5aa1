"""The ledger's rows: conditional updates as plain functions of a transaction.

Composed into the journal's units. Invariant per account: settled + assumed + held <= cap, unless
a provider charged more than was reserved; then the truth is recorded and the account closes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from sqlalchemy import ColumnElement, bindparam, case, insert, select, update

from roadworthy.budget.accounts import OF_RUN, Account, Amount
from roadworthy.events import BudgetWarned, ReservationExceeded
from roadworthy.store.database import Row, Statement, Tx, upsert
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
_STATE = Statement(
    select(a.c.cap, a.c.settled, a.c.assumed, a.c.held, a.c.closed).where(
        a.c.id == _P("account_id")
    )
)
_WARNED = Statement(update(a).where(a.c.id == _P("account_id")).values(warned=_P("percent")))
_CLOSE = Statement(update(a).where(a.c.id == _P("account_id")).values(closed=1))
_RESERVE = Statement(insert(r))
_THIS = (r.c.run_id == _P("of_run"), r.c.id == _P("reservation_id"), r.c.state == "held")
_OPEN_BY_ID = Statement(select(r.c.nanos, r.c.tokens, r.c.accounts).where(*_THIS))
_END = Statement(
    update(r)
    .where(*_THIS)
    .values(state=_P("state_now"), actual_nanos=_P("nanos_now"), actual_tokens=_P("tokens_now"))
    .returning(r.c.nanos, r.c.tokens, r.c.accounts)
)
_HELD_OF_RUN = Statement(
    select(r.c.id, r.c.nanos, r.c.tokens)
    .where(r.c.run_id == _P("of_run"), r.c.state == "held")
    .order_by(r.c.id)
)


def _by_unit(prefix: str) -> ColumnElement[int]:
    """Nano-dollars or tokens, as the account counts."""
    return case((a.c.unit == "usd", _P(f"{prefix}_nanos", type_=a.c.held.type)),
                else_=_P(f"{prefix}_tokens", type_=a.c.held.type))  # fmt: skip


def _are(count: int) -> ColumnElement[bool]:
    return a.c.id.in_([_P(f"id{i}") for i in range(count)])


@functools.cache
def _hold(count: int) -> Statement:
    """All accounts of a call in one statement; those without room stay as they are."""
    more = _by_unit("hold")
    room = a.c.settled + a.c.assumed + a.c.held + more <= a.c.cap
    free = update(a).where(_are(count), a.c.closed == 0, room)
    return Statement(free.values(held=a.c.held + more).returning(a.c.id))


@functools.cache
def _settle(count: int) -> Statement:
    """The end of a hold in all its accounts."""
    return Statement(
        update(a)
        .where(_are(count))
        .values(
            held=a.c.held - _by_unit("hold"),
            settled=a.c.settled + _by_unit("settle"),
            assumed=a.c.assumed + _by_unit("assume"),
        )
        .returning(
            a.c.id,
            a.c.settled + a.c.assumed,
            a.c.cap,
            a.c.warned,
            a.c.scope,
            a.c.window,
            a.c.unit,
        )
    )


def ensure(tx: Tx, accounts: Iterable[Account]) -> None:
    """Create accounts, or give them a changed cap (which reopens a closed one and warns anew)."""
    accounts = tuple(accounts)
    _line_up(tx, (account.id for account in accounts))
    for account in accounts:
        tx.run(_ENSURE, **account._asdict(), settled=0, assumed=0, held=0, warned=0, closed=0)


def hold(
    tx: Tx, run_id: str, parts: Sequence[tuple[str, Amount]], accounts: Sequence[Account]
) -> Account | None:
    """Reserve all parts, (id, amount) each, in every account; nothing when they do not all fit.

    Returns the first account without room for them, or None.
    """
    total = Amount(sum(p.nanos for _, p in parts), sum(p.tokens for _, p in parts))
    if accounts:
        held = {row[0] for row in _change(tx, _hold, [a.id for a in accounts], hold=total)}
        tight = next((account for account in accounts if account.id not in held), None)
        if tight is not None:
            if held:
                _change(tx, _settle, sorted(held), hold=total, settle=Amount(), assume=Amount())
            return tight
    ids = "\n".join(account.id for account in accounts)
    for reservation, amount in parts:
        tx.run(
            _RESERVE,
            run_id=run_id,
            id=reservation,
            state="held",
            nanos=amount.nanos,
            tokens=amount.tokens,
            actual_nanos=0,
            actual_tokens=0,
            accounts=ids,
        )
    return None


def _change(
    tx: Tx, statement: Callable[[int], Statement], ids: Sequence[str], **amounts: Amount
) -> list[Row]:
    """Run a statement over these accounts with amounts by name."""
    _line_up(tx, ids)
    values: dict[str, int | str] = {f"id{i}": account for i, account in enumerate(ids)}
    for name, amount in amounts.items():
        values[f"{name}_nanos"], values[f"{name}_tokens"] = amount
    return tx.rows(statement(len(ids)), **values)


def _line_up(tx: Tx, ids: Iterable[str]) -> None:
    """Batches of several processes change shared accounts one after the other: each touches many,
    in the order of its runs, and two would soon wait for each other."""
    if not all(account.startswith(OF_RUN) for account in ids):
        tx.line_up()


def held(tx: Tx, reservation: str) -> Amount | None:
    """What an open reservation holds."""
    row = tx.one(_OPEN_BY_ID, of_run=_run_of(reservation), reservation_id=reservation)
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
        of_run=_run_of(reservation),
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
    if row[2]:
        known, unknown = (Amount(), actual) if state == "assumed" else (actual, Amount())
        accounts = row[2].split("\n")
        for changed in _change(tx, _settle, accounts, hold=reserved, settle=known, assume=unknown):
            if actual.of(changed[6]) > reserved.of(changed[6]):
                tx.run(_CLOSE, account_id=changed[0])
            _warn(tx, changed, key)


def release_all(tx: Tx, run_id: str, reserve: str) -> None:
    """End what an ended run still holds: its `reserve` was never used and comes back; a call of
    unknown outcome may have been charged and stands at worst case."""
    for reservation, nanos, tokens in tx.rows(_HELD_OF_RUN, of_run=run_id):
        if reservation == reserve:
            settle(tx, reservation, Amount(), "released")
        else:
            settle(tx, reservation, Amount(nanos, tokens), "assumed")


def _run_of(reservation: str) -> str:
    """Reservations are named after their run."""
    return reservation.partition(":")[0]


def _warn(tx: Tx, row: Row, key: str) -> None:
    account_id, spent, cap, warned, scope, window, unit = row
    reached = max((p for p in WARN_AT if cap and spent * 100 >= cap * p), default=0)
    if reached > warned:
        tx.run(_WARNED, account_id=account_id, percent=reached)
        tx.emit(
            BudgetWarned(key=key, scope=scope, window=window, unit=unit, percent=reached, cap=cap)
        )

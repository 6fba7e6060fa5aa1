"""Rows of requests that are made again and again.

`timetable` calls it in units. Invariant: an instant is passed by one conditional change, whoever
comes second changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, case, delete, select, update

from roadworthy.store import payloads
from roadworthy.store.codec import Seal
from roadworthy.store.database import Row, Statement, Tx, Value, upsert
from roadworthy.store.schema import schedule as t


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A request made at every instant of `cron` (five fields, UTC).

    missed: what becomes of instants while no process was there: `once` for all together, `skip`.
    next_at: of the next run, last_at and last_run: of the last. Microseconds UTC.
    """

    name: str
    pattern: str
    cron: str
    missed: str
    tenant: str
    user: str
    conversation: str | None
    next_at: int
    last_at: int | None
    last_run: str | None


_P = bindparam
_COLUMNS = tuple(Schedule.__dataclass_fields__)
_ALL = select(*(t.c[name] for name in _COLUMNS))
_EVERY = Statement(_ALL.order_by(t.c.name))
_ONE = Statement(_ALL.where(t.c.name == _P("of_name")))
_DUE = Statement(_ALL.where(t.c.next_at <= _P("now")).order_by(t.c.next_at))
_BODY = Statement(select(t.c.body).where(t.c.name == _P("of_name")))
_REMOVE = Statement(delete(t).where(t.c.name == _P("of_name")))
_new = upsert(t)
_PUT = Statement(
    _new.on_conflict_do_update(
        index_elements=["name"],
        set_={
            **{n: _new.excluded[n] for n in ("pattern", "cron", "missed", "tenant", "user")},
            "conversation": _new.excluded.conversation,
            "body": _new.excluded.body,
            "next_at": case(
                (t.c.cron == _new.excluded.cron, t.c.next_at), else_=_new.excluded.next_at
            ),
        },
    )
)
_MOVE = Statement(
    update(t)
    .where(t.c.name == _P("of_name"), t.c.next_at == _P("seen"))
    .values(next_at=_P("after"), last_at=_P("at"), last_run=_P("run_id"))
)
_SKIP = Statement(
    update(t)
    .where(t.c.name == _P("of_name"), t.c.next_at == _P("seen"))
    .values(next_at=_P("after"))
)


def put(tx: Tx, schedule: Schedule, body: bytes, seal: Seal) -> Schedule:
    """Add a schedule, or replace the one of its name; with the same cron its next instant stays."""
    values = {name: getattr(schedule, name) for name in _COLUMNS}
    tx.run(_PUT, body=payloads.keep(tx, body, seal), **values)
    return _schedule(tx.rows(_ONE, of_name=schedule.name)[0])


def remove(tx: Tx, name: str) -> bool:
    """False: there was none."""
    return bool(tx.run(_REMOVE, of_name=name))


def every(tx: Tx) -> list[Schedule]:
    """All, by name."""
    return [_schedule(row) for row in tx.rows(_EVERY)]


def due(tx: Tx, now: int) -> list[Schedule]:
    """Those whose next instant has come."""
    return [_schedule(row) for row in tx.rows(_DUE, now=now)]


def body(tx: Tx, name: str) -> bytes | None:
    """What it asks; None when it was removed."""
    row = tx.one(_BODY, of_name=name)
    return None if row is None else payloads.fetch_one(tx, row[0])


def move(tx: Tx, schedule: Schedule, after: int, done: tuple[int, str | None]) -> bool:
    """Pass an instant: (instant, the run it started or None). False: somebody did before."""
    at, run_id = done
    place: dict[str, Value] = {"of_name": schedule.name, "seen": schedule.next_at, "after": after}
    if run_id is None:
        return bool(tx.run(_SKIP, **place))
    return bool(tx.run(_MOVE, at=at, run_id=run_id, **place))


def _schedule(row: Row) -> Schedule:
    return Schedule(**dict(zip(_COLUMNS, row, strict=True)))

"""The shared rows of breakers: who is open until when, who probes, and what failed where.

`circuits` calls it in units. Invariant: of all processes, one probes at a time, by one conditional
change; there are no rows while all is well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select, update

from roadworthy.store.database import Statement, Tx, upsert
from roadworthy.store.schema import breaker as t

VERDICT = ""
"""The holder of a row that says a breaker is open; the other rows are processes' counts."""

_NOTE = "opened by "
"""Begins the holder of a row beside a verdict: what opened it; its `probing_until` is when.
Processes of 0.1 take it for counts of a breaker that is open anyway."""


@dataclass(frozen=True)
class Row:
    """until: open until then, or how long the counts are worth anything. Microseconds UTC."""

    name: str
    holder: str
    until: int
    probing_until: int
    failures: int
    calls: int


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A breaker that is not closed. until: no call before then; after it, one may try: half-open.
    since: when it opened, cause: by what failure; 0 and "": not known. Microseconds UTC."""

    name: str
    until: int
    probing_until: int = 0
    half_open: bool = False
    since: int = 0
    cause: str = ""


_P = bindparam
_COLUMNS = tuple(Row.__dataclass_fields__)
_ALL = Statement(select(*(t.c[name] for name in _COLUMNS)))
_OF_VERDICT = (t.c.name == _P("of_name"), t.c.holder == VERDICT)
_ONE = Statement(select(*(t.c[name] for name in _COLUMNS)).where(*_OF_VERDICT))
_new = upsert(t)
_PUT = Statement(
    _new.on_conflict_do_update(
        index_elements=["name", "holder"],
        set_={n: _new.excluded[n] for n in ("until", "probing_until", "failures", "calls")},
    )
)
_CLAIM = Statement(
    update(t)
    .where(*_OF_VERDICT, t.c.until <= _P("now"), t.c.probing_until <= _P("now"))
    .values(probing_until=_P("lease"))
)
_UNCLAIM = Statement(update(t).where(*_OF_VERDICT).values(probing_until=0))
_CLOSE = Statement(delete(t).where(t.c.name == _P("of_name")))
_FORGET = Statement(delete(t).where(t.c.name == _P("of_name"), t.c.holder == _P("of_holder")))
_SWEEP = Statement(delete(t).where(t.c.until <= _P("before"), t.c.probing_until <= _P("before")))


def every(tx: Tx) -> list[Row]:
    """All rows."""
    return [Row(*row) for row in tx.rows(_ALL)]


def standing(found: Iterable[Row], now: int) -> dict[str, Standing]:
    """Those that are not closed, by name."""
    found = list(found)
    notes = {row.name: row for row in found if is_note(row)}
    made = {}
    for row in found:
        if row.holder == VERDICT:
            note = notes.get(row.name)
            made[row.name] = Standing(
                name=row.name,
                until=row.until,
                probing_until=row.probing_until,
                half_open=row.until <= now,
                since=0 if note is None else note.probing_until,
                cause="" if note is None else note.holder.removeprefix(_NOTE),
            )
    return made


def is_note(row: Row) -> bool:
    """Whether it only says what opened a breaker."""
    return row.holder.startswith(_NOTE)


def opened(tx: Tx, standing: Standing) -> None:
    """Open a breaker for all; what led to it is over."""
    tx.run(_CLOSE, of_name=standing.name)
    for holder, probing in ((VERDICT, 0), (f"{_NOTE}{standing.cause}", standing.since)):
        row = Row(standing.name, holder, standing.until, probing, 0, 0)
        tell(tx, row)


def closed(tx: Tx, name: str) -> None:
    """Close a breaker for all."""
    tx.run(_CLOSE, of_name=name)


def claim(tx: Tx, name: str, now: int, lease: int) -> tuple[bool, Row | None]:
    """Become the one that probes, until `lease`. (whether, how it stands; None: it is closed)"""
    taken = tx.run(_CLAIM, of_name=name, now=now, lease=lease)
    row = tx.one(_ONE, of_name=name)
    return bool(taken), None if row is None else Row(*row)


def unclaim(tx: Tx, name: str) -> None:
    """The probe came to nothing: somebody else may try."""
    tx.run(_UNCLAIM, of_name=name)


def tell(tx: Tx, row: Row) -> None:
    """What failed in one process."""
    tx.run(_PUT, **{name: getattr(row, name) for name in _COLUMNS})


def forget(tx: Tx, name: str, holder: str) -> None:
    """Nothing fails there any more."""
    tx.run(_FORGET, of_name=name, of_holder=holder)


def sweep(tx: Tx, before: int) -> None:
    """Drop what nobody has touched for long: of processes that are gone, of tools that are."""
    tx.run(_SWEEP, before=before)

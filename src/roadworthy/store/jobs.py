"""Which runs should execute now, and which job of the engine stands for each.

The keepers ask. Invariant: a run behind another of its conversation has no job; it gets one in the
commit that makes it the next.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, bindparam, func, not_, select, update

from roadworthy.store import schema as s
from roadworthy.store.database import Statement, Tx
from roadworthy.store.runs import OPEN, RUN, RunRow, run_row, status_in

_P = bindparam

_BEHIND = (  # its conversation has another active run: it is started when that one leaves
    select(s.conversation.c.id)
    .where(
        s.conversation.c.tenant == s.run.c.tenant,
        s.conversation.c.id == s.run.c.conversation,
        s.conversation.c.active_run != s.run.c.id,
    )
    .exists()
)
_UNFINISHED = Statement(
    select(s.run.c.id, s.run.c.pattern)
    .where(status_in(*OPEN), not_(_BEHIND))
    .order_by(s.run.c.created_at, s.run.c.id)
)
_LEFT = Statement(
    RUN.where(s.run.c.status == "running", s.run.c.updated_at < _P("before")).limit(_P("most"))
)
_NOT_BEGUN = Statement(
    RUN.where(
        s.run.c.status == "queued",
        s.run.c.dispatched == s.run.c.dispatch,
        s.run.c.updated_at < _P("before"),
        s.run.c.id > _P("after"),
    )
    .order_by(s.run.c.id)
    .limit(_P("most"))
)
_UNDISPATCHED = and_(s.run.c.status == "queued", s.run.c.dispatched < s.run.c.dispatch)


def unfinished(tx: Tx) -> list[tuple[str, str]]:
    """(id, pattern) of the runs that should execute, oldest first."""
    return [(row[0], row[1]) for row in tx.rows(_UNFINISHED)]


_ENQUEUED = Statement(
    select(s.run.c.id)
    .where(s.run.c.status == "queued", s.run.c.dispatched == s.run.c.dispatch)
    .limit(_P("most"))
)
_QUEUED_SINCE = Statement(
    RUN.where(s.run.c.status == "queued", s.run.c.updated_at < _P("before"), not_(_BEHIND))
    .order_by(s.run.c.created_at)
    .limit(_P("most"))
)
_WAITING = Statement(
    select(s.run.c.id)
    .where(s.run.c.status == "queued", s.run.c.priority <= _P("priority"))
    .limit(_P("most"))
)


@functools.cache
def _take(count: int) -> Statement:
    names: list[Any] = [_P(f"name{i}") for i in range(count)]
    turn = func.row_number().over(
        partition_by=(s.run.c.tenant, s.run.c.priority), order_by=(s.run.c.created_at, s.run.c.id)
    )  # the first of each tenant, then the second of each: none waits behind all of another's
    first = (
        select(s.run.c.id)
        .where(_UNDISPATCHED, s.run.c.pattern.in_(names), not_(_BEHIND))
        .order_by(s.run.c.priority, turn, s.run.c.created_at, s.run.c.id)
        .limit(_P("most"))
        .cte("first")
    )
    mine = (  # what another process takes at this moment is left to it, and nobody waits
        select(s.run.c.id)
        .where(s.run.c.id.in_(select(first.c.id)), _UNDISPATCHED)
        .with_for_update(skip_locked=True)
        .cte("mine")
    )
    return Statement(
        update(s.run)
        .where(s.run.c.id.in_(select(mine.c.id)))
        .values(dispatched=s.run.c.dispatch)
        .returning(*RUN.selected_columns)
    )


def take(tx: Tx, names: Sequence[str], most: int) -> list[RunRow]:
    """Runs of these patterns that should execute and have no job: each is its caller's to enqueue,
    in this transaction. The most urgent first, and among equals each tenant in its turn.
    """
    if not names:
        return []
    values = {f"name{i}": name for i, name in enumerate(names)}
    return [run_row(row) for row in tx.rows(_take(len(names)), most=most, **values)]


def enqueued(tx: Tx, most: int) -> int:
    """How many jobs are in the engine's queues and not begun, counted up to `most`."""
    return len(tx.rows(_ENQUEUED, most=most))


def waiting(tx: Tx, priority: int, most: int) -> int:
    """How many runs of this priority or a more urgent one wait to begin, counted up to `most`."""
    return len(tx.rows(_WAITING, priority=priority, most=most))


def queued_since(tx: Tx, before: int, most: int) -> list[RunRow]:
    """Runs that should execute and were left so since before a time, oldest first."""
    return [run_row(row) for row in tx.rows(_QUEUED_SINCE, before=before, most=most)]


@functools.cache
def _settled(count: int) -> Statement:
    ids: list[Any] = [_P(f"id{i}") for i in range(count)]
    return Statement(select(s.run.c.id).where(s.run.c.id.in_(ids), not_(status_in(*OPEN))))


def settled(tx: Tx, run_ids: Sequence[str]) -> list[str]:
    """Which of these runs have ended or wait."""
    found: list[str] = []
    for start in range(0, len(run_ids), 100):
        ids = [*run_ids[start : start + 100]]
        count = 1 << (len(ids) - 1).bit_length()  # few shapes of statement, filled up
        ids += [ids[0]] * (count - len(ids))
        rows = tx.rows(_settled(count), **{f"id{i}": each for i, each in enumerate(ids)})
        found += [row[0] for row in rows]
    return found


def left_running(tx: Tx, before: int, most: int) -> list[RunRow]:
    """Runs that were taken for execution before a time and have not ended or waited since."""
    return [run_row(row) for row in tx.rows(_LEFT, before=before, most=most)]


def left_queued(tx: Tx, before: int, after: str, most: int) -> list[RunRow]:
    """Runs whose job was enqueued before a time and has not begun, from an id on."""
    rows = tx.rows(_NOT_BEGUN, before=before, after=after, most=most)
    return [run_row(row) for row in rows]

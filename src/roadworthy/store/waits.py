"""Rows of what runs wait for, and the commands left for the process that executes them.

Called in units by the runtime and by `ending`. Invariant: a wait is answered once, a command is
carried out in the same commit that records it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from roadworthy.store import payloads
from roadworthy.store import schema as s
from roadworthy.store.codec import Seal
from roadworthy.store.database import Row, Statement, Tx, upsert

_P = bindparam
UNKNOWN_PATTERN, DRAINED = "unknown_pattern", "drained"  # why a process leaves a run


@dataclass(frozen=True, kw_only=True)
class WaitRow:
    """One thing a run waits, or waited, for."""

    id: str
    run_id: str
    key: str
    kind: str
    tool: str
    asks: str
    detail: Any
    arguments_hash: str
    expires: int | None
    answered_at: int | None
    answer: Any


_ADD_WAIT = Statement(upsert(s.wait).on_conflict_do_nothing())
_WAIT_COLUMNS = tuple(WaitRow.__dataclass_fields__)
_WAITS = Statement(
    select(*(s.wait.c[n] for n in _WAIT_COLUMNS)).where(s.wait.c.run_id == _P("run_id"))
)
_WAIT = Statement(select(*(s.wait.c[n] for n in _WAIT_COLUMNS)).where(s.wait.c.id == _P("wait_id")))
_ANSWER_WAIT = Statement(
    update(s.wait)
    .where(s.wait.c.id == _P("wait_id"), s.wait.c.answered_at.is_(None))
    .values(answered_at=_P("now"), answer=_P("answer_ref"))
)
_SET_DEADLINE = Statement(
    update(s.wait)
    .where(s.wait.c.id == _P("wait_id"), s.wait.c.answered_at.is_(None))
    .values(expires=_P("at"))
)
_DUE_WAITS = Statement(
    select(s.wait.c.id).where(s.wait.c.answered_at.is_(None), s.wait.c.expires <= _P("now"))
)
_ANSWERS_OF_USER = Statement(
    select(*(s.wait.c[n] for n in _WAIT_COLUMNS))
    .join_from(s.wait, s.run, s.run.c.id == s.wait.c.run_id)
    .where(
        s.run.c.tenant == _P("tenant"),
        s.run.c.conversation == _P("conversation"),
        s.wait.c.kind == "user",
        s.wait.c.answer.is_not(None),
    )
)
_ERRANDS = Statement(
    select(func.count())
    .select_from(s.wait)
    .where(s.wait.c.run_id == _P("run_id"), s.wait.c.kind == "errand")
)
_WITHDRAW = Statement(
    delete(s.wait).where(
        s.wait.c.run_id == _P("run_id"),
        s.wait.c.answered_at.is_(None),
        or_(s.wait.c.kind == "user", s.wait.c.kind == "approval"),
    )
)
_IS_ANSWERED = Statement(
    select(s.wait.c.id).where(s.wait.c.id == _P("wait_id"), s.wait.c.answered_at.is_not(None))
)
_DROP = Statement(
    delete(s.wait).where(
        s.wait.c.run_id == _P("run_id"),
        s.wait.c.answered_at.is_(None),
        s.wait.c.kind != "later",  # who delivers afterwards is told what became of the run
        s.wait.c.kind != "errand",  # what persons had done stays on record
    )
)
_DO_COMMANDS = Statement(
    update(s.command)
    .where(s.command.c.run_id == _P("of_run"), s.command.c.done_at.is_(None))
    .values(done_at=_P("now"))
)
_ADD_COMMAND = Statement(insert(s.command), columns=["run_id", "kind", "by", "at"])
_COMMANDS_OF_RUN = Statement(
    select(s.command.c.id, s.command.c.run_id, s.command.c.kind, s.command.c.by)
    .where(s.command.c.run_id == _P("run_id"), s.command.c.done_at.is_(None))
    .order_by(s.command.c.id)
)
_COMMANDS = Statement(
    select(s.command.c.id, s.command.c.run_id, s.command.c.kind, s.command.c.by)
    .where(s.command.c.done_at.is_(None))
    .order_by(s.command.c.id)
)
_DO_COMMAND = Statement(
    update(s.command)
    .where(s.command.c.id == _P("command_id"), s.command.c.done_at.is_(None))
    .values(done_at=_P("now"))
)

_ADD_REFUSAL = Statement(insert(s.command), columns=["run_id", "kind", "by", "at", "done_at"])
_REFUSED = Statement(
    select(s.command.c.kind)
    .where(
        s.command.c.run_id == _P("run_id"),
        or_(s.command.c.kind == UNKNOWN_PATTERN, s.command.c.kind == DRAINED),
        s.command.c.by == _P("who"),
    )
    .order_by(s.command.c.id.desc())
    .limit(1)
)


def add(tx: Tx, wait: WaitRow, seal: Seal, now: int) -> None:
    """Record what a run waits for. Adding it again changes nothing."""
    tx.run(
        _ADD_WAIT,
        id=wait.id,
        run_id=wait.run_id,
        key=wait.key,
        kind=wait.kind,
        tool=wait.tool,
        asks=wait.asks,
        detail=_stow(tx, wait.detail, seal),
        arguments_hash=wait.arguments_hash,
        expires=wait.expires,
        created_at=now,
        answered_at=None,
        answer=None,
    )


def of_run(tx: Tx, run_id: str) -> list[WaitRow]:
    """Everything a run waits or waited for."""
    return [_wait_row(tx, row) for row in tx.rows(_WAITS, run_id=run_id)]


def by_id(tx: Tx, wait_id: str) -> WaitRow | None:
    """One wait."""
    row = tx.one(_WAIT, wait_id=wait_id)
    return _wait_row(tx, row) if row else None


def answer(tx: Tx, wait_id: str, reply: Mapping[str, Any], seal: Seal, now: int) -> bool:
    """Answer an open wait once. False: it was answered before."""
    return bool(tx.run(_ANSWER_WAIT, wait_id=wait_id, answer_ref=_stow(tx, reply, seal), now=now))


def set_deadline(tx: Tx, wait_id: str, at: int) -> None:
    """From when on an open wait is answered by its deadline."""
    tx.run(_SET_DEADLINE, wait_id=wait_id, at=at)


def answers_of_user(tx: Tx, tenant: str, conversation: str) -> list[WaitRow]:
    """The questions of a conversation that its user has answered."""
    rows = tx.rows(_ANSWERS_OF_USER, tenant=tenant, conversation=conversation)
    return [_wait_row(tx, row) for row in rows]


def is_answered(tx: Tx, wait_id: str) -> bool:
    """Whether somebody answered a wait."""
    return tx.one(_IS_ANSWERED, wait_id=wait_id) is not None


def errands(tx: Tx, run_id: str) -> int:
    """How many errands the persons who owned a run left for it."""
    row = tx.one(_ERRANDS, run_id=run_id)
    return 0 if row is None else int(row[0])


def withdraw(tx: Tx, run_id: str) -> None:
    """A person gives the run back: what its agent wanted to know or do before is not asked."""
    tx.run(_WITHDRAW, run_id=run_id)


def drop(tx: Tx, run_id: str, now: int, *, asked: bool = True) -> None:
    """A run has ended: nobody is asked any more, and what was left for it is done with.

    asked: whether anybody may have been; in its first segment a run never waited.
    """
    if asked:
        tx.run(_DROP, run_id=run_id)
    tx.run(_DO_COMMANDS, of_run=run_id, now=now)


def due(tx: Tx, now: int) -> list[str]:
    """Ids of open waits whose deadline has passed."""
    return [row[0] for row in tx.rows(_DUE_WAITS, now=now)]


def add_command(tx: Tx, run_id: str, kind: str, by: str, now: int) -> None:
    """Leave a command for the process that executes the run."""
    tx.run(_ADD_COMMAND, run_id=run_id, kind=kind, by=by, at=now)


def commands(tx: Tx) -> Sequence[tuple[int, str, str, str]]:
    """(id, run, kind, by) of the commands nobody has carried out."""
    return [(row[0], row[1], row[2], row[3]) for row in tx.rows(_COMMANDS)]


def refuse(tx: Tx, run_id: str, holder: str, now: int, kind: str = UNKNOWN_PATTERN) -> None:
    """The process that executes runs says that it leaves this one, and why."""
    tx.run(_ADD_REFUSAL, run_id=run_id, kind=kind, by=holder, at=now, done_at=now)


def refused(tx: Tx, run_id: str, holder: str) -> str | None:
    """Why this process leaves the run, if it said so."""
    row = tx.one(_REFUSED, run_id=run_id, who=holder)
    return None if row is None else str(row[0])


def do_command(tx: Tx, command_id: int, now: int) -> bool:
    """Mark a command as carried out. False: somebody was quicker."""
    return bool(tx.run(_DO_COMMAND, command_id=command_id, now=now))


def commands_for(tx: Tx, run_id: str) -> Sequence[tuple[int, str, str, str]]:
    """The commands left for one run."""
    found = tx.rows(_COMMANDS_OF_RUN, run_id=run_id)
    return [(row[0], row[1], row[2], row[3]) for row in found]


def _stow(tx: Tx, value: object, seal: Seal) -> str:
    return payloads.keep(tx, msgspec.json.encode(value), seal)


def _wait_row(tx: Tx, row: Row) -> WaitRow:
    values = dict(zip(_WAIT_COLUMNS, row, strict=True))
    for name in ("detail", "answer"):
        if values[name] is not None:
            values[name] = msgspec.json.decode(payloads.fetch_one(tx, values[name]))
    return WaitRow(**values)

"""The rows of runs, conversations and waits, as plain functions of a transaction.

Called in units by the runtime and by `Run`'s end. Invariant: a run has one row, a conversation
at most one active run, and a status changes only together with its event.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec
from sqlalchemy import ColumnElement, and_, bindparam, func, or_, select, update

from roadworthy.errors import IdempotencyConflict, UnknownRun
from roadworthy.result import Status
from roadworthy.store import declarations
from roadworthy.store import schema as s
from roadworthy.store.database import Row, Statement, Tx, upsert

_P = bindparam
OPEN = ("queued", "running")


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run as listed. Times in microseconds UTC, money in nano-dollars."""

    id: str
    tenant: str
    user: str
    conversation: str | None
    ordinal: int
    pattern: str
    fingerprint: str
    status: Status
    reason: str
    epoch: int
    owner: str | None
    segment: int
    created_at: int
    updated_at: int
    nanos: int
    input_tokens: int
    output_tokens: int
    priority: int
    dispatch: int


@dataclass(frozen=True, kw_only=True)
class NewRun:
    """What a run begins with."""

    id: str
    tenant: str
    user: str
    conversation: str | None
    pattern: str
    fingerprint: str
    idempotency_key: str | None
    body_hash: str
    priority: int = 100


def status_in(*these: str) -> ColumnElement[bool]:
    """Spelled out, because `in_` is expanded only by SQLAlchemy's own execution."""
    return or_(*(s.run.c.status == status for status in these))


_COLUMNS = tuple(RunRow.__dataclass_fields__)
RUN = select(*(s.run.c[name] for name in _COLUMNS))
_RUN_BY_ID = Statement(RUN.where(s.run.c.id == _P("run_id")))
_HOLD_RUN = Statement(RUN.where(s.run.c.id == _P("run_id")).with_for_update())
_RUN_BY_KEY = Statement(
    select(s.run.c.id, s.run.c.body_hash).where(
        s.run.c.tenant == _P("tenant"), s.run.c.idempotency_key == _P("key")
    )
)
_ADD_RUN = Statement(upsert(s.run).on_conflict_do_nothing())
_TENANT = Statement(select(s.tenant.c.key).where(s.tenant.c.id == _P("tenant")))
_ADD_TENANT = Statement(upsert(s.tenant).on_conflict_do_nothing())
_HAND_BACK = Statement(
    update(s.run)
    .where(s.run.c.id == _P("run_id"), s.run.c.epoch == _P("of_epoch"), status_in(*OPEN))
    .values(status="queued", owner=None)
)
_NEW_CONVERSATION = ("tenant", "id", "user", "active_run", "next_ordinal")  # its agent owns it
_JOIN_CONVERSATION = Statement(
    upsert(s.conversation)
    .on_conflict_do_update(
        index_elements=["tenant", "id"],
        set_={"next_ordinal": s.conversation.c.next_ordinal + 1},
    )
    .returning(s.conversation.c.next_ordinal),
    columns=_NEW_CONVERSATION,
)
_HOLD_CONVERSATION = Statement(  # an upsert locks a row that is there, too
    upsert(s.conversation)
    .on_conflict_do_update(
        index_elements=["tenant", "id"], set_={"next_ordinal": s.conversation.c.next_ordinal}
    )
    .returning(s.conversation.c.user),
    columns=_NEW_CONVERSATION,
)
_IS_CONVERSATION = and_(
    s.conversation.c.tenant == _P("tenant"), s.conversation.c.id == _P("conversation")
)
_CONVERSATION = Statement(
    select(s.conversation.c.active_run, s.conversation.c.next_ordinal).where(_IS_CONVERSATION)
)
_CONVERSATION_USER = Statement(select(s.conversation.c.user).where(_IS_CONVERSATION))
_TAKE_CONVERSATION = Statement(
    update(s.conversation)
    .where(
        _IS_CONVERSATION,
        or_(s.conversation.c.active_run.is_(None), s.conversation.c.active_run == _P("run_id")),
    )
    .values(active_run=_P("run_id"))
)
_LEAVE_CONVERSATION = Statement(
    update(s.conversation)
    .where(_IS_CONVERSATION, s.conversation.c.active_run == _P("run_id"))
    .values(active_run=None)
)
_EARLIER_QUEUED = Statement(
    select(func.count())
    .select_from(s.run)
    .where(
        s.run.c.tenant == _P("tenant"),
        s.run.c.conversation == _P("conversation"),
        s.run.c.ordinal < _P("ordinal"),
        status_in(*OPEN, "waiting", "escalated"),
    )
)
_CLAIM = Statement(
    update(s.run)
    .where(s.run.c.id == _P("run_id"), status_in(*OPEN), s.run.c.dispatch == _P("job"))
    .values(
        epoch=s.run.c.epoch + 1,
        segment=s.run.c.segment + 1,
        status="running",
        owner=_P("holder"),
        updated_at=_P("now"),
    )
    .returning(s.run.c.epoch, s.run.c.segment)
)
_SET_STATUS = Statement(
    update(s.run)
    .where(s.run.c.id == _P("run_id"))
    .values(
        status=_P("status"),
        reason=_P("reason"),
        owner=None,
        updated_at=_P("now"),
        nanos=_P("nanos"),
        input_tokens=_P("input_tokens"),
        output_tokens=_P("output_tokens"),
    )
    .returning(s.run.c.tenant, s.run.c.conversation, s.run.c.segment)
)
_WAKE = Statement(
    update(s.run)
    .where(s.run.c.id == _P("run_id"), status_in("waiting", "escalated"))
    .values(status="queued", dispatch=s.run.c.dispatch + 1, updated_at=_P("now"))
)
_REOPEN = Statement(
    update(s.run)
    .where(s.run.c.id == _P("run_id"), status_in("partial", "stopped"))
    .values(  # whoever executed it may still be closing its dependencies: fenced
        status="queued",
        epoch=s.run.c.epoch + 1,
        dispatch=s.run.c.dispatch + 1,
        updated_at=_P("now"),
    )
)
_AGAIN = Statement(
    update(s.run)
    .where(s.run.c.id == _P("run_id"), status_in(*OPEN), s.run.c.dispatch == _P("job"))
    .values(status="queued", dispatch=s.run.c.dispatch + 1, updated_at=_P("now"))
)
_NEXT_IN_CONVERSATION = Statement(
    select(s.run.c.id)
    .where(
        s.run.c.tenant == _P("tenant"),
        s.run.c.conversation == _P("conversation"),
        status_in(*OPEN),
    )
    .order_by(s.run.c.ordinal)
    .limit(1)
)
_QUEUED_BEHIND = Statement(
    RUN.where(
        s.run.c.tenant == _P("tenant"),
        s.run.c.conversation == _P("conversation"),
        s.run.c.ordinal > _P("ordinal"),
        s.run.c.status == "queued",
        s.run.c.segment == 0,
    )
    .order_by(s.run.c.ordinal)
    .with_for_update()
)
_LAST_OF_CONVERSATION = Statement(
    RUN.where(s.run.c.tenant == _P("tenant"), s.run.c.conversation == _P("conversation"))
    .order_by(s.run.c.ordinal.desc())
    .limit(1)
)
_RECENT = Statement(RUN.order_by(s.run.c.created_at.desc(), s.run.c.id.desc()).limit(_P("most")))
_RECENT_OF = Statement(
    RUN.where(s.run.c.tenant == _P("tenant"))
    .order_by(s.run.c.created_at.desc(), s.run.c.id.desc())
    .limit(_P("most"))
)
_LATER = Statement(
    select(func.count())
    .select_from(s.run)
    .where(
        s.run.c.tenant == _P("tenant"),
        s.run.c.conversation == _P("conversation"),
        s.run.c.ordinal > _P("ordinal"),
    )
)


def tenant_key(tx: Tx, tenant: str, fresh: bytes) -> bytes:
    """The tenant's payload key; `fresh` is stored when it has none yet."""
    tx.run(_ADD_TENANT, id=tenant, key=fresh)
    row = tx.one(_TENANT, tenant=tenant)
    assert row is not None  # noqa: S101 - inserted one line above
    key: bytes = row[0]
    return key


def tenant_key_of(tx: Tx, tenant: str) -> bytes:
    """The payload key of a tenant that has runs."""
    row = tx.one(_TENANT, tenant=tenant)
    return row[0] if row else b""


def known_run(tx: Tx, new: NewRun) -> str | None:
    """The run that this idempotency key of this tenant made before.

    Raises: IdempotencyConflict: the key was used for another request.
    """
    if new.idempotency_key is None:
        return None
    row = tx.one(_RUN_BY_KEY, tenant=new.tenant, key=new.idempotency_key)
    if row is None:
        return None
    if row[1] != new.body_hash:
        raise IdempotencyConflict(  # its run is not named: it may be another user's
            f"The key {new.idempotency_key!r} was used before for another request. Use a new key "
            "for a new request."
        )
    known: str = row[0]
    return known


def id_by_key(tx: Tx, tenant: str, key: str) -> str | None:
    """The run that an idempotency key of a tenant made, whatever its request was."""
    row = tx.one(_RUN_BY_KEY, tenant=tenant, key=key)
    return None if row is None else str(row[0])


def hold_conversation(tx: Tx, tenant: str, conversation: str, user: str) -> str:
    """Whose conversation it is, made when it is new. Nobody else adds to it until the commit.

    A run is held before its conversation, never after: so no two units wait for each other.
    """
    row = tx.one(
        _HOLD_CONVERSATION,
        tenant=tenant,
        id=conversation,
        user=user,
        active_run=None,
        next_ordinal=0,
    )
    return user if row is None else row[0]


def add_run(tx: Tx, new: NewRun, declared: str | None, now: int) -> bool:
    """Insert a run as queued; its conversation is made when it is new.

    declared: its agent as declared; None when that is on record.

    False: another process used its idempotency key just now.
    """
    ordinal = 0
    if new.conversation is not None:
        joined = tx.one(
            _JOIN_CONVERSATION,
            tenant=new.tenant,
            id=new.conversation,
            user=new.user,
            active_run=None,
            next_ordinal=1,
        )
        ordinal = joined[0] if joined else 1
    if declared is not None:
        declarations.add(tx, new.fingerprint, new.pattern, declared)
    added = tx.run(
        _ADD_RUN,
        id=new.id,
        tenant=new.tenant,
        user=new.user,
        conversation=new.conversation,
        ordinal=ordinal,
        pattern=new.pattern,
        fingerprint=new.fingerprint,
        status="queued",
        reason="",
        idempotency_key=new.idempotency_key,
        body_hash=new.body_hash,
        epoch=0,
        owner=None,
        segment=0,
        created_at=now,
        updated_at=now,
        nanos=0,
        input_tokens=0,
        output_tokens=0,
        priority=new.priority,
        dispatch=1,
        dispatched=0,
    )
    return bool(added)


def claim(
    tx: Tx, row: RunRow, holder: str, now: int, *, in_turn: bool = True, job: int | None = None
) -> tuple[int, int] | None:
    """Take a run, as this transaction has read it, for execution: (epoch, segment). None while it
    must not execute.

    in_turn: wait for the conversation's earlier runs, and take it. job: the engine's number; an
    older one does nothing.
    """
    run_id = row.id
    if row.status not in OPEN:  # it must not take the conversation that others use now
        return None
    job = row.dispatch if job is None else job
    if job != row.dispatch:
        return None
    if row.conversation is not None and in_turn:
        place = {"tenant": row.tenant, "conversation": row.conversation}
        if tx.rows(_EARLIER_QUEUED, ordinal=row.ordinal, **place)[0][0]:
            return None
        if not tx.run(_TAKE_CONVERSATION, run_id=run_id, **place):
            return None
    claimed = tx.rows(_CLAIM, run_id=run_id, holder=holder, now=now, job=job)
    return (claimed[0][0], claimed[0][1]) if claimed else None


def hand_back(tx: Tx, run_id: str, epoch: int) -> bool:
    """Leave a run that stands at this epoch to another process, unexecuted."""
    return bool(tx.run(_HAND_BACK, run_id=run_id, of_epoch=epoch))


def set_status(
    tx: Tx, run_id: str, status: Status, reason: str, usage: tuple[int, int, int], now: int
) -> int:
    """Status with usage (nanos, input tokens, output tokens). An end leaves the conversation.

    Returns how many segments the run has had.
    """
    nanos, tokens_in, tokens_out = usage
    row = tx.one(
        _SET_STATUS,
        run_id=run_id,
        status=status,
        reason=reason,
        nanos=nanos,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        now=now,
    )
    if row is not None and row[1] is not None and status not in ("waiting", "escalated"):
        place = {"tenant": row[0], "conversation": row[1]}
        left = tx.run(_LEAVE_CONVERSATION, run_id=run_id, **place)
        following = next_in_conversation(tx, **place) if left else None
        if following is not None:  # an earlier job of it may have come too soon
            again(tx, following, get(tx, following).dispatch, now)
    return 0 if row is None else int(row[2])


def again(tx: Tx, run_id: str, job: int, now: int) -> bool:
    """Give a run that should execute a new job; its present one is done with."""
    return bool(tx.run(_AGAIN, run_id=run_id, job=job, now=now))


def wake(tx: Tx, run_id: str, now: int) -> bool:
    """Make a waiting run executable again. An ended one stays as it is. The caller holds it."""
    return bool(tx.run(_WAKE, run_id=run_id, now=now))


def reopen(tx: Tx, run_id: str, now: int) -> bool:
    """Make an ended run executable again; its caller has asked whether it may."""
    return bool(tx.run(_REOPEN, run_id=run_id, now=now))


def get(tx: Tx, run_id: str) -> RunRow:
    """One run. Raises: UnknownRun."""
    return _found(tx.one(_RUN_BY_ID, run_id=run_id), run_id)


def hold(tx: Tx, run_id: str) -> RunRow:
    """One run, which stays as it is until the commit of this transaction. Raises: UnknownRun.

    What is decided on a run's status is decided after this: else, where several processes write,
    it may go to wait just as its answer comes in, and nobody would wake it.
    """
    return _found(tx.one(_HOLD_RUN, run_id=run_id), run_id)


def _found(row: Row | None, run_id: str) -> RunRow:
    if row is None:
        raise UnknownRun(f"No run {run_id!r} in this store. `roadworthy runs list` shows them.")
    return run_row(row)


def recent(tx: Tx, most: int, tenant: str | None = None) -> list[RunRow]:
    """The newest runs first; of one tenant, or of all."""
    if tenant is None:
        return [run_row(row) for row in tx.rows(_RECENT, most=most)]
    return [run_row(row) for row in tx.rows(_RECENT_OF, most=most, tenant=tenant)]


def next_in_conversation(tx: Tx, tenant: str, conversation: str) -> str | None:
    """The run that should execute next in a conversation."""
    row = tx.one(_NEXT_IN_CONVERSATION, tenant=tenant, conversation=conversation)
    return row[0] if row else None


def queued_behind(tx: Tx, row: RunRow) -> list[RunRow]:
    """The runs of its conversation that have not begun and wait for this one; they are held."""
    place = {"tenant": row.tenant, "conversation": row.conversation}
    return [run_row(each) for each in tx.rows(_QUEUED_BEHIND, ordinal=row.ordinal, **place)]


def active_run(tx: Tx, tenant: str, conversation: str) -> str | None:
    """The run that holds the conversation."""
    row = tx.one(_CONVERSATION, tenant=tenant, conversation=conversation)
    return row[0] if row else None


def conversation_user(tx: Tx, tenant: str, conversation: str) -> str | None:
    """Whose conversation it is; None while it does not exist."""
    row = tx.one(_CONVERSATION_USER, tenant=tenant, conversation=conversation)
    return row[0] if row else None


def last_of_conversation(tx: Tx, tenant: str, conversation: str) -> RunRow | None:
    """The newest run of a conversation."""
    row = tx.one(_LAST_OF_CONVERSATION, tenant=tenant, conversation=conversation)
    return None if row is None else run_row(row)


def has_later(tx: Tx, row: RunRow) -> bool:
    """Whether the conversation has a later run."""
    if row.conversation is None:
        return False
    later = tx.rows(_LATER, tenant=row.tenant, conversation=row.conversation, ordinal=row.ordinal)
    return bool(later[0][0])


def body_hash(body: object) -> str:
    """Hash of a request, to tell a repeated one from another under the same key."""
    return hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest()[:32]


def run_row(row: Row) -> RunRow:
    return RunRow(**dict(zip(_COLUMNS, row, strict=True)))

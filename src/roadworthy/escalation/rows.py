"""Rows of escalations and their log. Called in units of those who hold the run.

Invariant: every change is logged in the same commit, and an idempotency key is used once.
"""

from __future__ import annotations

import dataclasses
import functools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import and_, bindparam, func, insert, or_, select, update

from roadworthy.errors import IdempotencyConflict, UnknownEscalation
from roadworthy.escalation import notices
from roadworthy.escalation.views import Escalation, Kind, LogEntry
from roadworthy.store import payloads
from roadworthy.store import schema as s
from roadworthy.store.codec import Seal
from roadworthy.store.database import Row, Statement, Tx, upsert

_P = bindparam
_COLUMNS = tuple(field.name for field in dataclasses.fields(Escalation))
_T = s.escalation.c
_SELECT = select(*(_T[name] for name in _COLUMNS))
_BY_ID = Statement(_SELECT.where(_T.id == _P("escalation")))
_OF_RUN = Statement(
    _SELECT.where(_T.run_id == _P("run_id"), _T.status != "resolved").order_by(_T.created_at)
)
_OF_CONVERSATION = Statement(
    _SELECT.where(
        _T.tenant == _P("tenant"),
        _T.conversation == _P("conversation"),
        _T.status != "resolved",
    )
)
_ORDER = (_T.priority, func.coalesce(_T.due_at, _T.created_at), _T.created_at, _T.id)
_LAST = (_T.resolved_at.desc(), _T.id)
_DUE = Statement(
    select(_T.id, _T.run_id).where(
        _T.status == _P("status"),
        or_(
            and_(
                _T.due_at <= _P("now"),
                _T.level < _P("most_level"),
                or_(_T.snoozed_until.is_(None), _T.snoozed_until <= _P("now")),
            ),
            and_(_T.status == "open", _T.assignee.is_not(None), _T.locked_until <= _P("now")),
            _T.snoozed_until <= _P("now"),
        ),
    )
)
_LIKE = Statement(
    _SELECT.where(
        _T.tenant == _P("tenant"),
        _T.status == "resolved",
        _T.resolution != "",
        or_(_T.trigger == _P("trigger"), _T.agent == _P("agent")),
        _T.id != _P("escalation"),
    )
    .order_by(_T.resolved_at.desc())
    .limit(_P("most"))
)
_ADD = Statement(insert(s.escalation), columns=list(_COLUMNS))
_MUTABLE = (
    "handover",
    "kind",
    "trigger",
    "queue",
    "skill",
    "priority",
    "status",
    "assignee",
    "locked_until",
    "due_at",
    "snoozed_until",
    "updated_at",
    "resolved_at",
    "resolution",
    "tags",
    "level",
    "version",
)
_SAVE = Statement(
    update(s.escalation)
    .where(_T.id == _P("escalation"))
    .values({name: _P(f"new_{name}") for name in _MUTABLE})
)
_SET_REASON = Statement(
    update(s.escalation).where(_T.id == _P("escalation")).values(reason=_P("reason_ref"))
)
_L = s.escalation_log.c
_LOG = Statement(
    upsert(s.escalation_log).on_conflict_do_nothing(),
    columns=["escalation_id", "at", "by", "action", "detail", "key"],
)
_LOGGED = Statement(
    select(_L.action).where(_L.escalation_id == _P("escalation"), _L.key == _P("key"))
)
_KEYS = Statement(select(_L.key).where(_L.escalation_id == _P("escalation"), _L.key.is_not(None)))
SAME = "\x1f"  # between a sender's key and the hash of what it stands for
_ENTRIES = Statement(
    select(_L.at, _L.by, _L.action, _L.detail)
    .where(_L.escalation_id == _P("escalation"))
    .order_by(_L.id)
)
_VOTES = Statement(
    select(_L.key)
    .where(_L.escalation_id == _P("escalation"), _L.action == "agreed", _L.key.is_not(None))
    .order_by(_L.id)
)
_PULSE = Statement(select(func.max(_L.id)))


@dataclass(frozen=True, kw_only=True)
class NewEscalation:
    """What an item begins with."""

    run_id: str
    tenant: str
    user: str
    conversation: str | None
    agent: str
    kind: Kind
    trigger: str
    reason: str
    queue: str
    skill: str
    priority: int
    due_at: int | None
    handover: str = ""


class Vote(NamedTuple):
    """That a person agrees to a call with these arguments. content: their hash."""

    approval: str
    content: str
    by: str


def put(tx: Tx, new: NewEscalation, seal: Seal, now: int, by: str = "") -> Escalation:
    """Put a run into the queue, or change what of it is there: one item per run at a time."""
    known = of_run(tx, new.run_id)
    if known is not None:
        return _again(tx, known, new, seal, now)
    item = Escalation(
        **{f.name: getattr(new, f.name) for f in dataclasses.fields(new)},
        id=f"esc_{now:x}{secrets.token_hex(5)}",
        status="open",
        assignee=None,
        locked_until=None,
        snoozed_until=None,
        created_at=now,
        updated_at=now,
        resolved_at=None,
        resolution="",
        tags=(),
        level=0,
        version=1,
    )
    reason = payloads.keep(tx, msgspec.json.encode(new.reason), seal)
    values = {name: getattr(item, name) for name in _COLUMNS}
    tx.run(_ADD, **{**values, "reason": reason, "tags": ""})
    log(tx, item.id, ("raised", by, new.reason), seal, now)
    return item


def _again(tx: Tx, known: Escalation, new: NewEscalation, seal: Seal, now: int) -> Escalation:
    """An item of this run is there: it says what is needed now, and keeps who has it."""
    same = (known.kind, known.trigger, known.reason) == (new.kind, new.trigger, new.reason)
    if same and known.handover == (new.handover or known.handover):
        return known
    if known.kind == "handover" and new.kind == "decision":
        return known  # a person has, or will get, the whole of it
    reason = payloads.keep(tx, msgspec.json.encode(new.reason), seal)
    tx.run(_SET_REASON, escalation=known.id, reason_ref=reason)
    changed = dataclasses.replace(
        known,
        kind=new.kind,
        trigger=new.trigger,
        reason=new.reason,
        handover=new.handover or known.handover,
        priority=min(new.priority, known.priority),
    )
    log(tx, known.id, ("raised", "", new.reason), seal, now)
    return save(tx, changed, seal, now)


def save(tx: Tx, item: Escalation, seal: Seal, now: int) -> Escalation:
    """Write an item back; its caller holds the run, and has logged the change."""
    item = dataclasses.replace(item, version=item.version + 1, updated_at=now)
    resolution = ""
    if item.resolution:
        resolution = payloads.keep(tx, msgspec.json.encode(item.resolution), seal)
    values: dict[str, Any] = {name: getattr(item, name) for name in _MUTABLE}
    values |= {"tags": "\n".join(item.tags), "resolution": resolution}
    tx.run(_SAVE, escalation=item.id, **{f"new_{name}": v for name, v in values.items()})
    return item


def log(
    tx: Tx,
    escalation: str,
    entry: tuple[str, str, str],
    seal: Seal,
    now: int,
    key: str | None = None,
) -> bool:
    """Log (action, by, text), and tell whom it concerns. False: an action under this key is logged
    already."""
    action, by, text = entry
    detail = payloads.keep(tx, msgspec.json.encode(text), seal) if text else ""
    logged_now = tx.run(
        _LOG, escalation_id=escalation, at=now, by=by, action=action, detail=detail, key=key
    )
    if logged_now:
        notices.of_action(tx, escalation, action, now)
    return bool(logged_now)


def logged(tx: Tx, escalation: str, key: str | None) -> bool:
    """Whether this very action was done. key: the sender's, SAME, and a hash of the action.

    Raises: IdempotencyConflict: the sender's key stands for another one.
    """
    if key is None:
        return False
    check_same(key, [row[0] for row in tx.rows(_KEYS, escalation=escalation)])
    return tx.one(_LOGGED, escalation=escalation, key=key) is not None


def check_same(key: str, others: Sequence[str]) -> None:
    """Raises: IdempotencyConflict: the sender's key is used for something else."""
    sent = key.rpartition(SAME)[0]
    if any(other != key and other.rpartition(SAME)[0] == sent for other in others):
        raise IdempotencyConflict(
            f"The key {sent!r} was used before for another action. Use a new key for a new action."
        )


def vote(tx: Tx, escalation: str, vote: Vote, said: str, at: tuple[Seal, int]) -> None:
    """Log that one of two persons agrees to a call."""
    number = len(votes(tx, escalation)) + 1
    key = f"agreed/{number}/{vote.approval}/{vote.content}/{vote.by}"
    log(tx, escalation, ("agreed", vote.by, said), *at, key)


def votes(tx: Tx, escalation: str) -> list[Vote]:
    """Who agreed to what, in order."""
    keys = (str(row[0]).split("/", 4) for row in tx.rows(_VOTES, escalation=escalation))
    return [Vote(key[2], key[3], key[4]) for key in keys]


def entries(tx: Tx, escalation: str) -> list[LogEntry]:
    """Everything that happened to an item, oldest first."""
    rows = tx.rows(_ENTRIES, escalation=escalation)
    texts = _texts(tx, [row[3] for row in rows])
    return [LogEntry(row[0], row[1], row[2], texts.get(row[3], "")) for row in rows]


def pulse(tx: Tx) -> int:
    """A number that changes when the queue does."""
    row = tx.one(_PULSE)
    return 0 if row is None or row[0] is None else int(row[0])


def by_id(tx: Tx, escalation: str, tenant: str | None = None) -> Escalation:
    """One item. tenant: whose it must be. Raises: UnknownEscalation."""
    row = tx.one(_BY_ID, escalation=escalation)
    found = None if row is None else _items(tx, [row])[0]
    if found is None or (tenant is not None and found.tenant != tenant):
        raise UnknownEscalation(f"No escalation {escalation!r} here.")
    return found


def of_run(tx: Tx, run_id: str) -> Escalation | None:
    """What of a run is in the queue now."""
    rows = tx.rows(_OF_RUN, run_id=run_id)
    return _items(tx, rows[-1:])[0] if rows else None


def of_conversation(tx: Tx, tenant: str, conversation: str) -> list[Escalation]:
    """What of a conversation is in the queue now."""
    return _items(tx, tx.rows(_OF_CONVERSATION, tenant=tenant, conversation=conversation))


@functools.cache
def _listing(names: tuple[str, ...], resolved: bool) -> Statement:  # noqa: FBT001 - a cache's key
    which = _T.status == "resolved" if resolved else _T.status != "resolved"
    wanted = (_T[name] == _P(f"of_{name}") for name in names)
    order = _LAST if resolved else _ORDER
    return Statement(_SELECT.where(which, *wanted).order_by(*order).limit(_P("most")))


def listed(tx: Tx, of: Mapping[str, str | None], most: int) -> list[Escalation]:
    """What is in the queue, first things first; of what was resolved, the newest first. of: what
    it must be, by column: status, tenant, queue, assignee."""
    given = {name: value for name, value in of.items() if value is not None}
    statement = _listing(tuple(sorted(given)), given.get("status") == "resolved")
    values = {f"of_{name}": value for name, value in given.items()}
    return _items(tx, tx.rows(statement, most=most, **values))


def due(tx: Tx, now: int, most_level: int) -> list[tuple[str, str]]:
    """(item, run) of what has a clock that has run out."""
    waiting = tx.rows(_DUE, status="open", now=now, most_level=most_level)
    owned = tx.rows(_DUE, status="taken", now=now, most_level=2**31 - 1)
    return [(row[0], row[1]) for row in (*waiting, *owned)]


def alike(tx: Tx, item: Escalation, most: int) -> list[Escalation]:
    """Resolved items of the same tenant with the same trigger or agent, the newest first."""
    return _items(
        tx,
        tx.rows(
            _LIKE,
            tenant=item.tenant,
            trigger=item.trigger,
            agent=item.agent,
            escalation=item.id,
            most=most,
        ),
    )


def resolve(tx: Tx, run_id: str, why: tuple[str, str, str], seal: Seal, now: int) -> None:
    """What of a run is in the queue needs nobody any more. why: (action, by, resolution)."""
    item = of_run(tx, run_id)
    if item is None:
        return
    action, by, text = why
    log(tx, item.id, (action, by, text), seal, now)
    done = dataclasses.replace(
        item, status="resolved", resolved_at=now, resolution=text, locked_until=None
    )
    save(tx, done, seal, now)


def _items(tx: Tx, rows: list[Row]) -> list[Escalation]:
    plain = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
    texts = _texts(tx, [each[name] for each in plain for name in ("reason", "resolution")])
    return [_item(each, texts) for each in plain]


def _item(values: dict[str, Any], texts: Mapping[str, str]) -> Escalation:
    for name in ("reason", "resolution"):
        values[name] = texts.get(values[name], "")
    values["tags"] = tuple(filter(None, values["tags"].split("\n")))
    return Escalation(**values)


def _texts(tx: Tx, addresses: list[str]) -> dict[str, str]:
    found: dict[str, bytes] = {}
    payloads.fetch(tx, filter(None, addresses), found)
    return {address: msgspec.json.decode(data) or "" for address, data in found.items()}

"""What is said in a conversation, by whom, in order; and who owns it.

Kept where an inbox is configured, in the commit that records the message. Invariant: the numbers
of a conversation's messages have no gap, and a sender's key is used once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from sqlalchemy import bindparam, func, insert, select, update

from roadworthy.escalation.views import Owner, Said
from roadworthy.messages import Message
from roadworthy.store import payloads
from roadworthy.store import schema as s
from roadworthy.store.codec import Seal
from roadworthy.store.database import Row, Statement, Tx

_P = bindparam
_T = s.said.c
_HERE = (_T.tenant == _P("tenant"), _T.conversation == _P("conversation"))
_COLUMNS = ("n", "run_id", "handover", "who", "by", "text", "at")
_SELECT = select(*(_T[name] for name in _COLUMNS))
_ADD = Statement(insert(s.said))
_LAST = Statement(select(func.max(_T.n)).where(*_HERE))
_AFTER = Statement(_SELECT.where(*_HERE, _T.n > _P("after")).order_by(_T.n).limit(_P("most")))
_OF_HANDOVER = Statement(
    _SELECT.where(*_HERE, _T.run_id == _P("run_id"), _T.handover == _P("handover")).order_by(_T.n)
)
_BY_KEY = Statement(select(_T.run_id, _T.body_hash, _T.n).where(*_HERE, _T.key == _P("key")))
_MOVE = Statement(
    update(s.said)
    .where(*_HERE, _T.run_id == _P("from_run"), _T.handover == "")
    .values(run_id=_P("to_run"), handover=_P("to_handover"))
)
_C = s.conversation.c
_IS = (_C.tenant == _P("tenant"), _C.id == _P("conversation"))
_OWNER = Statement(select(_C.owner, _C.person).where(*_IS))
_SET_OWNER = Statement(
    update(s.conversation).where(*_IS).values(owner=_P("new_owner"), person=_P("new_person"))
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where something is said: a conversation, or the run that has none. Its row is held."""

    tenant: str
    conversation: str
    run_id: str
    handover: str = ""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """Who sent a message under which key; body_hash tells another one under the same key."""

    who: Literal["user", "agent", "person"]
    by: str = ""
    key: str | None = None
    body_hash: str = ""


def add(tx: Tx, place: Place, sent: Sent, message: Message, seal: Seal, now: int) -> int:
    """Add a message as the conversation's last. Returns its place."""
    n = last(tx, place.tenant, place.conversation) + 1
    tx.run(
        _ADD,
        tenant=place.tenant,
        conversation=place.conversation,
        n=n,
        run_id=place.run_id,
        handover=place.handover,
        who=sent.who,
        by=sent.by,
        text=payloads.keep(tx, msgspec.json.encode(message), seal),
        at=now,
        key=sent.key,
        body_hash=sent.body_hash,
    )
    return n


def last(tx: Tx, tenant: str, conversation: str) -> int:
    """The place of the last message, 0 when there is none."""
    row = tx.one(_LAST, tenant=tenant, conversation=conversation)
    return 0 if row is None or row[0] is None else int(row[0])


def after(tx: Tx, tenant: str, conversation: str, n: int, most: int = 1_000) -> list[Said]:
    """The messages behind a place, in order."""
    return _said(tx, tx.rows(_AFTER, tenant=tenant, conversation=conversation, after=n, most=most))


def of_handover(tx: Tx, place: Place) -> list[Said]:
    """What was said while a person owned it."""
    return _said(
        tx,
        tx.rows(
            _OF_HANDOVER,
            tenant=place.tenant,
            conversation=place.conversation,
            run_id=place.run_id,
            handover=place.handover,
        ),
    )


def by_key(tx: Tx, tenant: str, conversation: str, key: str) -> tuple[str, str, int] | None:
    """(run, body hash, place) of the message sent under this key."""
    row = tx.one(_BY_KEY, tenant=tenant, conversation=conversation, key=key)
    return None if row is None else (row[0], row[1], row[2])


def move(tx: Tx, place: Place, from_run: str) -> None:
    """What was said to a run that waited its turn is said to the person now."""
    tx.run(
        _MOVE,
        tenant=place.tenant,
        conversation=place.conversation,
        from_run=from_run,
        to_run=place.run_id,
        to_handover=place.handover,
    )


def owner_of(tx: Tx, tenant: str, conversation: str) -> tuple[Owner, str]:
    """Who owns a conversation, and which person."""
    row = tx.one(_OWNER, tenant=tenant, conversation=conversation)
    return ("agent", "") if row is None else (row[0], row[1])


def set_owner(tx: Tx, place: tuple[str, str], owner: Owner, person: str = "") -> None:
    """Who owns it from this commit on. place: (tenant, conversation); its row is held."""
    tenant, conversation = place
    tx.run(
        _SET_OWNER,
        tenant=tenant,
        conversation=conversation,
        new_owner=owner,
        new_person=person,
    )


def _said(tx: Tx, rows: Sequence[Row]) -> list[Said]:
    found: dict[str, bytes] = {}
    payloads.fetch(tx, [row[5] for row in rows], found)
    return [
        Said(
            n=row[0],
            run_id=row[1],
            handover=row[2],
            who=row[3],
            by=row[4],
            message=_message(found[row[5]]),
            at=row[6],
        )
        for row in rows
    ]


def _message(data: bytes) -> Message:
    if data == b"null":
        return Message.user("(erased)")
    return msgspec.json.decode(data, type=Message)

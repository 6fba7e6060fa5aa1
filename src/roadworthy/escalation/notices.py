"""Rows of what people are to be told. Written with the change itself, sent afterwards.

Invariant: a notice is written once with its change (channel ""), becomes one row per channel in one
commit, and each of those is sent at least once or given up.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, func, insert, select, update

from roadworthy.clock import MICROS
from roadworthy.store import payloads
from roadworthy.store import schema as s
from roadworthy.store.codec import Seal
from roadworthy.store.database import Statement, Tx

MOST_ATTEMPTS = 12
_P = bindparam
_N = s.notice.c
_OF_ACTION = {
    "raised": "raised",
    "escalated": "escalated",
    "overdue": "overdue",
    "silent": "silent",
    "resolved": "resolved",
    "handed_back": "resolved",
    "decided": "resolved",
    "ended": "resolved",
}
_ADD = Statement(insert(s.notice))
_FRESH = Statement(
    select(_N.id, _N.escalation_id, _N.event, _N.next_at)
    .where(_N.channel == "", _N.sent_at.is_(None))
    .order_by(_N.next_at)
    .limit(_P("most"))
)
_FAN = Statement(delete(s.notice).where(_N.id == _P("notice"), _N.channel == ""))
_DUE = Statement(
    select(_N.id, _N.channel, _N.body, _N.attempts)
    .where(
        _N.channel == _P("channel"),
        _N.sent_at.is_(None),
        _N.next_at <= _P("now"),
        _N.attempts < _P("most_attempts"),
    )
    .order_by(_N.next_at)
    .limit(_P("most"))
)
_CLAIM = Statement(
    update(s.notice)
    .where(_N.id == _P("notice"), _N.attempts == _P("known"), _N.sent_at.is_(None))
    .values(attempts=_N.attempts + 1, next_at=_P("again_at"))
)
_SENT = Statement(update(s.notice).where(_N.id == _P("notice")).values(sent_at=_P("at"), error=""))
_FAILED = Statement(update(s.notice).where(_N.id == _P("notice")).values(error=_P("why")))
_FORGET = Statement(delete(s.notice).where(_N.sent_at <= _P("before")))
_GIVEN_UP = Statement(
    select(_N.channel, _N.error, func.count())
    .where(_N.sent_at.is_(None), _N.attempts >= _P("most_attempts"))
    .group_by(_N.channel, _N.error)
)


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """A change that people are to be told of."""

    id: str
    escalation: str
    event: str
    at: int


@dataclass(frozen=True, kw_only=True)
class Due:
    """A notice to be sent now over a channel."""

    id: str
    channel: str
    body: Any
    attempts: int


def of_action(tx: Tx, escalation: str, action: str, now: int) -> None:
    """What was logged is to be told, if it is of the kind."""
    if action in _OF_ACTION:
        add(tx, escalation, _OF_ACTION[action], now)


def add(tx: Tx, escalation: str, event: str, now: int) -> None:
    """Something that people are to be told."""
    _insert(tx, f"ntc_{secrets.token_hex(10)}", (escalation, "", event), "", now)


def fresh(tx: Tx, most: int) -> list[Fresh]:
    """What is not addressed to channels yet."""
    rows = tx.rows(_FRESH, most=most)
    return [Fresh(id=r[0], escalation=r[1], event=r[2], at=r[3]) for r in rows]


def fan(tx: Tx, notice: Fresh, bodies: dict[str, Any], seal: Seal, now: int) -> None:
    """One row per channel for it, once. bodies: channel -> what is told."""
    if not tx.run(_FAN, notice=notice.id):
        return
    for channel, body in bodies.items():
        kept = payloads.keep(tx, msgspec.json.encode(body), seal)
        place = (notice.escalation, channel, notice.event)
        _insert(tx, f"{notice.id}.{channel}", place, kept, now)


def due(tx: Tx, channel: str, now: int, most: int) -> list[Due]:
    """What is to be sent over a channel now."""
    rows = tx.rows(_DUE, channel=channel, now=now, most=most, most_attempts=MOST_ATTEMPTS)
    found: dict[str, bytes] = {}
    payloads.fetch(tx, [row[2] for row in rows], found)
    return [
        Due(id=r[0], channel=r[1], body=msgspec.json.decode(found[r[2]]), attempts=r[3])
        for r in rows
    ]


def claim(tx: Tx, notice: Due, now: int) -> bool:
    """This process makes the next attempt; the one after it comes later each time."""
    again = now + min(3_600, 15 * 2 ** (notice.attempts + 1)) * MICROS
    return bool(tx.run(_CLAIM, notice=notice.id, known=notice.attempts, again_at=again))


def settle(tx: Tx, notice: str, now: int, error: str) -> None:
    """What came of an attempt. error: "" when it arrived."""
    if error:
        tx.run(_FAILED, notice=notice, why=error[:300])
    else:
        tx.run(_SENT, notice=notice, at=now)


def forget(tx: Tx, before: int) -> None:
    """What was sent long ago."""
    tx.run(_FORGET, before=before)


def given_up(tx: Tx) -> list[tuple[str, str, int]]:
    """(channel, why, how many) of what never arrived."""
    return [(r[0], r[1], r[2]) for r in tx.rows(_GIVEN_UP, most_attempts=MOST_ATTEMPTS)]


def _insert(tx: Tx, notice: str, place: tuple[str, str, str], body: str, now: int) -> None:
    escalation, channel, event = place
    tx.run(
        _ADD,
        id=notice,
        escalation_id=escalation,
        channel=channel,
        event=event,
        body=body,
        attempts=0,
        next_at=now,
        sent_at=None,
        error="",
    )

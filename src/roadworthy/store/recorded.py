"""What is recorded of runs: the rows of their events with their payloads, and what they say.

Who takes a run up, and whoever looks at one, reads here. Invariant: what cannot be read is refused
whole, never skipped.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, bindparam, func, or_, select

from roadworthy.events import RunEnded, RunEvent, RunWaiting
from roadworthy.result import RunResult
from roadworthy.store import payloads
from roadworthy.store import schema as s
from roadworthy.store.codec import EventRow, decode, references
from roadworthy.store.database import Row, Statement, Tx

_P = bindparam
_ALL = 2**31 - 1
_EVENT = (*(s.event.c[name] for name in ("seq", "at", *EventRow._fields)),)
_EVENTS = Statement(
    select(*_EVENT)
    .where(s.event.c.run_id == _P("run_id"), s.event.c.seq > _P("after"))
    .order_by(s.event.c.seq)
)
_FIRST = Statement(
    select(*_EVENT)
    .where(s.event.c.run_id == _P("run_id"))
    .order_by(s.event.c.seq)
    .limit(_P("most")),
    settled=True,
)
_LAST_RESULT = Statement(
    select(*_EVENT)
    .where(
        s.event.c.run_id == _P("run_id"),
        or_(s.event.c.type == RunEnded.__name__, s.event.c.type == RunWaiting.__name__),
    )
    .order_by(s.event.c.seq.desc())
    .limit(1)
)
_EVENTS_BEFORE = Statement(
    select(s.event.c.run_id, *_EVENT)
    .join_from(s.run, s.event, s.event.c.run_id == s.run.c.id)
    .where(
        s.run.c.tenant == _P("tenant"),
        s.run.c.conversation == _P("conversation"),
        s.run.c.ordinal < _P("ordinal"),
    )
    .order_by(s.run.c.ordinal, s.event.c.seq)
)
_THIS = s.run.alias()
_OF_TOOL_BEFORE = Statement(
    select(s.run.c.id, *_EVENT)
    .join_from(s.run, s.event, s.event.c.run_id == s.run.c.id)
    .join(
        _THIS,
        and_(
            _THIS.c.tenant == s.run.c.tenant,
            _THIS.c.conversation == s.run.c.conversation,
            _THIS.c.ordinal > s.run.c.ordinal,
        ),
    )
    .where(
        _THIS.c.id == _P("run_id"),
        s.event.c.key.like("turn/%/tool/%"),
        s.event.c.body.like(_P("named")),
    )
    .order_by(s.run.c.ordinal, s.event.c.seq)
)
_LAST_SEQ = Statement(select(func.max(s.event.c.seq)).where(s.event.c.run_id == _P("run_id")))


def events(tx: Tx, run_id: str, after: int = -1) -> list[RunEvent]:
    """A run's events after a position, in order, with their payloads."""
    return _of_run(tx, run_id, tx.rows(_EVENTS, run_id=run_id, after=after))


def all_of_few(tx: Tx, run_id: str, most: int) -> list[RunEvent] | None:
    """All events of a run; None when there are more than so many.

    For who writes the next one in the same unit: were one added in this batch, both would take the
    same place, and the batch is tried again with each unit alone.
    """
    rows = tx.rows(_FIRST, run_id=run_id, most=most + 1)
    return None if len(rows) > most else _of_run(tx, run_id, rows)


def last_result(tx: Tx, run_id: str) -> RunResult[Any] | None:
    """What a run ended with or waited for last, however much is recorded of it."""
    for event in _of_run(tx, run_id, tx.rows(_LAST_RESULT, run_id=run_id)):
        if isinstance(event, RunEnded | RunWaiting):
            return event.result
    return None


def events_before(
    tx: Tx, tenant: str, conversation: str, ordinal: int | None
) -> list[list[RunEvent]]:
    """The events of the conversation's runs in order, those before `ordinal` or all, by run."""
    rows = tx.rows(
        _EVENTS_BEFORE,
        tenant=tenant,
        conversation=conversation,
        ordinal=_ALL if ordinal is None else ordinal,
    )
    found = _decoded(tx, [((row[0], row[1], row[2]), EventRow(*row[3:])) for row in rows])
    return [list(of_run) for _, of_run in itertools.groupby(found, lambda event: event.run_id)]


def of_tool_before(tx: Tx, run_id: str, tool: str, types: Sequence[str]) -> list[RunEvent]:
    """The events of these types about a tool, of the earlier runs of a run's conversation."""
    rows = tx.rows(_OF_TOOL_BEFORE, run_id=run_id, named=f'%"tool":"{tool}"%')
    of_types = [((row[0], row[1], row[2]), EventRow(*row[3:])) for row in rows if row[3] in types]
    return [event for event in _decoded(tx, of_types) if getattr(event, "tool", "") == tool]


def _of_run(tx: Tx, run_id: str, rows: Sequence[Row]) -> list[RunEvent]:
    return _decoded(tx, [((run_id, row[0], row[1]), EventRow(*row[2:])) for row in rows])


def _decoded(tx: Tx, rows: Sequence[tuple[tuple[str, int, int], EventRow]]) -> list[RunEvent]:
    """Rows as events, their payloads and files fetched together."""
    texts: dict[str, bytes] = {}
    payloads.fetch(tx, (ref for _, row in rows for ref in references(row)), texts)
    named = [file for data in texts.values() for file in payloads.files_in(data)]
    payloads.fetch(tx, named, texts)
    return [decode(row, texts, place) for place, row in rows]


def last_seq(tx: Tx, run_id: str) -> int:
    """The highest event position of a run, -1 when it has none."""
    row = tx.one(_LAST_SEQ, run_id=run_id)
    return -1 if row is None or row[0] is None else row[0]

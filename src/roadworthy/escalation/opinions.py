"""What users and operators thought of a run: `Feedback`, and its rows.

Invariant: one row per run, person, kind and thing it is about: given again, the latest stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec
from sqlalchemy import bindparam, select

from roadworthy.store import payloads
from roadworthy.store import schema as s
from roadworthy.store.codec import Seal
from roadworthy.store.database import Row, Statement, Tx, upsert

FeedbackKind: TypeAlias = Literal["user", "operator"]
Rating: TypeAlias = Literal[-1, 0, 1]


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """One opinion. rating: -1, 0 or 1. reason, correction: in words; what would have been right.
    about: "" for the whole run, else what was decided: an approval's id, or an escalation's.
    consent: it may become a case for evals. at: microseconds UTC."""

    WORDS: ClassVar[tuple[str, ...]] = ("reason", "correction")

    tenant: str
    run_id: str
    conversation: str | None
    agent: str
    kind: FeedbackKind
    by: str
    rating: Rating
    reason: str = ""
    correction: str = ""
    about: str = ""
    consent: bool = False
    at: int


_P = bindparam
_COLUMNS = (
    "tenant", "run_id", "conversation", "agent", "kind", "by", "rating", "detail", "consent", "at"
)  # fmt: skip
_T = s.feedback.c
_SELECT = select(*(_T[name] for name in _COLUMNS))
_INSERT = upsert(s.feedback)
_PUT = Statement(
    _INSERT.on_conflict_do_update(
        index_elements=["id"],
        set_={name: _INSERT.excluded[name] for name in ("rating", "detail", "consent", "at")},
    )
)
_OF_RUN = Statement(_SELECT.where(_T.run_id == _P("run_id")).order_by(_T.at, _T.id))
_SINCE = Statement(_SELECT.where(_T.at >= _P("since")).order_by(_T.at, _T.id).limit(_P("most")))


def put(tx: Tx, given: Feedback, seal: Seal) -> None:
    """Keep it, in place of an earlier one."""
    values: dict[str, Any] = asdict(given)
    detail = {name: values.pop(name) for name in ("reason", "correction", "about")}
    name = "\0".join((given.run_id, given.by, given.kind, given.about))
    tx.run(
        _PUT,
        **values | {"consent": int(given.consent)},
        id="fbk_" + hashlib.sha256(name.encode()).hexdigest()[:20],
        detail=payloads.keep(tx, msgspec.json.encode(detail), seal),
    )


def of_run(tx: Tx, run_id: str) -> list[Feedback]:
    """What was said of a run, oldest first."""
    return _read(tx, tx.rows(_OF_RUN, run_id=run_id))


def since(tx: Tx, at: int, most: int) -> list[Feedback]:
    """What was said from a moment on, oldest first."""
    return _read(tx, tx.rows(_SINCE, since=at, most=most))


def _read(tx: Tx, rows: Sequence[Row]) -> list[Feedback]:
    found: dict[str, bytes] = {}
    payloads.fetch(tx, [row[7] for row in rows], found)
    plain = [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
    for values in plain:
        detail = msgspec.json.decode(found[values.pop("detail")]) or {}
        values |= {**detail, "consent": bool(values["consent"])}
    return [Feedback(**values) for values in plain]

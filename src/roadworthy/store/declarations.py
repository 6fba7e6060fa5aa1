"""Agents as they were declared, once by fingerprint, and which of them a run goes by.

Written when a run is accepted and when it goes on under another declaration. Invariant: a
fingerprint never changes its meaning.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import bindparam, select, update

from roadworthy.messages import JsonObject
from roadworthy.store import schema as s
from roadworthy.store.database import Statement, Tx, upsert

_P = bindparam
_ADD_DECLARATION = Statement(upsert(s.declaration).on_conflict_do_nothing())
_DECLARATION = Statement(
    select(s.declaration.c.body).where(s.declaration.c.fingerprint == _P("pinned"))
)
_PIN = Statement(update(s.run).where(s.run.c.id == _P("run_id")).values(fingerprint=_P("pinned")))


def add(tx: Tx, fingerprint: str, name: str, body: str) -> None:
    """Keep a declaration. Keeping it again changes nothing."""
    tx.run(_ADD_DECLARATION, fingerprint=fingerprint, name=name, body=body)


def get(tx: Tx, fingerprint: str) -> JsonObject | None:
    """What an agent was declared as; None when it is not on record."""
    row = tx.one(_DECLARATION, pinned=fingerprint)
    found: JsonObject | None = None if row is None else msgspec.json.decode(row[0])
    return found


def pin(tx: Tx, run_id: str, name: str, fingerprint: str, body: str) -> None:
    """The run goes by this declaration of its pattern from now on."""
    add(tx, fingerprint, name, body)
    tx.run(_PIN, run_id=run_id, pinned=fingerprint)

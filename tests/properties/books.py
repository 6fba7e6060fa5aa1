"""The accounts of a store as plain numbers."""

from __future__ import annotations

from sqlalchemy import bindparam, func, select

from roadworthy.store.database import Statement
from roadworthy.store.opening import open_database
from roadworthy.store.schema import account as a

_SUMS = Statement(
    select(a.c.scope, func.sum(a.c.settled), func.sum(a.c.assumed), func.sum(a.c.held))
    .where(a.c.unit == bindparam("of"))
    .group_by(a.c.scope)
)


def books(url: str, unit: str = "usd") -> dict[str, tuple[int, int, int]]:
    """(settled, assumed, held) by scope, in nano-dollars or tokens, summed over its accounts."""
    database = open_database(url)
    rows = database.read(lambda tx: tx.rows(_SUMS, of=unit))
    database.close()
    return {row[0]: (int(row[1]), int(row[2]), int(row[3])) for row in rows}

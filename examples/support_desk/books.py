"""What an auditor reads: plain SQL on the two files the demo writes.

An application asks its `Runtime`; this shows that what is on screen is also in the tables.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from examples.support_desk.desk import DATA, SHOP
from examples.support_desk.shop import Refund, Shop, connect


def refunds(order_id: str) -> list[Refund]:
    """The bank's book on one order."""
    with closing(connect(SHOP)) as db:
        return Shop(db, customer="").refunds(order_id)


def calls(run_id: str) -> Sequence[tuple[str, str, int, int]]:
    """A run's paid calls in order: (step, state, reserved, paid), in nano-dollars."""
    rows = _ask(
        "SELECT id, state, nanos, actual_nanos FROM reservation WHERE run_id = ? ORDER BY id",
        run_id,
    )
    return [(id.removeprefix(f"{run_id}:"), *rest) for id, *rest in rows]


def run_account(run_id: str) -> tuple[int, int, int, int]:
    """A run's own budget: (cap, settled, assumed, held), in nano-dollars."""
    found: tuple[int, int, int, int] = _ask(
        "SELECT cap, settled, assumed, held FROM account "
        "WHERE scope = 'run' AND subject = ? AND unit = 'usd'",
        run_id,
    )[0]
    return found


def held() -> int:
    """What all budgets together still hold for calls in flight."""
    total: int = _ask("SELECT coalesce(sum(held), 0) FROM account")[0][0]
    return total


def last_event(run_id: str) -> tuple[int, str, str]:
    """The end of a run's journal: (position, type, step)."""
    found: tuple[int, str, str] = _ask(
        "SELECT seq, type, key FROM event WHERE run_id = ? ORDER BY seq DESC LIMIT 1", run_id
    )[0]
    return found


def _ask(query: str, *values: str) -> list[Any]:
    with closing(sqlite3.connect(DATA / "runs.db", timeout=10)) as db:
        return db.execute(query, values).fetchall()

"""The accounts of a store as plain numbers."""

from __future__ import annotations

import sqlite3


def books(url: str, unit: str = "usd") -> dict[str, tuple[int, int, int]]:
    """(settled, assumed, held) by scope, in nano-dollars or tokens, summed over its accounts."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    query = (
        "SELECT scope, sum(settled), sum(assumed), sum(held) FROM account "
        "WHERE unit = ? GROUP BY scope"
    )
    found = {row[0]: (row[1], row[2], row[3]) for row in connection.execute(query, (unit,))}
    connection.close()
    return found

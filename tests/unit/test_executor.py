"""A process's own reads of the store."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from roadworthy.house import House
from roadworthy.store.sqlite import SqliteDatabase


async def test_a_cancelled_read_does_not_outlive_who_asked(tmp_path: Path) -> None:
    """Its thread would open a connection anew behind a database that was closed meanwhile."""
    database = SqliteDatabase(f"sqlite:///{tmp_path}/t.db")
    part = object.__new__(House)  # its other parts take no part in a read
    object.__setattr__(part, "database", database)
    begun, go_on, ended = threading.Event(), threading.Event(), []

    def slow(_: object) -> None:
        begun.set()
        go_on.wait(10)
        ended.append(True)

    asked = asyncio.create_task(part.read(slow))
    await asyncio.to_thread(begun.wait, 10)
    asked.cancel()
    await asyncio.wait([asked], timeout=0.05)
    assert not asked.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert ended == [True]
    database.close()

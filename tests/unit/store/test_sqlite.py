"""What only the SQLite file needs: closing it under nobody's hands."""

from __future__ import annotations

import threading
from pathlib import Path

from roadworthy.store.database import Tx
from roadworthy.store.sqlite import SqliteDatabase


def test_closing_waits_for_a_thread_that_reads(tmp_path: Path) -> None:
    """Whoever asked for the read may be gone; a connection closed under it ends the process."""
    database = SqliteDatabase(f"sqlite:///{tmp_path}/t.db")
    reading, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    found: list[tuple[int, bool]] = []

    def query(tx: Tx) -> None:
        reading.set()
        go_on.wait(10)
        found.append((tx.value("SELECT 1"), closed.is_set()))

    def close() -> None:
        database.close()
        closed.set()

    threads = [threading.Thread(target=lambda: database.read(query))]
    threads[0].start()
    assert reading.wait(10)
    threads.append(threading.Thread(target=close))
    threads[1].start()
    closed.wait(0.1)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert found == [(1, False)]
    assert closed.is_set()

"""The store in a SQLite file: one writer at a time, WAL, every commit on the disk.

Made by `opening`. Invariant: one file, one machine; readers see committed snapshots.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from sqlalchemy import bindparam, select
from sqlalchemy.dialects import sqlite as sqlite_dialect

from roadworthy.errors import ConfigurationError, StoreError, StoreUnavailable, StoreVersionError
from roadworthy.store import schema
from roadworthy.store.database import Database, Statement, Tx

T = TypeVar("T")

BUSY_SECONDS = 30.0
_EPOCH = Statement(select(schema.run.c.epoch).where(schema.run.c.id == bindparam("run_id")))
_MEND = {
    "full": "The disk is full. Free space; outcomes in hand are kept and written then.",
    "malformed": "The file is damaged. Restore it from a backup; it is left as it is.",
    "not a database": "The file is no SQLite database. Check the URL; the file is left as it is.",
    "locked": "Another process has held the file locked for long. End it or copy the file.",
    "disk i/o": "The disk fails or is full. Free space; outcomes in hand are written then.",
    "readonly": "The file cannot be written. Check its permissions.",
    "unable to open": "The file cannot be opened. Check that its folder exists and is writable.",
}


class SqliteDatabase(Database):
    """A SQLite file opened for one process."""

    engine = "sqlite://"
    dialect = sqlite_dialect.dialect(paramstyle="qmark")
    errors: ClassVar = (sqlite3.Error,)
    unit_errors: ClassVar = (
        sqlite3.IntegrityError,
        sqlite3.DataError,
        sqlite3.ProgrammingError,
        sqlite3.InterfaceError,
    )

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.path = _path_of(url)
        self._readers = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._idle = threading.Condition()
        self._reading = 0

    def connect(self) -> sqlite3.Connection:
        """A new connection in autocommit mode with our pragmas."""
        with self.guarded():
            connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
            _use_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute(
                "PRAGMA wal_autocheckpoint=4000"
            )  # pages; a page written often pays once
        with self._lock:
            self._open.append(connection)
        return connection

    def read(self, query: Callable[[Tx], T]) -> T:
        """Run a query on this thread's read connection, in one snapshot."""
        with self._idle:
            self._reading += 1
        try:
            return self._read(query)
        finally:
            with self._idle:
                self._reading -= 1
                self._idle.notify_all()

    def _read(self, query: Callable[[Tx], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._readers, "connection", None)
        if connection is None:
            connection = self._readers.connection = self.connect()
        with self.guarded():
            connection.execute("BEGIN")
            try:
                return query(Tx(self, connection))
            finally:
                connection.execute("ROLLBACK")

    def translated(self, error: Exception) -> StoreError:
        """SQLite's words, and what to do."""
        text = str(error).lower()
        mend = next((mend for sign, mend in _MEND.items() if sign in text), "")
        if "no such table" in text or "no such column" in text:
            return StoreVersionError(f"The store has another schema: {error}")
        return StoreUnavailable(f"The store failed: {error}. {mend}".strip())

    def begin(self, tx: Tx) -> None:
        """The file's one writer from here to COMMIT."""
        tx.control("BEGIN IMMEDIATE")

    def line_up(self, tx: Tx) -> None:
        """One writer at a time: it is alone."""

    def epochs(self, tx: Tx, run_ids: Sequence[str]) -> dict[str, int]:
        """No lock is needed: nobody else writes now."""
        found = {}
        for run_id in run_ids:
            row = tx.one(_EPOCH, run_id=run_id)
            if row is not None:
                found[run_id] = row[0]
        return found

    def foreign(self, tx: Tx) -> int:
        """`data_version` of the writer's connection."""
        version: int = tx.value("PRAGMA data_version")
        return version

    def committed(self, tx: Tx) -> bool:
        """SQLite's COMMIT either works or leaves everything undone."""
        del tx
        return False

    def collided(self, error: Exception) -> bool:
        """One writer at a time: never."""
        del error
        return False

    def many(self, connection: Any, sql: str, rows: Iterable[Sequence[Any]]) -> None:  # noqa: ANN401
        """One prepared statement, all rows."""
        connection.executemany(sql, rows)

    def renew(self, tx: Tx) -> None:
        """Undo what is open."""
        tx.forget()
        tx.told = False
        try:
            tx.control("ROLLBACK")
        except sqlite3.Error:  # nothing was open, or SQLite undid it itself
            return

    def watch(self) -> Callable[[], bool]:
        """Another connection's commit changes `data_version`."""
        connection = self.connect()
        seen = -1

        def changed() -> bool:
            nonlocal seen
            with self.guarded():
                before = seen
                seen = int(connection.execute("PRAGMA data_version").fetchone()[0])
            return seen != before

        return changed

    def version(self, connection: Any) -> str | None:  # noqa: ANN401 - as declared
        """Which schema the file has."""
        known = connection.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
        ).fetchone()
        if known is None:
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else None

    def alone(self, connection: Any) -> None:  # noqa: ANN401 - as declared
        """The file's writer."""
        connection.execute("BEGIN IMMEDIATE")

    def count_on(self, tx: Tx) -> None:
        """SQLite numbers behind the highest row by itself."""

    def exists(self) -> bool:
        """Whether the file is there."""
        return Path(self.path).is_file()

    def close(self) -> None:
        """Close every connection of this process, once no thread reads: whoever asked for a read
        may be gone, and a connection closed under it ends the process."""
        with self._idle:
            self._idle.wait_for(lambda: not self._reading, BUSY_SECONDS)
        with self._lock:
            while self._open:
                self._open.pop().close()
            self._readers = threading.local()  # a reopened runtime meets the same threads again


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a new file to WAL. SQLite itself does not wait for others here."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)  # another process is switching it just now
        else:
            return


def _path_of(url: str) -> str:
    _, _, rest = url.partition(":///")
    if rest.startswith(":memory:"):
        raise ConfigurationError(
            "A store in memory would lose every run with its process. Use a file; for a try, one "
            "in a temporary folder."
        )
    if not rest:
        raise ConfigurationError(
            f"Cannot open {url!r}: use sqlite:///file.db (relative) or sqlite:////path/file.db."
        )
    folder = Path(rest).parent
    if not folder.is_dir():
        raise StoreUnavailable(f"The folder {str(folder)!r} of the store does not exist; make it.")
    return rest

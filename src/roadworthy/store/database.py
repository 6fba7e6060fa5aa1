"""The door to the database: connections, prepared Core statements, what SQLite needs.

Used by the journal's writer and by readers. Invariant: every write goes through `Tx` inside a
transaction the journal opened; reads use their own connections and see committed rows only.
"""

from __future__ import annotations

import functools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString, TypeAlias, TypeVar

from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.sql import ClauseElement

from roadworthy.errors import ConfigurationError, StoreUnavailable, StoreVersionError
from roadworthy.events import RunEvent

T = TypeVar("T")
Row = tuple[Any, ...]
Value: TypeAlias = str | int | bytes | float | None

BUSY_SECONDS = 30.0
_DIALECT = sqlite_dialect.dialect(paramstyle="qmark")
_MEND = {
    "full": "The disk is full. Free space; outcomes in hand are kept and written then.",
    "malformed": "The file is damaged. Restore it from a backup; it is left as it is.",
    "not a database": "The file is no SQLite database. Check the URL; the file is left as it is.",
    "locked": "Another process has held the file locked for long. End it or copy the file.",
    "disk i/o": "The disk fails or is full. Free space; outcomes in hand are written then.",
    "readonly": "The file cannot be written. Check its permissions.",
    "unable to open": "The file cannot be opened. Check that its folder exists and is writable.",
}


class Statement:
    """A Core statement compiled on first use. About 5 us a call; `Connection.execute` takes 60."""

    def __init__(self, clause: ClauseElement, columns: Sequence[str] | None = None) -> None:
        self._clause, self._columns = clause, columns

    @functools.cached_property
    def compiled(self) -> tuple[str, list[str], dict[str, Any]]:
        """SQL text, parameter names in order, and the constants among them."""
        compiled = self._clause.compile(dialect=_DIALECT, column_keys=self._columns)
        names: list[str] = list(getattr(compiled, "positiontup", None) or ())
        return str(compiled), names, dict(compiled.params)


class Tx:
    """One open transaction (or read snapshot). `emit` adds events to the unit being applied."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.emitted: list[RunEvent] = []

    def run(self, statement: Statement, **values: Value) -> int:
        """Execute a change. Returns the number of rows touched."""
        return self._execute(statement, values).rowcount

    def rows(self, statement: Statement, **values: Value) -> list[Row]:
        """Execute a query (or a change with RETURNING)."""
        return self._execute(statement, values).fetchall()

    def one(self, statement: Statement, **values: Value) -> Row | None:
        """The first row, or None."""
        row: Row | None = self._execute(statement, values).fetchone()
        return row

    def emit(self, event: RunEvent) -> None:
        """Journal this event with the unit."""
        self.emitted.append(event)

    def control(self, sql: LiteralString) -> None:
        """BEGIN, COMMIT, SAVEPOINT and the like. Never values."""
        self._connection.execute(sql)

    def _execute(self, statement: Statement, values: dict[str, Value]) -> sqlite3.Cursor:
        sql, names, constants = statement.compiled
        parameters = [values[n] if n in values else constants[n] for n in names]
        return self._connection.execute(sql, parameters)


class Database:
    """A SQLite file opened for one process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.path = _path_of(url)
        self._readers = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    def connect(self) -> sqlite3.Connection:
        """A new connection in autocommit mode with our pragmas.

        Raises: StoreUnavailable: the file cannot be opened or is no database.
        """
        with guarded():
            connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
            _use_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
        with self._lock:
            self._open.append(connection)
        return connection

    def read(self, query: Callable[[Tx], T]) -> T:
        """Run a query on this thread's read connection, in one snapshot."""
        connection: sqlite3.Connection | None = getattr(self._readers, "connection", None)
        if connection is None:
            connection = self._readers.connection = self.connect()
        with guarded():
            connection.execute("BEGIN")
            try:
                return query(Tx(connection))
            finally:
                connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close every connection of this process."""
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


@contextmanager
def guarded() -> Iterator[None]:
    """Turn database errors into ours, with what to do."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error).lower()
        mend = next((mend for sign, mend in _MEND.items() if sign in text), "")
        if "no such table" in text or "no such column" in text:
            raise StoreVersionError(f"The store has another schema: {error}") from error
        raise StoreUnavailable(f"The store failed: {error}. {mend}".strip()) from error


def _path_of(url: str) -> str:
    scheme, _, rest = url.partition(":///")
    if rest.startswith(":memory:"):
        raise ConfigurationError(
            "A store in memory would lose every run with its process. Use a file; for a try, one "
            "in a temporary folder."
        )
    if scheme != "sqlite" or not rest:
        raise ConfigurationError(
            f"Cannot open {url!r}: use sqlite:///file.db (relative) or sqlite:////path/file.db."
        )
    folder = Path(rest).parent
    if not folder.is_dir():
        raise StoreUnavailable(f"The folder {str(folder)!r} of the store does not exist; make it.")
    return rest

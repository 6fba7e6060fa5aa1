"""SQLite as a database of tools: read-only by three locks, with an end by a fourth.

Made by `SQL`. Invariant: the file is opened for reading only (`mode=ro`, `query_only`), SQLite's
authorizer refuses whatever is no query of the allowed tables, and a handler stops it in time.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from roadworthy.errors import NotApplied, ToolError
from roadworthy.tools.sql.asking import Bounds, Rows, Values
from roadworthy.tools.sql.statements import Dialect, Statement

MOST_VALUE = 8 * 1024 * 1024
"""Bytes of one value, and so of what functions like `printf` and `randomblob` may make."""

_STEPS = 1_000
_QUERIES = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE})
_CHANGES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})
_NO_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})
_TABLE_FUNCTIONS = frozenset({"json_each", "json_tree", "generate_series"})
_INSIDES = ("pragma_", "sqlite_dbpage", "sqlite_dbdata", "sqlite_dbptr", "sqlite_stmt", "dbstat")
_SHADOWS = ("_data", "_idx", "_content", "_docsize", "_config")  # of full-text tables
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


@dataclass(frozen=True)
class Sqlite:
    """A file."""

    path: str
    dialect: Dialect = "sqlite"

    def ask(self, statement: Statement, values: Values, bounds: Bounds) -> Rows:
        """As `Driver` says."""
        bound = {name: _bound(value) for name, value in values.items()}
        with self._open(bounds) as connection, _told(bounds):
            if bounds.writes:
                connection.execute("BEGIN IMMEDIATE")
            _watch(connection, bounds, _tables(connection))
            cursor = connection.execute(statement.text(), bound)
            found = cursor.fetchmany(bounds.rows + 1)
            columns = [each[0] for each in cursor.description or ()]
            changed = cursor.rowcount if bounds.writes else None
            cursor.close()
            if bounds.writes:
                _commit(connection)
        more = len(found) > bounds.rows
        return Rows(columns=columns, rows=found[: bounds.rows], more=more, changed=changed)

    def schema(self, bounds: Bounds) -> Mapping[str, Sequence[str]]:
        """As `Driver` says."""
        with self._open(bounds) as connection, _told(bounds):
            return {
                name: [
                    f"{column} {kind}".strip()
                    for column, kind in connection.execute(
                        "SELECT name, type FROM pragma_table_info(?)", (name,)
                    )
                ]
                for name in sorted(_tables(connection))
                if (bounds.tables is None or name.lower() in bounds.tables)
                and not name.startswith("sqlite_")
            }

    @contextmanager
    def _open(self, bounds: Bounds) -> Iterator[sqlite3.Connection]:
        mode = "rw" if bounds.writes else "ro"
        uri = f"file:{quote(str(Path(self.path).absolute()))}?mode={mode}"
        try:
            connection = sqlite3.connect(
                uri, uri=True, timeout=bounds.seconds, isolation_level=None
            )
        except sqlite3.Error as error:
            raise NotApplied(f"The database cannot be opened: {error}") from error
        with closing(connection):
            connection.text_factory = _text
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_VALUE)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            with _told(bounds):
                connection.execute("PRAGMA trusted_schema = OFF")
                if not bounds.writes:
                    connection.execute("PRAGMA query_only = ON")
            yield connection


def _watch(connection: sqlite3.Connection, bounds: Bounds, there: frozenset[str]) -> None:
    end = time.monotonic() + bounds.seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    connection.set_authorizer(_guard(bounds, there))


def _guard(
    bounds: Bounds, there: frozenset[str]
) -> Callable[[int, str | None, str | None, str | None, str | None], int]:
    """What SQLite asks before it runs a piece of a statement.

    The name of the view that reads is not used: SQLite gives that of any CTE in its place.
    """
    known = {name.lower() for name in there}

    def allowed(table: str) -> bool:
        if table.startswith(_INSIDES):
            return False
        if bounds.tables is None or table in bounds.tables or table in _TABLE_FUNCTIONS:
            return True
        return any(
            table.endswith(end) and table.removesuffix(end) in bounds.tables for end in _SHADOWS
        )

    def guard(
        action: int, first: str | None, second: str | None, _: str | None, __: str | None
    ) -> int:
        table = (first or "").lower()
        if action in _QUERIES:
            good = True
        elif action == sqlite3.SQLITE_READ:
            cte = not second and table not in known and not table.startswith("sqlite_")
            good = allowed(table) or cte or (table, second) == ("sqlite_master", "ROWID")
        elif action == sqlite3.SQLITE_FUNCTION:
            good = (second or "").lower() not in _NO_FUNCTIONS
        elif action == sqlite3.SQLITE_PRAGMA:
            good = table == "data_version"  # full-text tables look at it
        elif action == sqlite3.SQLITE_UPDATE and table == "sqlite_master":
            good = True  # asked where a table function is declared; in earnest it is never allowed
        else:
            good = bounds.writes and action in _CHANGES and not table.startswith("sqlite_")
        return sqlite3.SQLITE_OK if good else sqlite3.SQLITE_DENY

    return guard


def _tables(connection: sqlite3.Connection) -> frozenset[str]:
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")
    return frozenset(str(name) for (name,) in found)


def _commit(connection: sqlite3.Connection) -> None:
    connection.set_authorizer(None)
    connection.set_progress_handler(None, 0)
    try:
        connection.execute("COMMIT")
    except sqlite3.IntegrityError:
        raise  # a deferred constraint: it is rolled back when the connection closes
    except sqlite3.Error as error:
        raise RuntimeError(f"whether it was committed is not known: {error}") from error


@contextmanager
def _told(bounds: Bounds) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_INTERRUPT:
            raise ToolError(
                f"It took over {bounds.seconds:g} s and was stopped. Ask for less."
            ) from error
        if code in _BUSY:
            raise NotApplied(f"The database is busy: {error}") from error
        if code == sqlite3.SQLITE_AUTH:
            raise ToolError(f"Not allowed here: {error}") from error
        raise ToolError(f"The database refused it: {str(error)[:300]}") from error
    except (OverflowError, UnicodeError, MemoryError) as error:
        raise ToolError(f"A value does not fit: {error}") from error


def _bound(value: object) -> object:
    """A value of JSON as one of SQLite; what is nested goes as JSON text."""
    return json.dumps(value, default=str) if isinstance(value, list | dict) else value


def _text(data: bytes) -> str:
    return data.decode(errors="replace")

"""Postgres as a database of tools: a READ ONLY transaction, a cursor, a time limit.

Made by `SQL`. Invariant: a query goes through `DECLARE CURSOR` in a read-only transaction over the
extended protocol, which take one query and nothing else; what it may see is its role's privileges.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from roadworthy.errors import ConfigurationError, NotApplied, ToolError
from roadworthy.tools.sql.asking import Bounds, Rows, Values
from roadworthy.tools.sql.statements import Dialect, Statement

try:
    import psycopg
except ImportError:  # an extra; `SQL` says so
    psycopg = None  # type: ignore[assignment]

_AGAIN = frozenset({"40001", "40P01", "55P03", "57P01", "57P02", "57P03"})
_OUT_OF_TIME = "57014"
_BEGIN = """
SELECT set_config('statement_timeout', %(ms)s, true),
       set_config('lock_timeout', %(ms)s, true),
       set_config('standard_conforming_strings', 'on', true),
       current_setting('is_superuser')
"""
_SCHEMA = """
SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  AND has_schema_privilege(n.oid, 'USAGE')
  AND has_column_privilege(c.oid, a.attnum, 'SELECT')
ORDER BY 1, 2, a.attnum
"""


def there() -> bool:
    """Whether psycopg is installed."""
    return psycopg is not None


@dataclass(frozen=True)
class Postgres:
    """A database of a server."""

    url: str
    dialect: Dialect = "postgres"

    def ask(self, statement: Statement, values: Values, bounds: Bounds) -> Rows:
        """As `Driver` says."""
        bound = {name: _bound(value) for name, value in values.items()}
        text = statement.for_psycopg() if bound else statement.text()
        with self._begun(bounds) as connection:
            if bounds.writes:
                return _changed(connection, text, bound, bounds)
            with connection.cursor(name="roadworthy") as cursor:
                cursor.execute(text, bound or None)
                found = cursor.fetchmany(bounds.rows + 1)
                columns = [each.name for each in cursor.description or ()]
        return Rows(columns=columns, rows=found[: bounds.rows], more=len(found) > bounds.rows)

    def schema(self, bounds: Bounds) -> Mapping[str, Sequence[str]]:
        """As `Driver` says."""
        found: dict[str, list[str]] = {}
        with self._begun(bounds) as connection:
            for schema, table, column, kind in connection.execute(_SCHEMA):
                name = table if schema == "public" else f"{schema}.{table}"
                found.setdefault(name, []).append(f"{column} {kind}")
        if bounds.tables is not None:
            beyond = [name for name in found if name.lower() not in bounds.tables]
            if beyond:
                raise ConfigurationError(
                    f"The role of the URL may also read {', '.join(beyond[:5])}, which tables= "
                    "does not name. On Postgres the privileges decide: REVOKE them from the role, "
                    "or give another one."
                )
        return found

    @contextmanager
    def _begun(self, bounds: Bounds) -> Iterator[psycopg.Connection[Any]]:
        """A connection in its transaction, which is rolled back unless it was committed."""
        try:
            connection = psycopg.connect(self.url, connect_timeout=10)
        except (psycopg.Error, UnicodeError) as error:
            raise NotApplied(f"The database cannot be reached: {_said(error)}") from error
        try:
            connection.read_only = not bounds.writes
            with _told(bounds):
                settings = connection.execute(_BEGIN, {"ms": str(int(bounds.seconds * 1000) or 1)})
                *_, superuser = settings.fetchone() or ("",)
                if bounds.free and superuser == "on":
                    raise ConfigurationError(
                        "The role of the URL is a superuser, who can read files and run programs. "
                        "Give SqlTables a role that may only read what a model may see."
                    )
                yield connection
        finally:
            connection.close()


def _changed(connection: psycopg.Connection[Any], text: str, bound: Values, bounds: Bounds) -> Rows:
    cursor = connection.execute(text, bound or None, prepare=True)
    found = cursor.fetchmany(bounds.rows + 1) if cursor.description else []
    columns = [each.name for each in cursor.description or ()]
    changed = cursor.rowcount
    try:
        connection.commit()
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise RuntimeError(f"whether it was committed is not known: {_said(error)}") from error
        raise
    more = len(found) > bounds.rows
    return Rows(columns=columns, rows=found[: bounds.rows], more=more, changed=changed)


@contextmanager
def _told(bounds: Bounds) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate == _OUT_OF_TIME:
            raise ToolError(
                f"It took over {bounds.seconds:g} s and was stopped. Ask for less."
            ) from error
        lost = error.sqlstate is None and isinstance(error, psycopg.OperationalError)
        if lost or error.sqlstate in _AGAIN:
            raise NotApplied(f"The database gave up: {_said(error)}") from error
        raise ToolError(f"The database refused it: {_said(error)}") from error
    except (OverflowError, UnicodeError, ValueError) as error:
        raise ToolError(f"A value does not fit: {error}") from error


def _said(error: Exception) -> str:
    diagnosis = getattr(error, "diag", None)
    return str((diagnosis and diagnosis.message_primary) or error).partition("\n")[0][:300]


def _bound(value: object) -> object:
    """A value of JSON as one of Postgres; objects go as JSON text."""
    return json.dumps(value, default=str) if isinstance(value, dict) else value

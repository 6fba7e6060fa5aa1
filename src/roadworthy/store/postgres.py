"""The store on a Postgres server: any number of processes and machines.

Made by `opening`. Invariant: a batch locks the rows of its runs before anything else and is
repeated whole when it collided with another; a COMMIT of unknown outcome is asked after, never
guessed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, LiteralString, TypeVar

import psycopg
from psycopg import errors
from psycopg_pool import ConnectionPool, PoolTimeout
from sqlalchemy import Text, any_, bindparam, false, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from roadworthy.clock import MICROS
from roadworthy.errors import (
    RoadworthyError,
    RunError,
    StoreError,
    StoreUnavailable,
    StoreVersionError,
)
from roadworthy.store import schema
from roadworthy.store.database import Database, Form, Statement, Tx

T = TypeVar("T")

CHANNEL = "roadworthy"
CONNECT_SECONDS = 10
READERS = 4  # a process; with the writer and the listener, fourteen processes fit 100 connections
_MIGRATING = 727_315  # the advisory lock of a migration
_LINE = 727_316  # the advisory lock of `line_up`
_ASK_SECONDS = 0.1
# A process that is stopped in the middle of a transaction must let go of the rows others wait for.
_IDLE: LiteralString = "SET idle_in_transaction_session_timeout = '5s'"
_LOST = ("57P", "08")  # states of a server that goes down; None: found by the driver itself
_EPOCHS = Statement(
    select(schema.run.c.id, schema.run.c.epoch)
    .where(schema.run.c.id == any_(bindparam("ids", type_=postgresql.ARRAY(Text))))
    .order_by(schema.run.c.id)
    .with_for_update()
)
_MEND: tuple[tuple[type[Exception], str], ...] = (
    (errors.DiskFull, "Its disk is full. Free space; outcomes in hand are kept and written then."),
    (errors.InvalidPassword, "Check the user and password of the URL."),
    (errors.InvalidCatalogName, "Make the database first: createdb."),
    (errors.InsufficientPrivilege, "The user lacks a right. Make it the owner of the database."),
    (errors.TooManyConnections, "The server takes no more connections; raise max_connections."),
    (errors.ReadOnlySqlTransaction, "This server is a read-only copy. Use the primary's address."),
    (psycopg.OperationalError, "Check that the server runs and that the URL is right."),
)


class PostgresDatabase(Database):
    """A Postgres database opened for one process."""

    hears_only_others = True
    engine = "postgresql+psycopg://"
    dialect = PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]
    errors: ClassVar = (psycopg.Error, PoolTimeout)
    unit_errors: ClassVar = (psycopg.IntegrityError, psycopg.DataError)

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._open: list[psycopg.Connection[Any]] = []
        self._lock = threading.Lock()
        self._life = 0  # raised by `close`
        self._pool = self._new_pool()

    def _new_pool(self) -> ConnectionPool[psycopg.Connection[Any]]:
        return ConnectionPool(
            self.url,
            min_size=0,
            max_size=READERS,
            open=False,
            timeout=CONNECT_SECONDS,
            kwargs={"autocommit": True, "connect_timeout": CONNECT_SECONDS},
        )

    def prepare(self, statement: Statement) -> Form:
        """Our upserts are SQLite's construct; Postgres' compiler asks it one thing more."""
        conflict = getattr(statement.clause, "_post_values_clause", None)
        if conflict is not None and not hasattr(conflict, "constraint_target"):
            conflict.constraint_target = None  # no constraint is named, only columns
        return super().prepare(statement)

    def connect(self) -> psycopg.Connection[Any]:
        """A new connection in autocommit mode."""
        with self.guarded():
            connection = psycopg.connect(
                self.url,
                autocommit=True,
                prepare_threshold=2,
                connect_timeout=CONNECT_SECONDS,
                application_name="roadworthy",
            )
            try:
                connection.execute(_IDLE)
            except BaseException:
                connection.close()
                raise
        with self._lock:
            self._open = [known for known in self._open if not known.closed]
            self._open.append(connection)
        return connection

    def read(self, query: Callable[[Tx], T]) -> T:
        """Run a query in one snapshot, on a pooled connection."""
        with self.guarded():
            for _ in range(READERS):  # a server that came back finds them all cut off
                try:
                    return self._read(query)
                except psycopg.OperationalError as error:
                    if not _is_lost(error):
                        raise
            return self._read(query)

    def _read(self, query: Callable[[Tx], T]) -> T:
        if self._pool.closed:
            self._pool.open()
        with self._pool.connection() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                return query(Tx(self, connection))
            finally:
                if not connection.closed:
                    connection.rollback()

    def translated(self, error: Exception) -> RoadworthyError:
        """Postgres' words, and what to do."""
        if isinstance(error, psycopg.DataError):
            return RunError(f"Postgres cannot store this: {error}")
        if isinstance(error, errors.UndefinedTable | errors.UndefinedColumn):
            return StoreVersionError(f"The store has another schema: {error}")
        mend = next((mend for kind, mend in _MEND if isinstance(error, kind)), "")
        said = str(error).strip() or type(error).__name__
        return StoreUnavailable(f"The store failed: {said}. {mend}".strip())

    def begin(self, tx: Tx) -> None:
        """Open a transaction and learn its name."""
        cursor = tx.control("BEGIN; SELECT pg_current_xact_id()::text")
        cursor.nextset()
        tx.name = cursor.fetchone()[0]
        tx.begun()

    def commit(self, tx: Tx) -> None:
        """Commit; other processes hear of runs, waits and commands that changed."""
        cursor = tx.control(f"NOTIFY {CHANNEL}; COMMIT" if tx.told else "COMMIT")
        if tx.told:
            cursor.nextset()
        if cursor.statusmessage != "COMMIT":  # so Postgres answers where something had failed
            raise errors.InFailedSqlTransaction(f"COMMIT came to {cursor.statusmessage}")

    def line_up(self, tx: Tx) -> None:
        """An advisory lock; its holder never waits for the rows behind it."""
        tx.control(f"SELECT pg_advisory_xact_lock({_LINE})")

    def epochs(self, tx: Tx, run_ids: Sequence[str]) -> dict[str, int]:
        """Rows are locked in the order of their ids, so that batches do not lock crosswise."""
        ids: Any = list(run_ids)
        return {row[0]: row[1] for row in tx.rows(_EPOCHS, ids=ids)}

    def foreign(self, tx: Tx) -> int:
        """Notifications tell others' commits from ours by themselves."""
        del tx
        return 0

    def committed(self, tx: Tx) -> bool:
        """Asks the server what became of the transaction, on a new connection."""
        self.renew(tx)
        while True:
            status = tx.value(f"SELECT pg_xact_status('{tx.name}'::xid8)")
            if status != "in progress":
                return bool(status == "committed")
            time.sleep(_ASK_SECONDS)  # the server has not noticed yet that we were cut off

    def collided(self, error: Exception) -> bool:
        """A deadlock, a snapshot that could not be kept, or a connection that was lost."""
        if isinstance(error, errors.DeadlockDetected | errors.SerializationFailure):
            return True
        return isinstance(error, psycopg.OperationalError) and _is_lost(error)

    def many(self, connection: Any, sql: str, rows: Iterable[Sequence[Any]]) -> None:  # noqa: ANN401
        """All rows in one pipeline."""
        with connection.cursor() as cursor:
            cursor.executemany(sql, rows)

    def renew(self, tx: Tx) -> None:
        """Undo what is open; connect anew where the connection was lost."""
        tx.forget()
        tx.told = False
        connection = tx.connection
        if not connection.closed:
            try:
                connection.rollback()
            except psycopg.Error:
                connection.close()
        if connection.closed:
            tx.connection = self.connect()

    def watch(self) -> Callable[[], bool]:
        """LISTEN on a connection of its own; what our own connections said is not heard."""
        connection, life = self._listening(), self._life
        mending: threading.Thread | None = None

        def mend() -> None:
            nonlocal connection
            time.sleep(_ASK_SECONDS)  # a thread of its own: the event loop goes on
            with contextlib.suppress(StoreError, psycopg.Error):
                made = self._listening()
                if self._life == life:
                    connection = made
                else:
                    made.close()

        def changed() -> bool:
            nonlocal mending
            if mending is not None:
                if mending.is_alive():
                    return False
                mending = None
                return True  # whatever was said meanwhile
            try:
                told = list(connection.notifies(timeout=0))
            except psycopg.OperationalError:
                mending = threading.Thread(target=mend, name="roadworthy-listener", daemon=True)
                mending.start()
                return False
            ours = {known.info.backend_pid for known in tuple(self._open) if not known.closed}
            return any(one.pid not in ours for one in told)

        return changed

    def _listening(self) -> psycopg.Connection[Any]:
        connection = self.connect()
        with self.guarded():
            connection.execute(f"LISTEN {CHANNEL}")
        return connection

    def clock_apart(self, now: int) -> float:
        """By the server's clock, half the way there and back not counted."""

        def ask(tx: Tx) -> float:
            return now / MICROS - float(tx.value("SELECT extract(epoch FROM clock_timestamp())"))

        return self.read(ask)

    def version(self, connection: Any) -> str | None:  # noqa: ANN401 - as declared
        """Which schema the database has."""
        if connection.execute("SELECT to_regclass('alembic_version')").fetchone()[0] is None:
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else None

    def alone(self, connection: Any) -> None:  # noqa: ANN401 - as declared
        """One migration at a time; its lock ends with its transaction."""
        connection.autocommit = False
        connection.execute(f"SELECT pg_advisory_xact_lock({_MIGRATING})")

    def count_on(self, tx: Tx) -> None:
        """The sequences of numbered rows."""
        for table in schema.metadata.sorted_tables:
            column = table.autoincrement_column
            if column is not None:
                sequence = func.pg_get_serial_sequence(table.name, column.name)
                following = func.coalesce(func.max(column), 0) + 1
                tx.rows(Statement(select(func.setval(sequence, following, false()))))

    def exists(self) -> bool:
        """A database is made by its administrator; opening one that is not there fails."""
        return True

    def close(self) -> None:
        """Close every connection of this process."""
        self._life += 1
        self._pool.close()
        self._pool = self._new_pool()  # a runtime may be opened again
        with self._lock:
            while self._open:
                self._open.pop().close()


def _is_lost(error: psycopg.OperationalError) -> bool:
    """Whether the connection went, and not only what was asked."""
    return error.sqlstate is None or error.sqlstate.startswith(_LOST)

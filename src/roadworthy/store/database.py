"""The door to the database: prepared Core statements, transactions, and what a database must do.

Used by the journal's writer and by readers; `sqlite` and `postgres` beside it fill it in.
Invariant: every write goes through `Tx` inside a transaction the journal opened; reads see
committed rows only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, ClassVar, LiteralString, NamedTuple, TypeAlias, TypeVar

from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.util import find_tables

from roadworthy.errors import RoadworthyError
from roadworthy.events import RunEvent

T = TypeVar("T")
Row = tuple[Any, ...]
Value: TypeAlias = str | int | bytes | float | None

_TOLD = {"run", "wait", "command"}
_ADDED = {"event", "payload"}  # rows of these are gathered and written at the end of a batch


class Form(NamedTuple):
    """A statement as one database takes it. arrange: values by name -> parameters in order."""

    sql: str
    constants: Mapping[str, Any]
    arrange: Callable[[Mapping[str, Any]], Sequence[Any]]
    reads_added: bool
    tells: bool  # changes what other processes look for


class Statement:
    """A Core statement, compiled once per database: a tenth of what `Connection.execute` costs.

    settled: it need not see what was added in this batch; so nothing is flushed before it.
    """

    __slots__ = ("clause", "columns", "settled")

    def __init__(
        self, clause: ClauseElement, columns: Sequence[str] | None = None, *, settled: bool = False
    ) -> None:
        self.clause, self.columns, self.settled = clause, columns, settled

    def form(self, dialect: Any) -> Form:  # noqa: ANN401 - SQLAlchemy's dialects have no common type
        """Compiled for a dialect with positional parameters."""
        compiled = self.clause.compile(dialect=dialect, column_keys=self.columns)
        names = list(getattr(compiled, "positiontup", None) or ())
        binds = getattr(compiled, "binds", {})
        constants = {n: v for n, v in compiled.params.items() if not binds[n].required}
        tables = {t.name for t in find_tables(self.clause, include_joins=True, include_crud=True)}
        changed = getattr(self.clause, "table", None)
        tells = isinstance(self.clause, UpdateBase) and getattr(changed, "name", "") in _TOLD
        reads = bool(tables & _ADDED) and not self.settled
        return Form(str(compiled), constants, _arranger(names), reads, tells)


def _arranger(names: Sequence[str]) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    if not names:
        return lambda _: ()
    first = names[0]
    return (lambda values: (values[first],)) if len(names) == 1 else itemgetter(*names)


class Tx:
    """One open transaction (or read snapshot). `emit` adds events to the unit being applied."""

    def __init__(self, database: Database, connection: Any) -> None:  # noqa: ANN401 - a driver's
        self._database = database
        self.connection = connection
        self.name = ""  # the database's own, where it has one
        self.told = False  # whether other processes should look
        self._in_line = False
        self._forms = database.forms
        self._added: dict[Statement, list[Sequence[Any]]] = {}
        self.emitted: list[RunEvent] = []

    def run(self, statement: Statement, **values: Value) -> int:
        """Execute a change. Returns the number of rows touched."""
        rowcount: int = self._execute(statement, values).rowcount
        return rowcount

    def rows(self, statement: Statement, **values: Value) -> list[Row]:
        """Execute a query (or a change with RETURNING)."""
        found: list[Row] = self._execute(statement, values).fetchall()
        return found

    def one(self, statement: Statement, **values: Value) -> Row | None:
        """The first row, or None."""
        row: Row | None = self._execute(statement, values).fetchone()
        return row

    def add(self, statement: Statement, **values: Value) -> None:
        """Insert a row at the end of the batch, or before the next query that could see it."""
        form = self._forms.get(statement) or self._database.prepare(statement)
        self._added.setdefault(statement, []).append(form.arrange(values))

    def flush(self) -> None:
        """Write what was added."""
        if self._added:
            added, self._added = self._added, {}
            for statement, rows in added.items():
                self._database.many(self.connection, self._forms[statement].sql, rows)

    def forget(self) -> None:
        """Drop what was added: the transaction was undone."""
        self._added.clear()
        self._in_line = False

    def line_up(self) -> None:
        """Be the only one past this point until the commit.

        For rows that many units change in any order: waiting here costs less than colliding.
        """
        if not self._in_line:
            self._database.line_up(self)
            self._in_line = True

    def begun(self) -> None:
        """A new transaction holds nothing."""
        self.told = self._in_line = False

    def emit(self, event: RunEvent) -> None:
        """Journal this event with the unit."""
        self.emitted.append(event)

    def control(self, sql: LiteralString) -> Any:  # noqa: ANN401 - a driver's cursor
        """COMMIT, SAVEPOINT and the like. Never values."""
        return self.connection.execute(sql)

    def value(self, sql: str) -> Any:  # noqa: ANN401 - a driver's
        """The one value of a query without parameters that only one database has."""
        return self.connection.execute(sql).fetchone()[0]

    def _execute(self, statement: Statement, values: dict[str, Value]) -> Any:  # noqa: ANN401 - as above
        form = self._forms.get(statement) or self._database.prepare(statement)
        if self._added and form.reads_added:
            self.flush()
        if form.constants:
            values = {**form.constants, **values}
        self.told = self.told or form.tells
        return self.connection.execute(form.sql, form.arrange(values))


class Database(ABC):
    """A store opened for one process. Made by `opening`; no I/O before `connect` or `read`."""

    dialect: Any
    engine: ClassVar[str]  # SQLAlchemy's name of it, for migrations
    errors: ClassVar[tuple[type[Exception], ...]]  # what the driver raises
    hears_only_others: ClassVar[bool] = False  # whether `watch` leaves our own commits out
    unit_errors: ClassVar[
        tuple[type[Exception], ...]
    ]  # those of them that are one unit's own fault

    def __init__(self, url: str) -> None:
        self.url = url
        self.forms: dict[Statement, Form] = {}

    def prepare(self, statement: Statement) -> Form:
        """Compile a statement, once."""
        form = self.forms[statement] = statement.form(self.dialect)
        return form

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn the driver's errors into ours, with what to do."""
        try:
            yield
        except self.errors as error:
            raise self.translated(error) from error

    @abstractmethod
    def connect(self) -> Any:  # noqa: ANN401 - a driver's connection
        """A new connection in autocommit mode. Raises: StoreUnavailable."""

    @abstractmethod
    def read(self, query: Callable[[Tx], T]) -> T:
        """Run a query in one snapshot of committed rows."""

    @abstractmethod
    def translated(self, error: Exception) -> RoadworthyError:
        """A driver's error as ours, with what to do."""

    @abstractmethod
    def begin(self, tx: Tx) -> None:
        """Open a transaction that writes."""

    def commit(self, tx: Tx) -> None:
        """Make it durable."""
        tx.control("COMMIT")

    @abstractmethod
    def line_up(self, tx: Tx) -> None:
        """Wait until no other transaction that did this is open."""

    @abstractmethod
    def epochs(self, tx: Tx, run_ids: Sequence[str]) -> dict[str, int]:
        """The epochs of these runs (those that exist), their rows locked until the commit."""

    @abstractmethod
    def foreign(self, tx: Tx) -> int:
        """In the writer's transaction: a number that other processes' commits change."""

    @abstractmethod
    def committed(self, tx: Tx) -> bool:
        """After a COMMIT that failed: whether it took place all the same."""

    @abstractmethod
    def collided(self, error: Exception) -> bool:
        """Whether the transaction is to be repeated: it got into another's way, or its connection
        was lost."""

    @abstractmethod
    def many(self, connection: Any, sql: str, rows: Iterable[Sequence[Any]]) -> None:  # noqa: ANN401
        """Execute a change for each row of parameters."""

    @abstractmethod
    def renew(self, tx: Tx) -> None:
        """After a failure: undo what is open, connect anew where the connection was lost."""

    @abstractmethod
    def watch(self) -> Callable[[], bool]:
        """A function that tells, at once, whether somebody committed since it was asked."""

    def clock_apart(self, now: int) -> float:
        """Seconds that a time (microseconds UTC) is ahead of the store's own clock."""
        del now
        return 0.0

    @abstractmethod
    def version(self, connection: Any) -> str | None:  # noqa: ANN401 - a driver's connection
        """Which schema the store has; None for an empty one."""

    @abstractmethod
    def alone(self, connection: Any) -> None:  # noqa: ANN401 - a driver's connection
        """In an open connection of a migration: wait until nobody else migrates."""

    @abstractmethod
    def count_on(self, tx: Tx) -> None:
        """After rows that brought their numbers along: new ones go on behind them."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is something at this address; nothing is made by asking."""

    @abstractmethod
    def close(self) -> None:
        """Close every connection of this process."""


__all__ = ["Database", "Form", "Row", "Statement", "Tx", "Value", "upsert"]

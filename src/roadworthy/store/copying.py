"""A store moves to another database, row by row, and is compared there.

Called by `roadworthy store copy`. Invariant: how far it came is read from the target, so it goes on
after a kill anywhere; nothing executes runs of either store until the target equals the source.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

from sqlalchemy import Table, bindparam, delete, func, insert, select, tuple_

from roadworthy.errors import ConfigurationError, StoreUnavailable, StoreVersionError
from roadworthy.store import migrations, schema
from roadworthy.store.database import Database, Row, Statement, Tx, upsert
from roadworthy.store.ownership import (
    COPYING,
    RENEW_SECONDS,
    Owner,
    holder_of,
    leave,
    take,
    this_process,
)

TABLES: Sequence[Table] = tuple(t for t in schema.metadata.sorted_tables if t.name != "owner")
_MOST_ROWS, _LEAST_BYTES = 500, 4_000_000  # a page has at most so many rows, and about so much
_MOST_ROUNDS = 3
_FOR_EVER = 2**62
_CLEAR = {table.name: Statement(delete(table)) for table in TABLES}
_COUNT = {table.name: Statement(select(func.count()).select_from(table)) for table in TABLES}
_ADD = {  # a row that is there already is compared like all others
    table.name: Statement(upsert(table).on_conflict_do_nothing()) for table in TABLES
}
_HOLD = Statement(insert(schema.owner))

Tell = Callable[[str], None]
"""Told one line of progress at a time."""


class Digest(NamedTuple):
    """What a table holds: how many rows, and a hash of them in whatever order."""

    rows: int
    hash: str


@dataclass(frozen=True)
class Copied:
    """What was copied and found equal, by table."""

    tables: Mapping[str, Digest]


def copy_store(source: Database, target: Database, tell: Tell = lambda _: None) -> Copied:
    """Copy everything of a store into an empty one, or go on where an earlier copy was cut off.

    The source is left as it is. Raises: ConfigurationError: there is no source, the target holds
    something else, or somebody uses either. StoreVersionError: the source has another schema.
    StoreUnavailable: a store fails, or the source went on changing.
    """
    if source.url == target.url:
        raise ConfigurationError("Source and target are the same store.")
    with _opened(source), _opened(target):
        _check_source(source)
        migrations.upgrade(target)
        into = Tx(target, target.connect())
        with _reserved(source) as still_ours:
            name = f"copy of {hashlib.sha256(source.url.encode()).hexdigest()[:16]}"
            _mark(target, into, name)

            def step(line: str) -> None:
                still_ours()
                if line:
                    tell(line)

            found = _equal(source, target, into, step)
            _finish(target, into, name)
        return Copied(found)


@contextmanager
def _opened(database: Database) -> Iterator[None]:
    try:
        with database.guarded():
            yield
    finally:
        database.close()


def _check_source(source: Database) -> None:
    if not source.exists():
        raise ConfigurationError(f"There is no store at {source.url}.")
    version = source.version(source.connect())
    if version is None:
        raise ConfigurationError(f"There is no store at {source.url}: it has no tables.")
    if version != migrations.HEAD:
        raise StoreVersionError(
            f"The source has schema {version}, this release knows {migrations.HEAD}. Open it once "
            "with this release, or upgrade roadworthy."
        )


# --- nobody else -----------------------------------------------------------------------------


@contextmanager
def _reserved(source: Database) -> Iterator[Callable[[], None]]:
    """Hold the source's lease. Yields a function that keeps it, called at every step.

    Raises: ConfigurationError: a living process executes its runs.
    """
    tx, me = Tx(source, source.connect()), this_process("store copy")
    renewed = 0.0

    def still_ours() -> None:
        nonlocal renewed
        if time.monotonic() - renewed < RENEW_SECONDS:
            return
        renewed = time.monotonic()
        if not _written(source, tx, lambda: take(tx, me, time.time_ns() // 1000)):
            raise ConfigurationError(_in_use("source", tx))

    still_ours()
    try:
        yield still_ours
    finally:
        _written(source, tx, lambda: leave(tx, me))


def _mark(target: Database, into: Tx, name: str) -> None:
    """The target is a copy under way: no process executes its runs until it is whole.

    Raises: ConfigurationError: it holds something else, or somebody uses it.
    """

    def mark() -> None:
        holder = holder_of(into)
        if holder is not None and holder[0] == name:
            return
        if holder is not None:
            raise ConfigurationError(_in_use("target", into))
        full = [t.name for t in TABLES if into.rows(_COUNT[t.name])[0][0]]
        if full:
            raise ConfigurationError(
                f"The target is not empty: it has rows in {', '.join(full)}. Give a new database."
            )
        into.run(_HOLD, id=1, holder=name, boot=COPYING, pid=0, epoch=1, expires=_FOR_EVER)

    _written(target, into, mark)


def _in_use(which: str, tx: Tx) -> str:
    holder = holder_of(tx)
    if holder is None or holder[1] == 0:
        return f"The {which} holds an unfinished copy of another store. Give another database."
    return (
        f"The {which} is in use by process {holder[1]}. Stop it first; what ends without a word "
        "is forgotten after some seconds."
    )


def _finish(target: Database, into: Tx, name: str) -> None:
    """Open the target to processes."""

    def finish() -> None:
        target.count_on(into)
        leave(into, Owner(holder=name, boot=COPYING, pid=0))

    _written(target, into, finish)


# --- copying and comparing -------------------------------------------------------------------


def _equal(source: Database, target: Database, into: Tx, tell: Tell) -> Mapping[str, Digest]:
    """Copy until both hold the same; what the source changed meanwhile is copied anew."""
    wrong: Sequence[Table] = TABLES
    for _ in range(_MOST_ROUNDS):
        for table in wrong:
            source.read(partial(_copy, target, into, table, tell))
        tell("comparing")
        theirs = source.read(lambda tx: _digests(tx, tell))
        ours = target.read(lambda tx: _digests(tx, tell))
        wrong = [table for table in TABLES if theirs[table.name] != ours[table.name]]
        if not wrong:
            return ours
        for table in wrong:
            tell(f"{table.name}: differs, it is copied again")
            _written(target, into, partial(into.run, _CLEAR[table.name]))
    raise StoreUnavailable(
        "The source changes while it is copied. Stop whoever uses it and call this again."
    )


def copy_rows(tx: Tx, target: Database, into: Tx, tell: Tell = lambda _: None) -> None:
    """Everything that one snapshot of a store shows, into an empty target that has the schema."""
    for table in TABLES:
        _copy(target, into, table, tell, tx)
    _written(target, into, lambda: target.count_on(into))


def _copy(target: Database, into: Tx, table: Table, tell: Tell, tx: Tx) -> None:
    """One table from where the target stands. Each page is one transaction."""
    total = tx.rows(_COUNT[table.name])[0][0]
    done = target.read(lambda there: there.rows(_COUNT[table.name])[0][0])
    names = [column.name for column in table.columns]
    for page in _pages(tx, table, min(done, total)):

        def add(page: Sequence[Row] = page) -> None:
            for row in page:
                into.add(_ADD[table.name], **dict(zip(names, row, strict=True)))

        _written(target, into, add)
        done += len(page)
        tell(f"{table.name}: {done:,} of {total:,}")


def _digests(tx: Tx, tell: Tell) -> dict[str, Digest]:
    """Of all tables, in one snapshot."""
    return {table.name: _digest(tx, table, tell) for table in TABLES}


def _digest(tx: Tx, table: Table, tell: Tell) -> Digest:
    """The hashes of its rows, added up: databases sort texts differently."""
    total = number = 0
    for page in _pages(tx, table, 0):
        for row in page:
            total += int.from_bytes(hashlib.sha256(repr(tuple(row)).encode()).digest())
        number += len(page)
        tell("")
    return Digest(number, f"{total % 2**256:064x}")


def _pages(tx: Tx, table: Table, skipped: int) -> Iterator[Sequence[Row]]:
    """A table's rows in the order of its key, without the first ones."""
    keys = [list(table.columns).index(column) for column in table.primary_key]
    most = 16
    page = tx.rows(_first(table), most=most, skipped=skipped)
    while page:
        yield page
        size = sum(len(value) for row in page for value in row if isinstance(value, str | bytes))
        most = min(_MOST_ROWS, most * 2) if size < _LEAST_BYTES else max(1, most // 4)
        last = {f"k{place}": page[-1][index] for place, index in enumerate(keys)}
        page = tx.rows(_next(table), most=most, **last)


@cache
def _first(table: Table) -> Statement:
    rows = select(*table.columns).order_by(*table.primary_key)
    return Statement(rows.limit(bindparam("most")).offset(bindparam("skipped")))


@cache
def _next(table: Table) -> Statement:
    key = [*table.primary_key]
    last = [bindparam(f"k{place}", type_=column.type) for place, column in enumerate(key)]
    behind = tuple_(*key) > tuple_(*last) if len(key) > 1 else key[0] > last[0]
    rows = select(*table.columns).where(behind).order_by(*key)
    return Statement(rows.limit(bindparam("most")))


def _written(database: Database, tx: Tx, change: Callable[[], object]) -> object:
    """Make a change in a transaction of its own; all of it or nothing."""
    database.begin(tx)
    try:
        done = change()
        tx.flush()
        database.commit(tx)
    except BaseException:
        database.renew(tx)
        raise
    return done

"""The journal's writer: units from all runs, in order, many in one durable transaction.

`Run` and the runtime submit; one thread per process commits. Invariant: an acknowledgement is
given only after COMMIT, and a unit of a run whose epoch has moved on writes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from msgspec.structs import replace
from sqlalchemy import bindparam, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from roadworthy.clock import Clock
from roadworthy.errors import Fenced, RunError, StoreError, StoreUnavailable
from roadworthy.events import RunEvent
from roadworthy.run import Position, Refusal, Unit
from roadworthy.store import schema
from roadworthy.store.codec import EventRow, Seal, encode
from roadworthy.store.database import Database, Statement, Tx, guarded

T = TypeVar("T")
log = logging.getLogger("roadworthy.store")

_EPOCH = Statement(select(schema.run.c.epoch).where(schema.run.c.id == bindparam("run_id")))
_ADD_EVENT = Statement(insert(schema.event))
_ADD_PAYLOAD = Statement(upsert(schema.payload).on_conflict_do_nothing())
_MOST_UNITS = 512
_RETRY_SECONDS = 0.2


@dataclass(slots=True)
class _Entry:
    unit: Unit[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None
    written: list[tuple[int, int, RunEvent]] = field(default_factory=list)


Publish = Callable[[str, RunEvent], None]


class Journal:
    """Group commit. Make and close it on the event loop it serves."""

    def __init__(self, database: Database, clock: Clock, publish: Publish) -> None:
        self._clock = clock
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._tx = Tx(database.connect())
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self.trouble: str | None = None
        self.on_trouble: Callable[[], None] | None = None  # called on the loop when it begins
        self._thread = threading.Thread(target=self._work, name="roadworthy-writer", daemon=True)
        self._thread.start()

    def post(self, unit: Unit[T]) -> asyncio.Future[T]:
        """Queue a unit; the future gives its result (or `Refusal`) once it is durable.

        Its error: Fenced, StoreUnavailable, or what `apply` raised; then nothing was written.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closing.is_set():
            future.set_exception(StoreUnavailable("The runtime is closed."))
        else:
            self._queue.put(_Entry(unit, future))
        return future

    async def commit(self, unit: Unit[T]) -> T | Refusal:
        """`post`, and wait until it is durable. A cancelled caller does not undo the unit."""
        return await self.post(unit)

    async def close(self) -> None:
        """Commit what is queued, then stop the writer."""
        self._closing.set()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- the writer's thread -------------------------------------------------------------

    def _work(self) -> None:
        kept: list[_Entry] = []
        ended = False
        while not (ended and not kept):
            entries = kept
            ended = self._gather(entries) or ended
            kept = self._commit(entries) if entries else []
            if ended and kept:  # the process is ending and the store is still in trouble
                self._answer([_fail(e, StoreUnavailable(self.trouble or "")) for e in kept])
                return

    def _gather(self, entries: list[_Entry]) -> bool:
        """Take what is queued; wait only when there is nothing to do. True: close was asked."""
        with contextlib.suppress(queue.Empty):
            while len(entries) < _MOST_UNITS:
                entry = self._queue.get(block=not entries)
                if entry is None:
                    return True
                entries.append(entry)
        return False

    def _commit(self, entries: list[_Entry]) -> list[_Entry]:
        """One transaction. Returns the entries that must be tried again."""
        tx = self._tx
        places = {id(p): p.next_seq for e in entries if (p := e.unit.position)}
        try:
            with guarded():
                tx.control("BEGIN IMMEDIATE")
                epochs: dict[str, int | None] = {}
                for entry in entries:
                    self._apply(entry, epochs, alone=len(entries) == 1)
                tx.control("COMMIT")
        except StoreError as error:
            return self._failed(entries, places, error)
        self.trouble = None
        self._answer(entries)
        return []

    def _apply(self, entry: _Entry, epochs: dict[str, int | None], *, alone: bool) -> None:
        """One unit; when it refuses or fails only it is undone (alone: its transaction)."""
        tx = self._tx
        unit, position = entry.unit, entry.unit.position
        entry.result = entry.error = None
        entry.written.clear()
        if position is not None and self._fenced(tx, position, epochs):
            entry.error = Fenced(f"Run {position.run_id} was taken over by another process.")
            return
        if not alone:
            tx.control("SAVEPOINT unit")
        try:
            tx.emitted = []
            if unit.apply is not None:
                entry.result = unit.apply(tx)
            refusal = entry.result if isinstance(entry.result, Refusal) else None
            if refusal is not None:
                self._undo(alone=alone)
            events = [*unit.events, *tx.emitted] if refusal is None else refusal.events
            if position is not None:
                self._append(tx, entry, position, events)
        except Exception as error:  # border: a unit's bug fails only its unit
            database = isinstance(error, sqlite3.Error)
            if database and not isinstance(error, sqlite3.IntegrityError):
                raise
            self._undo(alone=alone)
            _fail(entry, _named(error))
        if not alone:
            tx.control("RELEASE unit")

    def _undo(self, *, alone: bool) -> None:
        if alone:
            self._tx.control("ROLLBACK")
            self._tx.control("BEGIN IMMEDIATE")
        else:
            self._tx.control("ROLLBACK TO unit")

    def _fenced(self, tx: Tx, position: Position, epochs: dict[str, int | None]) -> bool:
        run_id = position.run_id
        if run_id not in epochs:
            row = tx.one(_EPOCH, run_id=run_id)
            epochs[run_id] = row[0] if row else None
        known = epochs[run_id]
        return known is not None and known != position.epoch

    def _append(
        self, tx: Tx, entry: _Entry, position: Position, events: Sequence[RunEvent]
    ) -> None:
        now, seq = self._clock.now(), position.next_seq
        for event in events:
            payloads: dict[str, bytes] = {}
            row = encode(event, position.seal, payloads)
            add_event(tx, (position.run_id, seq, now), row, payloads)
            entry.written.append((seq, now, event))
            seq += 1
        position.next_seq = seq

    def _failed(
        self, entries: list[_Entry], places: dict[int, int], error: StoreError
    ) -> list[_Entry]:
        with contextlib.suppress(Exception):
            self._tx.control("ROLLBACK")
        for entry in entries:
            if entry.unit.position is not None:
                entry.unit.position.next_seq = places[id(entry.unit.position)]
        begins, self.trouble = self.trouble is None, str(error)
        if begins:
            log.error("the store cannot commit: %s", error)
            if self.on_trouble is not None:
                self._loop.call_soon_threadsafe(self.on_trouble)
        kept, given_up = _parted(entries)
        self._answer([_fail(e, error) for e in given_up])
        if kept:
            time.sleep(_RETRY_SECONDS)  # the writer's own thread, real I/O trouble
        return kept

    def _answer(self, entries: list[_Entry]) -> None:
        if entries:
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
                self._loop.call_soon_threadsafe(self._deliver, entries)

    def _deliver(self, entries: list[_Entry]) -> None:
        for entry in entries:
            if not entry.future.done():
                if entry.error is not None:
                    entry.future.set_exception(entry.error)
                    entry.future.exception()  # noted: whoever waited for it may be gone
                else:
                    entry.future.set_result(entry.result)
            position = entry.unit.position
            if position is not None and entry.error is None:
                for seq, at, event in entry.written:
                    placed = replace(event, run_id=position.run_id, seq=seq, at=at)
                    self._publish(position.run_id, placed)


def add_event(
    tx: Tx, place: tuple[str, int, int], row: EventRow, payloads: dict[str, bytes]
) -> None:
    """Insert an encoded event and its payloads. place: (run_id, seq, at)."""
    for address, data in payloads.items():
        tx.run(_ADD_PAYLOAD, id=address, data=data)
    run_id, seq, at = place
    tx.run(
        _ADD_EVENT,
        run_id=run_id,
        seq=seq,
        at=at,
        type=row.type,
        v=row.v,
        key=row.key,
        body=row.body,
        refs=row.refs,
    )


def append_outside(
    tx: Tx, run_id: str, event: RunEvent, seal: Seal, place: tuple[int, int]
) -> None:
    """Add an event to a run that nobody executes. place: (position, microseconds UTC)."""
    payloads: dict[str, bytes] = {}
    row = encode(event, seal, payloads)
    add_event(tx, (run_id, *place), row, payloads)


def _parted(entries: list[_Entry]) -> tuple[list[_Entry], list[_Entry]]:
    """What is kept, and what is given up: outcomes in hand stay, and what their runs asked after
    them waits behind them."""
    kept: list[_Entry] = []
    given_up: list[_Entry] = []
    runs: set[str] = set()
    for entry in entries:
        position = entry.unit.position
        stays = entry.unit.must or (position is not None and position.run_id in runs)
        (kept if stays else given_up).append(entry)
        if stays and position is not None:
            runs.add(position.run_id)
    return kept, given_up


def _named(error: Exception) -> Exception:
    """Broken Unicode, wherever it came in, is the caller's to mend."""
    if isinstance(error, UnicodeEncodeError):
        return RunError("A text holds half surrogate pairs, which cannot be stored. Clean it.")
    return error


def _fail(entry: _Entry, error: BaseException) -> _Entry:
    entry.error = error
    entry.written.clear()
    return entry

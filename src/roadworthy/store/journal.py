"""The journal's writer: units from all runs, in order, many in one durable transaction.

`Run` and the runtime submit; one thread per process commits. Invariant: an acknowledgement is
given only after COMMIT, and a unit of a run whose epoch has moved on writes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from msgspec.structs import replace
from sqlalchemy import insert

from roadworthy.clock import Clock
from roadworthy.errors import Fenced, RoadworthyError, RunError, StoreError, StoreUnavailable
from roadworthy.events import RunEvent
from roadworthy.run import Position, Refusal, Unit
from roadworthy.store import schema
from roadworthy.store.codec import Seal, encode
from roadworthy.store.database import Database, Statement, Tx
from roadworthy.store.payloads import ADD_PAYLOAD

T = TypeVar("T")
log = logging.getLogger("roadworthy.store")

_ADD_EVENT = Statement(insert(schema.event))
_MOST_UNITS = 512
_MOST_COLLISIONS = 20
_RETRY_SECONDS = 0.2


@dataclass(slots=True)
class _Entry:
    unit: Unit[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None
    written: list[tuple[int, int, RunEvent]] = field(default_factory=list)


class _Blemish(Exception):
    """A unit of the batch refused or failed: it must be undone alone."""


Publish = Callable[[str, RunEvent], None]


class Journal:
    """Group commit. Make and close it on the event loop it serves.

    publish: told of every committed event of a run that `watched` says somebody looks at.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        publish: Publish,
        watched: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._clock = clock
        self._publish = publish
        self._watched = watched
        self._loop = asyncio.get_running_loop()
        self._database = database
        self._tx = Tx(database, database.connect())
        self._down: tuple[type[Exception], ...] = (StoreError, *database.errors)
        self._posted: list[_Entry] = []  # of this turn of the event loop
        self._queue: queue.SimpleQueue[list[_Entry] | None] = queue.SimpleQueue()
        self.batches = 0
        self.foreign = 0  # changes when another process has committed before one of our batches
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
            self._posted.append(_Entry(unit, future))
            if unit.must:  # an outcome in hand: nothing that blocks the loop may delay it
                self._hand_over()
            elif len(self._posted) == 1:  # waking the writer costs more than many units
                self._loop.call_soon(self._hand_over)
        return future

    def _hand_over(self) -> None:
        posted, self._posted = self._posted, []
        if posted:
            self._queue.put(posted)

    async def commit(self, unit: Unit[T]) -> T | Refusal:
        """`post`, and wait until it is durable. A cancelled caller does not undo the unit."""
        return await self.post(unit)

    async def close(self) -> None:
        """Commit what is queued, then stop the writer."""
        self._closing.set()
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- the writer's thread -------------------------------------------------------------

    def _work(self) -> None:
        kept: list[_Entry] = []
        ended = False
        while not (ended and not kept):
            entries = kept
            ended = self._gather(entries) or ended
            try:
                kept = self._commit(entries) if entries else []
            except Exception as error:  # border: a bug of ours must not end the writer
                log.exception("the writer met a bug; its batch is given up")
                self._undo([])
                kept = []
                self._answer([_fail(e, StoreUnavailable(f"A bug: {error}")) for e in entries])
            if ended and kept:  # the process is ending and the store is still in trouble
                self._answer([_fail(e, StoreUnavailable(self.trouble or "")) for e in kept])
                return

    def _gather(self, entries: list[_Entry]) -> bool:
        """Take what is queued; wait only when there is nothing to do. True: close was asked."""
        taken = 0
        with contextlib.suppress(queue.Empty):
            while taken < _MOST_UNITS:
                posted = self._queue.get(block=not entries)
                if posted is None:
                    return True
                entries += posted
                taken += len(posted)
        return False

    def _commit(self, entries: list[_Entry]) -> list[_Entry]:
        """One transaction. Returns the entries that must be tried again."""
        database = self._database
        places = [(p, p.next_seq) for e in entries if (p := e.unit.position)]
        careful, collisions = False, 0
        while True:
            try:
                self._try(entries, careful=careful)
            except _Blemish:
                careful = True
            except database.errors as error:
                collisions += 1
                again = database.collided(error) and collisions <= _MOST_COLLISIONS
                if not (self._undo(places) and again):
                    return self._failed(entries, database.translated(error))
                continue
            else:
                self.trouble = None
                self._answer(entries)
                return []
            self._undo(places)

    def _try(self, entries: list[_Entry], *, careful: bool) -> None:
        """Apply all and commit. careful: each unit can be undone by itself."""
        tx, database = self._tx, self._database
        database.begin(tx)
        self.batches += 1
        self.foreign = database.foreign(tx)
        runs = {e.unit.position.run_id for e in entries if e.unit.position is not None}
        epochs = database.epochs(tx, sorted(runs)) if runs else {}
        for entry in entries:
            entry.result = entry.error = None
            entry.written.clear()
            position = entry.unit.position
            if (
                position is not None
                and not entry.unit.takes
                and epochs.get(position.run_id, position.epoch) != position.epoch
            ):
                gone = f"Run {position.run_id} was taken over by another process."
                entry.error = Fenced(gone)
            elif careful:
                self._apply_alone(entry)
            else:
                self._apply(entry)
        self._write_added(careful=careful)
        try:
            database.commit(tx)
        except database.errors as error:
            if not self._did_commit(error):
                raise
        tx.told = False

    def _write_added(self, *, careful: bool) -> None:
        """Raises: _Blemish: a unit's row does not go in; which one is found out carefully."""
        try:
            self._tx.flush()
        except Exception as error:  # border: as for a unit
            driver = isinstance(error, self._database.errors)
            if careful or (driver and not isinstance(error, self._database.unit_errors)):
                raise
            raise _Blemish from error

    def _did_commit(self, error: Exception) -> bool:
        """What became of a COMMIT that failed. Nothing else happens until it is known."""
        while True:
            try:
                return self._database.committed(self._tx)
            except self._down:
                self._in_trouble(self._database.translated(error))
                if self._closing.wait(_RETRY_SECONDS):
                    return False

    def _apply(self, entry: _Entry) -> None:
        """One unit. Raises: _Blemish: it refused or failed, what it wrote is to be undone."""
        tx, unit = self._tx, entry.unit
        tx.emitted = []
        try:
            if unit.apply is not None:
                entry.result = unit.apply(tx)
            self._append(entry, (*unit.events, *tx.emitted))
        except self._database.errors as error:
            if isinstance(error, self._database.unit_errors):
                raise _Blemish from error
            raise
        except Exception as error:  # border: a unit's bug fails only its unit
            raise _Blemish from error
        if isinstance(entry.result, Refusal):
            raise _Blemish

    def _apply_alone(self, entry: _Entry) -> None:
        """One unit; when it refuses or fails only it is undone."""
        tx, unit = self._tx, entry.unit
        tx.emitted = []
        tx.control("SAVEPOINT unit")
        place = None if unit.position is None else unit.position.next_seq
        try:
            if unit.apply is not None:
                entry.result = unit.apply(tx)
            events: Sequence[RunEvent] = (*unit.events, *tx.emitted)
            if isinstance(entry.result, Refusal):
                self._forget()
                events = entry.result.events
            self._append(entry, events)
            tx.flush()
        except Exception as error:  # border: a unit's bug fails only its unit
            driver = isinstance(error, self._database.errors)
            if driver and not isinstance(error, self._database.unit_errors):
                raise
            self._forget()
            if unit.position is not None and place is not None:
                unit.position.next_seq = place
            refused = self._database.translated(error) if driver else None
            _fail(entry, refused if isinstance(refused, RunError) else _named(error))
        tx.control("RELEASE unit")

    def _forget(self) -> None:
        self._tx.forget()
        self._tx.control("ROLLBACK TO unit")

    def _undo(self, places: list[tuple[Position, int]]) -> bool:
        """False: the store cannot be reached now."""
        for position, place in reversed(places):  # the first unit of a run knew it first
            position.next_seq = place
        try:
            self._database.renew(self._tx)
        except self._down:
            return False
        return True

    def _append(self, entry: _Entry, events: Sequence[RunEvent]) -> None:
        position = entry.unit.position
        if position is None:
            return
        tx, now, seq = self._tx, self._clock.now(), position.next_seq
        for event in events:
            add_event(tx, event, position.seal, (position.run_id, seq, now))
            entry.written.append((seq, now, event))
            seq += 1
        position.next_seq = seq

    def _failed(self, entries: list[_Entry], error: RoadworthyError) -> list[_Entry]:
        self._in_trouble(error)
        kept, given_up = _parted(entries)
        self._answer([_fail(e, error) for e in given_up])
        if kept:
            time.sleep(_RETRY_SECONDS)  # the writer's own thread, real I/O trouble
        return kept

    def _in_trouble(self, error: RoadworthyError) -> None:
        begins, self.trouble = self.trouble is None, str(error)
        if begins:
            log.error("the store cannot commit: %s", error)
            if self.on_trouble is not None:
                self._loop.call_soon_threadsafe(self.on_trouble)

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
            if entry.written and position is not None and self._watched(position.run_id):
                for seq, at, event in entry.written:
                    placed = replace(event, run_id=position.run_id, seq=seq, at=at)
                    self._publish(position.run_id, placed)


def add_event(tx: Tx, event: RunEvent, seal: Seal, place: tuple[str, int, int]) -> None:
    """Add an event and its payloads. place: (run id, position, microseconds UTC)."""
    payloads: dict[str, bytes] = {}
    row = encode(event, seal, payloads)
    for address, data in payloads.items():
        tx.add(ADD_PAYLOAD, id=address, data=data)
    run_id, seq, at = place
    tx.add(
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

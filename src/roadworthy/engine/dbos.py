"""The engine of many machines: segments of runs as DBOS jobs on Postgres, taken by living workers.

The only file that knows DBOS; the runtime starts it. DBOS says where and when a segment executes,
the journal says what happened: a job's body is one step that returns nothing, may execute again
and must be fenced by the store. Invariant: a job is never lost. Until its body has returned it is
either waiting in its queue or held by a worker whose lease runs, and `_tends` moves it when the
lease ends. Measurements: docs/decisions/0012-dbos-as-dispatcher.md.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from dbos import DBOS, DBOSClient, Serializer
from dbos._error import DBOSException
from dbos._serialization import DefaultSerializer
from dbos._utils import INTERNAL_QUEUE_NAME
from sqlalchemy.exc import SQLAlchemyError

from roadworthy.clock import MICROS, Clock, SystemClock, moment
from roadworthy.engine.jobs import (
    EngineSettings,
    Health,
    Job,
    Queue,
    QueueHealth,
    Tick,
    Worker,
)
from roadworthy.engine.leases import Holder, Leases, Line
from roadworthy.errors import (
    ConfigurationError,
    DeclarationError,
    Fenced,
    StoreError,
    StoreUnavailable,
)

log = logging.getLogger("roadworthy.engine")
T = TypeVar("T")

_NAME = "roadworthy"
_BACKSTOP = 604_800.0  # a body that ignores its interruption for a week ends in ERROR
_INTERRUPTION = 5.0  # seconds an interrupted body has to unwind
_ROUNDS = 60  # every so many beats: orphans, retention, old leases
_BATCH = 1_000
_ENDED = ["SUCCESS", "ERROR", "CANCELLED"]


# --- JSON only -----------------------------------------------------------------------------


class _Json(Serializer):
    """Job arguments are ids: plain JSON. Times and errors are written for people to read."""

    def serialize(self, data: Any) -> str:  # noqa: ANN401 - theirs
        return json.dumps(data, default=_plain)

    def deserialize(cls, serialized_data: str) -> Any:  # noqa: ANN401, N805 - theirs
        return json.loads(serialized_data)

    def name(self) -> str:
        return "roadworthy_json"


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Exception):
        return f"{type(value).__name__}: {value}"
    raise TypeError(f"{type(value).__name__} does not go into a job.")


def _refuse(_self: object, _text: str) -> Any:  # noqa: ANN401 - theirs
    raise TypeError("A pickled row was refused: reading it could execute code.")


# A row names its own deserialiser, so a JSON configuration alone does not protect. What is refused
# must still be able to end as ERROR, hence the writer that writes text.
setattr(DefaultSerializer, "deserialize", _refuse)  # noqa: B010 - a method of theirs
setattr(DefaultSerializer, "serialize", _Json.serialize)  # noqa: B010 - a method of theirs


# --- its log -------------------------------------------------------------------------------

_CONTENTION = re.compile(r"Contention detected in queue thread for (\S+)\. .* to ([\d.]+)\.")


class _Log(logging.Handler):
    """Hands DBOS's records to our logger, quieter, and notes queues that slowed down."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.slowed: dict[str, tuple[float, float]] = {}  # queue: (poll seconds, when)

    def emit(self, record: logging.LogRecord) -> None:
        """Contention stays a warning; other warnings are their housekeeping."""
        text = record.getMessage()
        found = _CONTENTION.search(text)
        if found is not None:
            self.slowed[found[1]] = (float(found[2]), record.created)
        level = record.levelno if found or record.levelno > logging.WARNING else logging.DEBUG
        log.log(level, "dbos: %s", text, exc_info=record.exc_info)


_records = _Log()
_theirs = logging.getLogger("dbos")
_theirs.addHandler(_records)  # before DBOS looks: with a handler there it adds no console
_theirs.propagate = False


# --- what DBOS calls -----------------------------------------------------------------------

_here: DbosEngine | None = None  # DBOS is one object per process, and so are we


def _engine() -> DbosEngine:
    if _here is None:
        raise asyncio.CancelledError  # claimed while closing: nothing is recorded, it moves on
    return _here


@DBOS.step(name="segment", preemptible=True, timeout_seconds=_BACKSTOP)
async def _perform(run_id: str, number: int) -> None:
    await _engine().perform(run_id, number)


@DBOS.workflow(name="segment")
async def _segment(run_id: str, number: int) -> None:
    with _engine().holding(f"{run_id}:{number}"):
        await _perform(run_id, number)


@DBOS.step(name="tick", preemptible=True, timeout_seconds=_BACKSTOP)
async def _fire(schedule: str, at: str, payload: str) -> None:
    tick = Tick(schedule=schedule, at=datetime.fromisoformat(at), payload=payload)
    await _engine().fire(tick)


@DBOS.workflow(name="tick")
async def _tick(at: str, context: list[str]) -> None:
    with _engine().holding(DBOS.workflow_id or ""):
        await _fire(context[0], at, context[1])


async def _no_tick(tick: Tick) -> None:
    log.warning("schedule %s fired and nobody listens", tick.schedule)


# --- the engine ----------------------------------------------------------------------------


class DbosEngine:
    """Enqueues segments and, when it works, executes them by calling `execute(run_id, segment)`.

    `execute` may be called again for a segment that began elsewhere; it raises Fenced when another
    process owns the run, StoreUnavailable to be called again here, and lets only bugs escape
    otherwise. It must bear cancellation: the segment then continues on another worker. `on_tick`
    is called with what `schedule` promised, at least once for each instant.
    """

    def __init__(
        self,
        url: str,
        execute: Callable[[str, int], Awaitable[None]],
        settings: EngineSettings | None = None,
        *,
        on_tick: Callable[[Tick], Awaitable[None]] = _no_tick,
        clock: Clock | None = None,
    ) -> None:
        self._url = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)
        self._execute = execute
        self._on_tick = on_tick
        self._settings = settings or EngineSettings()
        self._clock = clock or SystemClock()
        self._leases = Leases(self._url, self._settings.lease)
        self._facts = Line(self._url, 10.0)  # its own: a long count must not hold up a beat
        self._threads = ThreadPoolExecutor(2, "roadworthy-engine")
        self._client: DBOSClient | None = None
        self._dbos: DBOS | None = None
        self._holder: Holder | None = None
        self._renewed = 0.0
        self._taking = False
        self._held: dict[str, asyncio.Task[Any]] = {}  # from its start until its outcome is written
        self._running: set[str] = set()
        self._aside: set[asyncio.Task[Any]] = set()  # the loops, and what they start
        self.drained = asyncio.Event()

    # --- life ----------------------------------------------------------------------------

    @staticmethod
    async def set_up(url: str) -> None:
        """Create or migrate the engine's tables: at deploy, before workers of this release.

        Raises: StoreUnavailable.
        """
        plain = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)
        try:
            await asyncio.to_thread(DBOS.migrate, plain)
        except (SQLAlchemyError, DBOSException) as error:
            raise StoreUnavailable(f"The engine cannot migrate: {error}") from error
        await Leases.set_up(plain)

    async def open(self, *, work: bool) -> None:
        """Connect; with `work` also take jobs. Without it, this process executes nothing.

        Raises: StoreUnavailable; ConfigurationError: another engine works in this process, or the
        tables are missing.
        """
        global _here  # noqa: PLW0603 -- DBOS is one per process
        if work and _here is not None:
            raise ConfigurationError("One engine per process: close the other one first.")
        self._client = await self._call(self._connect)
        if not work:
            return
        _here = self
        try:
            await self._call(self._register)
            await self._begin()
        except BaseException:
            _here = None
            await self.close(0)
            raise
        self._start(self._beats())
        self._start(self._tends())

    async def drain(self, timeout: float) -> None:
        """Take no more; give what executes `timeout` seconds, then hand it to other workers.

        Afterwards this process still enqueues. Its lease is gone when this returns.
        """
        if self._holder is None or not self._taking:
            return
        self._halt()
        await self._best(self._leases.ask_to_drain(self._holder.id))  # so that `workers` tells
        if self._held:
            await asyncio.wait(self._held.values(), timeout=timeout)
        holder, self._holder = self._holder, None  # from here on nothing is renewed
        await self._interrupt()
        await self._best(self._move([holder.id]))
        await self._best(self._leases.drop(holder.id))
        await self._destroy()
        self.drained.set()

    async def close(self, grace: float) -> None:
        """Drain with `grace` seconds, then let go of the database."""
        global _here  # noqa: PLW0603 -- DBOS is one per process
        await self.drain(grace)
        for task in self._aside:
            task.cancel()
        if self._aside:
            await asyncio.wait(self._aside, timeout=_INTERRUPTION)
        if self._holder is not None:  # closed while it was losing its lease
            await self._destroy()
        if _here is self:
            _here = None
        client, self._client = self._client, None
        if client is not None:
            await self._call(client.destroy)
        await self._leases.close()
        await self._facts.close()
        self._threads.shutdown(wait=False)

    # --- jobs ----------------------------------------------------------------------------

    async def enqueue(self, job: Job) -> None:
        """Have a segment executed somewhere; the same segment again is the same job.

        Raises: StoreUnavailable.
        """
        options: dict[str, Any] = {
            "workflow_name": "segment",
            "workflow_id": job.id,
            "queue_name": job.queue,
            "app_version": self._settings.version,
            "priority": job.priority,
        }
        if any(queue.partitioned for queue in self._settings.queues if queue.name == job.queue):
            options["queue_partition_key"] = job.partition
        client = self._connected
        await self._call(lambda: client.enqueue(options, job.run_id, job.segment))  # type: ignore[arg-type]

    async def cancel(self, run_id: str, segment: int) -> None:
        """Take a job out of its queue, or interrupt it: here at once, elsewhere in about a second.

        Raises: StoreUnavailable.
        """
        key, client = f"{run_id}:{segment}", self._connected
        await self._call(lambda: client.cancel_workflow(key))
        if key in self._running:
            self._held[key].cancel()

    @property
    def running(self) -> frozenset[str]:
        """The jobs that execute here now, as `run:segment`."""
        return frozenset(self._running)

    @property
    def executor(self) -> str | None:
        """This worker's identity; a new one after a lost lease. None: it takes nothing."""
        return self._holder.id if self._holder else None

    async def schedule(self, name: str, cron: str, payload: str = "") -> None:
        """Fire `on_tick` on some worker by cron (five fields, or six with seconds first; UTC).

        The same name again replaces it. Raises: DeclarationError: not a cron expression;
        StoreUnavailable.
        """
        entry: dict[str, Any] = {
            "schedule_name": name,
            "workflow_name": "tick",
            "schedule": cron,
            "context": [name, payload],
            "queue_name": "timers",
        }
        client = self._connected
        try:
            await self._call(lambda: client.apply_schedules([entry]))  # type: ignore[list-item]
        except DBOSException as error:
            raise DeclarationError(f"Schedule {name!r}: {error}") from error

    async def unschedule(self, name: str) -> None:
        """Forget a schedule; one that is not there is fine. Raises: StoreUnavailable."""
        client = self._connected
        await self._call(lambda: client.delete_schedule(name))

    # --- what is going on ------------------------------------------------------------------

    async def workers(self) -> list[Worker]:
        """Who holds a lease now. Raises: StoreUnavailable."""
        return await self._leases.live()

    async def ask_to_drain(self, executor: str) -> bool:
        """Ask a worker, on any machine, to drain. False: no such worker lives."""
        return await self._leases.ask_to_drain(executor)

    async def health(self) -> Health:
        """Facts for `/health` and metrics. Raises: StoreUnavailable."""
        rows = await self._facts.rows(_COUNTS, self._settings.version, [*_BROKEN])
        failed = sum(row[1] for row in rows if row[0] is None)
        counts = {row[0]: row[1:] for row in rows if row[0] is not None}
        workers = len(await self._leases.live())
        queues = tuple(self._queue(queue, counts) for queue in self._settings.queues)
        alarms = _alarms(queues, workers, failed)
        return Health(
            executor=self.executor, workers=workers, queues=queues, failed=failed, alarms=alarms
        )

    def _queue(self, queue: Queue, counts: dict[str, tuple[Any, ...]]) -> QueueHealth:
        waiting, executing, stranded, lag = counts.get(queue.name, (0, 0, 0, 0.0))
        slowed, since = _records.slowed.get(queue.name, (0.0, 0.0))
        # Each poll takes `poll` seconds and shortens it by a tenth: a tenth of a second a second.
        poll = slowed - (self._clock.now() / MICROS - since) / 10
        return QueueHealth(
            queue=queue.name, waiting=waiting, executing=executing, stranded=stranded,
            lag=lag or 0.0, poll_seconds=max(poll, queue.poll_seconds),
        )  # fmt: skip

    async def sweep(self, keep: float | None = None) -> int:
        """Delete jobs that ended `keep` seconds ago, in batches; how many.

        A deleted job's id is free again: enqueueing that segment once more would execute it, which
        the store answers by doing nothing. Raises: StoreUnavailable.
        """
        seconds = self._settings.keep if keep is None else keep
        before = moment(self._clock.now() - int(seconds * MICROS)).isoformat()
        client, deleted = self._connected, 0

        def batch() -> int:
            jobs = client.list_workflows(
                status=_ENDED, completed_before=before, limit=_BATCH,
                load_input=False, load_output=False,
            )  # fmt: skip
            client.delete_workflows([job.workflow_id for job in jobs])
            return len(jobs)

        while found := await self._call(batch):
            deleted += found
        return deleted

    # --- what DBOS calls ---------------------------------------------------------------------

    @contextmanager
    def holding(self, key: str) -> Iterator[None]:
        """A job was claimed for this process. While it takes nothing, the job goes back at once."""
        task = asyncio.current_task()
        assert task is not None, "DBOS executes async workflows in tasks"  # noqa: S101 - for types
        if not self._taking:
            if self._holder is not None:
                self._start(self._best(self._move([self._holder.id], key)))
            raise asyncio.CancelledError
        self._held[key] = task
        self._running.add(key)
        task.add_done_callback(lambda _: self._held.pop(key, None))
        try:
            yield
        finally:
            self._running.discard(key)

    async def perform(self, run_id: str, number: int) -> None:
        """The body of a job: returning ends it, a cancellation leaves it to be moved."""
        await self._guarded(f"{run_id}:{number}", lambda: self._execute(run_id, number))

    async def fire(self, tick: Tick) -> None:
        """The body of a tick."""
        await self._guarded(tick.id, lambda: self._on_tick(tick))

    async def _guarded(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        pause = self._settings.beat
        while True:
            limit = asyncio.timeout(self._settings.segment)
            try:
                async with limit:
                    return await work()
            except Fenced:
                log.warning("%s was taken over", key)
                return
            except StoreUnavailable as error:  # nobody else could do better: again, here
                log.warning("%s waits for the store: %s", key, error)
            except StoreError as error:  # another release may be able to
                log.warning("%s is handed back: %s", key, error)
                await self._clock.sleep(pause)
                await self._hand_back(key)
            except TimeoutError:
                if not limit.expired():
                    raise
                log.exception("%s took over %s s: handed back", key, self._settings.segment)
                await self._hand_back(key)
            await self._clock.sleep(pause)
            pause = min(2 * pause, 30.0)

    async def _hand_back(self, key: str) -> None:
        """Put a job we hold back into its queue and leave it, with nothing recorded."""
        if self._holder is not None:
            await self._best(self._move([self._holder.id], key))
        raise asyncio.CancelledError

    # --- leases ------------------------------------------------------------------------------

    async def _beats(self) -> None:
        """Renew the lease from the event loop: a loop that does not come round must lose it."""
        while True:
            await self._clock.sleep(self._settings.beat)
            if self._holder is None:
                return
            try:
                state = await self._renew(self._holder)
                if state == "draining" and self._taking:
                    log.warning("%s was asked to drain", self._holder.id)
                    self._start(self.drain(self._settings.drain))
                elif state == "lost":
                    await self._start_again(self._holder)
            except StoreUnavailable as error:
                log.warning("the lease cannot be renewed: %s", error)
            except Exception:
                log.exception("the lease is not being renewed")

    async def _renew(self, holder: Holder) -> str:
        asked = self._clock.monotonic()
        left = self._renewed + self._settings.lease - asked
        if left <= 0:  # stopped, or without the database, for longer than the lease
            return "lost"
        try:
            async with asyncio.timeout(left):
                state = await self._leases.renew(holder.id)
        except TimeoutError:
            return "lost"
        if state != "lost":
            self._renewed = asked
        return state

    async def _start_again(self, old: Holder) -> None:
        """Others took over: stop everything at once, and begin under a new identity."""
        if self._holder is not old:
            return  # it is draining already
        log.warning("%s lost its lease; its %d jobs continue elsewhere", old.id, len(self._held))
        self._halt()
        await self._interrupt()
        await self._destroy()
        while True:
            try:
                return await self._begin()
            except StoreUnavailable as error:
                log.warning("no new lease yet: %s", error)
                await self._clock.sleep(self._settings.beat)

    async def _tends(self) -> None:
        """The reaper. Every worker may do it: each move is one conditional update."""
        rounds = 0
        while True:
            try:
                dead = await self._leases.dead()
                if rounds % _ROUNDS == 0:
                    dead += await self._orphaned()
                    await self._leases.forget()
                    await self.sweep()
                if dead and (moved := await self._move(dead)):
                    log.warning("moved %d jobs of dead workers", moved)
                rounds += 1
            except StoreUnavailable as error:
                log.debug("not tending: %s", error)
            except Exception:
                log.exception("jobs of dead workers are not being moved")
            await self._clock.sleep(self._settings.beat)

    async def _orphaned(self) -> list[str]:
        """Executors with jobs but no row, live or dead: forgotten long ago."""
        client = self._connected
        pending = await self._call(
            lambda: client.list_workflows(status="PENDING", load_input=False, load_output=False)
        )
        executors = {job.executor_id for job in pending if job.executor_id}
        return sorted(executors - await self._leases.known())

    async def _move(self, executors: list[str], *keys: str) -> int:
        """Put jobs of these executors back into their queues; how many.

        Uses one private call: it keeps queue, priority and order, counts the attempt, and touches
        no job that a living worker has taken meanwhile. The public `resume_workflows(ids,
        queue_name=)` also moves, but for any owner and with the attempts set to nought, so that a
        run which kills its workers would do so for ever. A contract test holds both.
        """
        client = self._connected

        def move() -> int:
            jobs = client.list_workflows(
                status="PENDING", executor_id=executors, workflow_ids=[*keys] or None,
                load_input=False, load_output=False,
            )  # fmt: skip
            back = client._sys_db.reenqueue_for_recovery  # noqa: SLF001
            return sum(back(job.workflow_id, executors, INTERNAL_QUEUE_NAME) for job in jobs)

        return await self._call(move)

    # --- DBOS --------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """A new identity with a lease, then jobs. Launching holds the loop for some 0.1 s."""
        queues = [queue.name for queue in self._settings.queues]
        holder = Holder.here(queues, self._settings.version)
        self._renewed = self._clock.monotonic()
        await self._leases.take(holder)
        self._holder, self._taking = holder, True
        try:
            self._launch(holder, queues)
        except (SQLAlchemyError, DBOSException, OSError) as error:
            self._halt()
            await self._destroy()
            await self._best(self._leases.drop(holder.id))
            raise StoreUnavailable(f"The engine cannot start: {error}") from error

    def _launch(self, holder: Holder, queues: list[Any]) -> None:
        """In the loop's own thread, because DBOS executes on the loop it is launched from."""
        settings = self._settings
        self._dbos = DBOS(
            config={
                "name": _NAME,
                "system_database_url": self._url,
                "executor_id": holder.id,
                "application_version": settings.version,
                "max_executor_threads": settings.threads,
                "sys_db_pool_size": settings.connections,
                "serializer": _Json(),
                "run_migrations": False,
                "use_listen_notify": False,  # nothing of ours waits for its messages
                "notification_listener_polling_interval_sec": 0.2,  # it holds up the end so long
                "scheduler_polling_interval_sec": 5.0,
                "log_level": "WARNING",
            }
        )
        DBOS.listen_queues(queues)
        DBOS.launch()

    def _halt(self) -> None:
        """Claim nothing more. What a poll in flight still claims is handed back by `holding`."""
        self._taking = False
        if self._dbos is not None:
            for event in self._dbos.background_thread_stop_events:
                event.set()

    async def _interrupt(self) -> None:
        """Cancel what executes; a cancelled body records nothing, so its job can move."""
        tasks = list(self._held.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_INTERRUPTION)

    async def _destroy(self) -> None:
        self._dbos = None
        await self._call(DBOS.destroy)
        # DBOS made its own pool the loop's default, and has just shut it down.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())

    def _connect(self) -> DBOSClient:
        return DBOSClient(
            system_database_url=self._url,
            serializer=_Json(),
            system_database_pool_size=2,
            application_name=_NAME,
            retry_connection_errors=False,
        )

    def _register(self) -> None:
        for queue in self._settings.queues:
            everywhere, starts = queue.everywhere, queue.starts
            self._connected.register_queue(
                queue.name,
                worker_concurrency=min(queue.at_once, everywhere or queue.at_once),
                global_concurrency=everywhere,
                partition_concurrency=1 if queue.partitioned else None,
                limiter={"limit": starts[0], "period": starts[1]} if starts else None,
                polling_interval_sec=queue.poll_seconds,
            )

    # --- calling it ------------------------------------------------------------------------

    @property
    def _connected(self) -> DBOSClient:
        if self._client is None:
            raise StoreUnavailable("The engine is not open.")
        return self._client

    async def _call(self, call: Callable[[], T]) -> T:
        """A blocking call, off the loop and outside DBOS's own pool. Raises: StoreUnavailable."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except (SQLAlchemyError, OSError) as error:
            raise StoreUnavailable(f"The engine's database does not answer: {error}") from error

    async def _best(self, attempt: Awaitable[object]) -> None:
        """Something that others will do if we cannot."""
        try:
            await attempt
        except StoreUnavailable as error:
            log.warning("left to other workers: %s", error)

    def _start(self, work: Any) -> None:  # noqa: ANN401 - a coroutine of any kind
        task = asyncio.get_running_loop().create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)


# --- health in SQL -------------------------------------------------------------------------

_BROKEN = ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")

# The one place that reads DBOS's table; a test runs it against the pinned version. A job behind
# another of its partition waits for that one, not for a worker.
_COUNTS = """
SELECT queue_name,
       count(*) FILTER (WHERE status = 'ENQUEUED'),
       count(*) FILTER (WHERE status = 'PENDING'),
       count(*) FILTER (WHERE status = 'ENQUEUED' AND application_version <> %s),
       (extract(epoch FROM clock_timestamp())
        - min(updated_at) FILTER (WHERE status = 'ENQUEUED' AND NOT EXISTS (
            SELECT 1 FROM dbos.workflow_status AS ahead
            WHERE ahead.queue_name = job.queue_name AND ahead.status = 'PENDING'
              AND ahead.queue_partition_key = job.queue_partition_key)) / 1000.0)::float8
FROM dbos.workflow_status AS job WHERE status IN ('ENQUEUED', 'PENDING') GROUP BY queue_name
UNION ALL
SELECT NULL, count(*), 0, 0, 0 FROM dbos.workflow_status WHERE status = ANY(%s)
"""


def _alarms(queues: tuple[QueueHealth, ...], workers: int, failed: int) -> tuple[str, ...]:
    found = []
    if not workers and any(queue.waiting for queue in queues):
        found.append("jobs wait and no worker lives")
    for queue in queues:
        if queue.poll_seconds > 1.0:
            found.append(f"{queue.queue}: contention, polled every {queue.poll_seconds:.0f} s only")
        if queue.stranded:
            found.append(f"{queue.queue}: {queue.stranded} jobs of another protocol version wait")
    if failed:
        found.append(f"{failed} jobs ended by a bug; see the log of roadworthy.engine")
    return tuple(found)

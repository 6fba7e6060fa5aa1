"""The one door to DBOS: jobs on Postgres, and the calls that claim, move, schedule and delete them.

`engine/distributed.py` uses it; nothing else knows DBOS. DBOS says where and when a segment
executes, the journal says what happened. Invariant: rows hold JSON only, and a job's body returns
nothing: either it is over, or nothing of it is recorded.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import psycopg
from dbos import DBOS, DBOSClient, EnqueueOptions, Serializer, _sys_db
from dbos._error import DBOSException
from dbos._serialization import DefaultSerializer
from dbos._utils import INTERNAL_QUEUE_NAME
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from roadworthy.engine.health import SlowedQueues
from roadworthy.engine.jobs import EngineSettings, Job, Tick
from roadworthy.errors import ConfigurationError, DeclarationError, StoreUnavailable

T = TypeVar("T")

_NAME = "roadworthy"
_BATCH = 1_000
_PAUSE = 1.0
_ENDED = ["SUCCESS", "ERROR", "CANCELLED"]
_OPEN = ["ENQUEUED", "DELAYED", "PENDING"]
_SILENT = (SQLAlchemyError, psycopg.Error, OSError)  # what a database that is away raises
_CLOSING = 5.0  # seconds that a call left behind has


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


class _Impatient:
    """The clock of their calls to the database: between two attempts a second, not a minute.

    A worker must come back soon after its database does; no setting of theirs says so.
    """

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a module's
        return getattr(time, name)

    @staticmethod
    def sleep(seconds: float) -> None:
        time.sleep(min(seconds, _PAUSE))


setattr(_sys_db, "time", _Impatient())  # noqa: B010 - a module of theirs


# Its console is off: with a handler there DBOS adds none.
slowed_queues = SlowedQueues()
_theirs = logging.getLogger("dbos")
_theirs.addHandler(slowed_queues)
_theirs.propagate = False


# --- what DBOS calls -----------------------------------------------------------------------


class Bodies(Protocol):
    """What executes jobs here: `holding` while DBOS has one claimed, then one of the others."""

    def holding(self, key: str) -> AbstractContextManager[None]:
        """A job was claimed."""
        ...

    async def segment(self, run_id: str, number: int) -> None:
        """Execute a segment."""
        ...

    async def tick(self, key: str, tick: Tick) -> None:
        """A schedule fired."""
        ...


def _letting_go(url: str) -> str:
    """A process that is stopped in the middle of a transaction lets go of its rows."""
    parsed = make_url(url)
    said = " ".join(value for value in [parsed.query.get("options", "")] if isinstance(value, str))
    options = f"{said} -c idle_in_transaction_session_timeout=5s".strip()
    return parsed.update_query_dict({"options": options}).render_as_string(hide_password=False)


_here: list[Bodies] = []  # at most one: DBOS is one object per process


def _bodies() -> Bodies:
    if not _here:
        raise asyncio.CancelledError  # claimed while closing: nothing is recorded, it moves on
    return _here[0]


# No DBOS step inside: it would cost three times the job (docs/decisions/0012).


@DBOS.workflow(name="segment")
async def _segment(run_id: str, number: int) -> None:
    bodies = _bodies()
    with bodies.holding(f"{run_id}:{number}"):
        await bodies.segment(run_id, number)


@DBOS.workflow(name="tick")
async def _tick(at: str, context: list[str]) -> None:
    bodies, (schedule, payload), key = _bodies(), context, DBOS.workflow_id or ""
    tick = Tick(schedule=schedule, at=datetime.fromisoformat(at), payload=payload)
    with bodies.holding(key):
        await bodies.tick(key, tick)


def _launch(loop: asyncio.AbstractEventLoop) -> None:
    """Bodies execute on `loop`, but it is not held up meanwhile: launching waits for the database.

    DBOS takes the loop that runs in the thread it is launched in.
    """
    asyncio._set_running_loop(loop)
    try:
        DBOS.launch()
    finally:
        asyncio._set_running_loop(None)


# --- what we call --------------------------------------------------------------------------


class Dispatch:
    """DBOS's queues in one database. Every call raises StoreUnavailable while that is silent."""

    def __init__(self, url: str, settings: EngineSettings) -> None:
        self._url = url = _letting_go(url)
        self._settings = settings
        self._threads = ThreadPoolExecutor(2, "roadworthy-engine")
        self._database = create_engine(
            url.replace("postgresql:", "postgresql+psycopg:", 1),
            pool_size=2,
            max_overflow=0,
            pool_pre_ping=True,
        )
        self._calls: set[Future[Any]] = set()
        self._client: DBOSClient | None = None
        self._dbos: DBOS | None = None
        self._launched = False

    @staticmethod
    async def migrate(url: str) -> None:
        """Create or migrate DBOS's own schema `dbos`."""
        try:
            await asyncio.to_thread(DBOS.migrate, url)
        except (*_SILENT, DBOSException) as error:
            raise StoreUnavailable(f"The engine cannot migrate: {error}") from error

    async def connect(self) -> None:
        """Be able to enqueue. Nothing is taken."""

        def connect() -> DBOSClient:
            return DBOSClient(
                system_database_engine=self._database,
                serializer=_Json(),
                application_name=_NAME,
                retry_connection_errors=False,
            )

        self._client = await self._call(connect)

    async def close(self) -> None:
        """Let go of the database."""
        client, self._client = self._client, None
        if client is not None:
            await self._call(client.destroy)
        left = [*self._calls]  # a task was cancelled, its call goes on and holds a connection
        if left:
            await asyncio.to_thread(wait, left, _CLOSING)
        self._database.dispose()
        self._threads.shutdown(wait=False)

    # --- jobs ----------------------------------------------------------------------------

    async def enqueue(self, jobs: Sequence[Job]) -> None:
        """A row for each segment, unless there is one.

        One transaction per round, in which a partition occurs once: a row's time, by which it is
        ordered, is that of its transaction in milliseconds.
        """
        client, database = self._connected, self._database
        rounds: list[list[Job]] = []
        seen = Counter[str]()
        for job in jobs:
            if seen[job.partition] == len(rounds):
                rounds.append([])
            rounds[seen[job.partition]].append(job)
            seen[job.partition] += 1

        def enqueue(batch: list[Job]) -> None:
            with database.begin() as transaction:
                for job in batch:
                    client.enqueue_in_transaction(
                        transaction, self._options(job), job.run_id, job.segment
                    )

        for batch in rounds:
            await self._call(partial(enqueue, batch))

    async def dispatch(self, take: Callable[[Any], Sequence[Job]]) -> int:
        """Enqueue what `take` finds, in the transaction in which it does; how many.

        take: called with the driver's connection, in another thread; of jobs that must not
        overtake each other it gives one.
        """
        client, database = self._connected, self._database

        def dispatch() -> int:
            with database.begin() as transaction:
                jobs = take(transaction.connection.driver_connection)
                for job in jobs:
                    client.enqueue_in_transaction(
                        transaction, self._options(job), job.run_id, job.segment
                    )
                return len(jobs)

        work = asyncio.ensure_future(self._call(dispatch))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:  # its connection must be back when the database is let go
            await asyncio.wait([work])
            raise
        finally:
            if work.done() and not work.cancelled():
                work.exception()  # looked at, also when nobody is there to be told

    def _options(self, job: Job) -> EnqueueOptions:
        options: EnqueueOptions = {
            "workflow_name": "segment",
            "workflow_id": job.id,
            "queue_name": job.queue,
            "app_version": self._settings.version,
            "priority": job.priority,
        }
        if any(queue.partitioned for queue in self._settings.queues if queue.name == job.queue):
            options["queue_partition_key"] = job.partition
        return options

    async def cancel(self, key: str) -> None:
        """Out of its queue; a worker that executes it finds it in `cancelled`."""
        client = self._connected
        await self._call(lambda: client.cancel_workflow(key))

    async def cancelled(self, keys: Sequence[str]) -> list[str]:
        """Which of these jobs were cancelled."""
        client = self._connected
        jobs = await self._call(
            lambda: client.list_workflows(
                status="CANCELLED", workflow_ids=[*keys], load_input=False, load_output=False
            )
        )
        return [job.workflow_id for job in jobs]

    async def open_among(self, keys: Sequence[str]) -> set[str]:
        """Which of these jobs wait or execute."""
        client = self._connected
        jobs = await self._call(
            lambda: client.list_workflows(
                status=_OPEN, workflow_ids=[*keys], load_input=False, load_output=False
            )
        )
        return {job.workflow_id for job in jobs}

    async def schedule(self, name: str, cron: str, payload: str) -> None:
        """Create or replace a schedule. Raises: DeclarationError: not a cron expression."""
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
        """Forget a schedule; one that is not there is fine."""
        client = self._connected
        await self._call(lambda: client.delete_schedule(name))

    async def delete_ended(self, before: str) -> int:
        """Delete jobs that ended before an ISO time, a thousand per transaction; how many."""
        client, deleted = self._connected, 0

        def batch() -> int:
            jobs = client.list_workflows(
                status=_ENDED,
                completed_before=before,
                limit=_BATCH,
                load_input=False,
                load_output=False,
            )
            client.delete_workflows([job.workflow_id for job in jobs])
            return len(jobs)

        while found := await self._call(batch):
            deleted += found
        return deleted

    # --- moving jobs from worker to worker -------------------------------------------------

    async def holders(self) -> set[str]:
        """Every executor that holds a job, says the table."""
        client = self._connected
        jobs = await self._call(
            lambda: client.list_workflows(status="PENDING", load_input=False, load_output=False)
        )
        return {job.executor_id for job in jobs if job.executor_id}

    async def move(self, executors: list[str], *keys: str) -> int:
        """Put jobs held by these executors (only these keys) back into their queues; how many.

        Uses one private call: it keeps queue, priority and order, counts the attempt, and touches
        no job that a living worker has taken meanwhile. The public `resume_workflows(ids,
        queue_name=)` also moves, but whoever holds the job, and with the attempts set to nought,
        so that a run which kills its workers would do so for ever. A contract test holds both.
        """
        client = self._connected

        def move() -> int:
            jobs = client.list_workflows(
                status="PENDING",
                executor_id=executors,
                workflow_ids=[*keys] or None,
                load_input=False,
                load_output=False,
            )
            back = client._sys_db.reenqueue_for_recovery
            return sum(back(job.workflow_id, executors, INTERNAL_QUEUE_NAME) for job in jobs)

        return await self._call(move)

    # --- taking jobs -----------------------------------------------------------------------

    async def register(self) -> None:
        """Write the queues as the settings declare them. Workers read them at each poll."""

        def register() -> None:
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

        await self._call(register)

    async def launch(self, executor: str, bodies: Bodies) -> None:
        """Take jobs under this identity and execute them on this loop.

        Raises: ConfigurationError: another engine takes jobs in this process. StoreUnavailable.
        """
        if _here:
            raise ConfigurationError("One working engine per process: close the other one first.")
        _here.append(bodies)
        self._launched = True
        settings = self._settings
        try:
            self._dbos = DBOS(
                config={
                    "name": _NAME,
                    "system_database_url": self._url,
                    "executor_id": executor,
                    "application_version": settings.version,
                    "max_executor_threads": settings.threads,
                    "sys_db_pool_size": settings.connections,
                    "serializer": _Json(),
                    "run_migrations": False,
                    "use_listen_notify": False,  # nothing of ours waits for its messages
                    "notification_listener_polling_interval_sec": 0.2,  # `stop` waits for it
                    "scheduler_polling_interval_sec": 5.0,
                    "log_level": "WARNING",
                }
            )
            DBOS.listen_queues([queue.name for queue in settings.queues])
            await self._call(partial(_launch, asyncio.get_running_loop()))
        except (*_SILENT, DBOSException) as error:
            raise StoreUnavailable(f"The engine cannot start: {error}") from error

    def halt(self) -> None:
        """Claim nothing more; a poll in flight may still."""
        if self._dbos is not None:
            for event in self._dbos.background_thread_stop_events:
                event.set()

    async def stop(self) -> None:
        """Let go of DBOS; jobs held by this identity stay as they are."""
        if not self._launched:
            return
        self._launched, self._dbos = False, None
        await self._call(DBOS.destroy)
        _here.clear()
        # DBOS made its own pool the loop's default, and has just shut it down.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())

    # --- calling it ------------------------------------------------------------------------

    @property
    def _connected(self) -> DBOSClient:
        if self._client is None:
            raise StoreUnavailable("The engine is not open.")
        return self._client

    async def _call(self, call: Callable[[], T]) -> T:
        """A blocking call, off the loop and outside DBOS's own pool."""
        called = self._threads.submit(call)
        self._calls.add(called)
        called.add_done_callback(self._calls.discard)
        try:
            return await asyncio.wrap_future(called)
        except _SILENT as error:
            raise StoreUnavailable(f"The engine's database does not answer: {error}") from error

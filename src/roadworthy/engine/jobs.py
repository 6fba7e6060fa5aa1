"""What a dispatching engine is told and tells: jobs, queues, its settings and its health.

The runtime and the CLI build and read these; no engine library is imported here. Invariant: a job
names one segment of one run, and enqueueing it again is the same job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from roadworthy.errors import ConfigurationError

QueueName = Literal["turns", "children", "timers"]
_LEAST_LEASE = 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One segment of one run, to be executed by whichever worker is free.

    conversation: at most one job of it executes at a time, in the order of priority, then of
    enqueueing. A run without one, and every child run, stands for itself. priority: 1 is first.
    """

    run_id: str
    segment: int
    conversation: str | None = None
    tenant: str = ""
    priority: int = 100
    queue: QueueName = "turns"

    @property
    def id(self) -> str:
        """The permanent idempotency key of this segment."""
        return f"{self.run_id}:{self.segment}"

    @property
    def partition(self) -> str:
        """Jobs of one partition execute one by one."""
        return f"{self.tenant}/{self.conversation}" if self.conversation else self.run_id


@dataclass(frozen=True, kw_only=True)
class Queue:
    """How a queue is served. All workers read it from the database: the last to open decides.

    poll_seconds: how often each worker looks. at_once: jobs per worker. everywhere: jobs over all
    workers. starts: at most so many starts in so many seconds, over all workers. partitioned: one
    job per `Job.partition`; `everywhere` and `starts` then cost a transaction per partition.
    """

    name: QueueName
    poll_seconds: float
    at_once: int = 200
    everywhere: int | None = None
    starts: tuple[int, float] | None = None
    partitioned: bool = False


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How a process takes part. Seconds throughout.

    queues: what a worker takes (its roles). lease: a worker that did not renew for so long is
    dead. beat: how often it renews. segment: a segment that takes longer is interrupted and handed
    to another worker. drain: grace when somebody else asks this worker to drain. keep: how long
    ended jobs stay. most_waiting: so many runs may wait to begin, over all workers; a request that
    finds so many of its priority or a more urgent one is refused (`Overloaded`). None: no bound.
    """

    queues: tuple[Queue, ...] = (
        Queue(name="turns", poll_seconds=0.05),
        Queue(name="children", poll_seconds=1.0),  # a look costs a worker 3 ms
        Queue(name="timers", poll_seconds=1.0),
    )
    lease: float = 5.0
    beat: float = 1.0
    segment: float = 3_600.0
    drain: float = 30.0
    keep: float = 86_400.0
    most_waiting: int | None = None
    version: str = "1"  # the dispatch protocol: jobs run only on workers of the same
    threads: int = 16
    connections: int = 12  # DBOS's own; one more for the lease, two for enqueueing

    def adjusted(
        self,
        *,
        lease: float | None = None,
        concurrency: int | None = None,
        drain: float | None = None,
        roles: Sequence[str] = (),
    ) -> EngineSettings:
        """With what is given instead: the beat follows the lease, a role is a queue's name.

        Raises: ConfigurationError.
        """
        names = [queue.name for queue in self.queues]
        if unknown := sorted({*roles} - {*names}):
            raise ConfigurationError(f"No queue {unknown[0]!r}. There are: {', '.join(names)}.")
        if (lease is not None and lease < _LEAST_LEASE) or (drain is not None and drain < 0):
            raise ConfigurationError(
                f"A lease has at least {_LEAST_LEASE:g} s, and a drain no less than none."
            )
        if concurrency is not None and concurrency < 1:
            raise ConfigurationError("A worker executes at least one run at once.")
        queues = [queue for queue in self.queues if not roles or queue.name in roles]
        if concurrency is not None:
            queues = [replace(queue, at_once=concurrency) for queue in queues]
        return replace(
            self,
            queues=tuple(queues),
            lease=self.lease if lease is None else lease,
            beat=self.beat if lease is None else lease / 5,
            drain=self.drain if drain is None else drain,
        )


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A schedule fired. `id` is the same for the same instant, however often it is delivered."""

    schedule: str
    at: datetime
    payload: str

    @property
    def id(self) -> str:
        """An idempotency key for what the tick starts."""
        return f"{self.schedule}@{self.at.isoformat()}"


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process that holds a lease now."""

    id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    version: str
    draining: bool
    started_at: datetime
    lease_left: float


@dataclass(frozen=True, kw_only=True)
class QueueHealth:
    """Facts of one queue.

    waiting: jobs not begun. executing: jobs taken by a worker. lag: seconds that the oldest job
    waits which nothing but a free worker keeps from starting. stranded: waiting jobs of another
    protocol version, which no worker of this one takes. poll_seconds: how often this process
    looked when it was last slowed down by contention, else as declared.
    """

    queue: str
    waiting: int
    executing: int
    lag: float
    stranded: int
    poll_seconds: float


@dataclass(frozen=True, kw_only=True)
class Health:
    """Facts about dispatch. `alarms` says in words what somebody should look at."""

    executor: str | None
    workers: int
    queues: tuple[QueueHealth, ...]
    failed: int
    alarms: tuple[str, ...]

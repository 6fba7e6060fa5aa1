"""Runs on Postgres, in worker processes of their own: how soon they begin, continue and wake.

`python -m bench.cluster [NAME ...]` prints a line each. Times are of the journal's events.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from bench.cluster_desk import desk
from roadworthy import Runtime
from roadworthy.events import RunEnded, SegmentStarted
from tests.chaos.cluster import Postgres, Worker, until

_NAMES = "SELECT column_name FROM information_schema.columns WHERE table_name = %s"
_PAUSED = (("run", "id", "id"), ("event", "run_id", "run_id"), ("wait", "id", "run_id"))
LIVING = "SELECT pid FROM roadworthy_executor WHERE expires_at > clock_timestamp()"


class Cluster:
    """A database, a runtime that only accepts, and workers."""

    def __init__(self, url: str, rt: Runtime) -> None:
        self.url, self.rt = url, rt
        self.workers: list[Worker] = []

    async def begin(self, number: int, *options: str) -> list[Worker]:
        """Start workers and wait until they live."""
        environment = {"ROADWORTHY_URL": self.url}
        begun = [
            Worker("bench/cluster_desk.py", environment, Path(os.devnull), *options)
            for _ in range(number)
        ]
        self.workers += begun

        async def live() -> bool:
            return {worker.pid for worker in begun} <= set(await self.column(LIVING))

        await until(live, 60, "workers live")
        return begun

    async def column(self, sql: LiteralString) -> list[Any]:
        """The first column of a query."""
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            return [row[0] for row in await (await connection.execute(sql)).fetchall()]

    async def at(self, run_id: str, kind: type[Any], number: int = 0) -> float:
        """When an event of a run happened, in seconds."""
        found = [e.at for e in await self.rt.record(run_id) if isinstance(e, kind)]
        return float(found[number]) / 1e6

    async def all_at(self, ids: Sequence[str], kind: type[Any], number: int = 0) -> list[float]:
        """The same of many runs."""
        return sorted([await self.at(run_id, kind, number) for run_id in ids])

    async def start(self, word: str, count: int) -> list[str]:
        """Many runs at once."""
        async with asyncio.TaskGroup() as group:
            begun = [group.create_task(self.rt.start(desk, word)) for _ in range(count)]
        return [task.result() for task in begun]

    async def settle(self, ids: Sequence[str]) -> None:
        """Until all have ended or wait."""
        async with asyncio.TaskGroup() as group:
            for run_id in ids:
                group.create_task(self.rt.wait(run_id))


@asynccontextmanager
async def cluster(url: str) -> AsyncIterator[Cluster]:
    async with Runtime(url, patterns=[desk], execute=False) as rt:
        made = Cluster(url, rt)
        try:
            yield made
        finally:
            for worker in made.workers:
                worker.kill()


def spread(found: Sequence[float]) -> str:
    ordered = sorted(found)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return f"median {statistics.median(ordered):.3f} s, p95 {p95:.3f}, max {ordered[-1]:.3f}"


async def idle(c: Cluster) -> str:
    """Accepted, then the first segment's commit, one run after another."""
    await c.begin(1)
    late = []
    for _ in range(60):
        began = time.time()
        run_id = await c.rt.start(desk, "quick")
        await c.settle([run_id])
        late.append(await c.at(run_id, SegmentStarted) - began)
    return spread(late[5:])


async def killed(c: Cluster) -> str:
    """kill -9 of a worker with some twenty runs; when each goes on elsewhere."""
    await c.begin(2)
    late = []
    for _ in range(10):
        ids = await c.start("second", 40)
        await asyncio.sleep(0.5)
        c.workers.pop(0).kill()
        began = time.time()
        await c.settle(ids)
        for run_id in ids:
            begun = [e.at for e in await c.rt.record(run_id) if isinstance(e, SegmentStarted)]
            late += [at / 1e6 - began for at in begun[1:]]
        await c.begin(1)
    return f"{spread(late)} over 10 kills, {len(late)} runs"


async def thousand(c: Cluster) -> str:
    """1,000 runs of a second at 100 slots on each of two workers: 5 s at best."""
    await c.begin(2, "--concurrency", "100")
    await c.settle(await c.start("quick", 50))
    began = time.time()
    ids = await c.start("second", 1_000)
    accepted = time.time() - began
    await c.settle(ids)
    first = (await c.all_at(ids, SegmentStarted))[0]
    ended = await c.all_at(ids, RunEnded)
    return (
        f"accepted in {accepted:.2f} s; from the request {ended[-1] - began:.2f} s, from the first "
        f"segment {ended[-1] - first:.2f} s"
    )


async def woken(c: Cluster) -> str:
    """1,000 runs that wait for a person are all decided at once."""
    await c.begin(2, "--concurrency", "500")
    ids = await c.start("wait", 1_000)
    await c.settle(ids)
    waits = await c.column("SELECT id FROM wait WHERE answered_at IS NULL")
    began = time.time()
    async with asyncio.TaskGroup() as group:
        for wait in waits:
            group.create_task(c.rt.resolve(wait, "approve", by="lea"))
    decided = time.time() - began
    await c.settle(ids)
    again = await c.all_at(ids, SegmentStarted, 1)
    return (
        f"decided in {decided:.2f} s; half went on after {again[len(again) // 2] - began:.2f} s, "
        f"all after {again[-1] - began:.2f} s"
    )


async def memory(c: Cluster) -> str:
    """A worker's memory before and after 10,000 waiting runs are in the store."""
    (worker,) = await c.begin(1)
    ids = await c.start("wait", 20)
    await c.settle(ids)
    await c.settle(await c.start("quick", 50))
    before = _rss(worker.pid)
    async with await psycopg.AsyncConnection.connect(c.url) as connection:
        for table, own, of_run in _PAUSED:
            columns = [
                row[0] for row in await (await connection.execute(_NAMES, [table])).fetchall()
            ]
            quoted = [f'"{name}"' for name in columns]
            copied = [
                f'"{name}" || n' if name in (own, of_run) else f'"{name}"' for name in columns
            ]
            await connection.execute(
                f"INSERT INTO {table} ({', '.join(quoted)}) SELECT {', '.join(copied)}"  # noqa: S608
                f" FROM {table}, generate_series(1, 10000) n WHERE {of_run} = %s",
                [ids[0]],
            )
    await c.settle(await c.start("quick", 50))
    await asyncio.sleep(5)
    return f"{before:.0f} MB before, {_rss(worker.pid):.0f} MB with 10,000 waiting runs"


def _rss(pid: int) -> float:
    said = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(said.partition("VmRSS:")[2].split()[0]) / 1_024


ALL: dict[str, Callable[[Cluster], Coroutine[Any, Any, str]]] = {
    "idle": idle,
    "killed": killed,
    "thousand": thousand,
    "woken": woken,
    "memory": memory,
}


async def main(names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Postgres(Path(folder) / "data")
        for name in names or ALL:
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE bench_{name}".encode())
            async with cluster(server.url.replace("/postgres?", f"/bench_{name}?")) as made:
                print(
                    f"{name}: {await ALL[name](made)}  (load {os.getloadavg()[0]:.1f})", flush=True
                )
        server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))

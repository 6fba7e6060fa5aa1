"""Workers that die, freeze, block and leave: their jobs continue elsewhere, and nothing is doubled.

Leases are shortened to 2 s. What may not happen twice is what the store fences; here that is
`run.finished`, written only under the newest epoch.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

pytest.importorskip("dbos")

from roadworthy.clock import SystemClock
from roadworthy.engine.dbos import Dispatch
from roadworthy.engine.distributed import DbosEngine
from roadworthy.engine.jobs import EngineSettings, Job
from roadworthy.engine.leases import Holder, Leases
from roadworthy.errors import Fenced, StoreError, StoreUnavailable
from tests.engine.desk import PARTITIONED, Desk

SEED = 20261121
QUICK = replace(PARTITIONED, lease=2.0, beat=0.1)


async def never(run_id: str, segment: int) -> None:
    raise AssertionError(f"{run_id}:{segment} must not execute here")


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[DbosEngine]:
    """Enqueues; takes nothing."""
    engine = DbosEngine(desk.url, never, PARTITIONED)
    await engine.open(work=False)
    yield engine
    await engine.close(0)


async def test_jobs_of_a_killed_worker_continue_on_another(desk: Desk, client: DbosEngine) -> None:
    first = desk.worker(seconds=30)
    for n in range(20):
        await client.enqueue(Job(run_id=f"r{n}", segment=1))
    desk.until(lambda: len(desk.order()) == 20)
    desk.worker(seconds=0)
    first.kill()
    desk.until(lambda: desk.finished() == 20)
    assert desk.rows("SELECT id FROM run WHERE finished <> 1") == []


@pytest.mark.parametrize("kills", [8, pytest.param(40, marks=pytest.mark.chaos)])
async def test_no_job_is_lost_or_finished_twice_over_many_kills(
    desk: Desk, client: DbosEngine, kills: int
) -> None:
    print(f"seed {SEED}")  # noqa: T201 - shown when it fails
    draw = random.Random(SEED)  # noqa: S311
    clock, jobs = SystemClock(), 0
    workers = [desk.worker(seconds=0.05) for _ in range(3)]
    for _ in range(kills // 2):
        for _ in range(20):
            jobs += 1
            conversation = f"c{draw.randrange(20)}" if draw.random() < 0.5 else None
            await client.enqueue(Job(run_id=f"r{jobs}", segment=1, conversation=conversation))
        for _ in range(2):
            await clock.sleep(draw.uniform(0, 0.1))  # the instant of the kill is what varies
            workers.pop(draw.randrange(len(workers))).kill()
        workers += desk.workers(2, seconds=0.05)
    desk.until(lambda: desk.finished() == jobs, 30)
    assert desk.rows("SELECT id FROM run WHERE finished <> 1") == []
    desk.until(
        lambda: not desk.rows("SELECT 1 FROM dbos.workflow_status WHERE status <> 'SUCCESS'")
    )


async def test_a_frozen_worker_loses_its_jobs_and_its_late_finish_changes_nothing(
    desk: Desk, client: DbosEngine
) -> None:
    frozen = desk.worker(seconds=30, stubborn=True)
    await client.enqueue(Job(run_id="r", segment=1))
    desk.until(lambda: desk.begun("r:1"))
    old = (await client.workers())[0].id
    frozen.signal(signal.SIGSTOP)
    other = desk.worker(seconds=0)
    desk.until(lambda: desk.finished() == 1)
    frozen.signal(signal.SIGCONT)
    desk.until(lambda: ("fenced", "r:1") in desk.order())
    assert desk.begun("r:1") == [frozen.pid, other.pid]
    assert desk.one("SELECT finished FROM run") == 1
    desk.until(lambda: desk.status("r:1") == "SUCCESS")
    desk.until(lambda: frozen.pid in desk.living())  # back, as somebody else
    assert old not in {worker.id for worker in await client.workers()}
    other.kill()
    await client.enqueue(Job(run_id="again", segment=1))
    desk.until(lambda: desk.begun("again:1") == [frozen.pid])


async def test_a_worker_whose_loop_blocks_loses_its_jobs(desk: Desk, client: DbosEngine) -> None:
    """The process lives, and threads of it too: that must not keep the lease."""
    blocked = desk.worker(seconds=4)
    await client.enqueue(Job(run_id="block", segment=1))
    desk.until(lambda: desk.begun("block:1"))
    other = desk.worker(seconds=0)
    desk.until(lambda: desk.begun("block:1") == [blocked.pid, other.pid])
    desk.until(lambda: desk.finished() == 1)
    desk.until(lambda: ("cancelled", "block:1") in desk.order())
    assert desk.one("SELECT finished FROM run") == 1


async def test_sigterm_hands_over_and_no_lease_is_waited_for(
    desk: Desk, client: DbosEngine
) -> None:
    first = desk.worker(seconds=30, grace=0.2, lease=60.0)
    await client.enqueue(Job(run_id="r", segment=1))
    desk.until(lambda: desk.begun("r:1"))
    second = desk.worker(seconds=0)
    first.signal(signal.SIGTERM)
    desk.until(lambda: desk.finished() == 1)
    assert desk.begun("r:1") == [first.pid, second.pid]
    assert first.ends() == 0
    assert desk.living() == {second.pid}


async def test_a_draining_worker_finishes_what_it_can_and_takes_nothing(
    desk: Desk, client: DbosEngine
) -> None:
    first = desk.worker(seconds=0.5, grace=10)
    await client.enqueue(Job(run_id="r", segment=1))
    desk.until(lambda: desk.begun("r:1"))
    first.signal(signal.SIGTERM)
    desk.until(lambda: desk.one("SELECT draining FROM roadworthy_executor"))
    await client.enqueue(Job(run_id="late", segment=1))
    assert first.ends() == 0
    assert desk.begun("r:1") == [first.pid]
    assert (desk.status("r:1"), desk.status("late:1")) == ("SUCCESS", "ENQUEUED")


async def test_a_worker_drains_when_another_process_asks(desk: Desk, client: DbosEngine) -> None:
    worker = desk.worker()
    assert await client.ask_to_drain((await client.workers())[0].id)
    assert worker.ends() == 0
    assert not await client.ask_to_drain("nobody")


async def test_executors_dead_for_long_are_forgotten_and_their_jobs_still_found(
    desk: Desk, client: DbosEngine
) -> None:
    first = desk.worker(seconds=30)
    await client.enqueue(Job(run_id="r", segment=1))
    desk.until(lambda: desk.begun("r:1"))
    first.kill()
    desk.until(lambda: not desk.living())
    leases = Leases(desk.url, 2.0)
    await leases.forget(600)
    assert len(await leases.dead()) == 1
    await leases.forget(0)
    assert await leases.dead() == []
    await leases.close()
    desk.worker(seconds=0)
    desk.until(lambda: desk.finished() == 1)


async def test_an_expired_lease_is_never_renewed(desk: Desk) -> None:
    leases = Leases(desk.url, 2.0)
    holder = Holder.here(["turns"], "1")
    await leases.take(holder)
    assert await leases.renew(holder.id) == "held"
    await leases.drop(holder.id)
    assert await leases.renew(holder.id) == "lost"
    assert await leases.dead() == [holder.id]
    await leases.close()


async def test_moving_a_job_keeps_what_the_public_call_would_lose(
    desk: Desk, client: DbosEngine
) -> None:
    """The contract with the pinned DBOS: the private call that we use, and the public fallback."""
    row = (
        "SELECT status, queue_name, queue_partition_key, priority, created_at, recovery_attempts"
        " FROM dbos.workflow_status"
    )
    worker = desk.worker(seconds=30)
    await client.enqueue(Job(run_id="r", segment=1, conversation="c", priority=7))
    desk.until(lambda: desk.begun("r:1"))
    executor = (await client.workers())[0].id
    worker.kill()
    before = desk.rows(row)[0]
    assert before[:4] == ("PENDING", "turns", "/c", 7)
    assert before[5] == 1
    dispatch = Dispatch(desk.url, EngineSettings())
    await dispatch.connect()
    assert await dispatch.holders() == {executor}
    assert await dispatch.move(["a living one"]) == 0
    assert await dispatch.move([executor], "another:1") == 0
    assert await dispatch.move([executor]) == 1
    assert await dispatch.move([executor]) == 0  # whoever comes second changes nothing
    assert desk.rows(row)[0] == ("ENQUEUED", *before[1:])

    desk.rows("UPDATE dbos.workflow_status SET status = 'PENDING'")
    dispatch._connected.resume_workflows(["r:1"], queue_name="turns")
    assert desk.rows(row)[0] == ("ENQUEUED", *before[1:5], 0)
    await dispatch.close()


class Failing:
    """Raises what it is told, one after another; then ends."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls = 0

    async def execute(self, run_id: str, segment: int) -> None:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)


@pytest.mark.parametrize(
    ("error", "calls", "status"),
    [
        (StoreUnavailable("the disk is full"), 2, "SUCCESS"),
        (StoreError("written by a newer release"), 2, "SUCCESS"),
        (Fenced("taken over"), 1, "SUCCESS"),
        (ValueError("a bug"), 1, "ERROR"),
    ],
)
async def test_how_a_segment_fails_decides_what_becomes_of_its_job(
    desk: Desk, error: Exception, calls: int, status: str
) -> None:
    work = Failing(error)
    engine = DbosEngine(desk.url, work.execute, QUICK)
    await engine.open(work=True)
    await engine.enqueue(Job(run_id="r", segment=1))
    clock = SystemClock()
    while desk.status("r:1") not in ("SUCCESS", "ERROR"):
        await clock.sleep(0.01)
    assert (work.calls, desk.status("r:1")) == (calls, status)
    assert engine.running == frozenset()
    await engine.close(0)


async def test_a_segment_over_its_time_is_interrupted_and_handed_back(desk: Desk) -> None:
    clock, pids = SystemClock(), []

    async def slow_once(run_id: str, segment: int) -> None:
        pids.append(os.getpid())
        if len(pids) == 1:
            await clock.sleep(60)

    engine = DbosEngine(desk.url, slow_once, replace(QUICK, segment=0.2))
    await engine.open(work=True)
    await engine.enqueue(Job(run_id="r", segment=1))
    while desk.status("r:1") != "SUCCESS":
        await clock.sleep(0.01)
    assert len(pids) == 2
    await engine.close(0)

"""Jobs over real Postgres and worker processes: once, in order, where allowed, until deleted."""

from __future__ import annotations

import base64
import pickle
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("dbos")

from roadworthy.engine.distributed import DbosEngine
from roadworthy.engine.jobs import Job
from roadworthy.errors import ConfigurationError, DeclarationError, StoreUnavailable
from tests.engine.desk import PARTITIONED, Desk


async def never(run_id: str, segment: int) -> None:
    raise AssertionError(f"{run_id}:{segment} must not execute here")


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[DbosEngine]:
    """Enqueues; takes nothing."""
    engine = DbosEngine(desk.url, never, PARTITIONED)
    await engine.open(work=False)
    yield engine
    await engine.close(0)


async def test_the_same_segment_enqueued_again_is_the_same_job(
    desk: Desk, client: DbosEngine
) -> None:
    await client.enqueue(Job(run_id="r", segment=1))
    await client.enqueue(Job(run_id="r", segment=1))
    desk.worker()
    await client.enqueue(Job(run_id="r", segment=1))
    await client.enqueue(Job(run_id="r", segment=2))
    desk.until(lambda: desk.order()[-1:] == [("end", "r:2")] and len(desk.order()) == 4)
    await client.enqueue(Job(run_id="r", segment=1))  # also after its end
    await client.enqueue(Job(run_id="r", segment=3))
    desk.until(lambda: ("end", "r:3") in desk.order())
    assert sorted(job for what, job in desk.order() if what == "begin") == ["r:1", "r:2", "r:3"]


@pytest.mark.requirement("PA2-5")
async def test_turns_of_a_conversation_follow_one_another_over_two_workers(
    desk: Desk, client: DbosEngine
) -> None:
    workers = {desk.worker(seconds=0.03).pid, desk.worker(seconds=0.03).pid}
    for turn in range(6):
        for name in ("a", "b", "c"):
            await client.enqueue(Job(run_id=f"{name}{turn}", segment=1, conversation=name))
    desk.until(lambda: len(desk.order()) == 36)
    for name in ("a", "b", "c"):
        happened = [(what, job[:-2]) for what, job in desk.order() if job.startswith(name)]
        assert happened == [(what, f"{name}{n}") for n in range(6) for what in ("begin", "end")]
    assert {row[0] for row in desk.rows("SELECT pid FROM seen")} <= workers


async def test_jobs_enqueued_together_keep_their_order(desk: Desk, client: DbosEngine) -> None:
    together = [Job(run_id=f"r{-n % 7}", segment=n + 1, conversation="c") for n in range(14)]
    await client.enqueue(*together)
    await client.enqueue(*together)
    desk.worker()
    desk.until(lambda: desk.finished() == len(together))
    assert [job for what, job in desk.order() if what == "begin"] == [job.id for job in together]


async def test_a_conversation_of_one_tenant_does_not_hold_up_that_of_another(
    desk: Desk, client: DbosEngine
) -> None:
    desk.worker(seconds=30)
    await client.enqueue(Job(run_id="a", segment=1, conversation="c", tenant="one"))
    await client.enqueue(Job(run_id="b", segment=1, conversation="c", tenant="one"))
    await client.enqueue(Job(run_id="c", segment=1, conversation="c", tenant="two"))
    desk.until(lambda: desk.begun("a:1") and desk.begun("c:1"))
    assert not desk.begun("b:1")


@pytest.mark.parametrize("queue", ["children", "turns"])
async def test_the_urgent_first_then_the_oldest(desk: Desk, client: DbosEngine, queue: str) -> None:
    """Over a whole queue; in the partitioned one, within a conversation."""
    wanted = []
    for number, priority in enumerate([5, 1, 9, 5, 1, 9, 5, 1]):
        run_id = f"r{number}"
        conversation = "c" if queue == "turns" else None
        job = Job(
            run_id=run_id, segment=1, priority=priority, conversation=conversation,
            queue="turns" if queue == "turns" else "children",
        )  # fmt: skip
        await client.enqueue(job)
        wanted.append((priority, number, f"{run_id}:1"))
    desk.worker(at_once=1)
    desk.until(lambda: desk.finished() == len(wanted), 30)
    begun = [job for what, job in desk.order() if what == "begin"]
    assert begun == [job for _, _, job in sorted(wanted)]


async def test_a_process_without_work_takes_nothing_and_says_so(
    desk: Desk, client: DbosEngine
) -> None:
    await client.enqueue(Job(run_id="r", segment=1))
    assert await client.workers() == []
    assert client.executor is None
    health = await client.health()
    assert (health.queues[0].waiting, health.queues[0].executing) == (1, 0)
    assert health.alarms == ("jobs wait and no worker lives",)


async def test_jobs_of_another_protocol_version_wait(desk: Desk, client: DbosEngine) -> None:
    desk.worker(version="2")
    await client.enqueue(Job(run_id="old", segment=1))
    newer = DbosEngine(desk.url, never, replace(PARTITIONED, version="2"))
    await newer.open(work=False)
    await newer.enqueue(Job(run_id="new", segment=1))
    desk.until(lambda: desk.status("new:1") == "SUCCESS")
    assert desk.status("old:1") == "ENQUEUED"
    assert "turns: 1 jobs of another protocol version wait" in (await newer.health()).alarms
    await newer.close(0)
    desk.worker(version="1")
    desk.until(lambda: desk.status("old:1") == "SUCCESS")


async def test_a_waiting_job_is_cancelled_and_an_executing_one_interrupted(
    desk: Desk, client: DbosEngine
) -> None:
    desk.worker(seconds=30)
    await client.enqueue(Job(run_id="first", segment=1, conversation="c"))
    await client.enqueue(Job(run_id="second", segment=1, conversation="c"))
    desk.until(lambda: desk.begun("first:1"))
    await client.cancel("second", 1)
    await client.cancel("first", 1)
    desk.until(lambda: ("cancelled", "first:1") in desk.order())
    await client.enqueue(Job(run_id="third", segment=1, conversation="c"))
    desk.until(lambda: desk.begun("third:1"))
    assert not desk.begun("second:1")
    assert desk.finished() == 0


class _Attack:
    """Creates a file when it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path, str]]:
        return Path.write_text, (self._path, "owned")


async def test_a_pickled_row_is_refused_and_ends(
    desk: Desk, client: DbosEngine, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    row = base64.b64encode(pickle.dumps({"args": (_Attack(mark),), "kwargs": {}})).decode()
    await client.enqueue(Job(run_id="bad", segment=1, conversation="c"))
    desk.rows("UPDATE dbos.workflow_status SET serialization = 'py_pickle'")
    desk.rows("UPDATE dbos.workflow_status SET inputs = %s", row)
    desk.rows("UPDATE dbos.workflow_input SET inputs = %s", row)
    await client.enqueue(Job(run_id="good", segment=1, conversation="c"))
    desk.worker()
    desk.until(lambda: desk.status("good:1") == "SUCCESS")
    assert desk.status("bad:1") == "ERROR"
    assert not mark.exists()
    assert not desk.begun("bad:1")
    assert (await client.health()).failed == 1


async def test_ended_jobs_are_deleted_and_others_stay(desk: Desk, client: DbosEngine) -> None:
    worker = desk.worker()
    for number in range(5):
        await client.enqueue(Job(run_id=f"r{number}", segment=1))
    desk.until(lambda: desk.one("SELECT count(*) FROM dbos.workflow_status") == 5)
    desk.until(lambda: {desk.status(f"r{n}:1") for n in range(5)} == {"SUCCESS"})
    worker.kill()
    await client.enqueue(Job(run_id="waits", segment=1))
    assert await client.sweep(3_600) == 0
    assert await client.sweep(-1) == 5
    assert desk.rows("SELECT workflow_uuid FROM dbos.workflow_status") == [("waits:1",)]
    assert desk.one("SELECT count(*) FROM dbos.operation_outputs") == 0


async def test_a_schedule_fires_once_for_each_instant_over_two_workers(
    desk: Desk, client: DbosEngine
) -> None:
    await client.schedule("clock", "* * * * * *", "payload")
    with pytest.raises(DeclarationError, match="never"):
        await client.schedule("never", "not cron")
    desk.worker()
    desk.worker()
    desk.until(lambda: desk.one("SELECT count(*) FROM seen WHERE what = 'tick'") >= 3)
    ticks = desk.rows("SELECT job FROM seen WHERE what = 'tick'")
    assert len(set(ticks)) == len(ticks)
    assert all(job.startswith("clock@") for (job,) in ticks)
    await client.unschedule("clock")


async def test_one_working_engine_per_process(desk: Desk) -> None:
    first = DbosEngine(desk.url, never)
    await first.open(work=True)
    second = DbosEngine(desk.url, never)
    with pytest.raises(ConfigurationError):
        await second.open(work=True)
    assert [worker.id for worker in await first.workers()] == [first.executor]
    await first.close(0)
    third = DbosEngine(desk.url, never)
    await third.open(work=True)
    await third.close(0)


async def test_without_a_database_every_call_says_so(desk: Desk) -> None:
    engine = DbosEngine(desk.url.replace("engine_", "absent_"), never)
    with pytest.raises(StoreUnavailable):
        await engine.open(work=False)
    await engine.close(0)
    with pytest.raises(StoreUnavailable):
        await engine.enqueue(Job(run_id="r", segment=1))


async def test_sigterm_ends_a_worker_cleanly(desk: Desk, client: DbosEngine) -> None:
    worker = desk.worker()
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0
    assert await client.workers() == []

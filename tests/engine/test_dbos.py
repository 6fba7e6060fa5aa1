"""smoke"""
from roadworthy.engine.dbos import DbosEngine
from roadworthy.engine.jobs import Job
from tests.engine.desk import Desk

async def nothing(run_id, segment): ...

async def test_one(desk: Desk) -> None:
    client = DbosEngine(desk.url, nothing)
    await client.open(work=False)
    desk.worker()
    await client.enqueue(Job(run_id="a", segment=1))
    await client.enqueue(Job(run_id="a", segment=1))
    desk.until(lambda: desk.finished() == 1)
    print(await client.health())
    print(await client.workers())
    await client.close(0)
    assert desk.order() == [("begin", "a:1"), ("end", "a:1")]

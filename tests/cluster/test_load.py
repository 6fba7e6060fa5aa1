"""Too much to do: who is refused, and whose turn it is."""

from __future__ import annotations

import asyncio

import httpx
import psycopg
import pytest

from roadworthy import Agent, RunOptions, Runtime, User
from roadworthy.api import asgi
from roadworthy.engine.jobs import EngineSettings
from roadworthy.errors import Overloaded
from roadworthy.messages import ModelRequest
from roadworthy.run import Unit
from roadworthy.store import jobs
from roadworthy.testing import ScriptedModel


def told(_: ModelRequest) -> str:
    """What the model says."""
    return "Done."


DESK = Agent("desk", model=ScriptedModel(told))


async def refusal(rt: Runtime) -> Overloaded:
    """Ask until it is refused."""
    async with asyncio.timeout(20):
        while True:
            try:
                await rt.start(DESK, "x")
            except Overloaded as error:
                return error


@pytest.mark.requirement("REC-8")
async def test_beyond_what_may_wait_requests_are_refused_but_for_urgent_ones(database: str) -> None:
    settings = EngineSettings(most_waiting=5)
    async with Runtime(database, patterns=[DESK], engine=settings, execute=False) as rt:
        for n in range(5):
            await rt.start(DESK, "x", key=f"k{n}")
        refused = await refusal(rt)  # it counts a few times a second
        await rt.start(DESK, "x", options=RunOptions(priority=1))
        transport = httpx.ASGITransport(asgi(rt))
        async with httpx.AsyncClient(transport=transport, base_url="http://desk") as client:
            answer = await client.post("/v1/runs", json={"input": "x", "user": "ana"})
    assert refused.retry_after > 0
    assert (answer.status_code, answer.json()["error"]) == (429, "overloaded")
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.requirement("PA2-5")
async def test_a_tenant_with_many_runs_does_not_hold_up_another(database: str) -> None:
    async with Runtime(database, patterns=[DESK], execute=False) as rt:
        await rt._open.keeper._stop()  # nobody dispatches: what is next is asked below
        loud = [await rt.start(DESK, "x", user=User("a", "loud")) for _ in range(20)]
        quiet = [await rt.start(DESK, "x", user=User("b", "quiet")) for _ in range(2)]
        urgent = await rt.start(DESK, "x", user="c", options=RunOptions(priority=1))
        taken = Unit(apply=lambda tx: jobs.take(tx, ["desk"], 6))
        rows = await rt._open.journal.commit(taken)
    assert isinstance(rows, list)
    assert {row.id for row in rows} == {urgent, *loud[:3], *quiet}


async def test_what_waits_is_executed_when_there_is_room(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roadworthy.cluster._MOST_ENQUEUED", 3)
    async with Runtime(database, patterns=[DESK]) as rt, asyncio.TaskGroup() as group:
        tasks = [group.create_task(rt.run(DESK, "x")) for _ in range(30)]
    assert {task.result().text for task in tasks} == {"Done."}


@pytest.mark.requirement("REC-8")
async def test_a_run_whose_job_vanished_from_the_engine_gets_a_new_one(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody emptied the engine's tables: the journal is the only truth."""
    monkeypatch.setattr("roadworthy.cluster.LEFT_SECONDS", 0.3)
    async with Runtime(database, patterns=[DESK], execute=False) as rt:
        lost, kept = [await rt.start(DESK, name, key=name) for name in ("lost", "kept")]
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as sql:
            async with asyncio.timeout(20):
                deleted = 0
                while not deleted:
                    gone = await sql.execute(
                        "DELETE FROM dbos.workflow_status WHERE workflow_uuid = %s", (f"{lost}:1",)
                    )
                    deleted = gone.rowcount
        async with asyncio.timeout(20):
            while (await rt.find(lost)).dispatch == 1:
                await rt._open.keeper.workers()
        assert (await rt.find(kept)).dispatch == 1
        async with Runtime(database, patterns=[DESK]):
            assert (await rt.wait(lost)).text == (await rt.wait(kept)).text == "Done."

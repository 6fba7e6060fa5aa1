"""Who enqueues a run: one process, in the transaction in which it marks it."""

from __future__ import annotations

from typing import Any

import pytest

from roadworthy import Agent, Runtime
from roadworthy.engine.distributed import DbosEngine
from roadworthy.engine.jobs import Job
from roadworthy.store import jobs
from roadworthy.store.database import Tx
from roadworthy.store.postgres import PostgresDatabase
from roadworthy.testing import ScriptedModel

DESK = Agent("desk", model=ScriptedModel(["Done."]))


def enqueued(tx: Tx) -> object:
    return tx.value("SELECT count(*) FROM dbos.workflow_status")


async def accepted(database: str, count: int) -> None:
    """Runs that nobody has dispatched."""
    async with Runtime(database, patterns=[DESK], execute=False) as rt:
        await rt._open.keeper._stop()
        for _ in range(count):
            await rt.start(DESK, "x")


@pytest.mark.requirement("REC-8")
async def test_what_one_process_dispatches_another_neither_takes_nor_waits_for(
    database: str,
) -> None:
    await accepted(database, 3)
    store = PostgresDatabase(database)
    one, other = Tx(store, store.connect()), Tx(store, store.connect())
    store.begin(one)
    first = jobs.take(one, ["desk"], 2)
    store.begin(other)
    second = jobs.take(other, ["desk"], 2)  # it would take the same two, and waits for nobody
    store.renew(one)  # the first dies with what it took
    third = jobs.take(other, ["desk"], 3)
    store.renew(other)
    store.close()
    assert (len(first), len(second), len(third)) == (2, 0, 3)


async def test_a_run_is_marked_and_enqueued_or_neither(database: str) -> None:
    await accepted(database, 2)
    store = PostgresDatabase(database)
    engine = DbosEngine(database, never)
    await engine.open(work=False)

    def take(connection: Any) -> list[Job]:  # noqa: ANN401 - a driver's
        rows = jobs.take(Tx(store, connection), ["desk"], 2)
        return [Job(run_id=row.id, segment=row.dispatch) for row in rows]

    def take_and_fail(connection: Any) -> list[Job]:  # noqa: ANN401 - a driver's
        take(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await engine.dispatch(take_and_fail)
    before = store.read(enqueued)
    counts = await engine.dispatch(take), await engine.dispatch(take)
    after = store.read(enqueued)
    await engine.close(0)
    store.close()
    assert (before, counts, after) == (0, (2, 0), 2)


async def never(run_id: str, segment: int) -> None:
    """Nothing executes here."""
    raise AssertionError(f"{run_id}:{segment}")

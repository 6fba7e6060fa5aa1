"""What one process leaves on Postgres, another hears."""

from __future__ import annotations

import asyncio

from roadworthy.run import Refusal, Unit
from roadworthy.store import migrations, waits
from roadworthy.store.journal import Journal
from roadworthy.store.opening import open_database
from roadworthy.testing import FakeClock


async def test_a_refusal_in_the_same_batch_does_not_silence_a_command(database: str) -> None:
    ours, others = open_database(database), open_database(database)
    migrations.upgrade(ours)
    journal = Journal(ours, FakeClock(), lambda *_: None)
    changed = others.watch()
    try:
        command = Unit(apply=lambda tx: waits.add_command(tx, "run_1", "cancel", "", 1))
        nothing: Unit[None] = Unit(apply=lambda _: Refusal())
        told, refused = journal.post(command), journal.post(nothing)
        await told
        await refused
        async with asyncio.timeout(20):
            while not changed():  # noqa: ASYNC110 - a real server
                await asyncio.sleep(0.01)  # noqa: TID251 - as above
    finally:
        await journal.close()
        ours.close()
        others.close()

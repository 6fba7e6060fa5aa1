"""What only a server does: it goes away in the middle, refuses characters, is migrated by several.

The rest of the store's behaviour is tested on both databases: `pytest --store postgres`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.errors import RunError, StoreUnavailable
from roadworthy.events import Noted, ToolSucceeded
from roadworthy.run import Position, Unit
from roadworthy.store import migrations, runs, schema
from roadworthy.store.codec import Seal
from roadworthy.store.database import Statement, Tx
from roadworthy.store.journal import Journal
from roadworthy.testing import FakeClock, ScriptedModel

psycopg = pytest.importorskip("psycopg")

from roadworthy.store.postgres import PostgresDatabase  # noqa: E402 - an extra

if TYPE_CHECKING:
    from tests.postgres import Server

pytestmark = pytest.mark.sqlite_only  # on Postgres anyway: once is enough
ALL = Statement(select(schema.event.c.key).order_by(schema.event.c.seq))


class Failing(PostgresDatabase):
    """A database whose COMMIT is cut off, once: before it reaches the server, or after."""

    cut: str | None = None

    def commit(self, tx: Tx) -> None:
        """Fails where `cut` says."""
        cut, self.cut = self.cut, None
        if cut != "before":
            super().commit(tx)
        if cut is not None:
            tx.connection.close()
            raise psycopg.OperationalError("the connection is lost")


@asynccontextmanager
async def journal_on(database: PostgresDatabase) -> AsyncIterator[Journal]:
    journal = Journal(database, FakeClock(), lambda *_: None)
    yield journal
    await journal.close()
    database.close()


def unit(position: Position, key: str, **more: Any) -> Unit[Any]:  # noqa: ANN401 - of Unit
    return Unit(position=position, events=[Noted(key=key)], **more)


def keys(database: PostgresDatabase) -> list[str]:
    return [row[0] for row in database.read(lambda tx: tx.rows(ALL))]


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_commit_whose_answer_is_lost_is_asked_after(postgres: Server, cut: str) -> None:
    database = Failing(postgres.fresh())
    async with journal_on(database) as journal:
        place = Position("r", 0, 0, Seal(b"k"))
        await journal.commit(unit(place, "first"))
        database.cut = cut
        await journal.commit(unit(place, "second", must=True))
        await journal.commit(unit(place, "third"))
        assert keys(database) == ["first", "second", "third"]


async def test_a_connection_lost_in_a_batch_is_mended_and_nothing_is_doubled(
    postgres: Server,
) -> None:
    database = PostgresDatabase(postgres.fresh())
    cuts = 0

    def cut_off(_: Tx) -> None:
        nonlocal cuts
        cuts += 1
        if cuts == 1:
            assert postgres.cut_off(database.url) >= 1

    async with journal_on(database) as journal:
        place = Position("r", 0, 0, Seal(b"k"))
        one = journal.post(unit(place, "one", must=True))
        two = journal.post(unit(place, "two", apply=cut_off))
        await one
        await two
        assert cuts == 2
        assert postgres.cut_off(database.url) >= 1  # idle ones are mended as well
        await journal.commit(unit(place, "three"))
        assert keys(database) == ["one", "two", "three"]


async def test_two_batches_that_lock_crosswise_are_both_written(postgres: Server) -> None:
    url = postgres.fresh()
    first, second = PostgresDatabase(url), PostgresDatabase(url)
    both = threading.Barrier(2)

    def lock(one: str, other: str) -> Callable[[Tx], None]:
        rounds = 0

        def apply(tx: Tx) -> None:
            nonlocal rounds
            rounds += 1
            runs.tenant_key(tx, one, b"k")
            if rounds == 1:
                both.wait(10)
            runs.tenant_key(tx, other, b"k")

        return apply

    async with journal_on(first) as here, journal_on(second) as there, asyncio.timeout(30):
        tried = here.post(Unit(apply=lock("a", "b"))), there.post(Unit(apply=lock("b", "a")))
        for future in tried:
            await future


async def test_runs_go_on_when_the_server_comes_back(postgres: Server) -> None:
    """It dies while an effect is under way: the outcome is kept, the effect is not repeated."""
    done: list[str] = []

    @tool(effect="irreversible")
    async def pay(to: str) -> str:
        """Pay. to: whom."""
        done.append(to)
        await asyncio.to_thread(postgres.stop)
        return "paid"

    model = ScriptedModel(lambda r: "Done." if r.ordinal else ToolCall("pay", {"to": "bo"}))
    agent = Agent("payer", model=model, tools=[pay])
    async with Runtime(postgres.fresh(), patterns=[agent]) as rt, asyncio.timeout(60):
        run_id = await rt.start(agent, "pay bo")
        while rt.trouble is None:
            await asyncio.to_thread(lambda: None)
        await asyncio.to_thread(postgres.start)
        result = await rt.wait(run_id)
        assert (result.status, result.text) == ("completed", "Done.")
        recorded = await rt.record(run_id)
    assert done == ["bo"]
    assert sum(isinstance(event, ToolSucceeded) for event in recorded) == 1


async def test_texts_that_postgres_refuses_are_kept_or_named(postgres: Server) -> None:
    @tool(effect="read")
    def look() -> str:
        """Look."""
        return "nul \x00 and \U0001f600" + "x" * 300_000

    calls = ScriptedModel(lambda r: f"said \x00 {r.ordinal}" if r.ordinal else ToolCall("look", {}))
    agent = Agent("desk", model=calls, tools=[look])
    async with Runtime(postgres.fresh()) as rt:
        result = await rt.run(agent, "in \x00 put")
        assert result.text == "said \x00 1"
        with pytest.raises(RunError, match="NUL"):
            await rt.find("run_\x00")
        with pytest.raises(RunError, match="NUL"):
            await rt.cancel(await rt.start(agent, "x"), by="\x00")


def test_several_processes_open_an_empty_database_at_once(postgres: Server) -> None:
    url = postgres.empty()

    def open_it(_: int) -> str | None:
        database = PostgresDatabase(url)
        migrations.upgrade(database)
        version = database.version(database.connect())
        database.close()
        return version

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(open_it, range(4))) == [migrations.HEAD] * 4


def test_a_connection_lost_before_it_listens_is_an_error_of_ours(postgres: Server) -> None:
    """A worker that begins while the server restarts waits for it, as for any StoreUnavailable."""

    class Losing(PostgresDatabase):
        def connect(self) -> Any:  # noqa: ANN401 - as declared
            connection = super().connect()
            assert postgres.cut_off(self.url)
            return connection

    database = Losing(postgres.fresh())
    try:
        with pytest.raises(StoreUnavailable, match="Check that the server runs"):
            database.watch()
    finally:
        database.close()

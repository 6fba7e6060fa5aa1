"""Several processes write to one Postgres at once: each unit decides on what is so, not what was.

Two journals, or two runtimes, stand for two processes: nothing is shared but the database.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from roadworthy import Agent, Budget, Runtime, ToolCall, tool
from roadworthy.budget import Held, Ledger
from roadworthy.errors import RoadworthyError, RunError, UnknownApproval
from roadworthy.run import Position, Unit
from roadworthy.store import runs, waits
from roadworthy.store.codec import Seal
from roadworthy.store.database import Tx
from roadworthy.store.journal import Journal
from roadworthy.store.opening import open_database
from roadworthy.testing import FakeClock, ScriptedModel
from tests.properties.test_ledger import Bank, bearer

if TYPE_CHECKING:
    from tests.postgres import Server

T = TypeVar("T")
pytestmark = pytest.mark.sqlite_only  # on Postgres anyway: once is enough


@asynccontextmanager
async def writers(url: str, budgets: list[Budget]) -> AsyncIterator[list[Bank]]:
    """Two ledgers with journals and connections of their own."""
    banks = []
    for _ in range(2):
        clock, database = FakeClock(), open_database(url)
        journal = Journal(database, clock, lambda *_: None)
        banks.append(Bank(Ledger(journal, clock, budgets, 0.0), journal, database, clock))
    yield banks
    for bank in banks:
        await bank.journal.close()
        bank.database.close()


@pytest.mark.requirement("GRD-5", "CST-3")
async def test_two_writers_never_overspend_a_budget_they_share(postgres: Server) -> None:
    """200 reservations of 10 nano-dollars for a cap of 1,010, users in opposite order; then all
    that was held is settled from both sides at once."""
    budgets = [Budget("user", "day", tokens=1000), Budget("tenant", "total", usd="0.00000101")]
    async with writers(postgres.fresh(), budgets) as banks, asyncio.timeout(30):
        places = [(n, w) for n in range(100) for w in (0, 1)]

        async def reserve(number: int, which: int) -> tuple[int, object]:
            user = f"u{number % 7 if which else 6 - number % 7}"
            who = bearer(f"run_{which}_{number}", user)
            return which, await banks[which].reserve(who, f"{who.run_id}:1", 10)

        tried = await together(*(reserve(*place) for place in places))
        held = [(which, one) for which, one in tried if isinstance(one, Held)]
        assert len(held) == 101
        tenant = [row for row in banks[0].accounts() if row[0] == "tenant"]
        assert tenant == [("tenant", 1010, 0, 0, 1010)]
        await together(*(banks[which].settle(one, 9) for which, one in held))
        assert sum(row[2] for row in banks[1].accounts() if row[0] == "tenant") == 909
        assert all(row[4] == 0 for row in banks[1].accounts())


async def together(*works: Awaitable[T], failing: bool = False) -> list[Any]:
    """All at once: what each gave, or, where some may fail, its error."""

    async def one(work: Awaitable[T]) -> T | Exception:
        try:
            return await work
        except RoadworthyError as error:
            if not failing:
                raise
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(work)) for work in works]
    return [task.result() for task in tasks]


def chat() -> Agent:
    return Agent("chat", model=ScriptedModel(lambda _: "yes"))


async def test_a_key_that_two_processes_use_at_once_is_one_run(postgres: Server) -> None:
    url, agent = postgres.fresh(), chat()
    async with Runtime(url) as one, Runtime(url) as two, asyncio.timeout(30):
        for round_ in range(10):
            talk = f"c{round_}" if round_ % 2 else None
            found = await together(
                *(
                    rt.start(agent, "go", key=f"k{round_}", conversation=talk)
                    for rt in (one, two, one, two)
                )
            )
            assert len(set(found)) == 1
        assert len(await one.runs()) == 10


async def test_messages_of_two_processes_keep_one_order(postgres: Server) -> None:
    url, agent = postgres.fresh(), chat()
    async with Runtime(url) as one, Runtime(url) as two, asyncio.timeout(60):
        found = await together(
            *(rt.start(agent, f"m{n}", conversation="c") for n in range(12) for rt in (one, two))
        )
        for run_id in found:
            assert (await two.wait(run_id)).status == "completed"
        rows = sorted(await one.runs(), key=lambda row: row.ordinal)
        assert [row.ordinal for row in rows] == list(range(1, 25))
        assert [row.updated_at for row in rows] == sorted(row.updated_at for row in rows)


async def test_a_conversation_that_two_users_begin_at_once_is_one_users(postgres: Server) -> None:
    url, agent = postgres.fresh(), chat()
    async with Runtime(url) as one, Runtime(url) as two:
        for number in range(10):
            tried = await together(
                one.start(agent, "mine", user="ana", conversation=f"c{number}"),
                two.start(agent, "mine", user="bo", conversation=f"c{number}"),
                failing=True,
            )
            assert Counter(isinstance(it, RunError) for it in tried) == {True: 1, False: 1}


async def test_a_question_is_answered_by_one_of_two_messages(postgres: Server) -> None:
    """The other is a message of its own, behind the run; none is lost."""

    asker = Agent(
        "asker",
        model=ScriptedModel(
            lambda r: "Thanks." if r.ordinal else ToolCall("ask_user", {"question": "Which?"})
        ),
    )
    url = postgres.fresh()
    async with Runtime(url, patterns=[asker]) as one, Runtime(url) as two:
        for number in range(5):
            talk = f"c{number}"
            first = await one.run(asker, "go", conversation=talk)
            said = await together(
                one.start(asker, "this", conversation=talk),
                two.start(asker, "that", conversation=talk),
            )
            assert len(set(said)) == 2
            assert first.run_id in said


class Suspending:
    """A run that goes to wait for an approval which was asked before, as seen by its writer."""

    def __init__(self, server: Server, url: str, run_id: str) -> None:
        self.server, self.url, self.run_id = server, url, run_id
        self.looked, self.told = threading.Event(), threading.Event()

    def unit(self, tx: Tx) -> None:
        runs.set_status(tx, self.run_id, "waiting", "waiting", (0, 0, 0), 9)
        answered = waits.is_answered(tx, "w")
        self.looked.set()
        while not (self.told.is_set() or self._somebody_waits()):
            pass
        if answered:
            runs.wake(tx, self.run_id, 9)

    def _somebody_waits(self) -> bool:
        return bool(self.server.ask("SELECT 1 FROM pg_locks WHERE NOT granted"))


@pytest.mark.parametrize("how", ["answer", "cancel"])
async def test_what_comes_in_as_a_run_goes_to_wait_wakes_it(postgres: Server, how: str) -> None:
    url = postgres.fresh()
    async with Runtime(url, execute=False) as rt:
        run_id = await rt.start(chat(), "go")
        database = open_database(url)
        journal = Journal(database, FakeClock(), lambda *_: None)
        seal = Seal(b"k")
        waiting = waits.WaitRow(
            id="w", run_id=run_id, key="k", kind="approval", tool="t", asks="operator", detail={},
            arguments_hash="", expires=None, answered_at=None, answer=None,
        )  # fmt: skip
        claimed = await journal.commit(
            Unit(apply=lambda tx: runs.claim(tx, runs.hold(tx, run_id), "me", 1))
        )
        await journal.commit(Unit(apply=lambda tx: waits.add(tx, waiting, seal, 1)))
        assert isinstance(claimed, tuple)
        going = Suspending(postgres, url, run_id)
        position = Position(run_id, claimed[0], 5, seal)
        left = journal.post(Unit(position=position, apply=going.unit))
        assert await asyncio.to_thread(going.looked.wait, 10)
        act = rt.resolve("w", "approve", by="ana") if how == "answer" else rt.cancel(run_id)
        try:
            await act
        finally:
            going.told.set()
        await left
        assert (await rt.find(run_id)).status == "queued"
        await journal.close()
        database.close()


async def test_an_approval_that_two_give_at_once_is_given_once(postgres: Server) -> None:
    done: list[str] = []

    @tool(effect="irreversible", approval="operator")
    def pay(to: str) -> str:
        """Pay. to: whom."""
        done.append(to)
        return "paid"

    model = ScriptedModel(lambda r: "ok" if r.ordinal else ToolCall("pay", {"to": "bo"}))
    payer = Agent("payer", model=model, tools=[pay])
    url = postgres.fresh()
    async with Runtime(url, patterns=[payer]) as one, Runtime(url) as two, asyncio.timeout(60):
        for _ in range(10):
            result = await one.run(payer, "pay bo")
            approval = result.waiting[0].id
            tried = await together(
                one.resolve(approval, "approve", by="ana"),
                two.resolve(approval, "approve", by="bo"),
                failing=True,
            )
            assert sum(isinstance(it, UnknownApproval) for it in tried) == 1
            assert (await one.wait(result.run_id)).status == "completed"
    assert len(done) == 10

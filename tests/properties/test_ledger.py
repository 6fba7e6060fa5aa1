"""The ledger under any interleaving: never a nano-dollar above a cap, and nothing leaks.

Seeded schedules drive many bearers at once against the real store; what they did is then compared
with the rows.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roadworthy import Agent, Budget, Limits, Price, Runtime, ToolCall, tool
from roadworthy.budget import Amount, Ask, Bearer, Exhausted, Held, Ledger, rows
from roadworthy.errors import PriceUnknown
from roadworthy.events import (
    BudgetRefused,
    BudgetWarned,
    ModelIntended,
    ModelReplied,
    ReservationExceeded,
    RunEvent,
    StreamEvent,
)
from roadworthy.messages import ModelRequest, ModelSettings, TokenUsage
from roadworthy.models.prices import PriceBook
from roadworthy.run import Position, Unit
from roadworthy.store import migrations
from roadworthy.store.codec import Seal
from roadworthy.store.database import Database, Tx
from roadworthy.store.journal import Journal
from roadworthy.store.opening import open_database
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.testing.scripted import Turn
from tests.properties.books import books

pytestmark = pytest.mark.requirement("GRD-5", "CST-3")


End: TypeAlias = Literal["settled", "assumed", "released"]


@dataclass
class Bank:
    """A ledger on a store of its own, and the events it journaled."""

    ledger: Ledger
    journal: Journal
    database: Database
    clock: FakeClock
    first: int = 0  # position of the first event in each journal
    events: list[RunEvent] = field(default_factory=list)
    places: dict[str, Position] = field(default_factory=dict)

    async def reserve(
        self, who: Bearer, name: str, nanos: int, least: int | None = None
    ) -> Held | Exhausted:
        """Ask for so much, or for at least so much."""
        smallest = nanos if least is None else least

        def fit(there: Amount) -> Amount | None:
            best = min(nanos, there.nanos)
            return Amount(best, 1) if best >= smallest and there.tokens >= 1 else None

        def intent(amount: Amount) -> RunEvent:
            return ModelIntended(
                key=name,
                attempt=1,
                model="m",
                reservation=name,
                nanos=amount.nanos,
                input_bound=0,
                max_tokens=1,
            )

        ask = Ask(
            key=name,
            reservation=name,
            full=Amount(nanos, 1),
            least=Amount(smallest, 1),
            fit=fit,
            intent=intent,
        )
        seal = Seal(b"k" * 32)
        first = self.first
        position = self.places.setdefault(who.run_id, Position(who.run_id, 0, first, seal))
        return await self.ledger.reserve(position, who, ask)

    async def settle(self, held: Held, nanos: int, how: End = "settled") -> None:
        """End a reservation."""

        def apply(tx: Tx) -> None:
            rows.settle(tx, held.reservation, Amount(nanos, 1), how, key=held.reservation)

        run_id = held.reservation.partition(":")[0]
        await self.journal.commit(Unit(position=self.places[run_id], apply=apply))
        self.ledger.released(held.accounts)

    def accounts(self) -> list[tuple[str, int, int, int, int]]:
        """(scope, cap, settled, assumed, held) of each account."""
        connection = self.database.connect()
        query = "SELECT scope, cap, settled, assumed, held FROM account ORDER BY id"
        return [tuple(row) for row in connection.execute(query)]


@asynccontextmanager
async def bank(
    folder: Path, budgets: Sequence[Budget], *, auto: bool = True, first: int = 0
) -> AsyncIterator[Bank]:
    """Open one."""
    clock, events = FakeClock(auto=auto), list[RunEvent]()
    database = open_database(f"sqlite:///{folder}/bank.db")
    migrations.upgrade(database)
    journal = Journal(database, clock, lambda _, event: events.append(event))
    yield Bank(Ledger(journal, clock, budgets, 5.0), journal, database, clock, first, events)
    await journal.close()
    database.close()


def bearer(run: str = "r", user: str = "ana", usd: str | None = None) -> Bearer:
    limits = Limits(usd=usd)
    return Bearer(
        run_id=run, agent="desk", user=user, tenant="acme", conversation=None, limits=limits
    )


@dataclass(frozen=True)
class Plan:
    """What one bearer does: calls of a worst case, their true costs, how each ends."""

    user: str
    calls: tuple[tuple[int, int, End], ...]


CALLS = st.tuples(
    st.integers(1, 40), st.integers(0, 40), st.sampled_from(["settled", "assumed", "released"])
)
PLANS = st.builds(Plan, st.sampled_from(["ana", "bo"]), st.lists(CALLS, max_size=6).map(tuple))


@given(st.lists(PLANS, min_size=1, max_size=8), st.integers(20, 120), st.integers())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_interleaving_overspends(plans: list[Plan], cap: int, seed: int) -> None:
    """After every commit: settled + assumed + held <= cap. At the end: nothing is held, and the
    rows hold exactly what was charged."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_interleave(Path(folder), plans, cap, seed))


async def _interleave(folder: Path, plans: list[Plan], cap: int, seed: int) -> None:
    nano = 1_000_000_000
    budgets = [
        Budget("tenant", "day", usd=f"{cap / nano:.9f}"),
        Budget("user", "hour", usd=f"{cap * 2 // 3 / nano:.9f}", tokens=30),
    ]
    charged: Counter[str] = Counter()

    async with bank(folder, budgets) as ours:

        async def act(number: int, plan: Plan) -> None:
            draw = random.Random(f"{seed}/{number}")  # noqa: S311
            for index, (worst, true, how) in enumerate(plan.calls):
                name = f"{number}:{index}"
                who = bearer(str(number), plan.user)
                held = await ours.reserve(who, name, worst, draw.randint(1, worst))
                if isinstance(held, Exhausted):
                    continue
                await ours.clock.sleep(draw.random())
                cost = 0 if how == "released" else min(true, held.amount.nanos)
                await ours.settle(held, cost, how)
                charged[plan.user] += cost

        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(ours))
            async with asyncio.TaskGroup() as actors:
                for number, plan in enumerate(plans):
                    actors.create_task(act(number, plan))
            watch.cancel()
        _within(ours)
        for scope, _, settled, assumed, held in ours.accounts():
            assert held == 0, scope
            if scope == "tenant":
                assert settled + assumed == charged.total()


def _within(ours: Bank) -> None:
    for scope, cap, settled, assumed, held in ours.accounts():
        assert min(settled, assumed, held) >= 0, scope
        assert settled + assumed + held <= cap, (scope, cap, settled, assumed, held)


async def _watch(ours: Bank) -> None:
    while True:
        await ours.clock.sleep(0.2)
        _within(ours)


async def test_who_comes_first_is_served_first(tmp_path: Path) -> None:
    """Holds in the way are waited for in order; nobody overtakes, also not with a smaller call."""
    served: list[str] = []
    async with bank(tmp_path, [Budget("tenant", "day", usd="0.000000010")], auto=False) as ours:
        first = await ours.reserve(bearer("a"), "a:0", 10)
        assert isinstance(first, Held)

        async def queue(name: str, nanos: int) -> None:
            held = await ours.reserve(bearer(name), f"{name}:0", nanos)
            assert isinstance(held, Held)
            served.append(name)
            await ours.settle(held, 0, "released")

        async with asyncio.TaskGroup() as group:
            for name, nanos in (("b", 10), ("c", 1), ("d", 5)):
                group.create_task(queue(name, nanos))
                await ours.clock.advance(0.2)
            assert served == []
            await ours.settle(first, 0, "released")
            while len(served) < 3:
                await ours.clock.advance(0.01)
    assert served == ["b", "c", "d"]


async def test_exhausted_is_said_at_once_and_busy_after_patience(tmp_path: Path) -> None:
    async with bank(tmp_path, [Budget("tenant", "day", usd="0.000000010")]) as ours:
        before = ours.clock.monotonic()
        never = await ours.reserve(bearer("a"), "a:0", 11)
        assert isinstance(never, Exhausted)
        assert not never.busy
        assert ours.clock.monotonic() == before
        held = await ours.reserve(bearer("a"), "a:1", 9)
        assert isinstance(held, Held)
        busy = await ours.reserve(bearer("b"), "b:0", 2)
        assert isinstance(busy, Exhausted)
        assert busy.busy
        assert 5 <= ours.clock.monotonic() - before < 6
        await ours.settle(held, 9)
        gone = await ours.reserve(bearer("b"), "b:1", 2)
        assert isinstance(gone, Exhausted)
        assert not gone.busy
        refusals = [e for e in ours.events if isinstance(e, BudgetRefused)]
        assert [(e.need, e.left, e.busy) for e in refusals] == [
            (11, 10, False),
            (2, 1, True),
            (2, 1, False),
        ]


async def test_a_call_shrinks_before_it_is_refused(tmp_path: Path) -> None:
    """To what is left when nothing else is held; to what is free once patience is over."""
    async with bank(tmp_path, [Budget("tenant", "day", usd="0.000000010")]) as ours:
        first = await ours.reserve(bearer("a"), "a:0", 100, least=4)
        assert isinstance(first, Held)
        assert first.amount.nanos == 10
        await ours.settle(first, 3)
        second = await ours.reserve(bearer("a"), "a:1", 4)
        third = await ours.reserve(bearer("b"), "b:0", 7, least=2)
        assert isinstance(second, Held)
        assert isinstance(third, Held)
        assert third.amount.nanos == 3


async def test_windows_are_utc_buckets_and_a_call_settles_where_it_was_held(
    tmp_path: Path,
) -> None:
    async with bank(tmp_path, [Budget("tenant", "hour", usd="0.000000010")]) as ours:
        before = await ours.reserve(bearer("a"), "a:0", 10)
        assert isinstance(before, Held)
        await ours.clock.advance(3_600)
        after = await ours.reserve(bearer("a"), "a:1", 10)
        assert isinstance(after, Held)
        await ours.settle(before, 7)
        await ours.settle(after, 4)
        assert [row[2:] for row in ours.accounts()] == [(7, 0, 0), (4, 0, 0)]
        await ours.clock.advance(3_600)
        assert isinstance(await ours.reserve(bearer("a"), "a:2", 10), Held)


async def test_raising_a_cap_reopens(tmp_path: Path) -> None:
    for usd, expected in (("0.000000010", Exhausted), ("0.000000030", Held)):
        first = 0 if expected is Exhausted else 100
        async with bank(tmp_path, [Budget("tenant", "day", usd=usd)], first=first) as ours:
            if expected is Exhausted:
                held = await ours.reserve(bearer("a"), "a:0", 10)
                assert isinstance(held, Held)
                await ours.settle(held, 10)
            assert isinstance(await ours.reserve(bearer("b"), f"b:{usd}", 5), expected)


async def test_a_charge_above_its_reservation_is_recorded_and_closes(tmp_path: Path) -> None:
    """The truth is booked though it passes the cap, and paid work stops until the cap is raised."""
    async with bank(tmp_path, [Budget("tenant", "day", usd="0.000000100")]) as ours:
        held = await ours.reserve(bearer("a"), "a:0", 10)
        assert isinstance(held, Held)
        await ours.settle(held, 25)
        assert ours.accounts() == [("tenant", 100, 25, 0, 0)]
        exceeded = [e for e in ours.events if isinstance(e, ReservationExceeded)]
        assert [(e.reserved, e.actual) for e in exceeded] == [(10, 25)]
        assert isinstance(await ours.reserve(bearer("a"), "a:1", 1), Exhausted)
    async with bank(tmp_path, [Budget("tenant", "day", usd="0.000000200")], first=100) as ours:
        assert isinstance(await ours.reserve(bearer("a"), "a:2", 1), Held)


async def test_warnings_come_once_each(tmp_path: Path) -> None:
    async with bank(tmp_path, [Budget("tenant", "day", usd="0.000000100")]) as ours:
        for number in range(20):
            held = await ours.reserve(bearer("a"), f"a:{number}", 5)
            assert isinstance(held, Held)
            await ours.settle(held, 5)
        warned = [e.percent for e in ours.events if isinstance(e, BudgetWarned)]
        assert warned == [50, 80, 95]


@given(
    st.builds(
        Price,
        input=st.decimals(0, 100, places=3),
        output=st.decimals(0, 100, places=3),
        cache_read=st.none() | st.decimals(0, 100, places=3),
        cache_write=st.none() | st.decimals(0, 100, places=3),
    ),
    st.integers(0, 200_000),
    st.integers(1, 20_000),
    st.data(),
)
def test_the_worst_case_is_never_below_the_cost(
    price: Price, bound: int, most: int, data: st.DataObject
) -> None:
    rates = PriceBook({}).rates("m", price)
    given_ = data.draw(st.integers(0, bound))
    read = data.draw(st.integers(0, given_))
    usage = TokenUsage(
        input=given_,
        output=data.draw(st.integers(0, most)),
        cache_read=read,
        cache_write=data.draw(st.integers(0, given_ - read)),
    )
    assert rates.cost(usage) <= rates.worst(bound, most)
    assert rates.affordable(rates.worst(bound, most), bound) >= most
    fits = rates.affordable(rates.worst(bound, most) - 1, bound)
    assert (
        fits == 0
        or rates.worst(bound, fits) <= max(rates.worst(bound, most) - 1, 0)
        or (rates.worst(bound, most) == rates.worst(bound, fits))
    )


# --- through the runtime -------------------------------------------------------------------

DEAR = Price(input=0, output=1_000)  # a micro-dollar... a thousandth of a dollar a token
FULL = ModelSettings(max_tokens=400)


@pytest.mark.requirement("CST-4", "ORC-5")
async def test_200_runs_share_a_budget_for_exactly_37_calls(tmp_path: Path) -> None:
    """37 calls are paid; each other run ends at once, with the reason, and pays nothing."""
    call = 400 * 1_000_000  # nano-dollars
    reserve = 500 * 1_000_000
    cap = 36 * call + call + reserve + 1  # the last of them must fit beside its closing reserve
    model = ScriptedModel(lambda _: "ok", price=DEAR, usage=TokenUsage(input=10, output=400))
    agent = Agent("desk", model=model, settings=FULL, limits=Limits(usd=None))
    url = f"sqlite:///{tmp_path}/s.db"
    seen: list[StreamEvent] = []
    budget = Budget("tenant", "day", usd=f"{cap / 1e9:.9f}")
    async with Runtime(url, budgets=[budget], on_event=seen.append) as rt, asyncio.timeout(60):
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(rt.run(agent, f"number {n}")) for n in range(200)]
        results = [run.result() for run in runs]
    by_reason = Counter((r.status, r.reason) for r in results)
    assert by_reason == {("completed", "answered"): 37, ("stopped", "budget"): 163}
    assert sum(isinstance(e, ModelReplied) for e in seen) == len(model.requests) == 37
    assert books(url)["tenant"] == (37 * call, 0, 0)
    assert sum(r.usage.nanos for r in results) == 37 * call
    assert all(r.text for r in results)


async def test_an_unknown_price_is_refused(tmp_path: Path) -> None:
    class Unpriced(ScriptedModel):
        """A model nobody has a price for."""

    model = Unpriced(["hi"], name="nobody:knows")
    model.price = None
    url = f"sqlite:///{tmp_path}/s.db"
    async with Runtime(url) as rt:
        with pytest.raises(PriceUnknown, match="nobody:knows"):
            await rt.run(Agent("d", model=model), "go")
    assert model.requests == []
    assert books(url) == {}


@pytest.mark.requirement("CST-4", "REC-5")
async def test_an_exhausted_run_still_delivers(tmp_path: Path) -> None:
    """Its reserve for a closing answer was held from its first call on, within the cap."""

    @tool(effect="read")
    def look(item: str) -> str:
        """Look."""
        return f"{item} is there"

    def say(request: ModelRequest) -> Turn:
        if not request.tools:
            return "Half of it: a is there, the rest is missing."
        return ToolCall("look", {"item": str(request.ordinal)})

    model = ScriptedModel(say, price=DEAR, usage=TokenUsage(input=100, output=200))
    agent = Agent("d", model=model, tools=[look], settings=FULL, limits=Limits(usd="2.2"))
    url = f"sqlite:///{tmp_path}/s.db"
    async with Runtime(url) as rt:
        result = await rt.run(agent, "go")
        replayed = await rt.replay(result.run_id)
    assert (result.status, result.reason) == ("partial", "budget")
    assert result.text.startswith("Half of it")
    assert "look" in result.report.done
    assert result.report.missing
    settled, assumed, held = books(url)["run"]
    assert settled == result.usage.nanos == 200 * 1_000_000 * len(model.requests)
    assert assumed == held == 0
    assert settled <= 2_200_000_000
    assert replayed.differences == ()


async def test_more_usage_than_reserved_stops_paid_work(tmp_path: Path) -> None:
    """A provider that bills more than max_tokens allows is believed, and not asked again."""

    @tool(effect="read")
    def look(item: str) -> str:
        """Look."""
        return item

    calls = [ToolCall("look", {"item": str(n)}) for n in range(9)]
    model = ScriptedModel(calls, price=DEAR, usage=TokenUsage(input=10, output=900))
    agent = Agent("d", model=model, tools=[look], settings=FULL, limits=Limits(usd=100))
    url = f"sqlite:///{tmp_path}/s.db"
    seen: list[StreamEvent] = []
    async with Runtime(url, on_event=seen.append) as rt:
        result = await rt.run(agent, "go")
    assert len(model.requests) == 1
    assert result.reason == "budget"
    assert result.usage.nanos == 900 * 1_000_000
    assert books(url)["run"] == (900 * 1_000_000, 0, 0)
    assert sum(isinstance(e, ReservationExceeded) for e in seen) == 1

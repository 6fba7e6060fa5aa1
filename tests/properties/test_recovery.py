"""What a dead process, a person or a cancel leaves behind, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from roadworthy import Agent, Budget, Limits, Price, RunContext, Runtime, ToolCall, ToolError, tool
from roadworthy.agent import Reconciled
from roadworthy.errors import IdempotencyConflict, UnknownApproval
from roadworthy.events import (
    BudgetWarned,
    Delivered,
    ModelFailed,
    RunEnded,
    StreamEvent,
    ToolSucceeded,
)
from roadworthy.messages import ModelRequest, TokenUsage
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.testing.scripted import Turn
from tests.properties.books import books
from tests.properties.snapshots import Snapshots

PRICE = Price(input=1, output=10)
USAGE = TokenUsage(input=100, output=10)


@tool
def send(item: str) -> str:
    """Send."""
    return f"{item} sent"


@tool(approval="operator")
def close_account(item: str) -> str:
    """Close."""
    return f"{item} closed"


@tool(effect="read")
def look(item: str) -> str:
    """Look."""
    return f"{item} is there"


class Counted:
    """A model that copies the store while it is asked, as if the process died there."""

    def __init__(self, turns: list[Turn], die_at: int | None, snapshots: Snapshots) -> None:
        self.copies: list[str] = []

        def say(request: ModelRequest) -> Turn:
            if request.ordinal == die_at:
                self.copies.append(snapshots.take())
            return turns[request.ordinal]

        self.model = ScriptedModel(say, price=PRICE, usage=USAGE)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until it holds."""
    async with asyncio.timeout(10):
        while not condition():
            done = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(done.set_result, None)
            await done


@pytest.mark.requirement("GRD-5", "REC-8")
async def test_a_call_in_flight_is_assumed_when_the_run_is_cancelled_after_a_crash(
    tmp_path: Path,
) -> None:
    """Its charge is unknown: it must not come back into the budget as if it had been free."""
    snapshots = Snapshots(tmp_path / "store.db", tmp_path)
    counted = Counted([ToolCall("look", {"item": "a"}), "done"], 1, snapshots)
    agent = Agent("desk", model=counted.model, tools=[look])
    async with Runtime(snapshots.url, patterns=[agent]) as rt:
        run_id = await rt.start(agent, "go")
        await rt.wait(run_id)
    url = counted.copies[0]
    async with Runtime(url) as rt:  # does not know the agent: only leaves the cancel
        await rt.cancel(run_id)
    async with Runtime(url, patterns=[agent]) as rt:
        result = await rt.wait(run_id)
        events = [e async for e in rt.events(run_id)]
    assert (result.status, result.reason) == ("stopped", "cancelled")
    assumed = sum(e.assumed for e in events if isinstance(e, ModelFailed))
    assert assumed > 0
    assert result.usage.assumed_nanos == assumed
    assert books(url)["run"] == (USAGE_NANOS, assumed, 0)


USAGE_NANOS = 100 * 1_000 + 10 * 10_000


@pytest.mark.requirement("REC-8", "ORC-5")
async def test_a_run_that_goes_on_killing_its_process_is_parked(tmp_path: Path) -> None:
    """Its money stays on the books: what was settled, and each call in flight as assumed."""
    url, run_id = f"sqlite:///{tmp_path}/store.db", ""
    for death in range(5):
        snapshots = Snapshots(Path(url.removeprefix("sqlite:///")), tmp_path / str(death))
        counted = Counted([ToolCall("look", {"item": "a"}), "done"], 1, snapshots)
        agent = Agent("desk", model=counted.model, tools=[look])
        async with Runtime(url, patterns=[agent]) as rt:
            run_id = run_id or await rt.start(agent, "go")
            result = await rt.wait(run_id)
            if death == 4:
                events = [e async for e in rt.events(run_id)]
                replayed = await rt.replay(run_id)
        url = counted.copies[0] if counted.copies else url
    assert (result.status, result.reason) == ("partial", "poison")
    assert not counted.copies
    assert result.report.done == ("look",)
    assumed = sum(e.assumed for e in events if isinstance(e, ModelFailed))
    assert result.usage.nanos == USAGE_NANOS
    assert result.usage.assumed_nanos == assumed > 0
    assert books(url)["run"] == (USAGE_NANOS, assumed, 0)
    assert replayed.differences == ()


async def test_an_answer_to_an_ended_run_changes_nothing(tmp_path: Path) -> None:
    """A cancelled run stays ended when somebody decides its approval later."""
    model = ScriptedModel([ToolCall("close_account", {"item": "a"}), "done"])
    agent = Agent("desk", model=model, tools=[close_account])
    async with Runtime(f"sqlite:///{tmp_path}/s.db") as rt:
        waiting = await rt.run(agent, "go")
        await rt.cancel(waiting.run_id)
        ended = await rt.wait(waiting.run_id)
        while not ended.over:
            ended = await rt.wait(waiting.run_id)
        with pytest.raises(UnknownApproval):
            await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        events = [e async for e in rt.events(waiting.run_id)]
    assert ended.reason == "cancelled"
    assert sum(isinstance(e, RunEnded) for e in events) == 1
    assert sum(isinstance(e, Delivered) for e in events) == 1


async def test_two_decisions_at_once_both_count(tmp_path: Path) -> None:
    """The second arrives while the first is being acted on: the run must not sleep on it."""
    calls = [ToolCall("close_account", {"item": "a"}), ToolCall("close_account", {"item": "b"})]
    agent = Agent("desk", model=ScriptedModel([calls, "done"]), tools=[close_account])
    for number in range(10):
        async with Runtime(f"sqlite:///{tmp_path}/s{number}.db") as rt:
            waiting = await rt.run(agent, "go")
            first, second = waiting.waiting
            await rt.resolve(first.id, "approve", by="lea")
            for _ in range(number * 3):
                await asyncio.get_running_loop().run_in_executor(None, lambda: None)
            await rt.resolve(second.id, "approve", by="lea")
            async with asyncio.timeout(5):
                result = await rt.wait(waiting.run_id)
                while not result.over:
                    result = await rt.wait(waiting.run_id)
            assert result.status == "completed"


async def test_time_spent_ended_is_not_active_time(tmp_path: Path) -> None:
    """A run reopened the next day has not been active for a day."""
    clock = FakeClock()
    script: list[Turn] = [ToolCall("look", {"item": "a"}), ToolCall("look", {"item": "b"})]
    model = ScriptedModel([*script, "partly", "done"], price=PRICE, usage=USAGE)
    agent = Agent("desk", model=model, tools=[look], limits=Limits(turns=2, seconds=60))
    async with Runtime(f"sqlite:///{tmp_path}/s.db", clock=clock) as rt:
        first = await rt.run(agent, "go")
        assert first.reason == "turn_limit"
        await clock.advance(86_400)
        await rt.resume(first.run_id, limits=Limits(turns=9, seconds=60))
        result = await rt.wait(first.run_id)
        replayed = await rt.replay(first.run_id)
    assert (result.status, result.text) == ("completed", "done")
    assert result.usage.nanos == 4 * USAGE_NANOS  # the closing answer was paid too
    assert replayed.differences == ()


async def test_the_time_limit_is_not_checked_on_recorded_turns(tmp_path: Path) -> None:
    """A run resumed when its time is over ends where it stood, not at its first turn."""
    clock, snapshots = FakeClock(), Snapshots(tmp_path / "store.db", tmp_path)
    urls = list[str]()
    looks: list[Turn] = [ToolCall("look", {"item": "a"}), ToolCall("look", {"item": "b"})]
    script: list[Turn] = [*looks, "x", "partly"]

    async def slow(request: ModelRequest) -> Turn:
        if request.ordinal == 1:
            await clock.advance(50)
        if request.ordinal == 2:
            await clock.advance(20)
            urls.append(snapshots.take())
        return script[request.ordinal]

    model = ScriptedModel(lambda request: slow(request), price=PRICE, usage=USAGE)
    agent = Agent("desk", model=model, tools=[look], limits=Limits(seconds=45))
    async with Runtime(snapshots.url, clock=clock) as rt:
        first = await rt.run(agent, "go")
        replayed = await rt.replay(first.run_id)
    assert first.reason == "time_limit"
    assert replayed.differences == ()
    for url in urls:
        async with Runtime(url, patterns=[agent], clock=FakeClock(start=clock.now())) as rt:
            result = await rt.wait(first.run_id)
        assert result.reason == "time_limit"
        assert result.report.done == first.report.done
        assert result.usage.turns == first.usage.turns


@pytest.mark.requirement("TOL-4")
@pytest.mark.parametrize("found", ["not_applied", "applied"])
async def test_reconcile_decides_without_a_person(tmp_path: Path, found: str) -> None:
    """The reply is lost, the bank is asked: done means done, not done means it is tried again."""
    done: list[str] = []

    def ask_bank(run: RunContext[None], item: str) -> Reconciled:
        return ("applied", "paid, says the bank") if done else "not_applied"

    @tool(reconcile=ask_bank)
    def pay(run: RunContext[None], item: str) -> str:
        """Pay."""
        if run.attempt == 1:
            if found == "applied":
                done.append(run.key)
            raise ConnectionError("reply lost")
        done.append(run.key)
        return "paid"

    clock = FakeClock(auto=True)
    agent = Agent("d", model=ScriptedModel([ToolCall("pay", {"item": "a"}), "end"]), tools=[pay])
    async with Runtime(f"sqlite:///{tmp_path}/s.db", clock=clock) as rt:
        result = await rt.run(agent, "go")
    assert result.status == "completed"
    assert len(done) == 1


@pytest.mark.requirement("TOL-4")
async def test_a_transient_error_of_an_irreversible_tool_is_not_retried(tmp_path: Path) -> None:
    """Only NotApplied says that nothing happened; `retry=True` says that trying again may help."""
    calls: list[int] = []

    @tool
    def wire(run: RunContext[None], item: str) -> str:
        """Wire."""
        calls.append(run.attempt)
        raise ToolError("timed out", retry=True)

    agent = Agent("d", model=ScriptedModel([ToolCall("wire", {"item": "a"}), "end"]), tools=[wire])
    async with Runtime(f"sqlite:///{tmp_path}/s.db", clock=FakeClock(auto=True)) as rt:
        result = await rt.run(agent, "go")
    assert calls == [1]
    assert (result.status, result.waiting[0].kind) == ("waiting", "unknown_outcome")


async def test_a_cancelled_run_replays(tmp_path: Path) -> None:
    runtime: list[Runtime] = []
    asking: list[asyncio.Future[None]] = []

    def cancel(request: ModelRequest) -> Turn:
        asking.append(asyncio.ensure_future(runtime[0].cancel(request.run_id)))
        return ToolCall("hang", {"item": "a"})

    @tool(effect="read")
    async def hang(item: str) -> str:
        """Hang."""
        await asyncio.Event().wait()
        return item

    agent = Agent("d", model=ScriptedModel([cancel]), tools=[hang])
    async with Runtime(f"sqlite:///{tmp_path}/s.db") as rt:
        runtime.append(rt)
        result = await rt.run(agent, "go")
        replayed = await rt.replay(result.run_id)
    assert result.reason == "cancelled"
    assert replayed.differences == ()


async def test_text_that_is_no_unicode_does_not_stop_the_store(tmp_path: Path) -> None:
    """Half a surrogate pair from a provider fails no run, and never the writer of all runs."""

    @tool(effect="read")
    def broken() -> str:
        """Break."""
        return "half \ud83d"

    script: list[Turn] = [ToolCall("broken", {}), "half \ud83d"]
    agent = Agent("d", model=ScriptedModel(script, usage=USAGE), tools=[broken, look])
    async with Runtime(f"sqlite:///{tmp_path}/s.db") as rt, asyncio.timeout(5):
        result = await rt.run(agent, "go")
        assert result.status == "completed"
        odd = ScriptedModel([ToolCall("look", {"item": "\ud83d"}), "done"], usage=USAGE)
        result = await rt.run(Agent("e", model=odd, tools=[look]), "go")
        assert result.over
        after = await rt.run(Agent("f", model=ScriptedModel(["fine"])), "go")
        assert after.text == "fine"


async def test_the_same_bound_twice_counts_once(tmp_path: Path) -> None:
    """Two budgets on one account: the tighter binds, and no call is booked twice."""
    seen: list[StreamEvent] = []
    budgets = [Budget("user", "day", usd=1), Budget("user", "day", usd="0.5", of="ana")]
    agent = Agent("d", model=ScriptedModel(["hi"], price=PRICE, usage=USAGE))
    url = f"sqlite:///{tmp_path}/s.db"
    async with Runtime(url, budgets=budgets, on_event=seen.append) as rt:
        await rt.run(agent, "go", user="ana")
    assert books(url)["user"] == (USAGE_NANOS, 0, 0)


async def test_raising_a_cap_warns_anew(tmp_path: Path) -> None:
    """95 per cent of a small budget were used; half of a larger one is news again."""
    agent = Agent(
        "d",
        model=ScriptedModel(
            lambda _: "hi", price=Price(input=0, output=100), usage=TokenUsage(output=100)
        ),
        limits=Limits(usd=None),
    )
    found = []
    url = f"sqlite:///{tmp_path}/s.db"
    for usd, times in (("0.3", 25), ("0.6", 25)):
        seen: list[StreamEvent] = []
        async with Runtime(
            url, budgets=[Budget("user", "total", usd=usd)], on_event=seen.append
        ) as rt:
            for _ in range(times):
                await rt.run(agent, "go")
        found.append([e.percent for e in seen if isinstance(e, BudgetWarned)])
    assert found == [[50, 80], [50, 80]]


async def test_events_of_reads_survive_a_stop(tmp_path: Path) -> None:
    """Parallel reads of which one cannot be paid: the run ends with a reason, not with an error."""

    @tool(effect="read", cost="0.9")
    def dear(item: str) -> str:
        """Dear."""
        return item

    calls = [ToolCall("dear", {"item": "a"}), ToolCall("dear", {"item": "b"})]
    agent = Agent("d", model=ScriptedModel([calls, "end"]), tools=[dear], limits=Limits(usd=1))
    async with Runtime(f"sqlite:///{tmp_path}/s.db") as rt:
        result = await rt.run(agent, "go")
        replayed = await rt.replay(result.run_id)
        events = [e async for e in rt.events(result.run_id)]
    assert result.reason == "budget"
    assert sum(isinstance(e, ToolSucceeded) for e in events) == 1
    assert replayed.differences == ()


async def test_repeating_an_ended_request_leaves_its_conversation_free(tmp_path: Path) -> None:
    """The same key again is the same run; it is over, and must not hold the conversation again."""
    agent = Agent("d", model=ScriptedModel(lambda _: "hi"))
    async with Runtime(f"sqlite:///{tmp_path}/s.db") as rt, asyncio.timeout(5):
        first = await rt.run(agent, "go", conversation="c", key="k")
        again = await rt.run(agent, "go", conversation="c", key="k")
        following = await rt.run(agent, "and?", conversation="c")
    assert again.run_id == first.run_id
    assert following.status == "completed"


@pytest.mark.requirement("GRD-5")
async def test_a_paid_tool_in_flight_is_assumed_when_the_run_is_cancelled(tmp_path: Path) -> None:
    """As with models: nobody knows whether the dead attempt was charged."""
    snapshots = Snapshots(tmp_path / "store.db", tmp_path)
    copies: list[str] = []

    @tool(effect="read", cost="0.01")
    async def search(item: str) -> str:
        """Search, for money."""
        copies.append(snapshots.take())
        return item

    model = ScriptedModel([ToolCall("search", {"item": "a"}), "done"], price=PRICE, usage=USAGE)
    agent = Agent("d", model=model, tools=[search])
    async with Runtime(snapshots.url) as rt:
        whole = await rt.run(agent, "go")
    async with Runtime(copies[0]) as rt:
        await rt.cancel(whole.run_id)
    async with Runtime(copies[0], patterns=[agent]) as rt:
        result = await rt.wait(whole.run_id)
    assert result.reason == "cancelled"
    assert books(copies[0])["run"] == (USAGE_NANOS, 10_000_000, 0)
    assert result.usage.nanos == USAGE_NANOS
    assert result.usage.assumed_nanos == 10_000_000


async def test_dependencies_that_fail_to_close_end_nothing_twice(tmp_path: Path) -> None:
    @asynccontextmanager
    async def broken(_: RunContext[None]) -> AsyncIterator[int]:
        yield 1
        raise RuntimeError("the connection was gone")

    agent = Agent("d", model=ScriptedModel(["hi"]), deps=broken)
    async with Runtime(f"sqlite:///{tmp_path}/s.db") as rt:
        result = await rt.run(agent, "go")
        events = [e async for e in rt.events(result.run_id)]
    assert result.status == "completed"
    assert sum(isinstance(e, RunEnded) for e in events) == 1


@pytest.mark.requirement("TOL-4")
async def test_an_answer_sent_twice_is_one_answer(tmp_path: Path) -> None:
    """A client that repeats its request after a lost reply must not start another run."""

    def say(request: ModelRequest) -> Turn:
        return "done" if request.ordinal else ToolCall("ask_user", {"question": "Which?"})

    agent = Agent("d", model=ScriptedModel(say))
    async with Runtime(f"sqlite:///{tmp_path}/s.db") as rt:
        asked = await rt.run(agent, "go", conversation="c", key="1")
        assert asked.question == "Which?"
        first = await rt.run(agent, "the red one", conversation="c", key="2")
        again = await rt.run(agent, "the red one", conversation="c", key="2")
        with pytest.raises(IdempotencyConflict):
            await rt.run(agent, "the blue one", conversation="c", key="2")
    assert asked.run_id == first.run_id == again.run_id
    assert first.status == again.status == "completed"

"""Attempts and pauses are counted from the record: a process that dies resets neither."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy import Agent, Budget, NotApplied, Price, RunContext, Runtime, ToolCall, tool
from roadworthy.agent import Reconciled
from roadworthy.clock import MICROS
from roadworthy.errors import ModelRateLimited, ModelRejected, ModelUnavailable
from roadworthy.events import (
    ModelFailed,
    ModelIntended,
    ModelReplied,
    RunEvent,
    StreamEvent,
    ToolAttemptFailed,
    ToolFailed,
    ToolIntended,
    ToolSucceeded,
)
from roadworthy.limits import Phase
from roadworthy.messages import Message, ModelRequest, Reply, TokenUsage, ToolResult
from roadworthy.meter import Meter
from roadworthy.retries import Backoff
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.testing.scripted import Item, Turn
from tests.properties.books import books
from tests.properties.snapshots import Snapshots
from tests.properties.test_recovery import until
from tests.properties.test_replay import check_money
from tests.scenarios.world import journal, of_kind

pytestmark = pytest.mark.requirement("REC-8")

PRICE = Price(input=1, output=10)
USAGE = TokenUsage(input=100, output=10)


class Cuts:
    """The store as it was after each event: there the process may have died."""

    def __init__(self, folder: Path) -> None:
        self.snapshots = Snapshots(folder / "s.db", folder / "cuts")
        self.taken: list[tuple[RunEvent, str]] = []

    def seen(self, event: StreamEvent) -> None:
        """Pass it as `on_event`."""
        if isinstance(event, RunEvent):
            self.taken.append((event, self.snapshots.take()))

    def after(self, kind: type[RunEvent], attempt: int) -> tuple[Any, str]:
        """The event of this attempt, and the store as it left it."""
        found = [cut for cut in self.taken if isinstance(cut[0], kind)]
        return next(cut for cut in found if getattr(cut[0], "attempt", 0) == attempt)


def saying(asked: list[str], name: str, said: Turn) -> ScriptedModel:
    """A model that always says the same, and notes that it was asked."""

    def say(_: ModelRequest) -> Turn:
        asked.append(name)
        return said

    return ScriptedModel(say, name=name, price=PRICE, usage=USAGE)


# --- models -------------------------------------------------------------------------------


@pytest.mark.requirement("TOL-3", "REC-7")
async def test_a_dead_process_leaves_the_attempts_it_did_not_use(tmp_path: Path) -> None:
    """Four attempts a model; the one in flight at the crash is used up, the last one too."""
    asked: list[str] = []
    cuts = Cuts(tmp_path)
    agent = Agent("desk", model=saying(asked, "m", ModelUnavailable("503 from it")))
    async with Runtime(cuts.snapshots.url, clock=FakeClock(auto=True), on_event=cuts.seen) as rt:
        first = await rt.run(agent, "go")
    assert (first.reason, len(asked)) == ("model_failed", 4)
    for died_in in (1, 2, 3, 4):
        asked.clear()
        _, url = cuts.after(ModelIntended, died_in)
        async with Runtime(url, patterns=[agent], clock=FakeClock(auto=True)) as rt:
            result = await rt.wait(first.run_id)
            intents = await of_kind(rt, first.run_id, ModelIntended)
            events = await journal(rt, first.run_id)
        assert (result.status, result.reason) == ("failed", "model_failed")
        assert len(asked) == 4 - died_in
        assert [i.attempt for i in intents] == [1, 2, 3, 4]
        check_money(url, events, result)


@pytest.mark.requirement("REC-7")
async def test_a_chain_goes_on_behind_the_model_that_gave_up(tmp_path: Path) -> None:
    asked: list[str] = []
    cuts = Cuts(tmp_path)
    rejecting = saying(asked, "a", ModelRejected("no such model"))
    tiers = {"large": [rejecting, saying(asked, "b", ModelUnavailable("503 from b"))]}
    agent = Agent("desk", model="large")
    async with Runtime(
        cuts.snapshots.url, tiers=tiers, clock=FakeClock(auto=True), on_event=cuts.seen
    ) as rt:
        first = await rt.run(agent, "go")
    assert "".join(asked) == "abbbb"
    places: list[tuple[type[RunEvent], int, str]] = [
        (ModelIntended, 1, "abbbb"),  # what a would have said nobody knows
        (ModelFailed, 1, "bbbb"),
        (ModelIntended, 3, "bb"),
        (ModelFailed, 5, ""),
    ]
    for kind, attempt, then in places:
        asked.clear()
        _, url = cuts.after(kind, attempt)
        async with Runtime(url, patterns=[agent], tiers=tiers, clock=FakeClock(auto=True)) as rt:
            result = await rt.wait(first.run_id)
        assert "".join(asked) == then
        assert (result.reason, result.report.why) == (first.reason, first.report.why)


@pytest.mark.requirement("TOL-3")
async def test_the_pause_a_provider_asked_for_outlives_the_process(tmp_path: Path) -> None:
    script: list[Item] = [ModelRateLimited("slow down", retry_after=50), "Hi."]
    cuts, agent = Cuts(tmp_path), Agent("desk", model=ScriptedModel(script))
    async with Runtime(cuts.snapshots.url, clock=FakeClock(auto=True), on_event=cuts.seen) as rt:
        first = await rt.run(agent, "go")
    failed, url = cuts.after(ModelFailed, 1)
    clock = FakeClock(start=failed.at, auto=True)
    async with Runtime(url, patterns=[agent], clock=clock) as rt:
        result = await rt.wait(first.run_id)
        intents = await of_kind(rt, first.run_id, ModelIntended)
    assert result.text == "Hi."
    assert intents[1].at >= failed.retry_at >= failed.at + 49 * MICROS


async def test_a_cancel_ends_a_pause_that_was_taken_up_again(tmp_path: Path) -> None:
    asked: list[str] = []
    cuts = Cuts(tmp_path)
    agent = Agent("desk", model=saying(asked, "m", ModelRateLimited("slow", retry_after=50)))
    async with Runtime(cuts.snapshots.url, clock=FakeClock(auto=True), on_event=cuts.seen) as rt:
        first = await rt.run(agent, "go")
    failed, url = cuts.after(ModelFailed, 1)
    asked.clear()
    async with Runtime(url, patterns=[agent], clock=FakeClock(start=failed.at)) as rt:
        async with asyncio.timeout(10):
            await rt.cancel(first.run_id)
            result = await rt.wait(first.run_id)
    assert (result.reason, asked) == ("cancelled", [])


# --- tools --------------------------------------------------------------------------------


@pytest.mark.requirement("TOL-3", "CST-3")
async def test_a_dead_process_leaves_a_tool_the_attempts_it_did_not_use(tmp_path: Path) -> None:
    tried: list[int] = []

    @tool(effect="read", cost="0.001", retries=2)
    def search(run: RunContext[None], item: str) -> str:
        """Search, for money."""
        tried.append(run.attempt)
        raise ConnectionError("down")

    cuts = Cuts(tmp_path)
    model = ScriptedModel([ToolCall("search", {"item": "a"}), "nothing"], price=PRICE, usage=USAGE)
    agent = Agent("desk", model=model, tools=[search])
    async with Runtime(cuts.snapshots.url, clock=FakeClock(auto=True), on_event=cuts.seen) as rt:
        first = await rt.run(agent, "go")
        check_money(cuts.snapshots.url, await journal(rt, first.run_id), first)
    assert tried == [1, 2, 3]
    for died_in in (1, 2, 3):
        tried.clear()
        _, url = cuts.after(ToolIntended, died_in)
        async with Runtime(url, patterns=[agent], clock=FakeClock(auto=True)) as rt:
            result = await rt.wait(first.run_id)
            (failed,) = await of_kind(rt, first.run_id, ToolFailed)
            events = await journal(rt, first.run_id)
            assert (await rt.replay(first.run_id)).differences == ()
        assert tried == [1, 2, 3][died_in:]
        assert (result.status, failed.attempts) == ("completed", 3)
        assert result.usage.usd == first.usage.usd
        assert result.usage.assumed_nanos == 1_000_000
        check_money(url, events, result)


@pytest.mark.requirement("TOL-4")
async def test_an_effect_that_died_in_its_last_attempt_is_not_tried_a_fourth_time(
    tmp_path: Path,
) -> None:
    tried: list[int] = []

    def look_up(run: RunContext[None], item: str) -> Reconciled:
        return "not_applied"

    @tool(reconcile=look_up, retries=2)
    def pay(run: RunContext[None], item: str) -> str:
        """Pay."""
        tried.append(run.attempt)
        raise NotApplied("busy")

    cuts = Cuts(tmp_path)
    model = ScriptedModel([ToolCall("pay", {"item": "a"}), "not paid"])
    agent = Agent("desk", model=model, tools=[pay])
    async with Runtime(cuts.snapshots.url, clock=FakeClock(auto=True), on_event=cuts.seen) as rt:
        first = await rt.run(agent, "go")
    for died_in in (2, 3):
        tried.clear()
        _, url = cuts.after(ToolIntended, died_in)
        async with Runtime(url, patterns=[agent], clock=FakeClock(auto=True)) as rt:
            result = await rt.wait(first.run_id)
        assert tried == [1, 2, 3][died_in:]
        assert result.text == "not paid"


@pytest.mark.requirement("TOL-3")
async def test_the_pause_before_a_tool_is_tried_again_outlives_the_process(tmp_path: Path) -> None:
    @tool(retries=6)
    def pay(run: RunContext[None], item: str) -> str:
        """Pay."""
        if run.attempt <= 6:
            raise NotApplied("busy")
        return "paid"

    cuts = Cuts(tmp_path)
    model = ScriptedModel([ToolCall("pay", {"item": "a"}), "paid"])
    agent = Agent("desk", model=model, tools=[pay])
    async with Runtime(cuts.snapshots.url, clock=FakeClock(auto=True), on_event=cuts.seen) as rt:
        first = await rt.run(agent, "go")
    failed, url = cuts.after(ToolAttemptFailed, 6)
    clock = FakeClock(start=failed.at, auto=True)
    async with Runtime(url, patterns=[agent], clock=clock) as rt:
        await rt.wait(first.run_id)
        intents = await of_kind(rt, first.run_id, ToolIntended)
    assert intents[-1].attempt == 7
    assert intents[-1].at >= failed.retry_at >= failed.at


@pytest.mark.requirement("CST-3", "GRD-5")
async def test_a_failed_attempt_that_was_paid_lets_others_decide_at_once(tmp_path: Path) -> None:
    """The clock stands still: only the settled attempt can wake the run that waits for money."""
    begun, fail = asyncio.Event(), asyncio.Event()

    @tool(effect="read", cost="0.01")
    async def search(item: str) -> str:
        """Search, for money."""
        begun.set()
        await fail.wait()
        raise ConnectionError("down")

    def agent(name: str) -> Agent[None, str]:
        model = ScriptedModel([ToolCall("search", {"item": name}), "no money"])
        return Agent(name, model=model, tools=[search])

    clock, url = FakeClock(), f"sqlite:///{tmp_path}/s.db"
    budgets = [Budget("user", "day", usd="0.01")]
    async with Runtime(url, budgets=budgets, clock=clock) as rt, asyncio.timeout(10):
        first = await rt.start(agent("first"), "go", user="ana")
        await begun.wait()
        asleep = clock.sleeping
        second = asyncio.ensure_future(rt.run(agent("second"), "go", user="ana"))
        await until(lambda: clock.sleeping > asleep)
        fail.set()
        result = await second
        await rt.cancel(first)
        cancelled = await rt.wait(first)
    assert (result.reason, "held by calls" in result.report.why) == ("budget", False)
    assert cancelled.usage.nanos == 10_000_000
    assert books(url)["user"] == (10_000_000, 0, 0)


@pytest.mark.requirement("CST-3", "GRD-5")
async def test_a_paid_read_that_a_cancel_interrupts_is_in_the_usage(tmp_path: Path) -> None:
    begun = asyncio.Event()

    @tool(effect="read", cost="0.01")
    async def search(item: str) -> str:
        """Search, for money."""
        begun.set()
        await asyncio.Event().wait()
        return item

    model = ScriptedModel([ToolCall("search", {"item": "a"}), "done"])
    url = f"sqlite:///{tmp_path}/s.db"
    async with Runtime(url) as rt:
        run_id = await rt.start(Agent("d", model=model, tools=[search]), "go")
        await begun.wait()
        await rt.cancel(run_id)
        result = await rt.wait(run_id)
    assert result.usage.assumed_nanos == 10_000_000
    assert result.usage.by_phase["recover"].nanos == 10_000_000
    assert books(url)["run"] == (0, 10_000_000, 0)


@pytest.mark.requirement("CST-3", "REC-7")
async def test_what_a_failed_tool_cost_is_settled_before_its_fallback_is_asked(
    tmp_path: Path,
) -> None:
    begun = asyncio.Event()

    @tool(effect="read")
    async def archive(item: str) -> str:
        """Look it up in the archive."""
        begun.set()
        await asyncio.Event().wait()
        return item

    @tool(effect="read", cost="0.01", retries=0, fallback=archive)
    async def search(item: str) -> str:
        """Search, for money."""
        raise ConnectionError("down")

    model = ScriptedModel([ToolCall("search", {"item": "a"}), "done"])
    url = f"sqlite:///{tmp_path}/s.db"
    async with Runtime(url) as rt:
        run_id = await rt.start(Agent("d", model=model, tools=[search]), "go")
        await begun.wait()
        await rt.cancel(run_id)
        result = await rt.wait(run_id)
    assert (result.usage.nanos, result.usage.assumed_nanos) == (10_000_000, 0)
    assert books(url)["run"] == (10_000_000, 0, 0)


# --- pauses and sums ----------------------------------------------------------------------


@given(st.integers(1, 2_000), st.floats(0.01, 5), st.floats(5, 100))
def test_pauses_stay_under_a_bound_that_doubles_up_to_the_most(
    attempt: int, first: float, most: float
) -> None:
    full = min(first * 2 ** min(attempt - 1, 64), most)
    assert 0 <= Backoff(first=first, most=most).seconds(attempt) <= full


@pytest.mark.parametrize(("said", "waited"), [(7.0, 7.0), (900.0, 60.0), (-1.0, 0.0)])
def test_the_other_sides_word_counts_for_up_to_a_minute(said: float, waited: float) -> None:
    assert Backoff(first=0.5, most=20).seconds(3, said) == waited


NANOS = st.integers(0, 10**9)
PHASES = st.sampled_from(get_args(Phase))
REPLY = Reply(message=Message.assistant("x"), usage=USAGE, model="m", finish="stop")
RESULT = ToolResult(tool="t", call_id="1", content="x")
EVENTS = st.one_of(
    st.builds(
        lambda nanos, phase: ModelReplied(
            attempt=1,
            model="m",
            reply=REPLY,
            input_tokens=3,
            output_tokens=2,
            nanos=nanos,
            phase=phase,
        ),
        NANOS,
        PHASES,
    ),
    st.builds(
        lambda nanos, phase: ModelFailed(
            attempt=1, model="m", code="crashed", assumed=nanos, phase=phase
        ),
        NANOS,
        PHASES,
    ),
    st.builds(
        lambda nanos, assumed: ToolAttemptFailed(
            tool="t", attempt=1, code="x", nanos=nanos, assumed=assumed
        ),
        NANOS,
        NANOS,
    ),
    st.builds(lambda nanos: ToolSucceeded(tool="t", result=RESULT, nanos=nanos), NANOS),
    st.builds(lambda nanos: ToolFailed(tool="t", result=RESULT, code="x", nanos=nanos), NANOS),
)


@given(st.lists(EVENTS, max_size=30))
def test_the_phases_add_up_to_what_was_spent_and_assumed(events: list[RunEvent]) -> None:
    meter = Meter()
    for event in events:
        meter.count(event)
    usage = meter.usage(0.0)
    phases = usage.by_phase.values()
    assert sum(p.nanos for p in phases) == usage.nanos + usage.assumed_nanos
    assert sum(p.input_tokens + p.output_tokens for p in phases) == usage.tokens
    recovered = sum(getattr(e, "assumed", 0) for e in events)
    assert sum(p.nanos for n, p in usage.by_phase.items() if n == "recover") >= recovered

"""The time limit binds what is under way too: a run ends near its limit, whatever hangs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from roadworthy import Agent, Limits, Price, Runtime, ToolCall, tool
from roadworthy.errors import ModelRateLimited
from roadworthy.events import ModelFailed, ToolSucceeded
from roadworthy.messages import ModelRequest
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.testing.scripted import Turn
from tests.properties.books import books
from tests.properties.snapshots import Snapshots
from tests.scenarios.world import of_kind, unanswered, url

PRICE = Price(input=1, output=10)
TIGHT = Limits(seconds=0.3)


def closing(request: ModelRequest) -> bool:
    return "You have to stop now" in request.messages[-1].text


@pytest.mark.requirement("ORC-5", "REC-5")
async def test_a_model_that_hangs_is_left_when_the_time_of_the_run_is_over(tmp_path: Path) -> None:
    async def say(request: ModelRequest) -> Turn:
        if not closing(request):
            await asyncio.Event().wait()
        return "What there is."

    model = ScriptedModel(lambda request: say(request), price=PRICE)
    began = time.monotonic()
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, limits=TIGHT), "Go", conversation="c")
        (failed,) = await of_kind(rt, result.run_id, ModelFailed)
        replayed = await rt.replay(result.run_id)
    assert time.monotonic() - began < 20
    assert (result.status, result.reason) == ("partial", "time_limit")
    assert result.text == "What there is."
    assert result.usage.assumed_nanos == failed.assumed > 0
    assert not failed.gave_up
    assert replayed.differences == ()


@pytest.mark.requirement("ORC-5", "TOL-3")
@pytest.mark.parametrize("hanging", [1, 3])
async def test_reads_that_hang_are_left_too_and_what_others_found_is_kept(
    tmp_path: Path, hanging: int
) -> None:
    @tool(effect="read")
    async def look(page: int) -> str:
        """One page. page: its number."""
        if page:
            await asyncio.Event().wait()
        return "page 0"

    def say(request: ModelRequest) -> Turn:
        if closing(request):
            return "One page."
        return [ToolCall("look", {"page": n}) for n in range(hanging + 1)]

    model = ScriptedModel(say, price=PRICE)
    desk = Agent("desk", model=model, tools=[look], limits=TIGHT)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Go", conversation="c")
        done = await of_kind(rt, result.run_id, ToolSucceeded)
        replayed = await rt.replay(result.run_id)
        history = await rt.history("c")
    assert (result.status, result.reason, result.text) == ("partial", "time_limit", "One page.")
    assert [d.result.content for d in done] == ["page 0"]
    assert replayed.differences == ()
    assert not unanswered(model.requests[-1].messages)
    assert not unanswered(history)


async def test_a_paid_read_that_is_left_is_assumed(tmp_path: Path) -> None:
    @tool(effect="read", cost="0.01")
    async def search(item: str) -> str:
        """Search, for money."""
        await asyncio.Event().wait()
        return item

    model = ScriptedModel([ToolCall("search", {"item": "a"}), "Nothing."])
    desk = Agent("desk", model=model, tools=[search], limits=TIGHT)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Go")
        replayed = await rt.replay(result.run_id)
    assert (result.reason, result.usage.assumed_nanos) == ("time_limit", 10_000_000)
    assert books(url(tmp_path))["run"] == (0, 10_000_000, 0)
    assert replayed.differences == ()


async def test_a_pause_longer_than_the_time_left_is_not_waited_for(tmp_path: Path) -> None:
    script: list[Turn] = [ModelRateLimited("later", retry_after=50), "What there is."]
    desk = Agent("desk", model=ScriptedModel(script), limits=Limits(seconds=40))
    async with Runtime(url(tmp_path), clock=FakeClock()) as rt, asyncio.timeout(10):
        result = await rt.run(desk, "Go")
        replayed = await rt.replay(result.run_id)
    assert (result.reason, result.text) == ("time_limit", "What there is.")
    assert replayed.differences == ()


async def test_a_process_that_dies_after_the_time_was_over_still_closes(tmp_path: Path) -> None:
    """Cut at every commit: each comes to the same end, and replays."""
    snapshots = Snapshots(tmp_path / "s.db", tmp_path / "cuts")

    def say(request: ModelRequest) -> Turn:
        pause = ModelRateLimited("later", retry_after=50)
        return "What there is." if closing(request) else pause

    desk = Agent("desk", model=ScriptedModel(say, price=PRICE), limits=Limits(seconds=40))
    async with Runtime(snapshots.url, clock=FakeClock(), on_event=snapshots.taken) as rt:
        first = await rt.run(desk, "Go")
    assert len(snapshots.files) > 4
    for cut in snapshots.files:
        async with Runtime(f"sqlite:///{cut}", patterns=[desk], clock=FakeClock()) as rt:
            async with asyncio.timeout(10):
                result = await rt.wait(first.run_id)
            replayed = await rt.replay(first.run_id)
        assert (result.reason, result.text) == ("time_limit", "What there is.")
        assert replayed.differences == ()


@pytest.mark.parametrize("cost", ["0", "0.01"])
async def test_more_time_lets_it_go_on(tmp_path: Path, cost: str) -> None:
    """The read that was left has its only attempt again."""
    hung = [True]

    @tool(effect="read", retries=0, cost=cost)
    async def look(page: int) -> str:
        """One page. page: its number."""
        if hung:
            await asyncio.Event().wait()
        return "page"

    def say(request: ModelRequest) -> Turn:
        if closing(request):
            return "Nothing yet."
        read = any(m.role == "tool" for m in request.messages)
        return "Read." if read else ToolCall("look", {"page": 1})

    desk = Agent("desk", model=ScriptedModel(say), tools=[look], limits=TIGHT)
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Go")
        assert (first.status, first.reason) == ("partial", "time_limit")
        hung.clear()
        await rt.resume(first.run_id, limits=Limits(seconds=60))
        second = await rt.result(first.run_id)
        replayed = await rt.replay(first.run_id)
    assert (second.status, second.text) == ("completed", "Read.")
    assert replayed.differences == ()

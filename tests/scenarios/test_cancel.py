"""Cancel: whatever a run is doing, it stops, and what it did stays on record."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from roadworthy import Agent, Price, Runtime, ToolCall, tool
from roadworthy.errors import NotResumable
from roadworthy.events import CancelRequested, ModelFailed, ToolSucceeded
from roadworthy.messages import ModelRequest
from roadworthy.testing import FakeClock, ScriptedModel, failing
from tests.scenarios.world import of_kind, unanswered, url


@pytest.mark.requirement("CST-3")
async def test_a_model_call_is_interrupted_and_its_charge_assumed(tmp_path: Path) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    async def hang(request: ModelRequest) -> str:
        begun.set()
        await never.wait()
        return ""

    model = ScriptedModel(hang, price=Price(input=1, output=10))
    desk = Agent("desk", model=model)
    async with Runtime(url(tmp_path)) as rt:
        run_id = await rt.start(desk, "Hello", conversation="c")
        await begun.wait()
        await rt.cancel(run_id, by="ana")
        result = await rt.result(run_id)
        (requested,) = await of_kind(rt, run_id, CancelRequested)
        (failed,) = await of_kind(rt, run_id, ModelFailed)
        with pytest.raises(NotResumable, match="cancelled"):
            await rt.resume(run_id)
        replayed = await rt.replay(run_id)
        following = await rt.run(
            Agent("other", model=ScriptedModel(["Hi."])), "x", conversation="c"
        )
    assert (result.status, result.reason) == ("stopped", "cancelled")
    assert result.text == "This request was cancelled."
    assert requested.by == "ana"
    assert failed.assumed > 0
    assert result.usage.assumed_nanos == failed.assumed
    assert replayed.differences == ()
    assert following.status == "completed"


@pytest.mark.parametrize("count", [1, 3])
async def test_reads_are_interrupted(tmp_path: Path, count: int) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    @tool(effect="read")
    async def look(x: int) -> str:
        """Look. x: any."""
        begun.set()
        await never.wait()
        return "never"

    model = ScriptedModel([[ToolCall("look", {"x": n}) for n in range(count)], "Done."])
    desk = Agent("desk", model=model, tools=[look])
    async with Runtime(url(tmp_path)) as rt:
        run_id = await rt.start(desk, "Look", conversation="c")
        await begun.wait()
        await rt.cancel(run_id)
        result = await rt.result(run_id)
        history = await rt.history("c")
    assert (result.status, result.reason) == ("stopped", "cancelled")
    assert not unanswered(history)


@pytest.mark.requirement("TOL-4")
async def test_a_running_effect_finishes_and_is_recorded_before_the_run_stops(
    tmp_path: Path,
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    paid: list[str] = []

    @tool
    async def pay(order_id: str) -> str:
        """Pay. order_id: such as A-17."""
        begun.set()
        await go.wait()
        paid.append(order_id)
        return "paid"

    calls: Sequence[Any] = [[ToolCall("pay", {"order_id": o}) for o in "AB"], "Done."]
    desk = Agent("desk", model=ScriptedModel(calls), tools=[pay])
    async with Runtime(url(tmp_path)) as rt:
        run_id = await rt.start(desk, "Pay", conversation="c")
        await begun.wait()
        await rt.cancel(run_id)
        go.set()
        result = await rt.result(run_id)
        (outcome,) = await of_kind(rt, run_id, ToolSucceeded)
        history = await rt.history("c")
    assert paid == ["A"]
    assert outcome.result.content == "paid"
    assert (result.status, result.reason) == ("stopped", "cancelled")
    assert result.report.done == ("pay",)
    assert "Done so far: pay." in result.text
    assert not unanswered(history)


async def test_a_pause_between_attempts_is_interrupted(tmp_path: Path) -> None:
    clock = FakeClock()

    @tool(effect="read")
    def look(x: str) -> str:
        """Look. x: any."""
        return x

    broken, log = failing(look, [ConnectionError("down")] * 9)
    model = ScriptedModel([ToolCall("look", {"x": "1"}), "Done."])
    async with Runtime(url(tmp_path), clock=clock) as rt:
        run_id = await rt.start(Agent("desk", model=model, tools=[broken]), "Look")
        async for event in rt.events(run_id):
            if type(event).__name__ == "ToolAttemptFailed":
                break
        await rt.cancel(run_id)
        result = await rt.result(run_id)
    assert result.reason == "cancelled"
    assert len(log.calls) == 1


@pytest.mark.parametrize("kind", ["user", "person"])
async def test_a_waiting_run_is_cancelled_at_once(tmp_path: Path, kind: str) -> None:
    @tool(approval="operator")
    def pay(order_id: str) -> str:
        """Pay. order_id: such as A-17."""
        return "paid"

    asks = ToolCall("ask_user", {"question": "?"})
    call = asks if kind == "user" else ToolCall("pay", {"order_id": "A"})
    model = ScriptedModel([call, "Done."])
    desk = Agent("desk", model=model, tools=[pay])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(desk, "Go", conversation="c")
        assert waiting.status == "waiting"
        await rt.cancel(waiting.run_id)
        result = await rt.result(waiting.run_id)
        history = await rt.history("c")
        model.requests.clear()
        fresh = Agent("fresh", model=ScriptedModel(["Hi."]))
        following = await rt.run(fresh, "Hello", conversation="c")
    assert result.reason == "cancelled"
    assert following.run_id != waiting.run_id
    assert following.text == "Hi."
    assert not unanswered(history)


async def test_a_queued_run_is_cancelled_without_waiting_for_the_one_before(
    tmp_path: Path,
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(request: ModelRequest) -> str:
        begun.set()
        await go.wait()
        return "Done."

    model = ScriptedModel(slow)
    desk = Agent("desk", model=model)
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.start(desk, "one", conversation="c")
        second = await rt.start(desk, "two", conversation="c")
        third = await rt.start(desk, "three", conversation="c")
        await begun.wait()
        await rt.cancel(second)
        result = await rt.result(second)
        assert (result.status, result.reason) == ("stopped", "cancelled")
        assert (await rt.find(first)).status == "running"
        go.set()
        assert (await rt.result(first)).status == "completed"
        assert (await rt.result(third)).status == "completed"
    assert len(model.requests) == 2


async def test_an_ended_run_stays_as_it_is(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel(["Hi."]))
    async with Runtime(url(tmp_path)) as rt:
        done = await rt.run(desk, "Hello")
        await rt.cancel(done.run_id)
        again = await rt.result(done.run_id)
    assert again == done


async def test_a_cancel_left_before_opening_is_obeyed_then(tmp_path: Path) -> None:
    """As by `roadworthy runs cancel` while no process executes."""
    model = ScriptedModel([ToolCall("ask_user", {"question": "?"}), "Done."])
    desk = Agent("desk", model=model)
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(desk, "Go", conversation="c")
    async with Runtime(url(tmp_path)) as rt:  # knows no agent
        await rt.cancel(waiting.run_id, by="ops")
    async with Runtime(url(tmp_path), patterns=[desk]) as rt:
        result = await rt.result(waiting.run_id)
    assert (result.status, result.reason) == ("stopped", "cancelled")
    assert len(model.requests) == 1


async def test_a_cancel_that_is_heard_twice_at_once_is_recorded_once(tmp_path: Path) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    async def hang(_: ModelRequest) -> str:
        begun.set()
        await never.wait()
        return ""

    desk = Agent("desk", model=ScriptedModel(hang))
    async with Runtime(url(tmp_path)) as rt:
        run_id = await rt.start(desk, "Hello")
        await begun.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(rt.cancel(run_id, by="ana"))
            for _ in range(5):
                group.create_task(rt.crew.hear())
        await rt.result(run_id)
        assert len(await of_kind(rt, run_id, CancelRequested)) == 1

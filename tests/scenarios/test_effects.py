"""What tools do to the world: once, in order, within their limits, all on record."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from roadworthy import (
    Agent,
    File,
    Limits,
    Price,
    RunContext,
    RunResult,
    Runtime,
    Tool,
    ToolCall,
    ToolError,
    tool,
)
from roadworthy.events import (
    EscalationRaised,
    ToolFailed,
    ToolOutcome,
    ToolRefused,
    ToolSucceeded,
)
from roadworthy.messages import ModelRequest
from roadworthy.testing import FakeClock, ScriptedModel, failing
from tests.scenarios.world import Given, journal, kinds, of_kind, unanswered, url


def call(name: str, **arguments: object) -> ToolCall:
    return ToolCall(name, arguments)


def save_tool(saved: list[str], keys: list[str] | None = None, **options: Given) -> Tool[None]:
    @tool(effect="write", **options)
    def save(run: RunContext[None], text: str) -> str:
        """Save. text: what."""
        saved.append(text)
        if keys is not None:
            keys.append(run.key)
        return f"saved {text}"

    return save


def agent(script: Sequence[Given], *tools: Tool[None], **options: Given) -> Agent:
    return Agent("desk", model=ScriptedModel(list(script)), tools=tools, **options)


async def go(folder: Path, desk: Agent) -> RunResult:
    async with Runtime(url(folder), clock=FakeClock(auto=True)) as rt:
        return await rt.run(desk, "Go", conversation="c")


@pytest.mark.requirement("TOL-4")
async def test_the_same_write_again_is_answered_with_the_recorded_result(tmp_path: Path) -> None:
    saved: list[str] = []
    model = ScriptedModel([call("save", text="a"), call("save", text="a"), "Saved."])
    desk = Agent("desk", model=model, tools=[save_tool(saved)])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Save a", conversation="c")
        outcomes = await of_kind(rt, result.run_id, ToolSucceeded)
    assert saved == ["a"]
    assert [o.source for o in outcomes] == ["call", "repeat"]
    assert "Already done" in model.requests[2].results[1]
    assert "saved a" in model.requests[2].results[1]


async def test_the_same_write_twice_in_one_reply_is_done_once(tmp_path: Path) -> None:
    saved: list[str] = []
    result = await go(tmp_path, agent([[call("save", text="a")] * 2, "Saved."], save_tool(saved)))
    assert (result.status, saved) == ("completed", ["a"])


async def test_repeatable_tools_and_new_requests_do_it_again(tmp_path: Path) -> None:
    saved: list[str] = []
    script = [call("save", text="a"), call("save", text="a"), "Saved."]
    result = await go(tmp_path, agent(script, save_tool(saved, repeatable=True)))
    assert (result.status, saved) == ("completed", ["a", "a"])
    again = agent([call("save", text="a"), "Saved."], save_tool(saved))
    await go(tmp_path, again)
    assert saved == ["a", "a", "a"]


async def test_after_a_definite_failure_the_same_write_may_run_again(tmp_path: Path) -> None:
    saved: list[str] = []
    broken, log = failing(save_tool(saved), [ToolError("The shelf is full, free it first.")])
    result = await go(
        tmp_path, agent([call("save", text="a"), call("save", text="a"), "."], broken)
    )
    assert (result.status, saved, len(log.calls)) == ("completed", ["a"], 2)


@pytest.mark.requirement("TOL-3")
async def test_reads_of_one_reply_run_side_by_side(tmp_path: Path) -> None:
    first, second = asyncio.Event(), asyncio.Event()

    @tool(effect="read")
    async def left(x: int) -> str:
        """Left. x: any."""
        first.set()
        await second.wait()
        return "left"

    @tool(effect="read")
    async def right(x: int) -> str:
        """Right. x: any."""
        await first.wait()
        second.set()
        return "right"

    model = ScriptedModel([[call("left", x=1), call("right", x=1)], "Both."])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, tools=[left, right]), "Go")
    assert result.status == "completed"
    assert model.requests[1].results == ("left", "right")


async def test_effects_run_in_reply_order_and_after_the_reads_before_them(tmp_path: Path) -> None:
    order: list[str] = []

    @tool(effect="read")
    async def look(x: str) -> str:
        """Look. x: any."""
        order.append(f"look {x}")
        return x

    @tool(effect="write", idempotent_by_nature=True)
    async def write(x: str) -> str:
        """Write. x: any."""
        order.append(f"write {x}")
        return x

    calls = [call("look", x="1"), call("write", x="2"), call("write", x="3"), call("look", x="4")]
    model = ScriptedModel([calls, "Done."])
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(Agent("desk", model=model, tools=[look, write]), "Go")
    assert order == ["look 1", "write 2", "write 3", "look 4"]
    assert model.requests[1].results == ("1", "2", "3", "4")


async def test_after_a_failed_effect_the_later_ones_of_the_reply_are_not_attempted(
    tmp_path: Path,
) -> None:
    saved: list[str] = []
    broken, _ = failing(save_tool(saved), [ToolError("No.")])
    model = ScriptedModel([[call("save", text=t) for t in "abc"], "None."])
    desk = Agent("desk", model=model, tools=[broken])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Go")
        refused = await of_kind(rt, result.run_id, ToolRefused)
    assert saved == []
    assert [r.code for r in refused] == ["not_attempted", "not_attempted"]
    assert "Not attempted" in model.requests[1].results[1]


@pytest.mark.requirement("TOL-2", "REC-3")
async def test_after_a_refused_effect_the_later_ones_are_not_attempted_either(
    tmp_path: Path,
) -> None:
    saved: list[str] = []
    calls = [call("save", txt="a"), call("save", text="b")]
    desk = agent([calls, "None."], save_tool(saved))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Go")
        refused = await of_kind(rt, result.run_id, ToolRefused)
    assert saved == []
    assert [r.code for r in refused] == ["invalid_arguments", "not_attempted"]


@pytest.mark.requirement("TOL-3", "REC-7")
async def test_a_read_that_fails_is_tried_again_then_told_to_the_model(tmp_path: Path) -> None:
    @tool(effect="read")
    def look(x: str) -> str:
        """Look. x: any."""
        return x

    broken, log = failing(look, [ConnectionError("down")] * 9)
    model = ScriptedModel([call("look", x="1"), "Down."])
    clock = FakeClock(auto=True)
    async with Runtime(url(tmp_path), clock=clock) as rt:
        result = await rt.run(Agent("desk", model=model, tools=[broken]), "Go")
        (failed,) = await of_kind(rt, result.run_id, ToolFailed)
    assert result.status == "completed"
    assert len(log.calls) == 3
    assert "after 3 attempts" in model.requests[1].results[0]
    assert (failed.code, failed.attempts) == ("exception", 3)


async def test_a_mistake_in_the_tool_and_its_own_refusal_are_not_tried_again(
    tmp_path: Path,
) -> None:
    @tool(effect="read")
    def look(x: str) -> str:
        """Look. x: any."""
        return x

    buggy, log = failing(look, [KeyError("oops")])
    refusing, other = failing(look, [ToolError("No such order.")])
    model = ScriptedModel([call("look", x="1"), "Hm."])
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(Agent("desk", model=model, tools=[buggy]), "Go")
        await rt.run(Agent("desk", model=model, tools=[refusing]), "Go")
    assert (len(log.calls), len(other.calls)) == (1, 1)
    assert "KeyError" in model.requests[1].results[0]
    assert model.requests[3].results[0] == "No such order."


@pytest.mark.requirement("TOL-3", "REC-7")
async def test_a_sync_tool_that_hangs_is_left_behind_after_its_timeout(tmp_path: Path) -> None:
    release = threading.Event()

    @tool(effect="read", timeout=0.05, retries=0)
    def hang(x: str) -> str:
        """Hang. x: any."""
        release.wait(20)
        return x

    model = ScriptedModel([call("hang", x="1"), "Late."])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, tools=[hang]), "Go")
        release.set()
    assert result.status == "completed"
    assert "no answer in 0.05 s" in model.requests[1].results[0]


async def test_sync_tools_keep_context_variables_and_leave_the_loop_free(tmp_path: Path) -> None:
    language: contextvars.ContextVar[str] = contextvars.ContextVar("language", default="none")
    seen: list[tuple[str, bool]] = []

    @tool(effect="read")
    def look(x: str) -> str:
        """Look. x: any."""
        seen.append((language.get(), threading.current_thread() is threading.main_thread()))
        return x

    async with Runtime(url(tmp_path)) as rt:
        language.set("nl")
        await rt.run(agent([call("look", x="1"), "."], look), "Go")
    assert seen == [("nl", False)]


@pytest.mark.requirement("REC-7")
async def test_a_fallback_answers_for_a_read_that_failed_and_says_so(tmp_path: Path) -> None:
    @tool(effect="read")
    def archive(x: str) -> str:
        """Look in the archive. x: any."""
        return f"old {x}"

    @tool(effect="read", fallback=archive, retries=0)
    def live(x: str) -> str:
        """Look. x: any."""
        raise ConnectionError("down")

    model = ScriptedModel([call("live", x="1"), "."])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, tools=[live]), "Go")
        (outcome,) = await of_kind(rt, result.run_id, ToolSucceeded)
    assert outcome.source == "fallback"
    assert "this is from archive" in model.requests[1].results[0]
    assert "old 1" in model.requests[1].results[0]


@pytest.mark.requirement("CST-3", "GRD-5")
async def test_the_cost_of_a_tool_is_reserved_before_and_counted_after(tmp_path: Path) -> None:
    ran: list[str] = []

    @tool(effect="read", cost="0.02")
    def search(x: str) -> str:
        """Search. x: any."""
        ran.append(x)
        return x

    def turn(request: ModelRequest) -> str | ToolCall:
        if "stop now" in request.messages[-1].text:
            return "All I have."
        return call("search", x=str(request.ordinal))

    model = ScriptedModel(turn)
    desk = Agent("desk", model=model, tools=[search], limits=Limits(usd="0.05"))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Go", conversation="c")
        history = await rt.history("c")
    assert ran == ["0", "1"]
    assert (result.status, result.reason) == ("partial", "budget")
    assert result.text == "All I have."
    assert result.usage.usd == Decimal("0.04")
    assert not unanswered(history)
    assert not unanswered(model.requests[-1].messages)


async def test_files_from_tools_reach_the_model_and_the_journal_whole(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10

    @tool(effect="read")
    def scan(x: str) -> dict[str, Any]:
        """Scan. x: any."""
        return {"page": 1, "image": File(media_type="image/png", data=data, name="scan.png")}

    model = ScriptedModel([call("scan", x="1"), "A page."])
    desk = Agent("desk", model=model, tools=[scan])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Go")
    async with Runtime(url(tmp_path), patterns=[desk]) as rt:
        (outcome,) = await of_kind(rt, result.run_id, ToolSucceeded)
        replayed = await rt.replay(result.run_id)
    (sent,) = [p for m in model.requests[1].messages for p in m.parts if hasattr(p, "files")]
    assert sent.files[0].data == data
    assert outcome.result.files[0].data == data
    assert "[file: scan.png, image/png, 2,560 bytes]" in outcome.result.content
    assert replayed.differences == ()


@pytest.mark.requirement("REC-7")
async def test_a_result_without_a_form_is_told_not_raised(tmp_path: Path) -> None:
    @tool(effect="read")
    def look(x: str) -> object:
        """Look. x: any."""
        return object()

    model = ScriptedModel([call("look", x="1"), "."])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, tools=[look]), "Go")
    assert result.status == "completed"
    assert "which has no JSON form" in model.requests[1].results[0]


@pytest.mark.requirement("OBS-2")
async def test_every_call_is_on_record_with_parameters_result_latency_and_cost(
    tmp_path: Path,
) -> None:
    clock = FakeClock(auto=True)

    @tool(effect="read", cost="0.01")
    async def look(x: str) -> str:
        """Look. x: any."""
        await clock.sleep(2)
        return f"seen {x}"

    async with Runtime(url(tmp_path), clock=clock) as rt:
        result = await rt.run(agent([call("look", x="1"), "."], look), "Go")
        (outcome,) = await of_kind(rt, result.run_id, ToolOutcome)
        events = kinds(await journal(rt, result.run_id))
        raised = await of_kind(rt, result.run_id, EscalationRaised)
    assert isinstance(outcome, ToolSucceeded)
    assert outcome.arguments == {"x": "1"}
    assert outcome.result.content == "seen 1"
    assert outcome.micros >= 2_000_000
    assert outcome.nanos == 10_000_000
    assert "ToolIntended" in events
    assert raised == []


async def test_a_price_of_the_model_and_of_the_tool_add_up(tmp_path: Path) -> None:
    @tool(effect="read", cost="0.01")
    def look(x: str) -> str:
        """Look. x: any."""
        return x

    model = ScriptedModel([call("look", x="1"), "."], price=Price(input=1, output=1))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, tools=[look]), "Go")
        (row,) = await rt.runs()
    assert result.usage.usd > Decimal("0.01")
    assert row.nanos == result.usage.nanos

"""Toolsets: opened, closed, away, back again; tools that are not there in every turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roadworthy import (
    Agent,
    DeclarationError,
    RunContext,
    RunEvent,
    Runtime,
    Tool,
    ToolCall,
    User,
    tool,
)
from roadworthy.errors import RunError, ToolsetUnavailable
from roadworthy.events import DeclarationChanged, Noted, ToolFailed, ToolRefused, ToolSucceeded
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.tools import Toolset, toolset
from roadworthy.tools.execution import Lent, takes_thread


@tool(effect="read")
def look(place: str) -> str:
    """Look at a place."""
    return f"{place} is fine"


@tool(effect="read")
def peek() -> str:
    """Have a quick look."""
    return "all quiet"


class Place:
    """What a toolset opens; `broken` keeps it from opening."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.broken = False
        self.tasks: list[object] = []

    def toolset(self, **options: Any) -> Toolset[Any]:  # noqa: ANN401 - handed on
        @toolset(name="place", **options)
        async def place(run: RunContext[None]) -> AsyncIterator[Sequence[Tool[Any]]]:
            if self.broken:
                raise OSError("nobody listens there")
            self.said.append(f"opened for {run.user.id or 'nobody'}")
            self.tasks.append(asyncio.current_task())
            yield [look]
            self.tasks.append(asyncio.current_task())
            self.said.append("closed")

        return place


def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/t.db"


def refusals(events: Sequence[RunEvent]) -> list[str]:
    return [event.code for event in events if isinstance(event, ToolRefused)]


def looking(*after: str) -> ScriptedModel:
    return ScriptedModel([ToolCall("look", {"place": "port"}), *(after or ("Fine.",))])


async def test_a_toolset_is_opened_once_and_closed_with_the_runtime(tmp_path: Path) -> None:
    place = Place()
    model = looking("Fine.")
    guard = Agent("guard", model=model, tools=[place.toolset(), peek])
    async with Runtime(url(tmp_path), patterns=[guard]) as rt:
        assert (await rt.run(guard, "Look.")).status == "completed"
        await rt.run(replace(guard, model=ScriptedModel(["Hm."])), "Again.")
        assert place.said == ["opened for nobody"]
    assert place.said == ["opened for nobody", "closed"]
    assert len(set(place.tasks)) == 1, "entered and left in one task"
    assert model.requests[0].tools[:2] == ("look", "peek")


async def test_an_agent_goes_on_without_a_toolset_that_is_away_and_is_told(tmp_path: Path) -> None:
    place, clock = Place(), FakeClock()
    place.broken = True
    model = looking()
    guard = Agent("guard", model=model, tools=[place.toolset(), peek])
    async with Runtime(url(tmp_path), patterns=[guard], clock=clock) as rt:
        without = await rt.run(guard, "Look.")
        assert refusals(await rt.record(without.run_id)) == ["unknown_tool"]
        assert "look" not in model.requests[0].tools
        assert "'place' cannot be reached now" in model.requests[0].instructions
        place.broken = False
        await clock.advance(5)
        there = await rt.run(guard, "Look.")
        assert refusals(await rt.record(there.run_id)) == []
        assert "cannot be reached" not in model.requests[2].instructions


async def test_a_required_toolset_that_cannot_open_says_so(tmp_path: Path) -> None:
    place = Place()
    place.broken = True
    guard = Agent("guard", model=looking(), tools=[place.toolset(required=True)])
    with pytest.raises(ToolsetUnavailable, match="'place' cannot be opened: OSError: nobody"):
        async with Runtime(url(tmp_path), patterns=[guard]):
            pass
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(ToolsetUnavailable, match="nobody listens"):
            await rt.run(guard, "Look.")


async def test_a_toolset_that_takes_too_long_is_left_out(tmp_path: Path) -> None:
    @toolset(seconds=0.05)
    async def slow() -> AsyncIterator[Sequence[Tool[Any]]]:
        await asyncio.Event().wait()
        yield [look]

    guard = Agent("guard", model=ScriptedModel(["Hm."]), tools=[slow])
    async with Runtime(url(tmp_path), patterns=[guard]) as rt:
        assert (await rt.run(guard, "Look.")).text == "Hm."


async def test_a_toolset_per_run_belongs_to_its_run(tmp_path: Path) -> None:
    place = Place()
    guard = Agent("guard", model=looking(), tools=[place.toolset(per="run")])
    async with Runtime(url(tmp_path), patterns=[guard]) as rt:
        for name in ("ana", "ben"):
            other = replace(guard, model=looking())
            assert (await rt.run(other, "Look.", user=User(name))).status == "completed"
    assert place.said == [
        *("opened for nobody", "closed"),  # to list its tools
        *("opened for ana", "closed"),
        *("opened for ben", "closed"),
    ]


async def test_a_toolset_of_a_run_that_cannot_open_is_told_to_the_model(tmp_path: Path) -> None:
    place = Place()
    guard = Agent("guard", model=looking("No luck."), tools=[place.toolset(per="run")])
    async with Runtime(url(tmp_path), patterns=[guard], clock=FakeClock(auto=True)) as rt:
        place.broken = True
        result = await rt.run(guard, "Look.")
        failed = [e for e in await rt.record(result.run_id) if isinstance(e, ToolFailed)]
    assert result.text == "No luck."
    assert "nobody listens there" in failed[0].result.content


@pytest.mark.requirement("REC-7")
async def test_tools_of_a_toolset_per_run_share_their_places(tmp_path: Path) -> None:
    """However many runs have one of their own; a thread keeps its place past its time limit."""
    go, begun = threading.Event(), threading.Event()

    @tool(effect="read", concurrency=1, timeout=0.3, retries=0, breaker=None, name="look")
    def hang(place: str) -> str:
        """Look at a place."""
        if begun.is_set():
            return "at once"
        begun.set()
        go.wait(20)
        return "late"

    @toolset(per="run")
    async def place() -> AsyncIterator[Sequence[Tool[Any]]]:
        yield [hang]

    guard = Agent("guard", model=looking(), tools=[place])
    codes = []
    async with Runtime(url(tmp_path), patterns=[guard]) as rt:
        for turn in range(3):
            result = await rt.run(replace(guard, model=looking()), "Look.")
            failed = [e.code for e in await rt.record(result.run_id) if isinstance(e, ToolFailed)]
            codes += failed or ["worked"]
            if turn == 1:
                go.set()
    assert codes == ["timeout", "busy", "worked"]


@pytest.mark.requirement("REC-7")
async def test_a_plain_function_of_a_toolset_per_run_may_take_a_part_of_the_threads() -> None:
    async def of(_: RunContext[Any]) -> Tool[Any]:
        return look

    lent = Lent(of, look)
    placed = replace(look, function=lent, takes_context=True)
    assert takes_thread(placed)
    assert placed.identity == look.identity
    run = RunContext[None](run_id="r", user=User("ana"), deps=None)
    assert await lent(run, place="port") == "port is fine"


async def test_what_changed_while_a_run_waited_is_on_record(tmp_path: Path) -> None:
    @toolset()
    async def place() -> AsyncIterator[Sequence[Tool[Any]]]:
        yield tools

    tools: list[Tool[Any]] = [look]
    model = ScriptedModel([ToolCall("ask_user", {"question": "Which?"}), "Done."])
    guard = Agent("guard", model=model, tools=[place])
    async with Runtime(url(tmp_path), patterns=[guard]) as rt:
        run_id = (await rt.run(guard, "Look.", conversation="c", user="ana")).run_id
    tools = [peek]
    async with Runtime(url(tmp_path), patterns=[guard]) as rt:
        await rt.run(guard, "The port.", conversation="c", user="ana")
        changed = [e for e in await rt.record(run_id) if isinstance(e, DeclarationChanged)]
    assert changed[0].changed == ("tool look removed", "tool peek added")


async def test_who_only_looks_opens_what_it_needs_for_that(tmp_path: Path) -> None:
    place = Place()
    asking = replace(look, effect="irreversible", approval="operator")

    @toolset()
    async def asked() -> AsyncIterator[Sequence[Tool[Any]]]:
        place.said.append("opened")
        yield [asking]

    guard = Agent("guard", model=looking(), tools=[asked])
    async with Runtime(url(tmp_path), patterns=[guard]) as rt:
        waiting = await rt.run(guard, "Look.")
        assert place.said == ["opened"]
        async with Runtime(url(tmp_path), patterns=[guard], execute=False) as looks:
            assert place.said == ["opened"]
            assert not (await looks.replay(waiting.run_id)).differences
            with pytest.raises(RunError, match="missing: place"):
                await looks.resolve(waiting.waiting[0].id, "edit", by="lea", arguments={})
            edited = {"place": "tower"}
            await looks.resolve(waiting.waiting[0].id, "edit", by="lea", arguments=edited)
        assert (await rt.result(waiting.run_id)).text == "Fine."
    assert place.said == ["opened"] * 2


async def test_toolsets_of_several_agents_open_side_by_side(tmp_path: Path) -> None:
    meeting = asyncio.Barrier(2)

    def met(name: str) -> Toolset[Any]:
        @toolset(name=name, required=True, seconds=5)
        async def waits() -> AsyncIterator[Sequence[Tool[Any]]]:
            await meeting.wait()
            yield [look]

        return waits

    agents = [Agent(name, model=looking(), tools=[met(name)]) for name in ("a", "b")]
    async with Runtime(url(tmp_path), patterns=agents) as rt:
        assert (await rt.run(agents[0], "Look.")).text == "Fine."


def test_a_toolset_is_an_async_generator_function() -> None:
    with pytest.raises(DeclarationError, match="write `async def` with one `yield"):
        toolset()(lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(DeclarationError, match="seconds= must be more than 0"):
        Place().toolset(seconds=0)
    with pytest.raises(DeclarationError, match="two toolsets named 'place'"):
        Agent("a", model=looking(), tools=[Place().toolset(), Place().toolset()])


# --- tools that are not there in every turn ------------------------------------------------


def when(rule: Callable[[RunContext[Any]], Any]) -> Tool[Any]:
    @tool(effect="read", available=rule)
    def close_shop() -> str:
        """Close the shop."""
        return "closed"

    return close_shop


@pytest.mark.requirement("TOL-7")
async def test_a_tool_is_there_for_whom_its_rule_says(tmp_path: Path) -> None:
    only_lea = when(lambda run: run.user.id == "lea")
    model = ScriptedModel([ToolCall("close_shop", {}), "There you are."])
    shop = Agent("shop", model=model, tools=[only_lea, peek])
    async with Runtime(url(tmp_path), patterns=[shop]) as rt:
        ana = await rt.run(shop, "Close.", user="ana")  # a script begins anew with each run
        lea = await rt.run(shop, "Close.", user="lea")
        of_ana, of_lea = await rt.record(ana.run_id), await rt.record(lea.run_id)
        for result in (ana, lea):
            assert not (await rt.replay(result.run_id)).differences
    offered = ["close_shop" in request.tools for request in model.requests]
    assert offered == [False, False, True, True]
    refused = next(event for event in of_ana if isinstance(event, ToolRefused))
    assert refused.code == "unavailable"
    assert refused.result.content == (
        "close_shop is not available in this turn. Available are: peek."
    )
    assert any(isinstance(event, ToolSucceeded) for event in of_lea)
    noted = [e.value for e in of_ana if isinstance(e, Noted) and e.key.endswith("/tools")]
    assert noted == [["close_shop"], ["close_shop"]], "decided once a turn, on record"


@pytest.mark.requirement("TOL-7")
async def test_what_a_turn_decided_holds_when_it_is_executed_again(tmp_path: Path) -> None:
    open_now = True
    shop_tool = replace(when(lambda _: open_now), effect="irreversible", approval="operator")
    model = ScriptedModel([ToolCall("close_shop", {}), "Closed."])
    shop = Agent("shop", model=model, tools=[shop_tool])
    async with Runtime(url(tmp_path), patterns=[shop]) as rt:
        waiting = await rt.run(shop, "Close.")
        open_now = False
        await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        result = await rt.result(waiting.run_id)
        events = await rt.record(waiting.run_id)
    assert result.text == "Closed."
    assert any(isinstance(event, ToolSucceeded) for event in events)


@pytest.mark.parametrize("said", [None, 1, "yes"])
async def test_a_rule_that_says_no_bool_leaves_its_tool_out(tmp_path: Path, said: object) -> None:
    model = ScriptedModel(["Hm."])
    shop = Agent("shop", model=model, tools=[when(lambda _: said)])
    async with Runtime(url(tmp_path), patterns=[shop]) as rt:
        await rt.run(shop, "Close.")
    assert "close_shop" not in model.requests[0].tools


async def test_a_rule_that_fails_leaves_its_tool_out(tmp_path: Path) -> None:
    model = ScriptedModel(["Hm."])
    shop = Agent("shop", model=model, tools=[when(lambda _: 1 / 0)])
    async with Runtime(url(tmp_path), patterns=[shop]) as rt:
        assert (await rt.run(shop, "Close.")).text == "Hm."
    assert "close_shop" not in model.requests[0].tools


def test_an_async_rule_is_no_rule() -> None:
    async def later(_: RunContext[Any]) -> bool:
        return True

    with pytest.raises(DeclarationError, match="available= is a plain function"):
        when(later)

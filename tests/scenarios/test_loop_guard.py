"""An agent that comes to the same state again is told at once, and stopped at the third time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from roadworthy import Agent, Limits, RunContext, RunResult, Runtime, ToolCall, tool
from roadworthy.events import EscalationRaised, LoopNoticed
from roadworthy.testing import ScriptedModel
from tests.scenarios.world import of_kind, unanswered, url

STOP = "I keep finding nothing."


@tool(effect="read")
def search(query: str) -> str:
    """Search. query: words."""
    return "nothing found"


@tool(effect="read")
def other(query: str) -> str:
    """Search elsewhere. query: words."""
    return "nothing there"


@tool(effect="read", polling=True)
def status(job: str) -> str:
    """Status of a job. job: its id."""
    return "running"


@tool(effect="irreversible")
def save(text: str) -> str:
    """Save. text: what."""
    return "saved"


def call(name: str, **arguments: str) -> ToolCall:
    return ToolCall(name, arguments)


async def run(folder: Path, script: Sequence[ToolCall | str]) -> tuple[RunResult, ScriptedModel]:
    model = ScriptedModel(list(script))
    desk = Agent("desk", model=model, tools=[search, other, status, save])
    async with Runtime(url(folder)) as rt:
        return await rt.run(desk, "Go"), model


@pytest.mark.requirement("REC-4")
async def test_the_same_call_with_the_same_result_is_stopped_the_third_time(
    tmp_path: Path,
) -> None:
    model = ScriptedModel([*[call("search", query="x")] * 3, STOP])
    desk = Agent("desk", model=model, tools=[search])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Go", conversation="c")
        noticed = await of_kind(rt, result.run_id, LoopNoticed)
        raised = await of_kind(rt, result.run_id, EscalationRaised)
        history = await rt.history("c")
    assert (result.status, result.reason, result.text) == ("partial", "loop", STOP)
    assert [(n.kind, n.repeat, n.stopped) for n in noticed] == [
        ("same_call", 2, False),
        ("same_call", 3, True),
    ]
    assert raised[0].trigger == "loop"
    assert not unanswered(history)
    assert not unanswered(model.requests[-1].messages)


@pytest.mark.requirement("REC-4")
async def test_at_the_second_time_the_model_is_told_and_may_change_its_way(
    tmp_path: Path,
) -> None:
    result, model = await run(
        tmp_path, [call("search", query="x"), call("search", query="x"), "Nothing."]
    )
    assert result.status == "completed"
    assert "search came to the same state 2 times" in model.requests[2].text
    assert "same state" not in model.requests[1].text


async def test_two_calls_in_turns_are_a_loop_too(tmp_path: Path) -> None:
    result, model = await run(
        tmp_path, [*[call("search", query="x"), call("other", query="y")] * 3, STOP]
    )
    assert result.reason == "loop"
    assert len(model.requests) <= 7


async def test_the_same_result_for_a_varied_argument_is_a_loop(tmp_path: Path) -> None:
    script = [call("search", query=q) for q in ("x", "x1", "x2")]
    result, model = await run(tmp_path, [*script, STOP])
    assert result.reason == "loop"
    assert len(model.requests) == 4


async def test_declared_polling_passes(tmp_path: Path) -> None:
    result, _ = await run(tmp_path, [*[call("status", job="7")] * 6, "Still running."])
    assert result.status == "completed"


async def test_a_successful_change_starts_the_count_anew(tmp_path: Path) -> None:
    look, change = call("search", query="x"), [call("save", text=t) for t in "ab"]
    script: list[ToolCall | str] = [look, look, change[0], look, look, change[1], look, "Done."]
    result, _ = await run(tmp_path, script)
    assert result.status == "completed"


async def test_changing_results_of_the_same_call_are_no_loop(tmp_path: Path) -> None:
    count = iter(range(100))

    @tool(effect="read")
    def pages(book: str) -> str:
        """Pages written. book: its name."""
        return str(next(count))

    model = ScriptedModel([*[call("pages", book="b")] * 6, "Six."])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, tools=[pages]), "Go")
    assert result.status == "completed"


async def test_equal_results_of_the_calls_of_one_reply_are_no_loop(tmp_path: Path) -> None:
    """The model has not seen any of them yet, so it repeated nothing."""
    model = ScriptedModel([[call("search", query=q) for q in "abcdef"], "Nothing at all."])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, tools=[search]), "Go")
    assert result.status == "completed"


@pytest.mark.requirement("REC-3", "REC-4", "TOL-7")
async def test_a_model_that_insists_on_an_invented_tool_is_stopped(tmp_path: Path) -> None:
    result, _ = await run(tmp_path, [*[call("teleport", to="x")] * 3, STOP])
    assert (result.status, result.reason) == ("partial", "loop")
    assert result.usage.tool_calls == 0


async def test_a_repeated_write_is_not_done_again_and_counts_as_a_repeat(tmp_path: Path) -> None:
    saved: list[str] = []

    @tool(effect="write")
    def store(run: RunContext[None], text: str) -> str:
        """Store. text: what."""
        saved.append(text)
        return "stored"

    model = ScriptedModel([*[call("store", text="a")] * 3, STOP])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, tools=[store]), "Go")
    assert result.reason == "loop"
    assert saved == ["a"]


async def test_a_run_stopped_as_a_loop_may_be_resumed_and_goes_on(tmp_path: Path) -> None:
    model = ScriptedModel([*[call("search", query="x")] * 3, STOP, "Found another way."])
    desk = Agent("desk", model=model, tools=[search])
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Go")
        assert first.reason == "loop"
        await rt.resume(first.run_id)
        second = await rt.result(first.run_id)
        replayed = await rt.replay(first.run_id)
    assert (second.status, second.text) == ("completed", "Found another way.")
    assert replayed.differences == ()


async def test_the_repeat_at_which_a_run_stops_is_a_limit(tmp_path: Path) -> None:
    model = ScriptedModel([*[call("search", query="x")] * 4, "Enough."])
    desk = Agent("desk", model=model, tools=[search], limits=Limits(repeats=6))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Go")
    assert result.status == "completed"

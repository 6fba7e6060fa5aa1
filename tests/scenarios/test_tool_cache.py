"""`cache_ttl`: a read's result is reused for so long, by the same user only."""

from __future__ import annotations

from pathlib import Path

import pytest

from roadworthy import Agent, File, Runtime, Tool, ToolCall, ToolError, User, tool
from roadworthy.events import ToolSucceeded
from roadworthy.testing import FakeClock, ScriptedModel
from tests.scenarios.world import Given, of_kind, url


def look_tool(calls: list[str], **options: Given) -> Tool[None]:
    @tool(effect="read", cache_ttl=60, **options)
    def look(x: str) -> str:
        """Look. x: any."""
        calls.append(x)
        return f"seen {x} {len(calls)}"

    return look


def desk(look: Tool[None], *asked: str) -> Agent:
    script: list[ToolCall | str] = [*[ToolCall("look", {"x": x}) for x in asked], "Done."]
    return Agent("desk", model=ScriptedModel(script), tools=[look])


@pytest.mark.requirement("CST-2")
async def test_a_kept_result_answers_the_same_call_of_a_later_run(tmp_path: Path) -> None:
    calls: list[str] = []
    agent = desk(look_tool(calls, cost="0.01"), "1")
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(agent, "Go")
        again = await rt.run(agent, "Go")
        (outcome,) = await of_kind(rt, again.run_id, ToolSucceeded)
        replayed = await rt.replay(again.run_id)
    assert calls == ["1"]
    assert outcome.source == "cache"
    assert outcome.result.content == "seen 1 1"
    assert (outcome.nanos, outcome.attempts) == (0, 0)
    assert again.usage.nanos == 0
    assert replayed.differences == ()


async def test_other_arguments_users_tenants_and_schemas_are_asked_anew(tmp_path: Path) -> None:
    calls: list[str] = []
    look = look_tool(calls)

    @tool(effect="read", cache_ttl=60, name="look")
    def changed(x: str, y: int = 0) -> str:
        """Look. x: any. y: any."""
        calls.append("changed")
        return x

    ana = User("ana", "acme")
    async with Runtime(url(tmp_path)) as rt:
        for agent, user in [
            (desk(look, "1", "2"), ana),
            (desk(look, "1"), User("bea", "acme")),
            (desk(look, "1"), User("ana", "other")),
            (desk(changed, "1"), ana),
            (desk(look, "1"), ana),
        ]:
            await rt.run(agent, "Go", user=user)
    assert calls == ["1", "2", "1", "1", "changed"]


async def test_a_kept_result_expires_by_the_clock_and_survives_reopening(tmp_path: Path) -> None:
    calls: list[str] = []
    agent = desk(look_tool(calls), "1")
    clock = FakeClock(auto=True)
    async with Runtime(url(tmp_path), clock=clock) as rt:
        await rt.run(agent, "Go")
    async with Runtime(url(tmp_path), clock=clock) as rt:
        await clock.advance(59)
        await rt.run(agent, "Go")
        assert calls == ["1"]
        await clock.advance(2)
        await rt.run(agent, "Go")
        assert calls == ["1", "1"]


async def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    calls: list[str] = []

    @tool(effect="read", cache_ttl=60)
    def look(x: str) -> str:
        """Look. x: any."""
        calls.append(x)
        raise ToolError("No such.")

    async with Runtime(url(tmp_path)) as rt:
        await rt.run(desk(look, "1"), "Go")
        await rt.run(desk(look, "1"), "Go")
    assert calls == ["1", "1"]


async def test_files_are_kept_with_the_result(tmp_path: Path) -> None:
    calls: list[str] = []

    @tool(effect="read", cache_ttl=60)
    def look(x: str) -> File:
        """Look. x: any."""
        calls.append(x)
        return File(media_type="image/png", data=b"\x89PNG\x00")

    agent = desk(look, "1")
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(agent, "Go")
        again = await rt.run(agent, "Go")
        (outcome,) = await of_kind(rt, again.run_id, ToolSucceeded)
    assert calls == ["1"]
    assert outcome.result.files[0].data == b"\x89PNG\x00"

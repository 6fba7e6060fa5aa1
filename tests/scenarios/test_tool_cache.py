"""`cache_ttl`: a read's result is reused for so long, by the same user only."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from roadworthy import (
    Agent,
    DeclarationError,
    File,
    Runtime,
    Tool,
    ToolCall,
    ToolError,
    User,
    tool,
)
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


def ledger(state: list[str]) -> tuple[Tool[None], Tool[None]]:
    """A cached read, and the write that makes it wrong."""

    @tool(effect="read", cache_ttl=3_600)
    def look(x: str) -> str:
        """Look. x: any."""
        return f"{x}={state[-1]}"

    @tool(effect="write", idempotent_by_nature=True, invalidates=[look])
    def put(to: str) -> str:
        """Write. to: any."""
        state.append(to)
        if to == "broken":
            raise ToolError("Only half of it was written.")
        return "written"

    return look, put


async def seen(rt: Runtime, tools: tuple[Tool[None], Tool[None]], user: User, *calls: Given) -> str:
    script = [*calls, ToolCall("look", {"x": "1"}), "Done."]
    agent = Agent("desk", model=ScriptedModel(script), tools=tools)
    run = await rt.run(agent, "Go", user=user)
    return (await of_kind(rt, run.run_id, ToolSucceeded))[-1].result.content


@pytest.mark.requirement("CST-2")
@pytest.mark.parametrize("wrote", ["new", "broken"])
async def test_a_write_drops_what_it_makes_wrong_for_its_user(tmp_path: Path, wrote: str) -> None:
    state = ["old"]
    tools = ledger(state)
    ana, bea, other = User("ana", "acme"), User("bea", "acme"), User("ana", "other")
    async with Runtime(url(tmp_path)) as rt:
        for user in (ana, bea, other):
            assert await seen(rt, tools, user) == "1=old"
        state.append("unnoticed")
        assert await seen(rt, tools, ana) == "1=old"  # kept
        assert await seen(rt, tools, ana, ToolCall("put", {"to": wrote})) == f"1={wrote}"
        state.append("unnoticed")
        assert await seen(rt, tools, ana) == f"1={wrote}"  # kept anew
        assert await seen(rt, tools, bea) == "1=old"  # somebody else's
        assert await seen(rt, tools, other) == "1=old"


async def test_a_refused_write_drops_nothing_and_a_second_one_drops_again(tmp_path: Path) -> None:
    state = ["old"]
    tools, ana = ledger(state), User("ana")
    async with Runtime(url(tmp_path)) as rt:
        await seen(rt, tools, ana)
        state.append("unnoticed")
        assert await seen(rt, tools, ana, ToolCall("put", {"to": 7})) == "1=old"
        for word in ("a", "b", "c"):
            assert await seen(rt, tools, ana, ToolCall("put", {"to": word})) == f"1={word}"


@pytest.mark.requirement("CST-2")
async def test_a_read_that_began_before_the_write_is_not_kept_for_after_it(tmp_path: Path) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    state = ["old"]

    @tool(effect="read", cache_ttl=3_600)
    async def look(x: str) -> str:
        """Look. x: any."""
        found = state[-1]
        began.set()
        await go_on.wait()
        return found

    @tool(effect="write", idempotent_by_nature=True, invalidates=[look])
    def put(to: str) -> str:
        """Write. to: any."""
        state.append(to)
        return "written"

    def agent(name: str, *script: ToolCall | str) -> Agent:
        return Agent(name, model=ScriptedModel([*script, "Done."]), tools=[look, put])

    reader = agent("reader", ToolCall("look", {"x": "1"}))
    async with Runtime(url(tmp_path)) as rt:
        slow = asyncio.create_task(rt.run(reader, "Go"))
        await began.wait()
        await rt.run(agent("writer", ToolCall("put", {"to": "new"})), "Go")
        go_on.set()
        await slow
        run = await rt.run(reader, "Go")
        (outcome,) = await of_kind(rt, run.run_id, ToolSucceeded)
    assert (outcome.result.content, outcome.source) == ("new", "call")


@pytest.mark.parametrize("wrong", [[ledger([])[1]], [print], "look"])
def test_what_cannot_be_invalidated_is_refused(wrong: Given) -> None:
    with pytest.raises(DeclarationError, match="invalidates="):

        @tool(effect="irreversible", invalidates=wrong)
        def send() -> None:
            """Send."""


def test_a_read_invalidates_nothing() -> None:
    look, _ = ledger([])
    with pytest.raises(DeclarationError, match="invalidates="):

        @tool(effect="read", invalidates=[look])
        def find() -> None:
            """Find."""

"""Features that were written apart, held together: rules and ladders, edits, caches, toolsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from roadworthy import (
    Agent,
    NotApplied,
    RunContext,
    RunResult,
    Runtime,
    Tool,
    ToolCall,
    ToolError,
    User,
    tool,
)
from roadworthy.agent import Toolset
from roadworthy.errors import DeclarationError
from roadworthy.events import Noted, ToolIntended, ToolRefused, ToolSucceeded
from roadworthy.mcp_server import Served
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.tools import (
    AskPerson,
    LastGood,
    at_most,
    bounds,
    only_after_approval,
    over,
    requires,
    toolset,
)
from tests.properties.snapshots import Snapshots
from tests.scenarios.world import Given, journal, of_kind


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/s.db"


pytestmark = pytest.mark.requirement("TOL-7", "REC-1")


async def test_an_answer_after_a_lost_one_leaves_the_effect_in_doubt(tmp_path: Path) -> None:
    """The money left, the reply was lost, then the bank says: session expired. Nobody knows."""
    paid: list[str] = []

    @tool(effect="write", retries=2)
    def refund(run: RunContext[None], usd: int) -> str:
        """Pay. usd: how much."""
        if paid:
            raise ToolError("session expired")
        paid.append(run.key)
        raise TimeoutError("lost")

    call = ToolCall("refund", {"usd": 10})
    model = ScriptedModel([call, call, "Done."])
    desk = Agent("desk", model=model, tools=[refund], rules=[at_most(refund, 1)])
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(desk, "x")
        assert [approval.kind for approval in result.waiting] == ["unknown_outcome"]
        await rt.resolve(result.waiting[0].id, "respond", by="lea", note="paid")
        assert (await rt.result(result.run_id)).text == "Done."
    assert len(paid) == 1


async def test_a_user_cannot_edit_past_an_operator(tmp_path: Path) -> None:
    paid: list[int] = []

    @tool(effect="write", idempotent_by_nature=True, approval="user")
    def refund(usd: int) -> str:
        """Pay. usd: how much."""
        paid.append(usd)
        return "paid"

    rule = only_after_approval(refund, when=over("usd", 50), asks="operator")
    for wanted, happened in ((10_000, []), (20, [20])):
        model = ScriptedModel([ToolCall("refund", {"usd": 10}), "Done."])
        desk = Agent("desk", model=model, tools=[refund], rules=[rule])
        async with Runtime(url(tmp_path)) as rt:
            result = await rt.run(desk, "x")
            assert [approval.asks for approval in result.waiting] == ["user"]
            arguments = {"usd": wanted}
            await rt.resolve(result.waiting[0].id, "edit", by="ana", arguments=arguments)
            assert (await rt.result(result.run_id)).text == "Done."
            assert (await rt.replay(result.run_id)).differences == ()
        assert paid == happened


async def test_bounds_go_by_the_names_that_the_schema_shows(tmp_path: Path) -> None:
    class Item(BaseModel):
        total: int = Field(alias="amount")

    paid: list[int] = []

    @tool(effect="write", idempotent_by_nature=True)
    def pay(item: Item) -> str:
        """Pay. item: what."""
        paid.append(item.total)
        return "paid"

    calls = [ToolCall("pay", {"item": {"amount": usd}}) for usd in (9_999, 40)]
    rules = [bounds(pay, **{"item.amount": (0, 50)})]
    desk = Agent("desk", model=ScriptedModel([*calls, "Done."]), tools=[pay], rules=rules)
    async with Runtime(url(tmp_path)) as rt:
        assert (await rt.run(desk, "x")).text == "Done."
    assert paid == [40]


def test_an_approval_by_rule_is_for_one_tool_and_its_runs_only() -> None:
    @tool(effect="write", idempotent_by_nature=True)
    def other(usd: int) -> str:
        """Pay. usd: how much."""
        return "paid"

    @tool(effect="write", idempotent_by_nature=True, fallback=other)
    def refund(usd: int) -> str:
        """Pay. usd: how much."""
        raise NotApplied("closed")

    model = ScriptedModel(["Done."])
    with pytest.raises(DeclarationError, match="agrees to one call"):
        Agent("desk", model=model, tools=[refund], rules=[only_after_approval(refund)])
    desk = Agent("desk", model=model, tools=[other], rules=[bounds(other, usd=(0, 50))])
    with pytest.raises(DeclarationError, match="under rules of the agent 'desk'"):
        Served(agents=[], tools=[(other, desk)])


async def test_what_would_act_for_nobody_is_refused_in_a_toolset_per_run(tmp_path: Path) -> None:
    def settled(run: RunContext[None], x: int) -> Any:  # noqa: ANN401 - as declared
        return "not_applied"

    @tool(reconcile=settled)
    def act(x: int) -> str:
        """Act. x: on what."""
        return ""

    @toolset(per="run")
    async def bank() -> AsyncIterator[Sequence[Tool[None]]]:
        yield [act]

    tools: list[Toolset[Any]] = [bank]
    desk = Agent("desk", model=ScriptedModel(["Done."]), tools=tools)
    with pytest.raises(DeclarationError, match=r'Use per="process"'):
        async with Runtime(url(tmp_path), patterns=[desk]):
            pass


async def test_agents_with_a_tool_of_one_name_do_not_share_results(tmp_path: Path) -> None:
    def desk(name: str, answer: str) -> Agent[None, str]:
        @tool(effect="read", cache_ttl=600)
        def look(what: str) -> str:
            """Look. what: at what."""
            return answer

        model = ScriptedModel([ToolCall("look", {"what": "pay"}), "Done."])
        return Agent(name, model=model, tools=[look])

    async with Runtime(url(tmp_path)) as rt:
        for name in ("hr", "public"):
            agent = desk(name, name)
            await rt.run(agent, "x", user=User("ana"))
            told = agent.model.requests[-1].messages[-1].parts[0]  # type: ignore[union-attr]
            assert told.content == name


async def test_what_an_alternative_writes_makes_old_what_it_says(tmp_path: Path) -> None:
    there = ["old"]

    @tool(effect="read", cache_ttl=600)
    def look(what: str) -> str:
        """Look. what: at what."""
        return there[-1]

    @tool(effect="write", idempotent_by_nature=True, invalidates=[look])
    def other(what: str) -> str:
        """Put. what: what."""
        there.append("new")
        return "put"

    @tool(effect="write", idempotent_by_nature=True, retries=0, fallback=other)
    def put(what: str) -> str:
        """Put. what: what."""
        raise NotApplied("closed")

    seen = ToolCall("look", {"what": "it"})
    model = ScriptedModel([seen, ToolCall("put", {"what": "it"}), seen, "Done."])
    desk = Agent("desk", model=model, tools=[look, put])
    async with Runtime(url(tmp_path)) as rt:
        assert (await rt.run(desk, "x")).text == "Done."
    assert model.requests[-1].messages[-1].parts[0].content == "new"  # type: ignore[union-attr]


@pytest.mark.parametrize("left", ["the tool", "nothing"])
async def test_an_orphaned_alternative_counts_for_the_tool_it_stood_in_for(
    tmp_path: Path, left: str
) -> None:
    """A process dies in the alternative, a deploy drops it, a person says that it took place."""
    cuts: list[str] = []
    snapshots = Snapshots(tmp_path / "s.db", tmp_path / "cuts")
    paid: list[str] = []

    def seen(event: object) -> None:
        if isinstance(event, ToolIntended) and event.tool == "by_post":
            cuts.append(snapshots.take())

    @tool(retries=0)
    def by_post(usd: int) -> str:
        """Pay. usd: how much."""
        return "sent"

    @tool(retries=0, fallback=by_post, breaker=None)
    def pay(usd: int) -> str:
        """Pay. usd: how much."""
        if paid:
            paid.append("again")
            return "paid"
        raise NotApplied("closed")

    script: list[Given] = [ToolCall("pay", {"usd": 1}), ToolCall("pay", {"usd": 2}), "Done."]
    model = ScriptedModel(script)
    desk = Agent("desk", model=model, tools=[pay], rules=[at_most(pay, 1)])
    async with Runtime(snapshots.url, clock=FakeClock(auto=True), on_event=seen) as rt:
        whole = await rt.run(desk, "Go")
    paid.append("the bank is open again")
    bare = replace(desk, tools=[replace(pay, fallback=())])
    if left == "nothing":
        bare = replace(desk, tools=[], rules=[])
    async with Runtime(cuts[0], patterns=[bare], clock=FakeClock(auto=True)) as rt:
        result = await rt.wait(whole.run_id)
        while result.waiting:
            version = result.waiting[0].kind == "version"
            how: Given = "approve" if version else "respond"
            await rt.resolve(result.waiting[0].id, how, by="lea", note="" if version else "It is.")
            result = await rt.wait(whole.run_id)
        events = await journal(rt, whole.run_id)
    (done,) = [event for event in events if isinstance(event, ToolSucceeded)]
    assert (done.tool, done.by, done.arguments) == ("pay", "by_post", {"usd": 1})
    refused = [event.code for event in events if isinstance(event, ToolRefused)]
    assert refused == (["at_most"] if left == "the tool" else ["unknown_tool"])
    assert len(paid) == 1


async def test_a_last_good_answer_is_never_of_before_a_write_it_did_not_see(tmp_path: Path) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    state = ["old"]

    @tool(effect="read", fallback=LastGood(3_600), retries=0, breaker=None)
    async def look(x: str) -> str:
        """Look. x: any."""
        if state[-1] == "down":
            raise ConnectionError("down")
        found = state[-1]
        began.set()
        await go_on.wait()
        return found

    @tool(effect="write", idempotent_by_nature=True, invalidates=[look])
    def put(to: str) -> str:
        """Write. to: any."""
        state.append(to)
        return "written"

    def agent(*script: ToolCall | str) -> Agent:
        return Agent("desk", model=ScriptedModel([*script, "Done."]), tools=[look, put])

    reading = agent(ToolCall("look", {"x": "1"}))
    async with Runtime(url(tmp_path)) as rt:
        slow = asyncio.create_task(rt.run(reading, "Go"))
        await began.wait()
        await rt.run(agent(ToolCall("put", {"to": "new"})), "Go")
        go_on.set()
        await slow
        state.append("down")
        run = await rt.run(reading, "Go")
        assert not await of_kind(rt, run.run_id, ToolSucceeded)
        state.append("newer")
        await rt.run(reading, "Go")
        state.append("down")
        run = await rt.run(reading, "Go")
        (kept,) = await of_kind(rt, run.run_id, ToolSucceeded)
    assert (kept.source, kept.result.content.splitlines()[-1]) == ("last_good", "newer")


@pytest.mark.parametrize("who", ["user", "operator"])
@pytest.mark.parametrize("where", ["approval", "failure"])
async def test_only_an_operators_answer_in_a_tools_place_proves_it(
    tmp_path: Path, who: Given, where: str
) -> None:
    """A user who says that the identity check was passed has not passed it."""
    approval = who if where == "approval" else None
    fallback = [AskPerson(who)] if where == "failure" else None

    @tool(retries=0, approval=approval, fallback=fallback, breaker=None)
    def identify(name: str) -> str:
        """Check who it is. name: who."""
        raise NotApplied("away")

    @tool
    def refund(usd: int) -> str:
        """Pay. usd: how much."""
        return "paid"

    script: list[Given] = [
        ToolCall("identify", {"name": "ana"}),
        ToolCall("refund", {"usd": 1}),
        "Done.",
    ]
    rules = [requires(refund, identify)]
    desk = Agent("desk", model=ScriptedModel(script), tools=[identify, refund], rules=rules)
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        waiting = await rt.run(desk, "Pay me.")
        (asked,) = waiting.waiting
        assert asked.asks == who
        await rt.resolve(asked.id, "respond", by="somebody", note="It is she.")
        assert (await rt.result(waiting.run_id)).status == "completed"
        refused = await of_kind(rt, waiting.run_id, ToolRefused)
        assert (await rt.replay(waiting.run_id)).differences == ()
    assert [event.code for event in refused] == (["requires"] if who == "user" else [])


async def test_at_most_so_often_in_a_whole_conversation(tmp_path: Path) -> None:
    """Whatever may have happened in its earlier runs counts, of another agent too."""
    lost: list[bool] = []

    @tool(repeatable=True, retries=0, breaker=None)
    def refund(usd: int) -> str:
        """Pay. usd: how much."""
        if usd == 7:
            raise NotApplied("closed")
        if lost:
            raise TimeoutError("lost")
        return "paid"

    rule = at_most(refund, 3, per="conversation")

    def desk(name: str, *amounts: int) -> Agent[None, str]:
        script: list[Given] = [*([ToolCall("refund", {"usd": usd})] for usd in amounts), "Done."]
        return Agent(name, model=ScriptedModel(script), tools=[refund], rules=[rule])

    async def refused(result: RunResult) -> list[str]:
        return [event.code for event in await of_kind(rt, result.run_id, ToolRefused)]

    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        first = await rt.run(desk("a", 1, 7, 7), "Pay.", conversation="c")
        assert await refused(first) == []
        second = await rt.run(desk("b", 1), "Pay.", conversation="c")
        assert await refused(second) == []
        lost.append(True)
        third = await rt.run(desk("a", 2), "Pay.", conversation="c")
        assert [each.kind for each in third.waiting] == ["unknown_outcome"]
        await rt.cancel(third.run_id)  # nobody ever said whether it took place
        await rt.wait(third.run_id)
        lost.clear()
        fourth = await rt.run(desk("a", 1, 2), "Pay.", conversation="c")
        assert await refused(fourth) == ["at_most", "at_most"]
        told = [e.result.content for e in await of_kind(rt, fourth.run_id, ToolRefused)]
        assert "no further call of it is allowed in this conversation" in told[0]
        noted = [e for e in await of_kind(rt, fourth.run_id, Noted) if "earlier" in e.key]
        assert [(e.key, e.value) for e in noted] == [("rules/earlier/refund", 3)], "read once"
        assert (await rt.replay(fourth.run_id)).differences == ()
        assert await refused(await rt.run(desk("a", 1), "Pay.", conversation="other")) == []
        assert await refused(await rt.run(desk("a", 1, 2, 3, 4), "Pay.")) == ["at_most"]


def test_a_count_is_per_run_or_per_conversation() -> None:
    @tool
    def refund(usd: int) -> str:
        """Pay. usd: how much."""
        return "paid"

    whole = at_most(refund, 3, per="conversation")
    assert str(whole) == "at_most(refund, 3, per=conversation)"
    model = ScriptedModel(["x"])
    Agent("desk", model=model, tools=[refund], rules=[at_most(refund, 1), whole])
    with pytest.raises(DeclarationError, match="bound the same; keep one"):
        Agent("desk", model=model, tools=[refund], rules=[whole, replace(whole, times=4)])
    wrong: Given = "week"
    with pytest.raises(DeclarationError, match="per='week' is neither"):
        at_most(refund, 1, per=wrong)

"""Features that were written apart, held together: rules and ladders, edits, caches, toolsets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from roadworthy import Agent, NotApplied, RunContext, Runtime, Tool, ToolCall, ToolError, User, tool
from roadworthy.agent import Toolset
from roadworthy.errors import DeclarationError
from roadworthy.mcp_server import Served
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.tools import at_most, bounds, only_after_approval, over, toolset


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

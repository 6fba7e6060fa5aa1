"""What one run may use; and rules where tools come and go, and declarations change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from roadworthy import (
    Agent,
    Limits,
    RunContext,
    RunOptions,
    Runtime,
    Tool,
    tool,
)
from roadworthy.errors import DeclarationError, RunError
from roadworthy.events import (
    DeclarationChanged,
    ToolSucceeded,
)
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.tools import (
    Toolset,
    at_most,
    requires,
    toolset,
)
from tests.scenarios.test_rules import Shop, codes, find, pay, told
from tests.scenarios.world import Given, journal, url

pytestmark = pytest.mark.requirement("TOL-7")


# --- what one run may use -----------------------------------------------------------------


async def test_a_run_uses_only_the_tools_it_was_given(tmp_path: Path) -> None:
    shop = Shop()
    model = ScriptedModel([pay(), find(), "Done."])
    options = RunOptions(tools=["find_order"])
    async with Runtime(url(tmp_path)) as rt:
        done = await rt.run(shop.desk([], model=model), "Refund", options=options)
        events = await journal(rt, done.run_id)
        assert (await rt.replay(done.run_id)).differences == ()
    assert "refund" not in model.requests[0].tools
    assert (shop.paid, codes(events)) == ([], ["not_allowed"])
    assert told(model)[0] == "refund is not allowed in this run. Allowed are: find_order."


async def test_a_resumed_run_keeps_what_it_may_use(tmp_path: Path) -> None:
    shop = Shop()
    script = [find(), "So far.", pay(), "Done."]
    options = RunOptions(tools=["find_order"], limits=Limits(turns=1))
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(shop.desk(script), "Refund", options=options)
    async with Runtime(url(tmp_path), patterns=[shop.desk(script)]) as rt:
        await rt.resume(first.run_id, limits=Limits(turns=5))
        await rt.wait(first.run_id)
        assert codes(await journal(rt, first.run_id)) == ["not_allowed"]
    assert shop.paid == []


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        (["refnd"], "no tool 'refnd'. It has: find_order, refund"),
        ("refund", "a list of the tools' names"),
        (["refund"], "could never run, because a rule requires before it 'find_order'"),
    ],
)
async def test_a_wrong_choice_of_tools_starts_no_run(
    tmp_path: Path, tools: Given, said: str
) -> None:
    shop = Shop()
    desk = shop.desk(["Done."], requires(shop.refund, shop.find_order))
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(RunError, match=said):
            await rt.run(desk, "Refund", options=RunOptions(tools=tools))


async def test_a_run_without_any_tool_answers_without(tmp_path: Path) -> None:
    shop = Shop()
    model = ScriptedModel([find(), "Done."])
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(shop.desk([], model=model), "Look", options=RunOptions(tools=[]))
    assert (shop.looked, told(model)[0]) == (
        [],
        "find_order is not allowed in this run. No tool is; answer without.",
    )


async def test_what_stands_in_for_a_tool_has_to_be_allowed_too(tmp_path: Path) -> None:
    @tool(effect="read", fallback=Shop().find_order)
    def find_fast(order_id: str) -> str:
        """Look an order up quickly. order_id: such as A-17."""
        return ""

    (find_order,) = find_fast.alternatives
    desk = Agent("desk", model=ScriptedModel(["Done."]), tools=[find_fast, find_order])
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(RunError, match=r"stood in for by 'find_order'\. Allow that too"):
            await rt.run(desk, "Look", options=RunOptions(tools=["find_fast"]))


# --- tools of toolsets, other versions ----------------------------------------------------


def place(shop: Shop, open_: list[bool]) -> Toolset[None]:
    @toolset(name="place")
    async def opened(run: RunContext[None]) -> AsyncIterator[Sequence[Tool[None]]]:
        if not open_:
            raise OSError("nobody listens there")
        yield [shop.find_order]

    return opened


async def test_rules_name_the_tools_of_a_toolset(tmp_path: Path) -> None:
    shop = Shop()
    rules = [requires(shop.refund, "find_order"), at_most("find_order", 1)]
    desk = Agent(
        "desk",
        model=ScriptedModel([find("A"), find("B"), pay(), "Done."]),
        tools=[place(shop, [True]), shop.refund],
        rules=rules,
    )
    async with Runtime(url(tmp_path), patterns=[desk]) as rt:
        assert (await rt.run(desk, "Refund")).status == "completed"
    assert (shop.looked, len(shop.paid)) == (["A"], 1)


async def test_what_must_come_first_is_away_and_the_rule_stands(tmp_path: Path) -> None:
    shop = Shop()
    desk = Agent(
        "desk",
        model=ScriptedModel([pay(), "Later."]),
        tools=[place(shop, []), shop.refund],
        rules=[requires(shop.refund, "find_order")],
    )
    async with Runtime(url(tmp_path), patterns=[desk], clock=FakeClock()) as rt:
        done = await rt.run(desk, "Refund")
        events = await journal(rt, done.run_id)
    assert (shop.paid, codes(events)) == ([], ["requires"])


async def test_a_rule_on_a_tool_that_an_open_toolset_has_not_is_said(tmp_path: Path) -> None:
    shop = Shop()
    desk = Agent(
        "desk",
        model=ScriptedModel(["Done."]),
        tools=[place(shop, [True]), shop.refund],
        rules=[requires(shop.refund, "find_ordr")],
    )
    with pytest.raises(DeclarationError, match=r"no tool 'find_ordr'\. Did you mean 'find_order'"):
        async with Runtime(url(tmp_path), patterns=[desk]):
            pass


@pytest.mark.requirement("REC-8")
async def test_a_new_rule_holds_from_the_next_turn_and_undoes_nothing(tmp_path: Path) -> None:
    shop = Shop()
    script = [pay("A"), pay("B"), "So far.", pay("C"), "Done."]
    desk = shop.desk(script, limits=Limits(turns=2))
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Refund")
    stricter = shop.desk(script, at_most(shop.refund, 1), limits=Limits(turns=2))
    async with Runtime(url(tmp_path), patterns=[stricter]) as rt:
        await rt.resume(first.run_id, limits=Limits(turns=9))
        await rt.wait(first.run_id)
        events = await journal(rt, first.run_id)
        assert (await rt.replay(first.run_id)).differences == ()
    (changed,) = (event for event in events if isinstance(event, DeclarationChanged))
    assert changed.changed == ("rules: +at_most(refund, 1)",)
    assert len([e for e in events if isinstance(e, ToolSucceeded)]) == 2
    assert (len(shop.paid), codes(events)) == (2, ["at_most"])

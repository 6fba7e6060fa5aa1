"""Persons who act at once, and while something is under way: one owner, and nothing hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from roadworthy import Agent, Runtime, Tool, ToolCall, tool
from roadworthy.errors import IdempotencyConflict, NotYours, RoadworthyError
from roadworthy.escalation import Escalation, EscalationRules, Inbox, RunState
from roadworthy.testing import ScriptedModel
from roadworthy.testing.scripted import Item
from tests.scenarios.world import url

pytestmark = pytest.mark.requirement("HIT-3")


class Gate:
    """A tool that begins, and goes on when it may."""

    def __init__(self) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    def tool(self) -> Tool[None]:
        @tool(effect="write", idempotent_by_nature=True)
        async def slow(order: str) -> str:
            """Something slow. order: such as A-17."""
            self.begun.set()
            await self.go_on.wait()
            return "done"

        return slow


async def until(rt: Runtime, seen: Callable[[list[Escalation]], object]) -> Escalation:
    async for _ in rt.inbox.changes():
        items = await rt.inbox.list()
        if seen(items):
            return items[0]
    raise AssertionError


async def test_one_who_is_assigned_while_the_agent_lets_go_gets_it(tmp_path: Path) -> None:
    gate = Gate()
    script: list[Item] = [ToolCall("slow", {"order": "A-17"}), "All is done."]
    desk = Agent("desk", model=ScriptedModel(script), tools=[gate.tool()])
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        run_id = await rt.start(desk, "Do it", user="ana", conversation="c")
        await gate.begun.wait()
        first = asyncio.ensure_future(rt.inbox.take_conversation("c", "lea"))
        item = await until(rt, bool)
        again = asyncio.ensure_future(rt.inbox.take(item.id, "lea"))  # her other window
        while len((await rt.inbox.packet(item.id)).log) < 3:
            await asyncio.wait([first, again], timeout=0.01)
        assert (await rt.inbox.get(item.id)).status == "open"  # the agent still acts
        await rt.inbox.assign(item.id, "tom", "lea")
        gate.go_on.set()
        for work in (first, again):
            with pytest.raises(NotYours):
                await work
        item = await until(rt, lambda items: items[0].status == "taken")
        packet = await rt.inbox.packet(item.id)
        assert (item.assignee, packet.owner, packet.person) == ("tom", "person", "tom")
        await rt.inbox.hand_back(item.id, "tom")
        assert (await rt.result(run_id)).status == "completed"


async def test_given_back_while_an_errand_is_done_it_is_the_agents(tmp_path: Path) -> None:
    gate = Gate()
    desk = Agent("desk", model=ScriptedModel(["Bye."]), tools=[gate.tool()])
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        said = await rt.run(desk, "I want to talk to a human", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        await rt.inbox.take(item.id, "lea")
        call = asyncio.ensure_future(rt.inbox.call(item.id, "slow", {"order": "A-17"}, "lea"))
        await gate.begun.wait()
        await rt.inbox.hand_back(item.id, "lea")
        gate.go_on.set()
        assert (await call).outcome == "ok"
        assert (await rt.result(said.run_id)).text == "Bye."
        assert await rt.inbox.list() == []
        assert (await rt.inbox.packet(item.id)).owner == "agent"


async def test_a_message_that_went_to_the_person_is_remembered_once(tmp_path: Path) -> None:
    gate = Gate()
    script: list[Item] = [ToolCall("slow", {"order": "A-17"}), "All is done."]
    desk = Agent("desk", model=ScriptedModel(script), tools=[gate.tool()])
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        run_id = await rt.start(desk, "Do it", user="ana", conversation="c")
        await gate.begun.wait()
        await rt.start(desk, "And?", user="ana", conversation="c")  # waits its turn
        taking = asyncio.ensure_future(rt.inbox.take_conversation("c", "lea"))
        await until(rt, bool)
        gate.go_on.set()
        item = await taking
        await rt.inbox.hand_back(item.id, "lea")
        await rt.result(run_id)
        history = [m.text for m in await rt.history("c", user="ana")]
        assert (history.count("Do it"), history.count("And?")) == (1, 1)


async def test_what_is_cancelled_ends_whoever_takes_it(tmp_path: Path) -> None:
    gate = Gate()
    desk = Agent(
        "desk", model=ScriptedModel([ToolCall("slow", {"order": "A"})]), tools=[gate.tool()]
    )
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        run_id = await rt.start(desk, "Do it", user="ana", conversation="c")
        await gate.begun.wait()
        taking = asyncio.ensure_future(rt.inbox.take_conversation("c", "lea"))
        await until(rt, bool)
        await rt.cancel(run_id)
        gate.go_on.set()
        assert (await rt.result(run_id)).reason == "cancelled"
        with pytest.raises(NotYours):
            await taking
        assert await rt.inbox.list() == []
        said = await rt.run(desk, "I want to talk to a human", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        await rt.inbox.take(item.id, "lea")
        await rt.cancel(said.run_id)
        assert (await rt.result(said.run_id)).reason == "cancelled"
        assert await rt.inbox.list() == []
        assert (await rt.inbox.packet(item.id)).owner == "agent"


async def test_a_key_stands_for_one_action_of_one_person(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel(["Back again."]))
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        run = await rt.run(desk, "I need a human", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        await rt.inbox.say(item.id, "one", "lea", key="1")
        await rt.inbox.say(item.id, "one", "lea", key="1")
        with pytest.raises(IdempotencyConflict):
            await rt.inbox.say(item.id, "two", "lea", key="1")
        with pytest.raises(IdempotencyConflict):
            await rt.inbox.hand_back(item.id, "lea", key="1")
        with pytest.raises(RoadworthyError):
            await rt.inbox.say(item.id, "one", "tom", key="1")
        await rt.inbox.hand_back(item.id, "lea", key="2")
        assert (await rt.result(run.run_id)).text == "Back again."
        lines = (await rt.inbox.packet(item.id)).conversation
        assert [line.text for line in lines] == ["I need a human", "one", "Back again."]


async def test_what_another_is_on_nobody_else_decides_on_any_way_in(tmp_path: Path) -> None:
    paid: list[int] = []

    @tool(effect="irreversible", approval="operator")
    def pay(euros: int) -> str:
        """Pay. euros: how much."""
        paid.append(euros)
        return "paid"

    desk = Agent("desk", model=ScriptedModel([ToolCall("pay", {"euros": 4}), "Done."]), tools=[pay])
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        run = await rt.run(desk, "Pay", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        (approval,) = run.waiting
        await rt.inbox.claim(item.id, "lea")
        for decide in (
            rt.inbox.decide(approval.id, "approve", "tom"),
            rt.resolve(approval.id, "approve", by="tom"),
        ):
            with pytest.raises(NotYours, match="lea is on it"):
                await decide
        assert paid == []
        await rt.inbox.decide(approval.id, "approve", "lea")
        assert (await rt.result(run.run_id)).text == "Done."
        assert paid == [4]


async def test_a_key_of_words_is_no_key_of_a_call_nor_of_a_draft(tmp_path: Path) -> None:
    @tool(effect="read")
    def look(order: str) -> str:
        """One order. order: such as A-1."""
        return f"{order} is there"

    desk = Agent("desk", model=ScriptedModel(["A draft."]), tools=[look])
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        await rt.run(desk, "I need a human", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        await rt.inbox.say(item.id, "one", "lea", key="1")
        with pytest.raises(IdempotencyConflict):
            await rt.inbox.call(item.id, "look", {"order": "A-1"}, "lea", key="1")
        with pytest.raises(IdempotencyConflict):
            await rt.inbox.draft(item.id, "lea", key="1")
        first = await rt.inbox.call(item.id, "look", {"order": "A-1"}, "lea", key="2")
        again = await rt.inbox.call(item.id, "look", {"order": "A-1"}, "lea", key="2")
        assert (first.result, again.at) == ("A-1 is there", first.at)
        with pytest.raises(IdempotencyConflict):
            await rt.inbox.call(item.id, "look", {"order": "A-2"}, "lea", key="2")


async def test_own_rules_still_hold_after_a_person_gave_the_run_back(tmp_path: Path) -> None:
    @tool(effect="read")
    def look(order: str) -> str:
        """One order. order: such as A-1."""
        return f"{order} is there"

    def many(state: RunState) -> str | None:
        return "Three calls." if state.tool_calls >= 3 else None

    calls: list[Item] = [ToolCall("look", {"order": f"A-{n}"}) for n in range(3)]
    rules = EscalationRules(topics=["legal"], custom=[many])
    desk = Agent("desk", model=ScriptedModel([*calls, "Done."]), tools=[look], escalation=rules)
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        run = await rt.run(desk, "My lawyer asks for three", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        assert item.trigger == "topic"
        await rt.inbox.hand_back(item.id, "lea")
        assert (await rt.result(run.run_id)).status == "escalated"
        (second,) = await rt.inbox.list()
        assert (second.trigger, second.reason) == ("custom", "Three calls.")
        await rt.inbox.hand_back(second.id, "lea")
        assert (await rt.result(run.run_id)).text == "Done."

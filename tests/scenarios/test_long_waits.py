"""A wait of thirty days: a row, and nothing else; the run goes on under other code and prompts."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.escalation import Inbox
from roadworthy.run import Run
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.testing.scripted import Item
from tests.scenarios.world import url

pytestmark = pytest.mark.requirement("HIT-3", "REC-8")
MONTH = 30 * 86_400
PAID: list[int] = []


@tool(effect="irreversible", approval="operator")
def refund(order: str, euros: int) -> str:
    """Pay an order back. order: such as A-17. euros: how much."""
    PAID.append(euros)
    return f"refunded {euros}"


def desk(script: list[Item], instructions: str, version: str) -> Agent[None, str]:
    model = ScriptedModel(script)
    return Agent("desk", instructions, model=model, tools=[refund], version=version)


def held(run_id: str) -> list[object]:
    """What of a run is in memory."""
    gc.collect()
    runs = [each for each in gc.get_objects() if isinstance(each, Run) and each.id == run_id]
    return [*runs, *(t for t in asyncio.all_tasks() if run_id in repr(t))]


async def pass_month(rt: Runtime, clock: FakeClock) -> None:
    for _ in range(30):
        await clock.advance(MONTH / 30)
        await rt.catch_up()


async def test_a_conversation_rests_with_a_person_for_thirty_days(tmp_path: Path) -> None:
    clock = FakeClock()
    old = desk(["old"], "Be brief.", "1")
    async with Runtime(url(tmp_path), inbox=Inbox(), clock=clock, patterns=[old]) as rt:
        said = await rt.run(old, "I want to talk to a human", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        await rt.inbox.say(item.id, "I look into it.", "lea")
        await rt.result(said.run_id)
        assert held(said.run_id) == []
        await pass_month(rt, clock)
        assert held(said.run_id) == []
    await clock.advance(1)
    new = desk(["Anything else?"], "Be polite, and long.", "2")
    async with Runtime(url(tmp_path), inbox=Inbox(), clock=clock, patterns=[new]) as rt:
        assert held(said.run_id) == []
        (item,) = await rt.inbox.list()
        assert (item.status, item.assignee) == ("open", None)  # lea was silent
        await rt.run(new, "Still there?", user="ana", conversation="c")
        await rt.inbox.say(item.id, "It is settled.", "tom")
        await rt.inbox.hand_back(item.id, "tom")
        result = await rt.result(said.run_id)
        assert (result.status, result.text) == ("completed", "Anything else?")
        assert result.usage.seconds < 60  # waiting is no active time
        told = [m.text for m in await rt.history("c", user="ana") if not m.by_runtime]
        assert told == [
            "I want to talk to a human",
            "I look into it.",
            "Still there?",
            "It is settled.",
            "Anything else?",
        ]
        assert (await rt.replay(said.run_id)).differences == ()


async def test_a_call_waits_thirty_days_for_a_word(tmp_path: Path) -> None:
    clock = FakeClock()
    PAID.clear()
    script: list[Item] = [ToolCall("refund", {"order": "A-17", "euros": 40}), "Done."]
    old = desk(script, "Be brief.", "1")
    async with Runtime(url(tmp_path), inbox=Inbox(), clock=clock, patterns=[old]) as rt:
        said = await rt.run(old, "Refund A-17", user="ana", conversation="c")
        await pass_month(rt, clock)
        assert held(said.run_id) == []
    new = desk(script, "Be polite, and long.", "1")
    async with Runtime(url(tmp_path), inbox=Inbox(), clock=clock, patterns=[new]) as rt:
        (item,) = await rt.inbox.list()
        assert (item.level, item.priority) == (5, 1)  # overdue, and as far up as it goes
        await rt.inbox.decide(said.waiting[0].id, "approve", "lea")
        assert (await rt.result(said.run_id)).text == "Done."
        assert PAID == [40]
        assert await rt.inbox.list() == []

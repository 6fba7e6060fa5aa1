"""Approvals that rules give, that run out, and that a call's severity asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.errors import DeclarationError
from roadworthy.escalation import EscalationRules, Inbox
from roadworthy.events import ApprovalAsked, ApprovalDecided
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.testing.scripted import Item
from roadworthy.tools import approve_when, bounds
from tests.scenarios.world import of_kind, url

pytestmark = pytest.mark.requirement("HIT-1")
PAID: list[int] = []
DAY = 86_400


@tool(effect="irreversible", approval="operator", severity="high")
def refund(order: str, euros: int, tip: int | None = None) -> str:
    """Pay an order back. order: such as A-17. euros: how much. tip: more."""
    PAID.append(euros)
    return f"refunded {euros}"


@tool(effect="irreversible", severity="high")
def close_account(user: str) -> str:
    """Close an account. user: whose."""
    PAID.append(0)
    return f"closed {user}"


@pytest.fixture(autouse=True)
def _nothing_paid() -> None:
    PAID.clear()


def asks(euros: int, **more: int) -> ScriptedModel:
    return ScriptedModel([ToolCall("refund", {"order": "A", "euros": euros, **more}), "Done."])


async def test_a_rule_agrees_within_its_bounds_and_is_on_record(tmp_path: Path) -> None:
    rules = [approve_when(refund, euros=(0, 20))]
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        small = await rt.run(Agent("a", model=asks(20), tools=[refund], rules=rules), "Go")
        assert (small.status, PAID) == ("completed", [20])
        assert await of_kind(rt, small.run_id, ApprovalAsked) == []
        (decided,) = await of_kind(rt, small.run_id, ApprovalDecided)
        assert (decided.decision, decided.by) == (
            "approve",
            "rule:approve_when(refund, euros=(0, 20))",
        )
        assert (await rt.replay(small.run_id)).differences == ()
        large = await rt.run(Agent("b", model=asks(21), tools=[refund], rules=rules), "Go")
        assert (large.status, large.waiting[0].asks, PAID) == ("waiting", "operator", [20])
        unsaid = [approve_when(refund, tip=(0, 5))]
        none = await rt.run(Agent("c", model=asks(1), tools=[refund], rules=unsaid), "Go")
        assert none.status == "waiting"  # what is not given is not known to be small


async def test_bounds_hold_whatever_a_rule_agrees_to(tmp_path: Path) -> None:
    rules = [approve_when(refund, euros=(0, 100)), bounds(refund, euros=(0, 10))]
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("a", model=asks(50), tools=[refund], rules=rules), "Go")
        assert (result.status, PAID) == ("completed", [])


def test_a_rule_that_agrees_to_everything_is_no_rule() -> None:
    with pytest.raises(DeclarationError):
        approve_when(refund)
    with pytest.raises(DeclarationError, match="euro"):
        Agent("a", model=asks(1), tools=[refund], rules=[approve_when(refund, euro=(0, 20))])


async def test_what_nobody_decides_in_time_is_rejected(tmp_path: Path) -> None:
    clock = FakeClock()
    agent = Agent(
        "a", model=asks(5), tools=[refund], escalation=EscalationRules(decide_seconds=DAY)
    )
    async with Runtime(url(tmp_path), inbox=Inbox(), clock=clock, patterns=[agent]) as rt:
        said = await rt.run(agent, "Go", user="ana", conversation="c")
        expires = said.waiting[0].expires
        assert expires == clock.now() + DAY * 1_000_000
        await clock.advance(DAY / 2)
        (item,) = await rt.inbox.list()
        await rt.inbox.take(item.id, "lea")  # it waits again; its time does not begin anew
        again = await rt.result(said.run_id)
        assert again.waiting[0].expires == expires
        await rt.inbox.assign(item.id, "tom", "lea")
        await clock.advance(DAY / 2 + 1)
        await rt.catch_up()
        await rt.result(said.run_id)
        assert PAID == []
        (decided,) = await of_kind(rt, said.run_id, ApprovalDecided)
        assert (decided.decision, decided.note) == ("reject", "Nobody decided in time.")
        await rt.inbox.hand_back(item.id, "tom")
        assert (await rt.result(said.run_id)).text == "Done."


async def test_grave_calls_ask_an_operator_first(tmp_path: Path) -> None:
    script: list[Item] = [ToolCall("close_account", {"user": "ana"}), "Done."]
    agent = Agent(
        "a",
        model=ScriptedModel(script),
        tools=[close_account],
        escalation=EscalationRules(severity="high"),
    )
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        said = await rt.run(agent, "Close it", user="ana", conversation="c")
        assert (said.status, PAID) == ("waiting", [])
        (item,) = await rt.inbox.list()
        assert (item.trigger, item.priority) == ("severity", 20)
        assert "high severity" in said.waiting[0].reason
        await rt.inbox.decide(said.waiting[0].id, "approve", "lea")
        assert (await rt.result(said.run_id)).text == "Done."
        assert PAID == [0]

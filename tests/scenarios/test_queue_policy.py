"""What a queue demands of operators: skills, and four eyes."""

from __future__ import annotations

from pathlib import Path

import pytest

from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.errors import NotYours, UnknownApproval
from roadworthy.escalation import EscalationRules, Inbox, QueuePolicy
from roadworthy.testing import ScriptedModel
from roadworthy.testing.scripted import Item
from tests.scenarios.world import url

pytestmark = pytest.mark.requirement("HIT-4")
PAID: list[int] = []


@tool(effect="irreversible", approval="operator")
def refund(order: str, euros: int) -> str:
    """Pay an order back. order: such as A-17. euros: how much."""
    PAID.append(euros)
    return f"refunded {euros}"


@pytest.fixture(autouse=True)
def _nothing_paid() -> None:
    PAID.clear()


def desk(rules: EscalationRules | None = None) -> Agent[None, str]:
    script: list[Item] = [ToolCall("refund", {"order": "A-17", "euros": 40}), "Done."]
    return Agent(
        "desk",
        model=ScriptedModel(script),
        tools=[refund],
        escalation=rules or EscalationRules(),
    )


async def test_only_who_has_the_skill_takes_or_decides_it(tmp_path: Path) -> None:
    inbox = Inbox(queues=[QueuePolicy(skills={"lea": ["refunds"], "tom": []})])
    agent = desk(EscalationRules(skill="refunds"))
    async with Runtime(url(tmp_path), inbox=inbox) as rt:
        said = await rt.run(agent, "Refund A-17", user="ana", conversation="c")
        (item,) = await rt.inbox.list(skills=["refunds"])
        assert await rt.inbox.list(skills=["legal"]) == []
        for work in (
            rt.inbox.claim(item.id, "tom"),
            rt.inbox.take(item.id, "tom"),
            rt.inbox.say(item.id, "Hello", "tom"),
            rt.inbox.assign(item.id, "tom", "lea"),
            rt.inbox.decide(said.waiting[0].id, "approve", "tom"),
        ):
            with pytest.raises(NotYours, match=r"needs the skill 'refunds', and tom"):
                await work
        await rt.inbox.decide(said.waiting[0].id, "approve", "lea")
        assert (await rt.result(said.run_id)).text == "Done."
        assert PAID == [40]


async def test_four_eyes_agree_to_exactly_the_same(tmp_path: Path) -> None:
    inbox = Inbox(queues=[QueuePolicy(four_eyes=["refund*"])])
    async with Runtime(url(tmp_path), inbox=inbox) as rt:
        said = await rt.run(desk(), "Refund A-17", user="ana", conversation="c")
        (approval,), (item,) = said.waiting, await rt.inbox.list()
        await rt.inbox.decide(approval.id, "approve", "lea")
        assert (await rt.result(said.run_id)).status == "waiting"
        (pending,) = (await rt.inbox.packet(item.id)).pending
        assert pending.reason.endswith("lea agreed: it needs a second person.")
        with pytest.raises(NotYours, match="a second person"):
            await rt.inbox.decide(approval.id, "approve", "lea")
        await rt.inbox.decide(approval.id, "edit", "tom", arguments={"order": "A-17", "euros": 30})
        assert PAID == []  # other arguments than lea agreed to
        await rt.inbox.decide(approval.id, "edit", "lea", arguments={"euros": 30, "order": "A-17"})
        assert (await rt.result(said.run_id)).text == "Done."
        assert PAID == [30]
        with pytest.raises(UnknownApproval):
            await rt.inbox.decide(approval.id, "approve", "tom")
        log = (await rt.inbox.packet(item.id)).log
        assert [(e.action, e.by) for e in log] == [
            ("raised", ""),
            ("agreed", "lea"),
            ("agreed", "tom"),
            ("edit", "lea"),
            ("decided", "lea"),
        ]


async def test_who_changed_their_mind_agrees_to_the_newest_alone(tmp_path: Path) -> None:
    inbox = Inbox(queues=[QueuePolicy(four_eyes=lambda approval: approval.tool == "refund")])
    async with Runtime(url(tmp_path), inbox=inbox) as rt:
        said = await rt.run(desk(), "Refund A-17", user="ana", conversation="c")
        (approval,) = said.waiting
        await rt.inbox.decide(approval.id, "approve", "lea")
        await rt.inbox.decide(approval.id, "edit", "lea", arguments={"order": "A", "euros": 1})
        await rt.resolve(approval.id, "approve", by="tom")  # the same rule on every way in
        assert PAID == []
        await rt.inbox.decide(approval.id, "reject", "tom")  # one alone can turn it down
        assert (await rt.result(said.run_id)).text == "Done."
        assert PAID == []

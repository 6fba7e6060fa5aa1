"""One conversation, one run at a time; one key, one run; one tenant, its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from roadworthy import Agent, RunOptions, Runtime, ToolCall, User, tool
from roadworthy.errors import ConversationBusy, IdempotencyConflict, RunError, UnknownRun
from roadworthy.messages import ModelRequest
from roadworthy.testing import ScriptedModel
from tests.scenarios.world import url


class Slow:
    """A model that answers when it is let; counts how many ask at once."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.active = self.most = 0
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.model = ScriptedModel(self.turn)

    async def turn(self, request: ModelRequest) -> str:
        self.active += 1
        self.most = max(self.most, self.active)
        text = request.messages[-1].text
        self.asked.append(text)
        self.begun.set()
        await self.go.wait()
        self.active -= 1
        return f"re: {text}"


async def test_messages_to_a_busy_conversation_queue_and_keep_their_order(tmp_path: Path) -> None:
    slow = Slow()
    desk = Agent("desk", model=slow.model)
    async with Runtime(url(tmp_path)) as rt:
        ids = [await rt.start(desk, f"m{n}", conversation="c") for n in range(5)]
        await slow.begun.wait()
        assert slow.asked == ["m0"]
        slow.go.set()
        done = [await rt.result(run_id) for run_id in ids]
        history = await rt.history("c")
    assert [r.text for r in done] == [f"re: m{n}" for n in range(5)]
    assert slow.asked == [f"m{n}" for n in range(5)]
    assert slow.most == 1
    assert [m.text for m in history if m.role == "user"] == [f"m{n}" for n in range(5)]


async def test_other_conversations_do_not_wait(tmp_path: Path) -> None:
    slow = Slow()
    desk = Agent("desk", model=slow.model)
    async with Runtime(url(tmp_path)) as rt:
        ids = [await rt.start(desk, "m", conversation=f"c{n}") for n in range(5)]
        ids += [await rt.start(desk, "m") for _ in range(5)]
        while len(slow.asked) < 10:
            slow.begun.clear()
            await slow.begun.wait()
        slow.go.set()
        for run_id in ids:
            assert (await rt.result(run_id)).status == "completed"
    assert slow.most == 10


async def test_a_message_may_be_rejected_while_the_conversation_is_busy(tmp_path: Path) -> None:
    slow = Slow()
    desk = Agent("desk", model=slow.model)
    options = RunOptions(when_busy="reject")
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.start(desk, "m0", conversation="c")
        await slow.begun.wait()
        with pytest.raises(ConversationBusy, match=f"{first}.*when_busy"):
            await rt.run(desk, "m1", conversation="c", options=options)
        slow.go.set()
        await rt.result(first)
        again = await rt.run(desk, "m1", conversation="c", options=options)
    assert again.status == "completed"


async def test_a_message_that_is_queued_already_makes_the_conversation_busy(
    tmp_path: Path,
) -> None:
    slow = Slow()
    desk = Agent("desk", model=slow.model)
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.start(desk, "m0", conversation="c")
        options = RunOptions(when_busy="reject")
        with pytest.raises(ConversationBusy):
            await rt.start(desk, "m1", conversation="c", options=options)
        slow.go.set()
        await rt.result(first)


async def test_while_a_call_waits_for_a_person_the_next_message_queues(tmp_path: Path) -> None:
    @tool(approval="operator")
    def pay(order_id: str) -> str:
        """Pay. order_id: such as A-17."""
        return "paid"

    model = ScriptedModel(
        lambda r: ToolCall("pay", {"order_id": "A"}) if r.messages[-1].text == "pay" else "ok"
    )
    desk = Agent("desk", model=model, tools=[pay])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(desk, "pay", conversation="c")
        second = await rt.start(desk, "hello?", conversation="c")
        assert (await rt.find(second)).status == "queued"
        await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        assert (await rt.result(waiting.run_id)).status == "completed"
        assert (await rt.result(second)).text == "ok"


@pytest.mark.requirement("TOL-4")
async def test_the_same_key_is_the_same_run_also_after_reopening(tmp_path: Path) -> None:
    ran: list[str] = []

    @tool
    def pay(order_id: str) -> str:
        """Pay. order_id: such as A-17."""
        ran.append(order_id)
        return "paid"

    model = ScriptedModel([ToolCall("pay", {"order_id": "A"}), "Paid."])
    desk = Agent("desk", model=model, tools=[pay])
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Pay A", key="ticket-812")
        second = await rt.run(desk, "Pay A", key="ticket-812")
    async with Runtime(url(tmp_path)) as rt:
        third = await rt.run(desk, "Pay A", key="ticket-812")
    assert first.run_id == second.run_id == third.run_id
    assert first.text == second.text == third.text == "Paid."
    assert ran == ["A"]


async def test_the_same_key_many_times_at_once_is_one_run(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel(["Hi."]))
    async with Runtime(url(tmp_path)) as rt:
        starts = [asyncio.create_task(rt.start(desk, "Hello", key="k")) for _ in range(50)]
        ids = {await start for start in starts}
        assert len(ids) == 1
        assert (await rt.result(ids.pop())).text == "Hi."


@pytest.mark.parametrize("changed", ["input", "user", "conversation", "options", "agent"])
async def test_the_same_key_for_another_request_is_a_conflict(tmp_path: Path, changed: str) -> None:
    model = ScriptedModel(lambda _: "Hi.")
    desk, other = Agent("desk", model=model), Agent("other", model=model)
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Hello", user="ana", key="k")
        with pytest.raises(IdempotencyConflict, match="'k' was used before") as refused:
            await rt.run(
                other if changed == "agent" else desk,
                "Bye" if changed == "input" else "Hello",
                user="bea" if changed == "user" else "ana",
                conversation="c" if changed == "conversation" else None,
                options=RunOptions(tags={"a": "b"}) if changed == "options" else None,
                key="k",
            )
    assert first.run_id not in str(refused.value)  # it may be another user's


async def test_two_tenants_may_use_the_same_key_and_conversation(tmp_path: Path) -> None:
    model = ScriptedModel(lambda r: f"{len(r.messages)} messages")
    desk = Agent("desk", model=model)
    one, two = User("ana", "acme"), User("ana", "other")
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Secret of acme", user=one, conversation="c", key="k")
        second = await rt.run(desk, "Hello", user=two, conversation="c", key="k")
        assert first.run_id != second.run_id
        assert second.text == "1 messages"
        assert [m.text for m in await rt.history("c", user=two)] == ["Hello", "1 messages"]
        assert await rt.history("c") == []


async def test_a_conversation_of_another_user_is_neither_read_nor_joined(tmp_path: Path) -> None:
    model = ScriptedModel([ToolCall("ask_user", {"question": "Which?"}), "Done."])
    desk = Agent("desk", model=model)
    async with Runtime(url(tmp_path)) as rt:
        asked = await rt.run(desk, "Secret", user=User("ana", "acme"), conversation="c")
        with pytest.raises(RunError, match="belongs to another user"):
            await rt.run(desk, "A-17", user=User("eve", "acme"), conversation="c")
        assert (await rt.result(asked.run_id)).status == "waiting"


async def test_an_unknown_run_is_said_with_where_to_look(tmp_path: Path) -> None:
    async with Runtime(url(tmp_path)) as rt:
        for act in (rt.result, rt.cancel, rt.replay, rt.resume):
            with pytest.raises(UnknownRun, match="roadworthy runs"):
                await act("run_nope")
        with pytest.raises(UnknownRun):
            async for _ in rt.events("run_nope"):
                pass

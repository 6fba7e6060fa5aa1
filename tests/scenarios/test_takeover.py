"""A person steps in: takes the conversation over, speaks, acts, and hands it back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from roadworthy import Agent, Limits, Runtime, ToolCall, User, tool
from roadworthy.errors import ConfigurationError, NotYours, RunError, UnknownEscalation
from roadworthy.escalation import EscalationRules, Inbox
from roadworthy.escalation.said import Place, Sent, add
from roadworthy.events import Delivered, EscalationRaised, HandedBack, RunEvent
from roadworthy.messages import Message
from roadworthy.run import Unit
from roadworthy.store.database import Tx
from roadworthy.testing import ScriptedModel
from roadworthy.testing.scripted import Item
from tests.scenarios.world import journal, of_kind, url

PAID: list[tuple[str, int]] = []


@tool(effect="irreversible")
def refund(order: str, euros: int) -> str:
    """Pay an order back. order: such as A-17. euros: how much."""
    PAID.append((order, euros))
    return f"refunded {euros}"


@tool(effect="read")
def look_up(order: str) -> str:
    """One order. order: such as A-17."""
    return f"{order}: 40 euros, paid"


@pytest.fixture(autouse=True)
def _nothing_paid() -> None:
    PAID.clear()


def delivered(events: list[RunEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, Delivered)]


@pytest.mark.requirement("HIT-1", "HIT-3", "GRD-6")
async def test_who_asks_for_a_person_gets_one_and_the_same_run_goes_on(tmp_path: Path) -> None:
    model = ScriptedModel(["Glad that Lea could help. Anything else?"])
    desk = Agent("desk", model=model, tools=[look_up])
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        said = await rt.run(desk, "I want to talk to a human", user="ana", conversation="c")
        assert (said.status, said.text, said.waiting) == ("escalated", "", ())
        assert not model.requests  # nobody asked the model

        (item,) = await rt.inbox.list()
        assert (item.trigger, item.status, item.kind) == ("asked_for_person", "open", "handover")
        await rt.inbox.take(item.id, "lea")
        again = await rt.run(desk, "It is about A-17", user="ana", conversation="c", key="k2")
        assert (again.run_id, again.status) == (said.run_id, "escalated")
        await rt.inbox.say(item.id, "Hello Ana, I see it.", "lea", key="s1")
        await rt.inbox.say(item.id, "Hello Ana, I see it.", "lea", key="s1")
        await rt.run(desk, "It is about A-17", user="ana", conversation="c", key="k2")

        packet = await rt.inbox.packet(item.id)
        assert [(line.who, line.text) for line in packet.conversation] == [
            ("user", "I want to talk to a human"),
            ("user", "It is about A-17"),
            ("person", "Hello Ana, I see it."),
        ]
        assert (packet.owner, packet.person) == ("person", "lea")

        await rt.inbox.hand_back(item.id, "lea", instruction="Be brief.")
        result = await rt.result(said.run_id)
        assert (result.status, result.text) == (
            "completed",
            "Glad that Lea could help. Anything else?",
        )
        told = "\n".join(message.text for message in model.requests[0].messages)
        for words in ("talk to a human", "about A-17", "Hello Ana, I see it.", "Be brief."):
            assert words in told
        assert (await rt.inbox.list()) == []
        (back,) = await of_kind(rt, said.run_id, HandedBack)
        assert [m.role for m in back.talk] == ["user", "assistant"]
        replayed = await rt.replay(said.run_id)
        assert replayed.differences == ()

        history = [m.text for m in await rt.history("c", user="ana")]
        assert history[:3] == [
            "I want to talk to a human",
            "It is about A-17",
            "Hello Ana, I see it.",
        ]


@pytest.mark.requirement("HIT-3")
async def test_a_person_settles_it_and_the_agent_says_nothing_more(tmp_path: Path) -> None:
    model = ScriptedModel([ToolCall("escalate", {"reason": "legal threat"})])
    desk = Agent("desk", model=model)
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        said = await rt.run(desk, "Hm", user="ana", conversation="c")
        assert said.status == "escalated"
        (item,) = await rt.inbox.list()
        assert (item.trigger, item.reason) == ("agent_asked", "legal threat")
        await rt.inbox.say(item.id, "I settled it for you.", "lea")
        await rt.inbox.close(item.id, "lea", resolution="Refunded by hand.")
        result = await rt.result(said.run_id)
        assert (result.status, result.reason) == ("completed", "resolved")
        assert delivered(await journal(rt, said.run_id)) == []
        assert len(model.requests) == 1


async def test_a_call_that_waits_is_approved_while_a_person_owns_it(tmp_path: Path) -> None:
    pay = tool(effect="irreversible", approval="operator", name="refund")(refund.function)
    script: list[Item] = [
        ToolCall("refund", {"order": "A-17", "euros": 40}),
        "Your 40 euros are on the way.",
    ]
    model = ScriptedModel(script)
    desk = Agent("desk", model=model, tools=[pay, look_up])
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        said = await rt.run(desk, "Refund A-17", user="ana", conversation="c")
        assert (said.status, said.text) == ("waiting", "")
        (item,) = await rt.inbox.list()
        assert (item.kind, item.trigger) == ("decision", "approval")
        with pytest.raises(RunError, match="wait to be decided"):
            await rt.inbox.hand_back(item.id, "lea")
        await rt.inbox.take(item.id, "lea")
        (approval,) = (await rt.inbox.packet(item.id)).pending
        with pytest.raises(NotYours):
            await rt.inbox.decide(approval.id, "approve", "tom")
        await rt.inbox.decide(approval.id, "edit", "lea", arguments={"order": "A-17", "euros": 30})
        assert (await rt.result(said.run_id)).status == "escalated"
        assert PAID == [("A-17", 30)]
        assert len(model.requests) == 1
        done = await rt.inbox.call(item.id, "look_up", {"order": "A-17"}, "lea")
        assert (done.outcome, done.by) == ("ok", "lea")
        assert "look_up" in [a.tool for a in (await rt.inbox.packet(item.id)).tried]
        await rt.inbox.hand_back(item.id, "lea")
        result = await rt.result(said.run_id)
        assert (result.status, result.text) == ("completed", "Your 40 euros are on the way.")
        assert PAID == [("A-17", 30)]
        assert (await rt.replay(said.run_id)).differences == ()


async def test_what_was_not_carried_out_before_a_person_came_is_never_carried_out(
    tmp_path: Path,
) -> None:
    pay = tool(effect="irreversible", approval="operator", name="refund")(refund.function)
    script: list[Item] = [
        ToolCall("refund", {"order": "A-17", "euros": 40}),
        "As Lea said: no refund.",
    ]
    model = ScriptedModel(script)
    desk = Agent("desk", model=model, tools=[pay])
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        said = await rt.run(desk, "Refund A-17", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        await rt.inbox.say(item.id, "We cannot refund that.", "lea")
        await rt.inbox.hand_back(item.id, "lea", instruction="No refund.")
        result = await rt.result(said.run_id)
        assert (result.status, result.text) == ("completed", "As Lea said: no refund.")
        assert PAID == []
        assert (await rt.replay(said.run_id)).differences == ()


async def test_a_run_that_executes_is_taken_over_at_once(tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    @tool(effect="write", idempotent_by_nature=True)
    async def slow(order: str) -> str:
        """Something slow. order: such as A-17."""
        begun.set()
        await go_on.wait()
        PAID.append((order, 1))
        return "done"

    script: list[Item] = [ToolCall("slow", {"order": "A-17"}), "All is done.", "All is done."]
    model = ScriptedModel(script)
    desk = Agent("desk", model=model, tools=[slow])
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        run_id = await rt.start(desk, "Do it", user="ana", conversation="c")
        await begun.wait()
        taking = asyncio.ensure_future(rt.inbox.take_conversation("c", "lea"))
        waiting = asyncio.ensure_future(rt.run(desk, "And?", user="ana", conversation="c"))
        while not await rt.inbox.list():
            await asyncio.wait([taking], timeout=0.01)
        go_on.set()
        item = await taking
        assert (item.status, item.assignee) == ("taken", "lea")
        assert PAID == [("A-17", 1)]  # what was under way was finished
        other = await waiting
        assert (other.run_id == run_id, other.status) in ((True, "escalated"), (False, "stopped"))
        packet = await rt.inbox.packet(item.id)
        assert [line.text for line in packet.conversation] == ["Do it", "And?"]
        assert delivered(await journal(rt, run_id)) == []  # also when the model was asked by then
        await rt.inbox.hand_back(item.id, "lea")
        assert (await rt.result(run_id)).text == "All is done."
        assert len(model.requests) == 1 + len(
            [
                e
                for e in await journal(rt, run_id)
                if e.key in ("turn/2/model", "turn/3/model") and e.outcome
            ]
        )
        assert PAID == [("A-17", 1)]
        raised = await of_kind(rt, run_id, EscalationRaised)
        assert [r.trigger for r in raised] == ["takeover"]


async def test_a_draft_is_written_for_the_person_alone(tmp_path: Path) -> None:
    model = ScriptedModel(["You will get it back.", "Bye."])
    desk = Agent("desk", model=model, escalation=EscalationRules(topics=["legal"]))
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        said = await rt.run(desk, "My lawyer will write", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        assert item.trigger == "topic"
        with pytest.raises(NotYours):
            await rt.inbox.draft(item.id, "lea")
        await rt.inbox.take(item.id, "lea")
        await rt.run(desk, "Well?", user="ana", conversation="c")
        assert await rt.inbox.draft(item.id, "lea") == "You will get it back."
        assert "Well?" in [m.text for m in model.requests[0].messages]
        packet = await rt.inbox.packet(item.id)
        assert packet.suggested == "You will get it back."
        assert [line.text for line in packet.conversation] == ["My lawyer will write", "Well?"]
        assert delivered(await journal(rt, said.run_id)) == []
        await rt.inbox.hand_back(item.id, "lea")
        assert (await rt.result(said.run_id)).text == "Bye."


async def test_a_person_opens_a_conversation_that_rests(tmp_path: Path) -> None:
    model = ScriptedModel(["Hello."])
    desk = Agent("desk", model=model)
    async with Runtime(url(tmp_path), inbox=Inbox(), patterns=[desk]) as rt:
        await rt.run(desk, "Hi", user="ana", conversation="c")
        item = await rt.inbox.take_conversation("c", "lea")
        await rt.inbox.say(item.id, "One more thing, Ana.", "lea")
        await rt.run(desk, "Yes?", user="ana", conversation="c")
        await rt.inbox.hand_back(item.id, "lea")
        assert (await rt.result(item.run_id)).text == "Hello."
        texts = []
        async for one in rt.listen("c", user="ana"):
            texts.append((one.who, one.text))
            if len(texts) == 5:
                break
        assert texts == [
            ("user", "Hi"),
            ("agent", "Hello."),
            ("person", "One more thing, Ana."),
            ("user", "Yes?"),
            ("agent", "Hello."),
        ]


@pytest.mark.requirement("HIT-1")
async def test_an_agent_that_turns_in_circles_goes_to_a_person_who_helps_it_on(
    tmp_path: Path,
) -> None:
    again = ToolCall("look_up", {"order": "A-17"})
    model = ScriptedModel([again, again, again, "Found it with Lea's help."])
    desk = Agent("desk", model=model, tools=[look_up])
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        said = await rt.run(desk, "Where is A-17?", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        assert (said.status, item.trigger) == ("escalated", "repeated")
        await rt.inbox.hand_back(item.id, "lea", instruction="It is in Hamburg.")
        result = await rt.result(said.run_id)
        assert (result.status, result.text) == ("completed", "Found it with Lea's help.")
        assert (await rt.replay(said.run_id)).differences == ()


@pytest.mark.requirement("HIT-1")
async def test_a_limit_that_a_person_raises_lets_the_run_go_on(tmp_path: Path) -> None:
    calls: list[Item] = [ToolCall("look_up", {"order": f"A-{n}"}) for n in range(4)]
    model = ScriptedModel([*calls, "All four are there."])
    rules = EscalationRules(limits=True)
    desk = Agent("desk", model=model, tools=[look_up], limits=Limits(turns=2), escalation=rules)
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        said = await rt.run(desk, "Look up four", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        assert (said.status, item.trigger) == ("escalated", "limit")
        await rt.inbox.hand_back(item.id, "lea", limits=Limits(turns=10))
        result = await rt.result(said.run_id)
        assert (result.status, result.text) == ("completed", "All four are there.")
        assert (await rt.replay(said.run_id)).differences == ()


async def test_a_limit_that_nobody_raises_ends_the_run_with_what_there_is(tmp_path: Path) -> None:
    calls: list[Item] = [ToolCall("look_up", {"order": f"A-{n}"}) for n in range(4)]
    desk = Agent(
        "desk",
        model=ScriptedModel([*calls[:2], "I found two of four."]),
        tools=[look_up],
        limits=Limits(turns=2),
        escalation=EscalationRules(limits=True),
    )
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        said = await rt.run(desk, "Look up four", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        await rt.inbox.hand_back(item.id, "lea")
        result = await rt.result(said.run_id)
        assert (result.status, result.reason) == ("partial", "turn_limit")


async def test_a_cancelled_run_leaves_the_queue_without_a_word(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel(["Hello."]))
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        said = await rt.run(desk, "I need a human", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        await rt.inbox.take(item.id, "lea")
        await rt.cancel(said.run_id)
        result = await rt.result(said.run_id)
        while result.status == "escalated":
            result = await rt.result(said.run_id)
        assert (result.status, result.reason) == ("stopped", "cancelled")
        assert delivered(await journal(rt, said.run_id)) == []
        assert await rt.inbox.list() == []
        after = await rt.run(desk, "Hi", user="ana", conversation="c")  # its agent owns it again
        assert after.status == "completed"


async def test_without_an_inbox_nothing_waits_for_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Agent("desk", model=ScriptedModel([ToolCall("escalate", {"reason": "legal"})]))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "I need a human", conversation="c")
        assert (result.status, result.reason) == ("partial", "escalated")
        assert "inbox=Inbox()" in caplog.text
        with pytest.raises(ConfigurationError, match="has no inbox"):
            await rt.inbox.list()


async def test_one_tenant_never_sees_what_is_anothers(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel(["Hello."]))
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        await rt.run(desk, "I need a human", user=User("ana", "acme"), conversation="c")
        (item,) = await rt.inbox.list()
        other = rt.inbox.of("globex")
        assert await other.list() == []
        for attempt in (
            other.packet(item.id),
            other.take(item.id, "eve"),
            other.say(item.id, "Hi", "eve"),
            other.hand_back(item.id, "eve"),
            other.note(item.id, "Hm", "eve"),
        ):
            with pytest.raises(UnknownEscalation):
                await attempt
        with pytest.raises(RunError):
            await other.take_conversation("c", "eve", tenant="acme")


async def test_a_question_with_choices_is_answered_by_label_or_number(tmp_path: Path) -> None:
    asks = ToolCall("ask_user", {"question": "Which one?", "choices": ["The red one", "The blue"]})
    model = ScriptedModel([asks, "Noted."])
    desk = Agent("desk", model=model)
    async with Runtime(url(tmp_path)) as rt:
        asked = await rt.run(desk, "Send it", user="ana", conversation="c")
        assert (asked.question, asked.choices) == ("Which one?", ("The red one", "The blue"))
        await rt.run(desk, "2", user="ana", conversation="c")
        assert model.requests[1].results == ("The blue",)
        await rt.run(desk, "Send it", user="ana", conversation="d")
        await rt.run(desk, "the RED one.", user="ana", conversation="d")
        assert model.requests[3].results == ("The red one",)
        await rt.run(desk, "Send it", user="ana", conversation="e")
        await rt.run(desk, "neither", user="ana", conversation="e")
        assert model.requests[5].results == ("neither",)


async def test_of_a_long_conversation_an_operator_sees_the_newest(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel([]))
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        run = await rt.run(desk, "I want to talk to a human", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        seal = await rt._open.intake.seal("")

        def much(tx: Tx) -> None:
            place = Place(tenant="", conversation="c", run_id=run.run_id)
            for n in range(1_200):
                add(tx, place, Sent(who="user"), Message.user(f"line {n}"), seal, n)

        await rt._open.journal.commit(Unit(apply=much))
        lines = (await rt.inbox.packet(item.id)).conversation
        assert (len(lines), lines[-1].n, lines[-1].text) == (1_000, 1_201, "line 1199")


@pytest.mark.requirement("HIT-4", "PA5-5")
async def test_the_queue_puts_first_what_cannot_wait(tmp_path: Path) -> None:
    rules = EscalationRules(topics=["safety", "complaint"], priority={"asked_for_person": 60})
    desk = Agent("desk", model=ScriptedModel(["Hello."]), escalation=rules)
    words = ["I need a human", "This is unacceptable", "I think of suicide"]
    async with Runtime(url(tmp_path), inbox=Inbox()) as rt:
        for number, said in enumerate(words):
            await rt.run(desk, said, user=f"u{number}", conversation=f"c{number}")
        first, second, third = await rt.inbox.list()
        assert [item.user for item in (first, second)] == ["u1", "u2"]  # of one kind: by age
        assert third.trigger == "asked_for_person"
        await rt.inbox.escalate(second.id, "lea", reason="Now.", priority=1)
        assert [item.user for item in await rt.inbox.list()] == ["u2", "u1", "u0"]
        assert [i.user for i in await rt.inbox.list(status="open", most=1)] == ["u2"]

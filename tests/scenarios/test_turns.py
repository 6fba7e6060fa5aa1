"""What one turn may mean: use a tool, ask the user, answer, escalate."""

from __future__ import annotations

from pathlib import Path

import pytest

from roadworthy import Agent, Message, Runtime, ToolCall, User, tool
from roadworthy.events import (
    DecisionMade,
    Delivered,
    EscalationRaised,
    InputReceived,
    RunStarted,
    RunWaiting,
)
from roadworthy.testing import ScriptedModel
from tests.scenarios.world import journal, kinds, of_kind, results, unanswered, url


@tool(effect="read")
def find_order(order_id: str) -> str:
    """One order. order_id: such as A-17."""
    return f"{order_id}: a lamp, 40 euros"


ASK = ToolCall("ask_user", {"question": "Which order do you mean?"})
FIND = ToolCall("find_order", {"order_id": "A-17"})


@pytest.mark.requirement("ORC-1", "ORC-4", "PA1-1", "OBS-2")
async def test_a_turn_uses_tools_until_the_model_answers(tmp_path: Path) -> None:
    model = ScriptedModel([FIND, "A lamp for 40 euros."])
    desk = Agent("desk", model=model, tools=[find_order])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "What is A-17?")
        decided = await of_kind(rt, result.run_id, DecisionMade)
    assert (result.status, result.reason, result.text) == (
        "completed",
        "answered",
        "A lamp for 40 euros.",
    )
    assert model.requests[1].results == ("A-17: a lamp, 40 euros",)
    assert [d.decision for d in decided] == ["use_tools", "answer"]
    assert decided[0].tools == ("find_order",)
    assert "escalate" in decided[0].alternatives
    assert result.usage.turns == 2
    assert result.usage.tool_calls == 1


@pytest.mark.requirement("ORC-1", "ORC-2")
async def test_a_question_to_the_user_waits_and_the_answer_joins_the_same_run(
    tmp_path: Path,
) -> None:
    model = ScriptedModel([ASK, FIND, "A lamp."])
    desk = Agent("desk", model=model, tools=[find_order])
    async with Runtime(url(tmp_path)) as rt:
        asked = await rt.run(desk, "Where is my order?", conversation="c", user="ana")
        assert asked.status == "waiting"
        assert asked.question == asked.text == "Which order do you mean?"
        assert asked.waiting == ()
        done = await rt.run(desk, "A-17", conversation="c", user="ana")
        assert done.run_id == asked.run_id
        assert (done.status, done.text) == ("completed", "A lamp.")
        (received,) = await of_kind(rt, done.run_id, InputReceived)
        assert received.input.text == "A-17"
        assert received.key == "turn/1/ask/0"
        assert len(await rt.runs()) == 1
        history = await rt.history("c")
    assert not unanswered(history)
    assert model.requests[1].results == ("A-17",)


@pytest.mark.requirement("ORC-2")
async def test_without_a_conversation_no_question_is_offered_and_an_invented_one_is_refused(
    tmp_path: Path,
) -> None:
    model = ScriptedModel([ASK, "I do not know which."])
    desk = Agent("desk", model=model, tools=[find_order])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Where is my order?")
    assert result.status == "completed"
    assert "ask_user" not in model.requests[0].tools
    assert "no tool" in model.requests[1].results[0]


async def test_an_agent_that_may_not_ask_or_escalate_is_offered_neither(tmp_path: Path) -> None:
    model = ScriptedModel([ASK, ToolCall("escalate", {"reason": "x"}), "Fine."])
    desk = Agent("desk", model=model, tools=[find_order], may=())
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Hello", conversation="c")
    assert result.status == "completed"
    assert model.requests[0].tools == ("find_order",)
    assert ["no tool" in text for text in model.requests[2].results] == [True, True]


async def test_calls_beside_a_question_are_carried_out_before_it_is_asked(tmp_path: Path) -> None:
    model = ScriptedModel([[ASK, FIND], "Done."])
    desk = Agent("desk", model=model, tools=[find_order])
    async with Runtime(url(tmp_path)) as rt:
        asked = await rt.run(desk, "Where?", conversation="c")
        assert asked.status == "waiting"
        done = await rt.run(desk, "The lamp.", conversation="c")
    assert done.status == "completed"
    assert model.requests[1].results == ("The lamp.", "A-17: a lamp, 40 euros")


async def test_the_answer_of_another_user_is_not_taken_for_the_one_that_was_asked(
    tmp_path: Path,
) -> None:
    """Else somebody else would act on the first user's authority."""
    desk = Agent("desk", model=ScriptedModel([ASK, "Done."]))
    async with Runtime(url(tmp_path)) as rt:
        asked = await rt.run(desk, "Where?", conversation="c", user=User("ana", "acme"))
        other = await rt.run(desk, "A-17", conversation="c", user=User("eve", "other"))
        assert other.run_id != asked.run_id
        assert (await rt.result(asked.run_id)).status == "waiting"


@pytest.mark.requirement("ORC-1")
async def test_escalation_ends_partial_with_its_reason_on_record(tmp_path: Path) -> None:
    model = ScriptedModel(
        [["A colleague will look.", ToolCall("escalate", {"reason": "legal threat"})]]
    )
    desk = Agent("desk", model=model, tools=[find_order])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "I will sue you", conversation="c")
        (raised,) = await of_kind(rt, result.run_id, EscalationRaised)
        history = await rt.history("c")
    assert (result.status, result.reason) == ("partial", "escalated")
    assert result.text == "A colleague will look."
    assert result.report.why == "legal threat"
    assert (raised.trigger, raised.detail) == ("agent_asked", "legal threat")
    assert not unanswered(history)


async def test_an_empty_reply_is_sent_back_and_ends_typed_when_it_stays_empty(
    tmp_path: Path,
) -> None:
    model = ScriptedModel(["", " ", "", "Sorry."])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model), "Hello")
    assert (result.status, result.reason) == ("partial", "invalid_output")
    assert result.text == "Sorry."


async def test_each_run_of_a_conversation_remembers_the_earlier_ones(tmp_path: Path) -> None:
    model = ScriptedModel(lambda request: f"{len(request.messages)} messages so far")
    desk = Agent("desk", model=model)
    async with Runtime(url(tmp_path)) as rt:
        for number in (1, 3, 5):
            result = await rt.run(desk, "Hello", conversation="c")
            assert result.text == f"{number} messages so far"
        history = await rt.history("c")
    assert [m.role for m in history] == ["user", "assistant"] * 3


async def test_the_journal_of_a_plain_run_tells_its_story_in_order(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel([FIND, "A lamp."]), tools=[find_order])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "What is A-17?")
        events = await journal(rt, result.run_id)
    assert kinds(events) == [
        "RunStarted",
        "SegmentStarted",
        "ModelIntended",
        "ModelReplied",
        "DecisionMade",
        "ToolSucceeded",
        "ModelIntended",
        "ModelReplied",
        "DecisionMade",
        "Delivered",
        "RunEnded",
    ]
    assert [event.seq for event in events] == list(range(11))
    started = events[0]
    assert isinstance(started, RunStarted)
    assert started.input == Message.user("What is A-17?")
    (delivered,) = [event for event in events if isinstance(event, Delivered)]
    assert delivered.text == "A lamp."


@pytest.mark.requirement("BEY-3")
async def test_a_recorded_run_replays_without_asking_anyone(tmp_path: Path) -> None:
    model = ScriptedModel([ASK, FIND, "A lamp."])
    desk = Agent("desk", model=model, tools=[find_order])
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(desk, "Where is my order?", conversation="c")
        done = await rt.run(desk, "A-17", conversation="c")
        asked = len(model.requests)
        replayed = await rt.replay(done.run_id)
    assert replayed.differences == ()
    assert replayed.result is not None
    assert replayed.result.text == "A lamp."
    assert len(model.requests) == asked


async def test_replay_says_where_a_changed_agent_would_differ(tmp_path: Path) -> None:
    async with Runtime(url(tmp_path)) as rt:
        first = Agent("desk", model=ScriptedModel(["Hi."]), instructions="Be kind.")
        result = await rt.run(first, "Hello")
    changed = Agent("desk", model=ScriptedModel(["Hi."]), instructions="Be brief.")
    async with Runtime(url(tmp_path), patterns=[changed]) as rt:
        replayed = await rt.replay(result.run_id)
    assert len(replayed.differences) == 1
    assert "turn/1/model" in replayed.differences[0]


async def test_an_answer_with_a_file_reaches_the_model(tmp_path: Path) -> None:
    from roadworthy import File  # noqa: PLC0415

    seen: list[bytes | None] = []

    def answer(request: object) -> str:
        return "Thanks."

    model = ScriptedModel([ASK, answer])
    desk = Agent("desk", model=model)
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(desk, "Where?", conversation="c")
        photo = File(media_type="image/png", data=b"\x89PNG", name="a.png")
        done = await rt.run(desk, ["This one", photo], conversation="c")
    (result,) = results(model.requests[1].messages)
    seen += [file.data for file in result.files]
    assert done.status == "completed"
    assert seen == [b"\x89PNG"]


async def test_a_waiting_run_holds_its_result_for_whoever_asks(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel([ASK, "Done."]))
    async with Runtime(url(tmp_path)) as rt:
        asked = await rt.run(desk, "Where?", conversation="c")
    async with Runtime(url(tmp_path), patterns=[desk]) as rt:
        again = await rt.result(asked.run_id)
        (waiting,) = await of_kind(rt, asked.run_id, RunWaiting)
        assert again.question == "Which order do you mean?"
        assert waiting.kind == "user"
        done = await rt.run(desk, "A-17", conversation="c")
    assert done.run_id == asked.run_id
    assert done.text == "Done."

"""Scripted and replayed models: the same turn for the same ordinal, in any process."""

from pathlib import Path

import pytest

from roadworthy.agent import Model
from roadworthy.errors import ConfigurationError, ModelRateLimited, ModelRejected
from roadworthy.limits import Price
from roadworthy.messages import (
    Message,
    ModelRequest,
    Reply,
    TokenUsage,
    ToolCall,
    ToolResult,
    ToolSpec,
)
from roadworthy.testing import FakeClock, RecordingModel, ReplayModel, ScriptedModel

REFUND = ToolSpec(name="refund", description="Pay back.", parameters={"type": "object"})


def turn(ordinal: int, *messages: Message) -> ModelRequest:
    asked = messages or (Message.user("Please refund A-17."),)
    return ModelRequest(instructions="Help.", messages=asked, tools=(REFUND,), ordinal=ordinal)


async def test_turns_come_by_ordinal_not_by_position() -> None:
    model = ScriptedModel([ToolCall("refund", {"euros": 40}), "Done."])
    again = ScriptedModel([ToolCall("refund", {"euros": 40}), "Done."])
    assert (await model.request(turn(1))).text == "Done."
    first, second = await model.request(turn(0)), await again.request(turn(0))
    assert first == second
    assert first.finish == "tools"
    assert first.tool_calls[0].id


async def test_one_reply_can_hold_several_parts() -> None:
    model = ScriptedModel([["Let me see.", ToolCall("refund"), ToolCall("refund")]])
    reply = await model.request(turn(0))
    assert reply.text == "Let me see."
    assert len({call.id for call in reply.tool_calls}) == 2


async def test_errors_functions_and_whole_replies_are_turns_too() -> None:
    async def last(request: ModelRequest) -> str:
        return f"{len(request.messages)} messages"

    whole = Reply(message=Message.assistant("As is."), usage=TokenUsage(input=7), model="m")
    model = ScriptedModel([ModelRateLimited("later", retry_after=3), whole, last])
    with pytest.raises(ModelRateLimited):
        await model.request(turn(0))
    assert await model.request(turn(1)) is whole
    assert (await model.request(turn(2))).text == "1 messages"
    assert (await ScriptedModel(last).request(turn(9))).text == "1 messages"


async def test_a_script_that_is_over_says_so() -> None:
    with pytest.raises(ModelRejected, match="1 turns were written, turn 2 was asked"):
        await ScriptedModel(["Hi."]).request(turn(1))


async def test_requests_can_be_asked_about() -> None:
    model = ScriptedModel(["Hi."])
    result = ToolResult(tool="refund", call_id="1", content="refunded")
    await model.request(turn(0, Message.user("A-17"), Message(role="tool", parts=(result,))))
    seen = model.requests[0]
    assert "refund" in seen.tools
    assert (seen.text, seen.results, seen.instructions) == ("A-17", ("refunded",), "Help.")


async def test_usage_is_the_same_each_time_or_as_given() -> None:
    free = ScriptedModel(["Hi there."])
    assert (await free.request(turn(0))).usage == (await free.request(turn(0))).usage
    assert free.price == Price.free()
    fixed = ScriptedModel(
        ["Hi."], usage=TokenUsage(input=9, output=3), price=Price(input=1, output=1)
    )
    assert (await fixed.request(turn(0))).usage.input == 9


async def test_text_streams_in_pieces() -> None:
    pieces: list[str] = []
    reply = await ScriptedModel(["Your 40 euros are on the way."]).request(turn(0), pieces.append)
    assert len(pieces) > 1
    assert "".join(pieces) == reply.text


async def test_latency_passes_on_the_given_clock() -> None:
    clock = FakeClock(auto=True)
    await ScriptedModel(["Hi."], latency=30, clock=clock).request(turn(0))
    assert clock.monotonic() == 30


async def test_a_recorded_conversation_plays_again(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    model: Model = RecordingModel(ScriptedModel([ToolCall("refund", {"euros": 40}), "Done."]), path)
    recorded = [await model.request(turn(0)), await model.request(turn(1))]
    replay = ReplayModel.load(path)
    assert [await replay.request(turn(n)) for n in (0, 1)] == recorded
    with pytest.raises(ModelRejected, match="holds 2 replies, number 3"):
        await replay.request(turn(2))
    replay.save(tmp_path / "copy.jsonl")
    assert (tmp_path / "copy.jsonl").read_bytes() == path.read_bytes()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text('{"hello": 1}\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="no recorded replies"):
        ReplayModel.load(path)

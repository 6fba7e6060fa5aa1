"""Bad input from models and users is answered or refused in words; it never breaks a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roadworthy import Agent, File, Runtime, ToolCall, User, tool
from roadworthy.errors import RunError
from roadworthy.events import ToolRefused
from roadworthy.testing import ScriptedModel
from tests.scenarios.world import Given, of_kind, unanswered, url


@tool(effect="read")
def find_order(order_id: str, page: int = 1) -> str:
    """One order. order_id: such as A-17. page: its page."""
    return f"{order_id} p{page}"


BAD = [
    (ToolCall("find_order", malformed='{"order_id": "A'), "malformed", "no valid JSON"),
    (ToolCall("find_order", malformed="[1]"), "malformed", "no JSON object"),
    (ToolCall("find_order", {"order_id": "x" * 1_000_000}), "too_large", "KB"),
    (ToolCall("find_order", malformed='"' + "x" * 1_000_000), "too_large", "KB"),
    (ToolCall("find_order", {}), "invalid_arguments", "missing: order_id"),
    (ToolCall("find_order", {"order_id": "A", "page": "two"}), "invalid_arguments", "an integer"),
    (ToolCall("find_order", {"orderid": "A"}), "invalid_arguments", 'did you mean "order_id"'),
    (ToolCall("findOrder", {"order_id": "A"}), "unknown_tool", "Did you mean find_order?"),
    (ToolCall("rm -rf /", {}), "unknown_tool", "Your tools: find_order"),
    (ToolCall("x" * 100_000, {}), "unknown_tool", "no tool"),
]


@pytest.mark.requirement("TOL-2", "TOL-7", "TOL-8", "REC-3", "REC-7", "PA1-2")
@pytest.mark.parametrize(("call", "code", "told"), BAD)
async def test_a_bad_call_is_refused_in_words_the_model_can_use_and_the_run_goes_on(
    tmp_path: Path, call: ToolCall, code: str, told: str
) -> None:
    model = ScriptedModel([call, ToolCall("find_order", {"order_id": "A-17"}), "Found."])
    desk = Agent("desk", model=model, tools=[find_order])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Where?", conversation="c")
        (refused,) = await of_kind(rt, result.run_id, ToolRefused)
        history = await rt.history("c")
    assert result.status == "completed"
    assert refused.code == code
    assert told in model.requests[1].results[0]
    assert len(model.requests[1].results[0]) < 2_000
    assert model.requests[2].results[1] == "A-17 p1"
    assert result.usage.tool_calls == 1
    assert not unanswered(history)


@pytest.mark.parametrize("given", ["", "   \n", [], [""]])
async def test_an_empty_request_is_refused_before_it_becomes_a_run(
    tmp_path: Path, given: Given
) -> None:
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(RunError, match=r"empty. Send some text or a file"):
            await rt.run(Agent("desk", model=ScriptedModel(["Hi."])), given)
        assert await rt.runs() == []


async def test_a_request_of_three_megabytes_is_refused_with_the_mend(tmp_path: Path) -> None:
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(RunError, match=r"3,000,000 characters, at most 2,000,000"):
            await rt.run(Agent("desk", model=ScriptedModel(["Hi."])), "x" * 3_000_000)


async def test_a_file_alone_is_a_request(tmp_path: Path) -> None:
    photo = File(media_type="image/png", data=b"1")
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=ScriptedModel(["A photo."])), photo)
    assert result.text == "A photo."


@pytest.mark.parametrize("given", [None, 7, {"text": "hi"}, b"hi", [7], [None]])
async def test_a_request_of_the_wrong_type_is_refused_with_what_to_give(
    tmp_path: Path, given: Given
) -> None:
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(RunError, match=r"text, a File, or a list"):
            await rt.run(Agent("desk", model=ScriptedModel(["Hi."])), given)


async def test_lone_surrogates_of_the_user_are_replaced(tmp_path: Path) -> None:
    model = ScriptedModel(["Hi."])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model), "Hello \ud83d there \ud800")
    assert result.status == "completed"
    assert model.requests[0].text == "Hello ? there ?"


async def test_lone_surrogates_of_the_model_and_of_tools_do_not_stop_the_run(
    tmp_path: Path,
) -> None:
    @tool(effect="read")
    def look(x: str) -> str:
        """Look. x: any."""
        return "seen \udfff"

    model = ScriptedModel([["Well \ud800", ToolCall("look", {"x": "\ud800"})], "Done \udc00."])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, tools=[look]), "Hello", conversation="c")
        history = await rt.history("c")
    assert result.status == "completed"
    assert result.text == "Done ?."
    json.dumps([m.text for m in history], ensure_ascii=False).encode()


@pytest.mark.parametrize("where", ["user", "tenant", "conversation", "key"])
async def test_ids_that_cannot_be_stored_are_refused(tmp_path: Path, where: str) -> None:
    bad = "a\ud800"
    user = User(bad if where == "user" else "ana", bad if where == "tenant" else "")
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(RunError, match=f"{where}.*Unicode"):
            await rt.run(
                Agent("desk", model=ScriptedModel(["Hi."])),
                "Hello",
                user=user,
                conversation=bad if where == "conversation" else None,
                key=bad if where == "key" else None,
            )
        assert (await rt.run(Agent("desk", model=ScriptedModel(["Hi."])), "Hello")).text == "Hi."


async def test_an_empty_key_or_conversation_is_refused_rather_than_shared(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel(["Hi."]))
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(RunError, match=r"key"):
            await rt.run(desk, "Hello", key="")
        with pytest.raises(RunError, match=r"conversation"):
            await rt.run(desk, "Hello", conversation="")
        with pytest.raises(RunError, match=r"user"):
            await rt.run(desk, "Hello", user="")

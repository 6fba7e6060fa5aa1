"""A run's story: steps in order, troubles kept, money that adds up."""

from __future__ import annotations

from pathlib import Path

import pytest

from roadworthy import Agent, File, Price, Runtime, ToolCall, tool
from roadworthy.errors import ModelOutcomeUnknown, ModelUnavailable
from roadworthy.events import ToolSucceeded
from roadworthy.messages import Reasoning, ToolResult
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.testing.scripted import Item
from roadworthy.trace import limits_of, plain_event, plain_json, story

PRICE = Price(input=3, output=15)


@tool(effect="read")
def look(place: str) -> str:
    """Look. place: where."""
    return f"nothing at {place}"


@pytest.mark.requirement("OBS-1", "OBS-2", "OBS-3")
async def test_money_adds_up_over_failed_attempts_of_every_kind(tmp_path: Path) -> None:
    script: list[Item] = [
        ModelUnavailable("down"),
        ModelOutcomeUnknown("cut off"),
        ToolCall("look", {"place": "home"}),
        ToolCall("no_such_tool", {}),
        "Nothing there.",
    ]
    agent = Agent("seeker", model=ScriptedModel(script, price=PRICE), tools=[look])
    async with Runtime(f"sqlite:///{tmp_path}/t.db", clock=FakeClock(auto=True)) as rt:
        result = await rt.run(agent, "Look.")
        events = await rt.record(result.run_id)
    steps = story(events)
    spent = 0
    for step in steps:
        assert step.after == step.before + step.settled + step.assumed or step.kind == "model"
        assert step.before == spent
        assert step.ended is not None
        spent = step.after
    assert spent == result.usage.nanos + result.usage.assumed_nanos
    models = [step for step in steps if step.kind == "model"]
    assert models[0].troubles == [
        "attempt 1: ModelUnavailable: down",
        "attempt 2: ModelOutcomeUnknown: cut off",
    ]
    assert models[0].assumed > 0
    assert sum(m.tokens[0] for m in models) == result.usage.input_tokens
    assert [(s.title, s.state) for s in steps if s.kind == "tool"] == [
        ("look", "ok"),
        ("no_such_tool", "refused"),
    ]
    assert [s.turn for s in models] == [1, 2, 3]
    assert limits_of(events).declared() == agent.limits.declared()


def test_plain_events_hold_every_field_but_no_bytes_and_nothing_of_a_provider() -> None:
    photo = File(media_type="image/png", data=b"123", name="a.png")
    result = ToolResult(tool="look", call_id="1", content="seen", files=(photo,))
    event = ToolSucceeded(key="turn/1/tool/0", tool="look", result=result, micros=5)
    plain = plain_event(event)
    assert (plain["type"], plain["source"], plain["nanos"]) == ("ToolSucceeded", "call", 0)
    assert plain["result"]["files"][0]["data"] == "3 bytes"
    assert "result" not in plain_event(event, "user")
    thought = plain_json(Reasoning(text="hm", provider_state="signature"))
    assert thought == {"type": "Reasoning", "text": "hm"}

"""A run that ended early goes on where it stood: nothing is repeated, what failed is tried anew."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from roadworthy import Agent, Limits, Price, Runtime, ToolCall, tool
from roadworthy.errors import ModelRejected, ModelUnavailable, NotResumable
from roadworthy.events import ModelReplied, RunReopened, ToolSucceeded
from roadworthy.messages import ModelRequest
from roadworthy.result import ENDS, MARKS, Reason, is_resumable
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.testing.scripted import Turn
from tests.scenarios.world import Given, of_kind, unanswered, url

PRICE = Price(input=1, output=10)


class Answer(BaseModel):
    """What a typed run answers with."""

    count: int


@pytest.mark.requirement("REC-8", "REC-7", "ORC-5")
@pytest.mark.parametrize("error", [ModelUnavailable("503"), ModelRejected("no credit left")])
async def test_a_run_whose_model_failed_goes_on_without_repeating_what_it_did(
    tmp_path: Path, error: Given
) -> None:
    saved: list[str] = []
    broken = [True]

    @tool(effect="irreversible")
    def save(text: str) -> str:
        """Save. text: what."""
        saved.append(text)
        return "saved"

    def say(request: ModelRequest) -> Turn:
        if not request.ordinal:
            return ToolCall("save", {"text": "a"})
        return error if broken else "It is saved."

    model = ScriptedModel(say, price=PRICE)
    desk = Agent("desk", model=model, tools=[save])
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        first = await rt.run(desk, "Save a", conversation="c")
        assert (first.status, first.reason[:6]) == ("partial", "model_")
        asked = len(model.requests)
        await rt.resume(first.run_id)  # still down: it ends the same way, after as many attempts
        second = await rt.result(first.run_id)
        assert (second.status, second.reason) == (first.status, first.reason)
        assert len(model.requests) - asked == asked - 1
        broken.clear()
        await rt.resume(first.run_id)
        third = await rt.result(first.run_id)
        replied = await of_kind(rt, first.run_id, ModelReplied)
        done = await of_kind(rt, first.run_id, ToolSucceeded)
        reopened = await of_kind(rt, first.run_id, RunReopened)
        replayed = await rt.replay(first.run_id)
        history = await rt.history("c")
    assert (third.status, third.text) == ("completed", "It is saved.")
    assert (saved, len(done), len(reopened)) == (["a"], 1, 2)
    assert [e.key for e in replied] == ["turn/1/model", "turn/2/model"]
    assert third.report.done == ("save",)
    assert replayed.differences == ()
    assert not unanswered(history)


@pytest.mark.requirement("ORC-5")
async def test_a_run_that_missed_its_output_gets_its_chances_again(tmp_path: Path) -> None:
    looked: list[int] = []

    @tool(effect="read")
    def look(page: int) -> str:
        """One page. page: its number."""
        looked.append(page)
        return "page"

    wrong = "no answer at all"
    script: list[Turn] = [ToolCall("look", {"page": 1}), *[wrong] * 3, "So far."]
    final = ToolCall("final_answer", {"count": 2})
    model = ScriptedModel([*script, wrong, wrong, final])
    desk = Agent("desk", model=model, tools=[look], output=Answer)
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Count")
        assert (first.status, first.reason) == ("partial", "invalid_output")
        await rt.resume(first.run_id)
        second = await rt.result(first.run_id)
        replayed = await rt.replay(first.run_id)
    assert (second.status, second.output) == ("completed", Answer(count=2))
    assert looked == [1]
    assert replayed.differences == ()


async def test_a_bug_that_was_mended_does_not_cost_what_was_done(tmp_path: Path) -> None:
    saved: list[str] = []
    broken = [True]

    @tool(effect="write", idempotent_by_nature=True)
    def save(text: str) -> str:
        """Save. text: what."""
        saved.append(text)
        return "saved"

    def say(request: ModelRequest) -> Turn:
        if request.ordinal and broken:
            raise ZeroDivisionError
        return "Saved." if request.ordinal > 1 else ToolCall("save", {"text": "a"})

    desk = Agent("desk", model=ScriptedModel(say), tools=[save])
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Save a")
        assert (first.status, first.reason) == ("partial", "error")
        broken.clear()
        await rt.resume(first.run_id)
        second = await rt.result(first.run_id)
        replayed = await rt.replay(first.run_id)
    assert (second.status, saved) == ("completed", ["a"])
    assert replayed.differences == ()


async def test_what_a_person_was_to_decide_is_not_resumed(tmp_path: Path) -> None:
    @tool(effect="read")
    def look(page: int) -> str:
        """One page. page: its number."""
        return "page"

    script: list[Turn] = [
        ToolCall("look", {"page": 1}),
        ToolCall("escalate", {"reason": "I must not decide this."}),
    ]
    desk = Agent("desk", model=ScriptedModel(script), tools=[look])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Read")
        assert (result.status, result.reason) == ("partial", "escalated")
        with pytest.raises(NotResumable, match=r"partial \(escalated\)"):
            await rt.resume(result.run_id)


def test_every_reason_is_classified_once() -> None:
    assert set(get_args(Reason)) == set(MARKS)
    resumable = {(s, r) for s in (*ENDS, "waiting", "running") for r in MARKS if is_resumable(s, r)}
    assert {status for status, _ in resumable} == {"partial", "stopped"}
    assert ("partial", "escalated") not in resumable
    assert {r for s, r in resumable if s == "stopped"} == {
        "turn_limit",
        "tool_call_limit",
        "time_limit",
        "budget",
        "loop",
        "invalid_output",
        "poison",
    }
    assert not is_resumable("running", "")
    assert not is_resumable("stopped", "cancelled")


async def test_limits_may_be_widened_with_the_model_mended(tmp_path: Path) -> None:
    """The limits of a resumption hold for the turns that follow it."""
    broken = [True]

    @tool(effect="read")
    def look(page: int) -> str:
        """One page. page: its number."""
        return f"page {page}"

    def say(request: ModelRequest) -> Turn:
        if request.ordinal == 1 and broken:
            return ModelRejected("no credit left")
        pages = len([m for m in request.messages if m.role == "tool"])
        return "Read." if pages > 2 else ToolCall("look", {"page": pages})

    desk = Agent("desk", model=ScriptedModel(say), tools=[look], limits=Limits(turns=2))
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Read")
        assert (first.status, first.reason) == ("partial", "model_rejected")
        broken.clear()
        await rt.resume(first.run_id, limits=Limits(turns=9))
        second = await rt.result(first.run_id)
        replayed = await rt.replay(first.run_id)
    assert (second.status, second.text) == ("completed", "Read.")
    assert replayed.differences == ()

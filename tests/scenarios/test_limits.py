"""Every run ends within its limits, says how, and still delivers what it has."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from roadworthy import Agent, Limits, Price, RunOptions, Runtime, ToolCall, tool
from roadworthy.errors import NotResumable, UnknownRun
from roadworthy.events import ModelReplied, RunReopened
from roadworthy.messages import ModelRequest
from roadworthy.testing import FakeClock, ScriptedModel
from tests.scenarios.world import of_kind, unanswered, url


@tool(effect="read")
def look(page: int) -> str:
    """One page. page: its number."""
    return f"page {page}"


def reader(closing: str = "So far: some pages.") -> Callable[[ModelRequest], str | ToolCall]:
    """Reads page after page for ever; closes when it is told to stop."""

    def turn(request: ModelRequest) -> str | ToolCall:
        if "You have to stop now" in request.messages[-1].text:
            return closing
        return ToolCall("look", {"page": request.ordinal})

    return turn


@pytest.mark.requirement("ORC-5", "PA1-2", "REC-5")
async def test_the_turn_limit_ends_partial_with_a_closing_answer_and_a_report(
    tmp_path: Path,
) -> None:
    model = ScriptedModel(reader())
    desk = Agent("desk", model=model, tools=[look], limits=Limits(turns=3))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Read all pages", conversation="c")
        history = await rt.history("c")
    assert (result.status, result.reason) == ("partial", "turn_limit")
    assert result.text == "So far: some pages."
    assert result.report.done == ("look", "look", "look")
    assert result.report.missing == ("a full answer to: Read all pages",)
    assert "3 turns" in result.report.why
    assert result.usage.turns == 3
    assert len(model.requests) == 4
    assert model.requests[-1].tools == ()
    assert not unanswered(model.requests[-1].messages)
    assert not unanswered(history)
    assert history[-1].text == result.text


@pytest.mark.requirement("ORC-5", "PA1-2")
async def test_after_the_last_tool_call_the_model_has_one_turn_to_answer(tmp_path: Path) -> None:
    calls = [ToolCall("look", {"page": n}) for n in (1, 2)]
    model = ScriptedModel([*calls, "Two pages."])
    desk = Agent("desk", model=model, tools=[look], limits=Limits(tool_calls=2))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Read")
    assert (result.status, result.text) == ("completed", "Two pages.")
    assert "No tool calls are left" in model.requests[2].text


@pytest.mark.requirement("ORC-5", "REC-5")
async def test_a_model_that_goes_on_asking_for_tools_is_stopped_at_the_call_limit(
    tmp_path: Path,
) -> None:
    model = ScriptedModel(reader())
    desk = Agent("desk", model=model, tools=[look], limits=Limits(tool_calls=2))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Read all pages", conversation="c")
        history = await rt.history("c")
    assert (result.status, result.reason) == ("partial", "tool_call_limit")
    assert result.text == "So far: some pages."
    assert result.usage.tool_calls == 2
    assert len(model.requests) == 4  # two calls, one refused, the closing answer
    assert not unanswered(model.requests[-1].messages)
    assert not unanswered(history)


async def test_after_the_last_tool_call_the_user_may_still_be_asked(tmp_path: Path) -> None:
    ask = ToolCall("ask_user", {"question": "Shall I stop here?"})
    model = ScriptedModel([ToolCall("look", {"page": 1}), ask, "One page."])
    desk = Agent("desk", model=model, tools=[look], limits=Limits(tool_calls=1))
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(desk, "Read", conversation="c")
        result = await rt.run(desk, "Yes", conversation="c")
    assert (result.status, result.text) == ("completed", "One page.")


@pytest.mark.requirement("ORC-5")
async def test_a_reply_that_asks_for_more_than_the_plan_limit_runs_the_first_ones_only(
    tmp_path: Path,
) -> None:
    model = ScriptedModel([[ToolCall("look", {"page": n}) for n in range(5)], "Done."])
    desk = Agent("desk", model=model, tools=[look], limits=Limits(plan_steps=2))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Read")
    told = model.requests[1].results
    assert result.status == "completed"
    assert told[:2] == ("page 0", "page 1")
    assert all("Only 2 calls per reply" in text for text in told[2:])
    assert result.usage.tool_calls == 2


@pytest.mark.requirement("ORC-5", "PA1-2")
async def test_the_time_limit_counts_active_seconds_and_ends_with_a_closing_answer(
    tmp_path: Path,
) -> None:
    clock = FakeClock(auto=True)
    model = ScriptedModel(reader(), latency=40, clock=clock)
    desk = Agent("desk", model=model, tools=[look], limits=Limits(seconds=100))
    async with Runtime(url(tmp_path), clock=clock) as rt:
        result = await rt.run(desk, "Read all pages", conversation="c")
        replayed = await rt.replay(result.run_id)
        history = await rt.history("c")
    assert (result.status, result.reason) == ("partial", "time_limit")
    assert result.text == "So far: some pages."
    assert "100 active seconds" in result.report.why
    assert result.usage.turns == 4
    assert replayed.differences == ()
    assert not unanswered(history)


async def test_waiting_for_a_person_is_not_counted_as_active_time(tmp_path: Path) -> None:
    clock = FakeClock(auto=True)
    model = ScriptedModel([ToolCall("ask_user", {"question": "Which?"}), "Done."])
    desk = Agent("desk", model=model, limits=Limits(seconds=60))
    async with Runtime(url(tmp_path), clock=clock) as rt:
        await rt.run(desk, "Hello", conversation="c")
        await clock.advance(86_400)
        result = await rt.run(desk, "This one", conversation="c")
    assert result.status == "completed"
    assert result.usage.seconds < 60


@pytest.mark.requirement("CST-3", "CST-4", "GRD-5")
async def test_a_spent_run_budget_ends_partial_with_an_answer_from_the_reserve(
    tmp_path: Path,
) -> None:
    model = ScriptedModel(reader("What I have."), price=Price(input=1, output=100))
    limits = Limits(usd="0.09", turns=50, tool_calls=50)
    desk = Agent("desk", model=model, tools=[look], limits=limits)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Read all pages")
    assert (result.status, result.reason) == ("partial", "budget")
    assert result.text == "What I have."
    assert result.usage.usd <= Decimal("0.09")
    assert "budget" in result.report.why


async def test_a_limit_too_small_for_one_call_says_so_instead_of_asking_the_model(
    tmp_path: Path,
) -> None:
    model = ScriptedModel(["Hi"], price=Price(input=1_000, output=1_000))
    desk = Agent("desk", model=model, limits=Limits(usd="0.01"))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Hello")
    assert (result.status, result.reason) == ("stopped", "budget")
    assert model.requests == []
    assert result.text
    assert "$0.01 left" in result.report.why
    assert "needed" in result.report.why


async def test_a_twenty_cent_limit_shrinks_the_reply_instead_of_refusing_the_call(
    tmp_path: Path,
) -> None:
    model = ScriptedModel(["Hi"], price=Price(input=10, output=150))
    desk = Agent("desk", model=model, limits=Limits(usd="0.20"))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Hello")
    assert result.status == "completed"
    assert 200 <= model.requests[0].max_tokens < 2_000


@pytest.mark.requirement("ORC-5")
@pytest.mark.parametrize(
    ("tight", "wide"),
    [
        (Limits(turns=2), Limits(turns=9)),
        (Limits(tool_calls=1), Limits(tool_calls=9)),
    ],
)
async def test_resume_with_wider_limits_goes_on_where_it_stopped(
    tmp_path: Path, tight: Limits, wide: Limits
) -> None:
    pages = iter(range(100))

    def turn(request: ModelRequest) -> str | ToolCall:
        if "You have to stop now" in request.messages[-1].text:
            return "So far."
        return ToolCall("look", {"page": next(pages)}) if request.ordinal < 6 else "All read."

    model = ScriptedModel(turn)
    desk = Agent("desk", model=model, tools=[look], limits=tight)
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Read all pages", conversation="c")
        assert first.status == "partial"
        before = [e.key for e in await of_kind(rt, first.run_id, ModelReplied)]
        await rt.resume(first.run_id, limits=wide)
        second = await rt.result(first.run_id)
        after = [e.key for e in await of_kind(rt, first.run_id, ModelReplied)]
        replayed = await rt.replay(first.run_id)
        history = await rt.history("c")
    assert (second.status, second.text) == ("completed", "All read.")
    assert second.run_id == first.run_id
    assert after[: len(before)] == before
    turns = [key for key in after if key.endswith("/model")]
    assert turns == [f"turn/{n}/model" for n in range(1, len(turns) + 1)]
    assert second.usage.turns > first.usage.turns
    assert replayed.differences == ()
    assert not unanswered(history)


async def test_resume_without_wider_limits_stops_again_and_repeats_nothing(tmp_path: Path) -> None:
    model = ScriptedModel(reader())
    desk = Agent("desk", model=model, tools=[look], limits=Limits(turns=2))
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Read")
        await rt.resume(first.run_id)
        second = await rt.result(first.run_id)
        (reopened,) = await of_kind(rt, first.run_id, RunReopened)
    assert reopened.limits is None
    assert (second.status, second.reason) == ("partial", "turn_limit")
    assert second.usage.tool_calls == 2


async def test_resume_after_a_raised_budget_makes_the_refused_call(tmp_path: Path) -> None:
    price = Price(input=1, output=100)
    model = ScriptedModel(lambda r: "So far." if "stop now" in r.messages[-1].text else "Hello.")
    model.price = price
    desk = Agent("desk", model=model, limits=Limits(usd="0.000001"))
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Hello")
        assert (first.status, first.reason) == ("stopped", "budget")
        await rt.resume(first.run_id, limits=Limits(usd=1))
        second = await rt.result(first.run_id)
        replayed = await rt.replay(first.run_id)
    assert (second.status, second.text) == ("completed", "Hello.")
    assert replayed.differences == ()


async def test_a_completed_run_is_not_resumable_and_the_message_says_what_to_do(
    tmp_path: Path,
) -> None:
    desk = Agent("desk", model=ScriptedModel(["Hi."]))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Hello")
        with pytest.raises(NotResumable, match=r"completed \(answered\).*Start a new run"):
            await rt.resume(result.run_id)
        with pytest.raises(UnknownRun, match="No run 'run_x'"):
            await rt.resume("run_x")


async def test_a_run_whose_conversation_went_on_is_not_resumable(tmp_path: Path) -> None:
    model = ScriptedModel(reader())
    desk = Agent("desk", model=model, tools=[look], limits=Limits(turns=1))
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Read", conversation="c")
        await rt.run(desk, "Read more", conversation="c")
        with pytest.raises(NotResumable, match="has gone on"):
            await rt.resume(first.run_id, limits=Limits(turns=5))


async def test_limits_of_one_run_replace_the_agents_and_survive_reopening(tmp_path: Path) -> None:
    model = ScriptedModel(reader())
    desk = Agent("desk", model=model, tools=[look], limits=Limits(turns=20))
    options = RunOptions(limits=Limits(turns=2))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Read", options=options)
    assert result.usage.turns == 2
    async with Runtime(url(tmp_path), patterns=[desk]) as rt:
        await rt.resume(result.run_id)
        again = await rt.result(result.run_id)
    assert again.usage.turns == 2


async def test_the_model_is_told_what_is_left_before_it_runs_out(tmp_path: Path) -> None:
    model = ScriptedModel(reader())
    desk = Agent("desk", model=model, tools=[look], limits=Limits(turns=4))
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(desk, "Read")
    told = [m.text for m in model.requests[-1].messages if m.by_runtime and "%" in m.text]
    assert len(told) == 1
    assert "50 % of your limits is used. Left: 2 turns" in told[0]


async def test_limits_are_on_by_default() -> None:
    limits = Agent("desk", model="openai:gpt-5-mini").limits
    assert (limits.turns, limits.tool_calls, limits.plan_steps) == (25, 50, 20)
    assert (limits.seconds, limits.usd) == (600.0, Decimal("1.00"))

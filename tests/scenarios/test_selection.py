"""Too many tools: a turn shows the likeliest, those that were used, and a way to the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roadworthy import Agent, DeclarationError, Runtime, Tool, ToolCall
from roadworthy.events import DecisionMade, Noted, ToolRefused
from roadworthy.testing import ScriptedModel
from roadworthy.tools import tool_from_schema
from tests.scenarios.world import Given, of_kind, results, url

TOPICS = [
    "weather", "invoice", "parcel", "holiday", "password", "printer", "meeting", "salary",
    "recipe", "train", "museum", "passport", "battery", "garden", "violin", "chess",
    "tennis", "coffee", "laundry", "taxi", "library", "dentist", "insurance", "mortgage",
]  # fmt: skip


def topic_tool(topic: str) -> Tool[Any]:
    return tool_from_schema(
        f"{topic}_info",
        f"Facts on the {topic} as asked for.",
        {"type": "object", "properties": {"about": {"type": "string"}}},
        lambda about="": f"{topic}: {about}",
        effect="read",
    )


def desk(model: ScriptedModel, count: int = 18, **options: Given) -> Agent:
    return Agent("desk", model=model, tools=[topic_tool(t) for t in TOPICS[:count]], **options)


def shown(model: ScriptedModel) -> list[list[str]]:
    """The agent's own tools in each request."""
    return [[n for n in request.tools if n.endswith("_info")] for request in model.requests]


@pytest.mark.requirement("TOL-6")
async def test_above_15_the_likeliest_seven_are_shown_and_find_tool(tmp_path: Path) -> None:
    model = ScriptedModel(["Fine."])
    async with Runtime(url(tmp_path)) as rt:
        run = await rt.run(desk(model), "Where is my parcel, and who takes care of the garden?")
        (noted,) = await of_kind(rt, run.run_id, Noted)
        (decision,) = await of_kind(rt, run.run_id, DecisionMade)
    (names,) = shown(model)
    assert set(names[:2]) == {"parcel_info", "garden_info"}
    assert len(names) == 7
    assert "find_tool" in model.requests[0].tools
    assert noted.key == "turn/1/shown"
    assert noted.value == names
    assert set(names) <= set(decision.alternatives)


@pytest.mark.requirement("TOL-6")
async def test_up_to_15_all_are_shown(tmp_path: Path) -> None:
    model = ScriptedModel(["Fine."])
    async with Runtime(url(tmp_path)) as rt:
        run = await rt.run(desk(model, 15), "Where is my parcel?")
        assert await of_kind(rt, run.run_id, Noted) == []
    assert len(shown(model)[0]) == 15
    assert "find_tool" not in model.requests[0].tools


@pytest.mark.requirement("TOL-6")
async def test_what_find_tool_finds_is_there_from_the_next_turn_on(tmp_path: Path) -> None:
    calls = [
        ToolCall("find_tool", {"query": "play chess"}),
        ToolCall("chess_info", {"about": "rules"}),
        ToolCall("parcel_info", {"about": "A-17"}),
    ]
    model = ScriptedModel([*calls, "Done."])
    async with Runtime(url(tmp_path)) as rt:
        run = await rt.run(desk(model), "Where is my parcel?", conversation="c")
        found, chess, _ = [r.content for r in results(await rt.history("c"))]
        assert (await rt.replay(run.run_id)).differences == ()
    first, second, third, fourth = shown(model)
    assert found == "Yours from the next turn on:\n- chess_info: Facts on the chess as asked for."
    assert chess == "chess: rules"
    assert "chess_info" not in first
    assert second == [*first[:6], "chess_info"]  # what nobody needed makes room, the rest stays
    assert third == second  # one that is in use stays beside seven others
    assert fourth == second


@pytest.mark.requirement("TOL-6")
async def test_what_a_conversation_used_is_shown_again_beside_seven(tmp_path: Path) -> None:
    model = ScriptedModel([ToolCall("parcel_info", {}), "There."])
    later = ScriptedModel(["Sunny."])
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(desk(model), "Where is my parcel?", conversation="c")
        await rt.run(desk(later), "How is the weather, and the coffee?", conversation="c")
    (names,) = shown(later)
    assert names[:2] == ["parcel_info", "weather_info"]
    assert len(names) == 8


async def test_a_declared_tool_may_be_called_unseen(tmp_path: Path) -> None:
    """Not being shown saves words; what may happen is what is declared."""
    model = ScriptedModel([ToolCall("violin_info", {"about": "bow"}), "Done."])
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(desk(model), "Where is my parcel?", conversation="c")
        (result,) = results(await rt.history("c"))
    assert result.content == "violin: bow"
    assert "violin_info" not in shown(model)[0]
    assert shown(model)[1][-1] == "violin_info"


@pytest.mark.parametrize("arguments", [{}, {"query": " "}, {"query": 7}, {"query": ["x"]}])
async def test_a_query_without_words_is_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    model = ScriptedModel([ToolCall("find_tool", arguments), "Done."])
    async with Runtime(url(tmp_path)) as rt:
        run = await rt.run(desk(model), "Go")
        (refused,) = await of_kind(rt, run.run_id, ToolRefused)
    assert refused.code == "invalid_arguments"


@pytest.mark.requirement("TOL-6")
async def test_above_20_a_selector_has_to_be_asked_for(tmp_path: Path) -> None:
    model = ScriptedModel(["Fine."])
    for select in (None, False):
        with pytest.raises(DeclarationError, match=r"24 tools.*select=True"):
            desk(model, 24, select=select)
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(desk(model, 24, select=True), "My dentist and my insurance")
    assert shown(model)[0][:2] == ["dentist_info", "insurance_info"]
    assert len(shown(model)[0]) == 7


@pytest.mark.requirement("TOL-6")
async def test_select_says_when(tmp_path: Path) -> None:
    never, always = ScriptedModel(["Fine."]), ScriptedModel(["Fine."])
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(desk(never, 18, select=False), "Go")
        await rt.run(desk(always, 8, select=True), "The weather")
    assert [len(names) for names in shown(never) + shown(always)] == [18, 7]

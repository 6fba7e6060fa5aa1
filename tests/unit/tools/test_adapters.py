"""Tools of other libraries become ours, with their schemas, errors and contexts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool, ToolException
from langchain_core.tools import tool as langchain_tool
from pydantic_ai import FunctionToolset, ModelRetry
from pydantic_ai import RunContext as TheirContext
from pydantic_ai import Tool as TheirTool

from roadworthy import Agent, DeclarationError, RunEvent, Runtime, ToolCall
from roadworthy.events import ToolFailed, ToolIntended, ToolRefused, ToolSucceeded
from roadworthy.testing import ScriptedModel
from roadworthy.tools.adapters import from_langchain, from_openai, from_pydantic_ai

WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


async def events(tmp_path: Path, tool: Any, *calls: ToolCall) -> list[RunEvent]:  # noqa: ANN401
    """What is recorded of a run that makes these calls."""
    desk = Agent("desk", model=ScriptedModel([*calls, "Done."]), tools=[tool])
    async with Runtime(f"sqlite:///{tmp_path}/t.db", patterns=[desk]) as rt:
        result = await rt.run(desk, "Go.")
        assert result.status == "completed"
        return await rt.record(result.run_id)


def contents(found: list[RunEvent]) -> list[str]:
    kinds = (ToolSucceeded, ToolFailed, ToolRefused)
    return [event.result.content for event in found if isinstance(event, kinds)]


# --- OpenAI --------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [WEATHER, {"type": "function", "function": WEATHER}])
async def test_a_function_schema_and_a_function(tmp_path: Path, schema: dict[str, Any]) -> None:
    tool = from_openai(schema, lambda city: f"{city}: rain")
    assert tool.effect == "irreversible"
    wrong, right = ToolCall("weather", {"town": "Oslo"}), ToolCall("weather", {"city": "Oslo"})
    said = contents(await events(tmp_path, tool, wrong, right))
    assert "missing: city" in said[0]
    assert said[1] == "Oslo: rain"


@pytest.mark.parametrize("schema", [{}, {"type": "function"}, {"function": None}, {"name": 1}])
def test_what_is_no_function_schema_is_said(schema: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="is no function schema"):
        from_openai(schema, print)


# --- LangChain -----------------------------------------------------------------------------


@langchain_tool
def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    if a < 0:
        raise ToolException("Give a positive number.")
    return a + b


@langchain_tool
async def twice(a: int) -> int:
    """Twice a number."""
    return 2 * a


class Where(BaseTool):
    """Says which thread it runs in."""

    name: str = "where"
    description: str = "Where am I?"

    def _run(self) -> str:
        return threading.current_thread().name


async def test_a_langchain_tool_is_called_with_its_defaults(tmp_path: Path) -> None:
    tool = from_langchain(add, effect="read")
    assert tool.description == "Add two numbers."
    calls = [ToolCall("add", given) for given in ({"a": 1}, {"a": "x"}, {"a": -1})]
    found = await events(tmp_path, tool, *calls)
    said = contents(found)
    assert said[0] == "3"
    assert "a must be an integer" in said[1]
    assert said[2] == "Give a positive number."
    assert not any(isinstance(event, ToolIntended) for event in found), "a read has no intent"


async def test_async_and_sync_langchain_tools_run_where_they_should(tmp_path: Path) -> None:
    assert contents(await events(tmp_path, from_langchain(twice), ToolCall("twice", {"a": 4}))) == [
        "8"
    ]
    said = contents(await events(tmp_path, from_langchain(Where()), ToolCall("where", {})))
    assert said[0].startswith("roadworthy-tool")


# --- Pydantic AI ---------------------------------------------------------------------------


async def greet(ctx: TheirContext[None], name: str) -> str:
    """Greet somebody."""
    if name == "nobody":
        raise ModelRetry("Give a name.")
    return f"Hello {name}, attempt {ctx.retry}, of {ctx.tool_name}"


async def test_a_pydantic_ai_tool_gets_its_context(tmp_path: Path) -> None:
    tool = from_pydantic_ai(TheirTool(greet), effect="write")
    calls = [ToolCall("greet", {"name": name}) for name in ("Ana", "nobody")]
    assert contents(await events(tmp_path, tool, *calls)) == [
        "Hello Ana, attempt 0, of greet",
        "Give a name.",
    ]


async def test_a_pydantic_ai_toolset_is_a_toolset(tmp_path: Path) -> None:
    theirs = FunctionToolset([TheirTool(greet)]).prefixed("polite")
    toolset = from_pydantic_ai(theirs, effects={"polite_greet": "read"})
    said = contents(await events(tmp_path, toolset, ToolCall("polite_greet", {"name": "Ana"})))
    assert said == ["Hello Ana, attempt 0, of greet"]


def test_what_decides_unrecorded_is_refused() -> None:
    async def never(_: object, __: object) -> None:
        return None

    with pytest.raises(DeclarationError, match=r"has prepare="):
        from_pydantic_ai(TheirTool(greet, prepare=never))
    for adapt in (from_langchain, from_pydantic_ai):
        with pytest.raises(DeclarationError, match="is no "):
            adapt("a string")


def test_what_needs_approval_there_needs_it_here() -> None:
    assert from_pydantic_ai(TheirTool(greet, requires_approval=True)).approval == "operator"

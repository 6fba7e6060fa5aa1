"""The ten likeliest mistakes of beginners: each is said in words that hold the mend."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from roadworthy import Agent, DeclarationError, Limits, Price, RunContext, Runtime, ToolCall, tool
from roadworthy.errors import ConfigurationError, PatternUnknown
from roadworthy.testing import ScriptedModel
from tests.scenarios.world import Given, results, url


def agent(*script: Given, **fields: Given) -> Agent:
    return Agent("desk", model=ScriptedModel(list(script)), **fields)


# --- the ten ------------------------------------------------------------------------------------


def test_1_a_tool_without_a_docstring() -> None:
    with pytest.raises(DeclarationError, match=r"refund.*docstring"):

        @tool
        def refund(order_id: str) -> str:
            return order_id


# 2, a missing key: test_models.py


async def test_3_a_run_whose_agent_is_not_registered_where_it_is_resumed(tmp_path: Path) -> None:
    @tool(effect="read")
    def look(x: str) -> str:
        """Look. x: any."""
        return x

    desk = agent(ToolCall("look", {"x": "1"}), "So far.", tools=[look], limits=Limits(turns=1))
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Hello")
        assert first.reason == "turn_limit"
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(PatternUnknown, match=r"'desk' is registered.*patterns=\[desk\]"):
            await rt.resume(first.run_id)


def test_4_a_sync_call_inside_the_event_loop(tmp_path: Path) -> None:
    seen: list[str] = []

    @tool(effect="read")
    async def nested(x: str) -> str:
        """Nested. x: any."""
        with pytest.raises(ConfigurationError, match="wait for itself for ever") as error:
            rt.run_sync(agent("Hi."), "Hello")
        seen.append(str(error.value))
        return x

    with Runtime(url(tmp_path)) as rt:
        rt.run_sync(agent(ToolCall("nested", {"x": "1"}), "Done.", tools=[nested]), "Hello")
    assert "await rt.run" in seen[0]


async def test_4b_a_sync_call_on_a_runtime_opened_for_async_code(tmp_path: Path) -> None:
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(ConfigurationError, match=r"await rt\.run"):
            rt.run_sync(agent("Hi."), "Hello")


def test_4c_an_async_call_on_a_runtime_opened_for_sync_code(tmp_path: Path) -> None:
    with (
        Runtime(url(tmp_path)) as rt,
        pytest.raises(ConfigurationError, match="another event loop"),
    ):
        asyncio.run(rt.run(agent("Hi."), "Hello"))


async def test_5_a_result_that_has_no_json_form(tmp_path: Path) -> None:
    @tool(effect="read")
    def look(x: str) -> Given:
        """Look. x: any."""
        return {"when": threading}

    import threading  # noqa: PLC0415

    model = ScriptedModel([ToolCall("look", {"x": "1"}), "Done."])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(Agent("desk", model=model, tools=[look]), "Hello")
    assert result.status == "completed"
    assert "look returned a module, which has no JSON form" in model.requests[1].results[0]


async def test_6_a_tool_that_changed_under_a_waiting_call(tmp_path: Path) -> None:
    @tool(approval="operator", name="pay")
    def old(order_id: str) -> str:
        """Pay. order_id: such as A-17."""
        return "paid"

    @tool(approval="operator", name="pay")
    def new(order: str) -> str:
        """Pay. order: such as A-17."""
        raise AssertionError

    call = ToolCall("pay", {"order_id": "A"})
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent(call, "Paid.", tools=[old]), "Pay")
    changed = agent(call, "Not paid.", tools=[new])
    async with Runtime(url(tmp_path), patterns=[changed]) as rt:
        await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        asked = (await rt.result(waiting.run_id)).waiting[0]
        assert asked.kind == "version"
        assert "tool pay: parameter order added (required)" in asked.reason
        await rt.resolve(asked.id, "approve", by="lea")
        result = await rt.result(waiting.run_id)
    model = changed.model
    assert isinstance(model, ScriptedModel)
    told = " ".join(r.content for request in model.requests for r in results(request.messages))
    assert "paid" not in told.lower().replace("not paid", "")
    assert 'unknown field "order_id"' in told
    assert result.status == "completed"


# 7, a budget too small: test_limits.py


@pytest.mark.parametrize("deps", ["shop", lambda run: "shop"])
async def test_8_dependencies_of_the_wrong_kind(tmp_path: Path, deps: Given) -> None:
    async with Runtime(url(tmp_path)) as rt:
        try:
            result = await rt.run(agent("Hi.", deps=deps), "Hello")
            why = result.report.why
        except DeclarationError as error:
            why = str(error)
    assert "@asynccontextmanager" in why


async def test_8b_a_factory_without_its_parameter(tmp_path: Path) -> None:
    @asynccontextmanager
    async def shop() -> Given:
        yield "shop"

    deps: Any = shop
    async with Runtime(url(tmp_path)) as rt:
        try:
            result = await rt.run(agent("Hi.", deps=deps), "Hello")
            why = result.report.why
        except DeclarationError as error:
            why = str(error)
    assert "RunContext" in why


# 9, the file is locked: test_store_trouble.py


async def test_10_an_async_tool_that_is_not_awaited(tmp_path: Path) -> None:
    async def fetch(x: str) -> str:
        return x

    @tool(effect="read")
    def look(x: str) -> Given:
        """Look. x: any."""
        return fetch(x)

    model = ScriptedModel([ToolCall("look", {"x": "1"}), "Done."])
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(Agent("desk", model=model, tools=[look]), "Hello")
    assert "async tool not awaited" in model.requests[1].results[0]


# --- others -------------------------------------------------------------------------------------


async def test_a_runtime_that_is_not_open_or_open_twice(tmp_path: Path) -> None:
    rt = Runtime(url(tmp_path))
    with pytest.raises(ConfigurationError, match=r"with Runtime\(\.\.\.\) as rt"):
        await rt.run(agent("Hi."), "Hello")
    async with rt:
        with pytest.raises(ConfigurationError, match="open already"):
            async with rt:
                pass
        assert (await rt.run(agent("Hi."), "Hello")).text == "Hi."


def test_a_sync_runtime_opened_twice_stays_usable(tmp_path: Path) -> None:
    with Runtime(url(tmp_path)) as rt:
        with pytest.raises(ConfigurationError, match="open already"):
            rt.__enter__()
        assert rt.run_sync(agent("Hi."), "Hello").text == "Hi."


def test_a_runtime_may_be_opened_again_after_it_was_closed(tmp_path: Path) -> None:
    rt = Runtime(url(tmp_path))
    for _ in range(2):
        with rt:
            assert rt.run_sync(agent("Hi."), "Hello").text == "Hi."


@pytest.mark.requirement("TOL-6", "TOL-7")
def test_agents_that_could_not_work_are_refused_when_declared() -> None:
    @tool(effect="read")
    def look(x: str) -> str:
        """Look. x: any."""
        return x

    def many(count: int) -> list[Any]:
        def named(number: int) -> Given:
            @tool(effect="read", name=f"look{number}")
            def one(x: str) -> str:
                """Look. x: any."""
                return x

            return one

        return [named(n) for n in range(count)]

    plain: Any = print
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: Agent("desk"), "has no model"),
        (lambda: Agent("my desk", model="a:b"), "use a letter"),
        (lambda: Agent("desk", model="a:b", tools=[plain]), "put @tool above it"),
        (lambda: Agent("desk", model="a:b", tools=[look, look]), "two tools named 'look'"),
        (lambda: Agent("desk", model="a:b", tools=many(21)), "21 tools; above 20"),
        (lambda: Limits(turns=0), "at least 1"),
        (lambda: Limits(usd="much"), "no amount of dollars"),
        (lambda: Limits(seconds=0), "more than 0"),
    ]
    for make, message in cases:
        with pytest.raises(DeclarationError, match=message):
            make()
    assert len(Agent("desk", model="a:b", tools=many(20)).tools) == 20


def test_an_undescribed_parameter_is_no_error() -> None:
    @tool(effect="read")
    def look(order_id: str) -> str:
        """Look an order up."""
        return order_id

    assert look.parameters["required"] == ["order_id"]


async def test_a_model_released_today_needs_a_price_only(tmp_path: Path) -> None:
    model = ScriptedModel(["Hi."], name="acme:new-1")
    model.price = None
    prices = {"acme:new-1": Price(input=2, output=8)}
    async with Runtime(url(tmp_path), prices=prices) as rt:
        assert (await rt.run(Agent("desk", model=model), "Hello")).usage.usd > 0


async def test_edited_instructions_do_not_block_a_run_in_flight(tmp_path: Path) -> None:
    ask = ToolCall("ask_user", {"question": "?"})
    async with Runtime(url(tmp_path)) as rt:
        asked = await rt.run(
            agent(ask, "Done.", instructions="Be kind."), "Hello", conversation="c"
        )
    edited = agent(ask, "Done.", instructions="Be brief.")
    async with Runtime(url(tmp_path), patterns=[edited]) as rt:
        done = await rt.run(edited, "This", conversation="c")
        names = [type(e).__name__ async for e in rt.events(done.run_id)]
    assert (done.run_id, done.status) == (asked.run_id, "completed")
    assert "DeclarationChanged" in names


# --- the log ------------------------------------------------------------------------------------

SCRIPT = """
from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.testing import ScriptedModel
import sys

@tool(effect="read")
def look(x: str) -> str:
    '''Look. x: any.'''
    return "seen " + x

model = ScriptedModel([ToolCall("look", {"x": "1"}), "Done."])
with Runtime(f"sqlite:///{sys.argv[1]}/t.db") as rt:
    print(rt.run_sync(Agent("desk", model=model, tools=[look]), "Hello").run_id)
"""


@pytest.mark.requirement("OBS-2")
@pytest.mark.parametrize("level", ["", "debug"])
def test_the_log_is_quiet_unless_it_is_asked_for(tmp_path: Path, level: str) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    environment = {"ROADWORTHY_LOG": level} if level else {}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)  # noqa: S603
    run_id = done.stdout.strip()
    if not level:
        assert done.stderr == ""
        return
    lines = [line for line in done.stderr.splitlines() if run_id in line]
    assert any("turn/1/model ModelReplied" in line for line in lines)
    assert any("turn/1/tool/0 ToolSucceeded" in line and "seen 1" in line for line in lines)
    assert any("turn/2/model ModelReplied" in line for line in lines)


def test_a_log_level_that_does_not_exist_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROADWORTHY_LOG", "loud")
    with pytest.raises(ConfigurationError, match="one of debug, info, warning, error"):
        Runtime("sqlite:///t.db")


async def test_every_record_of_a_run_carries_its_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @tool(effect="read")
    def look(run: RunContext[None], x: str) -> str:
        """Look. x: any."""
        return x

    with caplog.at_level(logging.DEBUG, logger="roadworthy"):
        async with Runtime(url(tmp_path)) as rt:
            result = await rt.run(
                agent(ToolCall("look", {"x": "1"}), "Done.", tools=[look]), "Hello"
            )
    told = [r for r in caplog.records if r.name == "roadworthy.run"]
    assert told
    assert {getattr(r, "run", "") for r in told} == {result.run_id}

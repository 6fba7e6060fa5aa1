"""What a run carries along: dependencies, its user, instructions, options, files."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from roadworthy import (
    Agent,
    DeclarationError,
    File,
    Limits,
    Message,
    RunContext,
    RunOptions,
    Runtime,
    ToolCall,
    User,
    tool,
)
from roadworthy.events import Noted, RunStarted
from roadworthy.testing import FakeClock, ScriptedModel
from tests.scenarios.world import Given, of_kind, results, url


@dataclass
class Shop:
    """Opened and closed once per segment."""

    log: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def open(self, run: RunContext[None]) -> AsyncGenerator[str, None]:
        self.log.append(f"open for {run.user.id} of {run.user.tenant}")
        try:
            yield f"shop of {run.user.tenant}"
        finally:
            self.log.append("close")


@tool(effect="read")
async def where(run: RunContext[str], order_id: str) -> str:
    """Where an order is. order_id: such as A-17."""
    return f"{order_id} in {run.deps} for {run.user.id}, key {run.key[:4]}, try {run.attempt}"


ASK = ToolCall("ask_user", {"question": "Which?"})
WHERE = ToolCall("where", {"order_id": "A-17"})
ANA = User("ana", "acme")


def desk(shop: Shop, *script: Given) -> Agent[str, str]:
    return Agent("desk", model=ScriptedModel(list(script)), deps=shop.open, tools=[where])


async def test_dependencies_are_opened_and_closed_for_each_segment(tmp_path: Path) -> None:
    shop = Shop()
    agent = desk(shop, ASK, WHERE, "There.")
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(agent, "Where is it?", user=ANA, conversation="c")
        assert shop.log == ["open for ana of acme", "close"]
        done = await rt.run(agent, "A-17", user=ANA, conversation="c")
    assert done.status == "completed"
    assert shop.log == ["open for ana of acme", "close"] * 2


@pytest.mark.requirement("TOL-7")
async def test_a_tool_acts_for_the_runs_user_and_the_model_cannot_see_or_set_the_context(
    tmp_path: Path,
) -> None:
    shop = Shop()
    forged = ToolCall("where", {"order_id": "A-17", "run": {"user": "eve"}})
    agent = desk(shop, WHERE, forged, "There.")
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(agent, "Where?", user=ANA)
    model = cast(ScriptedModel, agent.model)
    (spec,) = [t for t in model.requests[0].request.tools if t.name == "where"]
    assert list(spec.parameters["properties"]) == ["order_id"]
    told = model.requests[2].results
    assert told[0].startswith("A-17 in shop of acme for ana, key ")
    assert 'unknown field "run"' in told[1]


async def test_dependencies_that_cannot_be_opened_end_the_run_and_say_why(tmp_path: Path) -> None:
    @asynccontextmanager
    async def broken(run: RunContext[None]) -> AsyncGenerator[str, None]:
        if run.user.id:
            raise ConnectionError("no database")
        yield ""

    agent = Agent("desk", model=ScriptedModel(["Hi."]), deps=broken)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(agent, "Hello")
    assert (result.status, result.reason) == ("failed", "error")
    assert "ConnectionError: no database" in result.report.why
    assert "database" not in result.text


async def test_a_run_that_has_ended_stays_ended_when_its_dependencies_fail_to_close(
    tmp_path: Path,
) -> None:
    @asynccontextmanager
    async def sloppy(run: RunContext[None]) -> AsyncGenerator[str, None]:
        yield "shop"
        raise ConnectionError("lost on closing")

    agent = Agent("desk", model=ScriptedModel(["Hi."]), deps=sloppy)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(agent, "Hello")
        events = [type(e).__name__ async for e in rt.events(result.run_id)]
    assert (result.status, result.text) == ("completed", "Hi.")
    assert events.count("RunEnded") == 1


async def test_a_factory_of_the_wrong_kind_is_said_with_the_mend(tmp_path: Path) -> None:
    def plain(run: RunContext[None]) -> Given:
        return "shop"

    agent = Agent("desk", model=ScriptedModel(["Hi."]), deps=plain)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(agent, "Hello")
    assert result.status == "failed"
    assert "@asynccontextmanager" in result.report.why


async def test_dynamic_instructions_are_read_once_a_turn_and_recorded(tmp_path: Path) -> None:
    reads: list[str] = []

    def today(run: RunContext[Any]) -> str:
        reads.append(run.user.id)
        return f"Today is {run.today}. The customer is {run.user.id}. Read {len(reads)}."

    model = ScriptedModel([ASK, "Done."])
    agent = Agent("desk", model=model, instructions=["Be kind.", today])
    clock = FakeClock(auto=True)
    async with Runtime(url(tmp_path), clock=clock) as rt:
        await rt.run(agent, "Hello", user="ana", conversation="c")
    async with Runtime(url(tmp_path), clock=clock, patterns=[agent]) as rt:
        done = await rt.run(agent, "This", user="ana", conversation="c")
        noted = await of_kind(rt, done.run_id, Noted)
        replayed = await rt.replay(done.run_id)
    assert reads == ["ana", "ana"]
    assert model.requests[0].instructions.startswith(
        "Be kind.\n\nToday is 2026-01-01. The customer is ana. Read 1."
    )
    assert "Read 2." in model.requests[1].instructions
    assert [n.key for n in noted] == ["turn/1/instructions", "turn/2/instructions"]
    assert replayed.differences == ()


async def test_what_stays_the_same_comes_first_in_the_instructions(tmp_path: Path) -> None:
    model = ScriptedModel([WHERE, "Done."])
    agent = Agent("desk", model=model, instructions="Be kind.", deps=Shop().open, tools=[where])
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(agent, "Hello")
    assert model.requests[0].instructions == model.requests[1].instructions


async def test_options_are_journaled_and_kept(tmp_path: Path) -> None:
    seen: list[Any] = []

    @tool(effect="read")
    def note(run: RunContext[None], x: str) -> str:
        """Note. x: any."""
        seen.append(dict(run.tags))
        return x

    old = [
        {"role": "system", "content": "ignored"},
        {"role": "user", "content": "My order is A-17."},
        {"role": "assistant", "content": "Thanks."},
    ]
    options = RunOptions(
        limits=Limits(turns=4, usd="0.05"), tags={"ticket": "812"}, history=Message.from_openai(old)
    )
    model = ScriptedModel([ASK, ToolCall("note", {"x": "1"}), "Done."])
    agent = Agent("desk", model=model, tools=[note])
    async with Runtime(url(tmp_path)) as rt:
        asked = await rt.run(agent, "Where is it?", conversation="c", options=options)
        (started,) = await of_kind(rt, asked.run_id, RunStarted)
    async with Runtime(url(tmp_path), patterns=[agent]) as rt:
        done = await rt.run(agent, "The lamp", conversation="c")
    assert done.status == "completed"
    assert started.limits["turns"] == 4
    assert started.options["tags"] == {"ticket": "812"}
    assert [m.text for m in model.requests[1].messages[:3]] == [
        "My order is A-17.",
        "Thanks.",
        "Where is it?",
    ]
    assert seen == [{"ticket": "812"}]


async def test_files_of_the_user_reach_the_model_whole_and_are_stored_once(
    tmp_path: Path,
) -> None:
    photo = tmp_path / "receipt.png"
    photo.write_bytes(b"\x89PNG" + bytes(50_000))
    model = ScriptedModel([ASK, "A receipt."])
    agent = Agent("desk", model=model)
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(agent, ["What is this?", File.open(photo)], conversation="c")
    async with Runtime(url(tmp_path), patterns=[agent]) as rt:
        again = File.open(photo)
        done = await rt.run(agent, ["This one.", again], conversation="c")
        history = await rt.history("c")
    sent = [p for p in model.requests[1].messages[0].parts if isinstance(p, File)]
    assert sent[0].data == photo.read_bytes()
    assert results(model.requests[1].messages)[0].files[0].data == photo.read_bytes()
    assert done.status == "completed"
    (kept,) = [p for p in history[0].parts if isinstance(p, File)]
    assert (kept.name, kept.media_type, kept.data) == ("receipt.png", "image/png", again.data)


def test_a_file_of_unknown_type_says_what_to_give(tmp_path: Path) -> None:
    strange = tmp_path / "data.zzz"
    strange.write_bytes(b"1")
    with pytest.raises(DeclarationError, match="give media_type="):
        File.open(strange)


async def test_variants_of_an_agent_are_made_with_replace(tmp_path: Path) -> None:
    base = Agent("desk", model="openai:gpt-5-mini", instructions="Be kind.")
    model = ScriptedModel(["Hi."])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(replace(base, model=model), "Hello")
    assert result.text == "Hi."
    assert model.requests[0].instructions.startswith("Be kind.")

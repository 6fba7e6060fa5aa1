"""Whether an effect happened: known, found out, or asked of a person; never guessed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from roadworthy import (
    Agent,
    NotApplied,
    RunContext,
    RunResult,
    Runtime,
    Tool,
    ToolCall,
    tool,
)
from roadworthy.events import (
    ToolAttemptFailed,
    ToolIntended,
    ToolSucceeded,
)
from roadworthy.testing import FakeClock, ScriptedModel, failing
from tests.scenarios.world import Given, of_kind, url


def call(name: str, **arguments: object) -> ToolCall:
    return ToolCall(name, arguments)


def save_tool(saved: list[str], keys: list[str] | None = None, **options: Given) -> Tool[None]:
    @tool(effect="write", **options)
    def save(run: RunContext[None], text: str) -> str:
        """Save. text: what."""
        saved.append(text)
        if keys is not None:
            keys.append(run.key)
        return f"saved {text}"

    return save


def agent(script: Sequence[Given], *tools: Tool[None], **options: Given) -> Agent:
    return Agent("desk", model=ScriptedModel(list(script)), tools=tools, **options)


async def go(folder: Path, desk: Agent) -> RunResult:
    async with Runtime(url(folder), clock=FakeClock(auto=True)) as rt:
        return await rt.run(desk, "Go", conversation="c")


@pytest.mark.requirement("TOL-4", "TOL-8")
async def test_an_undeclared_effect_is_irreversible_and_has_one_attempt(tmp_path: Path) -> None:
    @tool
    def launch(pad: str) -> str:
        """Launch. pad: which."""
        return "up"

    assert launch.effect == "irreversible"
    broken, log = failing(launch, [ConnectionError("reset")])
    desk = agent([call("launch", pad="39A"), "?"], broken)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Launch")
        (intended,) = await of_kind(rt, result.run_id, ToolIntended)
    assert result.status == "waiting"
    assert result.waiting[0].kind == "unknown_outcome"
    assert "reset" in result.waiting[0].reason
    assert len(log.calls) == 1
    assert intended.effect == "irreversible"


@pytest.mark.requirement("TOL-4", "REC-7")
@pytest.mark.parametrize(
    ("decision", "note", "told", "applied"),
    [
        ("approve", "", "up", 1),
        ("respond", "It is in orbit.", "It is in orbit.", 0),
        ("reject", "Leave it.", "did not take place", 0),
    ],
)
async def test_a_person_says_what_became_of_an_irreversible_call(
    tmp_path: Path, decision: Given, note: str, told: str, applied: int
) -> None:
    @tool
    def launch(pad: str) -> str:
        """Launch. pad: which."""
        return "up"

    broken, log = failing(launch, [ConnectionError("reset")])
    model = ScriptedModel([call("launch", pad="39A"), "Done."])
    desk = Agent("desk", model=model, tools=[broken])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(desk, "Launch")
        await rt.resolve(waiting.waiting[0].id, decision, by="lea", note=note)
        done = await rt.result(waiting.run_id)
        replayed = await rt.replay(waiting.run_id)
    assert done.status == "completed"
    assert told in model.requests[1].results[0]
    assert log.applied == applied
    assert replayed.differences == ()


@pytest.mark.requirement("TOL-3", "TOL-4", "OBS-2")
async def test_an_effect_that_surely_did_not_happen_is_tried_again_under_the_same_key(
    tmp_path: Path,
) -> None:
    saved: list[str] = []
    keys: list[str] = []
    broken, log = failing(save_tool(saved, keys), [NotApplied("busy"), NotApplied("busy")])
    desk = agent([call("save", text="a"), "Saved."], broken)
    clock = FakeClock(auto=True)
    async with Runtime(url(tmp_path), clock=clock) as rt:
        result = await rt.run(desk, "Go")
        failed = await of_kind(rt, result.run_id, ToolAttemptFailed)
        intents = await of_kind(rt, result.run_id, ToolIntended)
        (done,) = await of_kind(rt, result.run_id, ToolSucceeded)
    assert (saved, len(log.calls)) == (["a"], 3)
    assert [f.applied for f in failed] == ["no", "no"]
    assert {i.idempotency_key for i in intents} == set(keys)
    assert [i.attempt for i in intents] == [1, 2, 3]
    waits = [(f.retry_at or 0) - f.at for f in failed]
    assert 0 <= waits[0] <= 200_000  # full jitter under a bound that doubles
    assert 0 <= waits[1] <= 400_000
    assert done.attempts == 3


async def test_an_irreversible_effect_that_surely_did_not_happen_is_tried_again_too(
    tmp_path: Path,
) -> None:
    @tool
    def launch(pad: str) -> str:
        """Launch. pad: which."""
        return "up"

    broken, log = failing(launch, [NotApplied("rain")])
    result = await go(tmp_path, agent([call("launch", pad="39A"), "Up."], broken))
    assert (result.status, len(log.calls), log.applied) == ("completed", 2, 1)


async def test_a_write_of_unknown_outcome_is_repeated_under_the_same_key(tmp_path: Path) -> None:
    saved: list[str] = []
    keys: list[str] = []
    broken, log = failing(save_tool(saved, keys), [ConnectionResetError("gone")], after=True)
    result = await go(tmp_path, agent([call("save", text="a"), "Saved."], broken))
    assert (result.status, log.applied) == ("completed", 2)
    assert len(set(keys)) == 1


async def test_a_write_that_stays_unknown_waits_for_a_person(tmp_path: Path) -> None:
    broken, log = failing(save_tool([]), [ConnectionResetError("gone")] * 9)
    result = await go(tmp_path, agent([call("save", text="a"), "Saved."], broken))
    assert result.status == "waiting"
    assert result.waiting[0].kind == "unknown_outcome"
    assert len(log.calls) == 3


@pytest.mark.parametrize(
    ("found", "status", "applied"),
    [
        (("applied", "up"), "completed", 1),
        ("not_applied", "completed", 2),
        ("unknown", "waiting", 1),
    ],
)
async def test_reconcile_is_asked_what_became_of_an_unknown_outcome(
    tmp_path: Path, found: Given, status: str, applied: int
) -> None:
    asked: list[str] = []

    def look_up(run: RunContext[None], pad: str) -> Given:
        asked.append(f"{pad} {run.key}")
        return found

    @tool(effect="irreversible", reconcile=look_up)
    def launch(run: RunContext[None], pad: str) -> str:
        """Launch. pad: which."""
        return run.key

    broken, log = failing(launch, [TimeoutError("late")], after=True)
    result = await go(tmp_path, agent([call("launch", pad="39A"), "Up."], broken))
    assert (result.status, log.applied) == (status, applied)
    assert len(asked) == 1
    assert asked[0].startswith("39A ")


async def test_an_effect_that_times_out_is_of_unknown_outcome(tmp_path: Path) -> None:
    never = asyncio.Event()

    @tool(timeout=0.05)
    async def launch(pad: str) -> str:
        """Launch. pad: which."""
        await never.wait()
        return "up"

    result = await go(tmp_path, agent([call("launch", pad="39A"), "Up."], launch))
    assert result.waiting[0].kind == "unknown_outcome"

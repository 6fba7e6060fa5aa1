"""A process of one version dies, or leaves a run, and one of another version takes it up."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roadworthy import Agent, Runtime, Tool, ToolCall, tool
from roadworthy.agent import Effect
from roadworthy.errors import StoreVersionError
from roadworthy.events import (
    StreamEvent,
    ToolFailed,
    ToolIntended,
    ToolRefused,
    ToolSucceeded,
)
from roadworthy.messages import ModelRequest
from roadworthy.testing import ScriptedModel
from roadworthy.testing.scripted import Turn
from tests.properties.snapshots import Snapshots
from tests.scenarios.world import Given, of_kind, url

PAY = {"order_id": "A", "euros": 40}


# --- killed between intent and outcome ------------------------------------------------------


async def killed(folder: Path, effect: Effect) -> tuple[str, str, Agent[Any, Any], list[int]]:
    """(store, run, agent, effects) of a process that died inside `pay`, its intent on record."""
    paid: list[int] = []
    snapshots = Snapshots(folder / "store.db", folder)
    copies: list[str] = []

    @tool(effect=effect, idempotent_by_nature=effect == "write")
    def pay(order_id: str, euros: int) -> str:
        """Pay back."""
        paid.append(euros)
        copies.append(snapshots.take())
        return "paid"

    desk = desk_with(pay)
    async with Runtime(snapshots.url, patterns=[desk]) as rt:
        run_id = await rt.start(desk, "Pay")
        await rt.wait(run_id)
    return copies[0], run_id, desk, paid


def desk_with(pay: Tool[None]) -> Agent[Any, Any]:
    """Pays, then says what it heard."""

    def say(request: ModelRequest) -> Turn:
        return "Done." if request.ordinal else ToolCall("pay", PAY)

    return Agent("desk", model=ScriptedModel(say), tools=[pay])


WORDS = [
    ("respond", "It is paid.", ToolSucceeded, "It is paid."),
    ("reject", "", ToolFailed, "left it so"),
    ("approve", "", ToolRefused, "There is no tool"),
]


@pytest.mark.requirement("REC-8", "TOL-4")
@pytest.mark.parametrize(("decision", "note", "outcome", "told"), WORDS)
async def test_an_effect_in_flight_whose_tool_was_renamed_is_neither_repeated_nor_forgotten(
    tmp_path: Path, decision: Given, note: str, outcome: Given, told: str
) -> None:
    store, run_id, desk, paid = await killed(tmp_path, "irreversible")
    renamed = replace(desk, tools=[replace(desk.toolbelt["pay"], name="pay_back")])
    async with Runtime(store, patterns=[renamed]) as rt:
        question = (await rt.result(run_id)).waiting[0]
        assert question.kind == "version"
        assert question.arguments["changed"] == ["tool pay removed", "tool pay_back added"]
        await rt.resolve(question.id, "approve", by="kim")
        lost = (await rt.result(run_id)).waiting[0]
        assert (lost.kind, lost.tool, lost.arguments) == ("unknown_outcome", "pay", PAY)
        await rt.resolve(lost.id, decision, by="kim", note=note)
        result = await rt.result(run_id)
        (came_of_it,) = await of_kind(rt, run_id, outcome)
        replayed = await rt.replay(run_id)
    assert (result.status, paid) == ("completed", [40])
    assert told in came_of_it.result.content
    assert not [d for d in replayed.differences if "request would differ" not in d]


@tool(name="pay", effect="write", idempotent_by_nature=True)
def pay_with_fee(order_id: str, euros: int, fee: int = 5) -> str:
    """Pay back."""
    return f"paid {euros} and {fee}"


async def test_an_effect_in_flight_that_would_run_otherwise_now_runs_only_with_a_persons_word(
    tmp_path: Path,
) -> None:
    """A write would be repeated under its key; with other arguments it is another write."""
    store, run_id, desk, paid = await killed(tmp_path, "write")
    async with Runtime(store, patterns=[replace(desk, tools=[pay_with_fee])]) as rt:
        question = (await rt.result(run_id)).waiting[0]
        await rt.resolve(question.id, "approve", by="kim")
        lost = (await rt.result(run_id)).waiting[0]
        assert (lost.kind, lost.arguments) == ("unknown_outcome", {**PAY, "fee": 5})
        assert '"euros": 40}' in lost.reason
        assert len(await of_kind(rt, run_id, ToolIntended)) == 1
        await rt.resolve(lost.id, "approve", by="kim")
        result = await rt.result(run_id)
        (done,) = await of_kind(rt, run_id, ToolSucceeded)
        intents = await of_kind(rt, run_id, ToolIntended)
    assert (question.kind, result.status, paid) == ("version", "completed", [40])
    assert done.result.content == "paid 40 and 5"
    assert len({intent.idempotency_key for intent in intents}) == 1


# --- events of a newer release --------------------------------------------------------------


@tool(approval="operator")
def pay(order_id: str, euros: int) -> str:
    """Pay back."""
    return f"paid {euros}"


@pytest.mark.requirement("REC-8")
async def test_a_run_of_a_newer_release_is_handed_back_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Agent("desk", model=ScriptedModel([ToolCall("pay", PAY), "Done."]), tools=[pay])
    async with Runtime(url(tmp_path)) as rt:
        strange, plain = [(await rt.run(desk, f"Go {n}")) for n in range(2)]
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection:
        connection.execute(
            'UPDATE event SET body = replace(body, \'"asks":"operator"\', \'"asks":"robot"\') '
            "WHERE type = 'ApprovalAsked' AND run_id = ?",
            [strange.run_id],
        )
        connection.commit()
    caplog.set_level(logging.WARNING, "roadworthy")
    seen: list[StreamEvent] = []
    async with Runtime(url(tmp_path), patterns=[desk], on_event=seen.append) as rt:
        for waiting in (strange, plain):
            await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        done = await rt.result(plain.run_id)
        for _ in range(3):  # however often it is asked for
            with pytest.raises(StoreVersionError, match=r"ApprovalAsked v1 .* newer release"):
                await rt.result(strange.run_id)
        left = await rt.find(strange.run_id)
    assert done.status == "completed"
    assert (left.status, left.owner) == ("queued", None)
    assert not [e for e in seen if getattr(e, "run_id", "") == strange.run_id]
    said = [r for r in caplog.records if "newer release" in r.getMessage()]
    assert len(said) == 1

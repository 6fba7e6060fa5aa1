"""A deploy with runs in flight: each row of docs/versions.md, through two openings of one store."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from roadworthy import Agent, Limits, RunContext, RunResult, Runtime, Tool, ToolCall, tool
from roadworthy.agent import OnChange, Verdict
from roadworthy.cli.runs import app
from roadworthy.errors import DeclarationError, RunError, VersionHeld
from roadworthy.events import (
    ApprovalAsked,
    ApprovalDecided,
    DeclarationChanged,
    RunStarted,
    ToolRefused,
    ToolSucceeded,
)
from roadworthy.guardrails import guardrail
from roadworthy.messages import ModelSettings
from roadworthy.store import declarations
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.testing.scripted import Turn
from tests.scenarios.world import Given, of_kind, url

PAY = {"order_id": "A", "euros": 40}


class Answer(BaseModel):
    """A typed answer."""

    text: str


@tool(effect="read")
def look(page: int) -> str:
    """One page. page: its number."""
    return f"page {page}"


@guardrail("output")
def polite(run: RunContext[None], text: str) -> Verdict:
    """Nothing to object."""
    return Verdict.allow()


def pay_tool(paid: list[int]) -> Tool[None]:
    """Pays; what it does is in `paid`."""

    @tool(approval="operator")
    def pay(order_id: str, euros: int) -> str:
        """Pay back."""
        paid.append(euros)
        return f"paid {euros}"

    return pay


def asks_then(*turns: Turn) -> ScriptedModel:
    """Asks the user, so that the run waits, then goes on."""
    return ScriptedModel([ToolCall("ask_user", {"question": "?"}), *turns])


async def begun(folder: Path, desk: Agent[Any, Any], **options: Given) -> RunResult[Any]:
    """The first opening: the run comes to its wait."""
    async with Runtime(url(folder), **options) as rt:
        return await rt.run(desk, "Go", conversation="c")


# --- what makes no difference to what is pending --------------------------------------------

CALM: dict[str, tuple[dict[str, Given], str]] = {
    "nothing": ({}, ""),
    "instructions": ({"instructions": "Be brief."}, "instructions"),
    "model": ({"model": ScriptedModel([], name="new")}, "model: scripted -> new"),
    "settings": ({"settings": ModelSettings(max_tokens=9)}, "settings: max_tokens 2000 -> 9"),
    "limits": ({"limits": Limits(turns=9)}, "limits: turns 25 -> 9"),
    "guardrails": ({"guardrails": [polite]}, "guardrails: +output:polite"),
    "another tool": ({"tools": [look, pay_tool([])]}, "tool pay added"),
    "a tool's policy": (
        {"tools": [replace(look, timeout=3.0)]},
        "tool look: timeout null -> 3.0",
    ),
    "a tool's words": ({"tools": [replace(look, description="Read.")]}, "tool look: description"),
    "a tool that nothing pends on": ({"tools": []}, "tool look removed"),
    "output": ({"output": Answer}, "output"),
    "version": ({"version": "2"}, "version: none -> 2"),
}


@pytest.mark.requirement("REC-8", "BEY-2")
@pytest.mark.parametrize("what", CALM)
async def test_what_no_pending_call_depends_on_lets_the_run_go_on(
    tmp_path: Path, what: str
) -> None:
    changes, said = CALM[what]
    say: list[Turn] = [ToolCall("final_answer", {"text": "Done."}) if what == "output" else "Done."]
    desk = Agent("desk", model=asks_then(*say), tools=[look])
    asked = await begun(tmp_path, desk)
    if what == "model":
        changes = {"model": ScriptedModel(["?", *say], name="new")}
    async with Runtime(url(tmp_path), patterns=[replace(desk, **changes)]) as rt:
        done = await rt.run(replace(desk, **changes), "This", conversation="c")
        changed = await of_kind(rt, done.run_id, DeclarationChanged)
        row = await rt.find(done.run_id)
    assert (done.run_id, done.status, done.text) == (asked.run_id, "completed", done.text)
    assert "Done." in done.text
    assert [event.changed for event in changed] == ([(said,)] if said else [])
    assert row.fingerprint == (changed[-1].new if changed else row.fingerprint)


async def test_the_whole_declaration_is_pinned_and_kept_as_data(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel(["Hi."]), tools=[pay_tool([])], output=None)
    async with Runtime(url(tmp_path), version="r1") as rt:
        result = await rt.run(replace(desk, settings=ModelSettings(extra_headers={"k": "s3"})), "x")
        (started,) = await of_kind(rt, result.run_id, RunStarted)
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection:
        ((fingerprint, body),) = connection.execute("SELECT fingerprint, body FROM declaration")
    assert fingerprint == started.fingerprint
    for part in ('"version": "r1"', '"approval": "operator"', '"max_tokens"', '"turns"', '"k"'):
        assert part in body
    assert "s3" not in body  # what is sent as it is may be a secret


async def test_a_request_sent_again_after_a_deploy_records_no_declaration_and_the_next_does(
    tmp_path: Path,
) -> None:
    """A process remembers which declarations are on record; it must not believe it too soon."""
    old = Agent("desk", model=ScriptedModel(["Hi."]))
    new = replace(old, model=ScriptedModel(["Hi."]), instructions="Be brief.")
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(old, "x", key="k")
    async with Runtime(url(tmp_path)) as rt:
        again = await rt.run(new, "x", key="k")
        result = await rt.run(new, "y")
        (started,) = await of_kind(rt, result.run_id, RunStarted)
        body = await rt._open.house.read(lambda tx: declarations.get(tx, started.fingerprint))
    assert again.run_id == first.run_id
    assert body is not None


def test_a_policy_that_does_not_exist_is_said() -> None:
    with pytest.raises(DeclarationError, match='none of "continue", "drain", "ask"'):
        Agent("desk", model="a:b", on_change="wait")  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="Runtime: on_change='x'"):
        Runtime("sqlite:///x.db", on_change="x")  # type: ignore[arg-type]


async def test_turns_on_record_keep_the_limits_they_were_answered_under(tmp_path: Path) -> None:
    """The new declaration applies from the next unrecorded turn; what is done is not compared."""
    ask = ToolCall("ask_user", {"question": "?"})
    script: list[Turn] = [ToolCall("look", {"page": n}) for n in range(3)]
    desk = Agent("desk", model=ScriptedModel([*script, ask, "Done."]), tools=[look])
    asked = await begun(tmp_path, desk)
    tight = replace(desk, tools=[], limits=Limits(turns=4, tool_calls=1))
    async with Runtime(url(tmp_path), patterns=[tight]) as rt:
        result = await rt.run(tight, "This", conversation="c")
        done = await of_kind(rt, asked.run_id, ToolSucceeded)
        (changed,) = await of_kind(rt, asked.run_id, DeclarationChanged)
        row = await rt.find(asked.run_id)
    assert (result.reason, len(done)) == ("turn_limit", 3)  # at the fifth, not at the second
    assert result.report.done == ("look", "look", "look")
    assert changed.limits is not None
    assert changed.limits["turns"] == 4
    assert row.status == "partial"


# --- a pending call whose tool changed: a person is asked -----------------------------------


@tool(name="pay", approval="operator")
def pay_in_dollars(order_id: str, euros: int, usd: int) -> str:
    """Pay back."""
    raise AssertionError


@tool(name="pay", approval="operator", effect="read")
def pay_nothing(order_id: str, euros: int) -> str:
    """Pay back."""
    return f"seen {euros}"


ALTERED: dict[str, tuple[Sequence[Tool[None]], str]] = {
    "parameter": ([pay_in_dollars], "tool pay: parameter usd added (required)"),
    "effect": ([pay_nothing], "tool pay: effect irreversible -> read"),
    "gone": ([], "tool pay removed"),
}


@pytest.mark.requirement("REC-8", "TOL-4", "BEY-2")
@pytest.mark.parametrize("decision", ["approve", "reject"])
@pytest.mark.parametrize("what", ALTERED)
async def test_a_pending_call_whose_tool_changed_asks_a_person(
    tmp_path: Path, what: str, decision: Given
) -> None:
    tools, said = ALTERED[what]
    paid: list[int] = []
    clock = FakeClock(auto=True)
    desk = Agent(
        "desk", model=ScriptedModel([ToolCall("pay", PAY), "Done."]), tools=[pay_tool(paid)]
    )
    waiting = await begun(tmp_path, desk, clock=clock)
    await clock.advance(timedelta(days=30).total_seconds())
    new = replace(desk, tools=tools)
    async with Runtime(url(tmp_path), patterns=[new], clock=clock) as rt:
        await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        asked = await rt.result(waiting.run_id)
        (question,) = asked.waiting
        with pytest.raises(RunError, match="approve or reject"):
            await rt.resolve(question.id, "respond", by="lea", note="?")
    assert (asked.status, question.kind, question.asks) == ("waiting", "version", "operator")
    assert question.arguments["changed"] == [said]
    assert question.arguments["pending"] == [{"key": "turn/1/tool/0", "tool": "pay"}]
    async with Runtime(url(tmp_path), patterns=[new], clock=clock) as rt:
        await rt.resolve(question.id, decision, by="kim")
        result = await rt.result(waiting.run_id)
        decided = await of_kind(rt, waiting.run_id, ApprovalDecided)
        changed = await of_kind(rt, waiting.run_id, DeclarationChanged)
        outcomes = await of_kind(rt, waiting.run_id, ToolSucceeded)
        replayed = await rt.replay(waiting.run_id)
    assert paid == []
    assert decided[0].key.startswith("version/")
    assert not [d for d in replayed.differences if "request would differ" not in d]
    if decision == "reject":
        assert (result.status, result.reason) == ("stopped", "declaration_changed")
        assert said in result.report.why
        assert "kim" in result.report.why
        assert (changed, outcomes) == ([], [])
        return
    assert result.status == "completed"
    assert [event.changed for event in changed] == [(said,)]
    assert [o.result.content for o in outcomes] == (["seen 40"] if what == "effect" else [])


async def test_what_was_decided_is_not_asked_again_by_a_second_process(tmp_path: Path) -> None:
    ask = ToolCall("ask_user", {"question": "?"})
    model = ScriptedModel([ask, ask, ask, "Done."])
    desk = Agent("desk", model=model, on_change="ask", tools=[look])
    waiting = await begun(tmp_path, desk)
    new, newer = replace(desk, instructions="Be brief."), replace(desk, instructions="Be long.")
    async with Runtime(url(tmp_path), patterns=[new]) as rt:
        question = (await rt.run(new, "One", conversation="c")).waiting[0]
        await rt.resolve(question.id, "approve", by="kim")
        assert (await rt.result(waiting.run_id)).question == "?"
    async with Runtime(url(tmp_path), patterns=[new]) as rt:
        assert (await rt.run(new, "Two", conversation="c")).question == "?"
    async with Runtime(url(tmp_path), patterns=[newer]) as rt:  # a third declaration is another
        again = (await rt.run(newer, "Three", conversation="c")).waiting[0]
    async with Runtime(url(tmp_path), patterns=[new]) as rt:  # the approved one is back
        await rt.resolve(again.id, "approve", by="kim")
        done = await rt.result(waiting.run_id)
        asked = await of_kind(rt, waiting.run_id, ApprovalAsked)
        changed = await of_kind(rt, waiting.run_id, DeclarationChanged)
    assert (question.kind, question.arguments["changed"]) == ("version", ["instructions"])
    assert (again.kind, again.id != question.id) == ("version", True)
    assert (done.status, len(asked), len(changed)) == ("completed", 2, 1)


async def test_a_run_that_waits_for_such_a_word_can_be_cancelled(tmp_path: Path) -> None:
    desk = Agent("desk", model=asks_then("Done."))
    asked = await begun(tmp_path, desk)
    new = replace(desk, instructions="Be brief.", on_change="ask")
    async with Runtime(url(tmp_path), patterns=[new]) as rt:
        assert (await rt.run(new, "This", conversation="c")).waiting[0].kind == "version"
        await rt.cancel(asked.run_id)
        result = await rt.result(asked.run_id)
        while not result.over:
            result = await rt.result(asked.run_id)
    assert (result.status, result.reason) == ("stopped", "cancelled")


async def test_a_run_that_a_person_stopped_stays_so_though_the_old_declaration_is_back(
    tmp_path: Path,
) -> None:
    desk = Agent("desk", model=asks_then("Done."))
    asked = await begun(tmp_path, desk)
    new = replace(desk, instructions="Be brief.", on_change="ask")
    async with Runtime(url(tmp_path), patterns=[new]) as rt:
        question = (await rt.run(new, "This", conversation="c")).waiting[0]
    async with Runtime(url(tmp_path), patterns=[desk]) as rt:
        await rt.resolve(question.id, "reject", by="kim", note="Not now.")
        result = await rt.result(asked.run_id)
        replayed = await rt.replay(asked.run_id)
    assert (result.status, result.reason) == ("stopped", "declaration_changed")
    assert result.report.why == (
        "kim stopped it, because its agent changed: instructions. Not now."
    )
    assert replayed.differences == ()


async def test_what_a_run_began_with_being_lost_asks_where_a_call_is_pending(
    tmp_path: Path,
) -> None:
    paid: list[int] = []
    desk = Agent("desk", model=ScriptedModel([ToolCall("pay", PAY), "Ok."]), tools=[pay_tool(paid)])
    waiting = await begun(tmp_path, desk)
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection:
        connection.execute("DELETE FROM declaration")
        connection.commit()
    new = replace(desk, instructions="Be brief.")
    async with Runtime(url(tmp_path), patterns=[new]) as rt:
        await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        (question,) = (await rt.result(waiting.run_id)).waiting
    assert (question.kind, paid) == ("version", [])
    assert question.arguments["changed"] == ["declaration: what it was is not on record"]


async def test_an_approval_that_was_asked_for_binds_though_the_tool_asks_for_none_now(
    tmp_path: Path,
) -> None:
    paid: list[int] = []
    desk = Agent("desk", model=ScriptedModel([ToolCall("pay", PAY), "Ok."]), tools=[pay_tool(paid)])
    waiting = await begun(tmp_path, desk)
    free = replace(desk, tools=[replace(pay_tool(paid), approval=None)])
    async with Runtime(url(tmp_path), patterns=[free]) as rt:
        await rt.resolve(waiting.waiting[0].id, "reject", by="lea")
        result = await rt.result(waiting.run_id)
        (refused,) = await of_kind(rt, waiting.run_id, ToolRefused)
    assert (result.status, refused.code, paid) == ("completed", "rejected", [])


async def test_done_calls_of_the_turn_count_as_done_when_their_tool_is_gone(tmp_path: Path) -> None:
    """Half of a reply's effects are on record: the others are still carried out after them."""
    sent: list[str] = []

    @tool(effect="write", idempotent_by_nature=True)
    def send(to: str) -> str:
        """Send. to: whom."""
        sent.append(to)
        return "sent"

    approved = pay_tool([])
    both = [ToolCall("send", {"to": "ana"}), ToolCall("pay", PAY)]
    desk = Agent("desk", model=ScriptedModel([both, "Done."]), tools=[send, approved])
    waiting = await begun(tmp_path, desk)
    less = replace(desk, tools=[approved])
    async with Runtime(url(tmp_path), patterns=[less]) as rt:
        await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        result = await rt.result(waiting.run_id)
    assert (result.status, sent) == ("completed", ["ana"])
    assert result.report.done == ("send", "pay")


# --- drain ----------------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["agent", "runtime"])
async def test_a_drained_run_stays_queued_until_the_old_declaration_is_back(
    tmp_path: Path, on: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy: OnChange = "drain"
    desk = Agent("desk", model=ScriptedModel([ToolCall("pay", PAY), "Done."]), tools=[pay_tool([])])
    waiting = await begun(tmp_path, desk)
    new = replace(desk, instructions="Be brief.", on_change=policy if on == "agent" else None)
    options: dict[str, Any] = {"on_change": policy} if on == "runtime" else {}
    caplog.set_level(logging.WARNING, "roadworthy")
    async with Runtime(url(tmp_path), patterns=[new], **options) as rt:
        await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        with pytest.raises(
            VersionHeld, match=r"stays queued.*: instructions, and on_change"
        ) as told:
            await rt.result(waiting.run_id)
        with pytest.raises(VersionHeld):
            async for _ in rt.events(waiting.run_id):
                pass
        assert (await rt.find(waiting.run_id)).status == "queued"
        assert "instructions" in await rt.held_up(waiting.run_id)
        command = ["show", waiting.run_id, "--url", url(tmp_path)]
        shown = await asyncio.to_thread(CliRunner().invoke, app, command)
        other = await rt.run(new, "Hello")  # what begins with it is not held
        assert other.status == "waiting"
        async with Runtime(url(tmp_path), execute=False) as looking:
            held_up = await looking.held_up(waiting.run_id)
            with pytest.raises(VersionHeld, match="in process"):
                await looking.result(waiting.run_id)
    assert 'on_change="continue"' in str(told.value)
    assert "in process" in held_up
    assert "stays queued" in shown.output
    said = [r for r in caplog.records if "stays queued" in r.getMessage()]
    assert len(said) == 1
    async with Runtime(url(tmp_path), patterns=[desk]) as rt:
        done = await rt.result(waiting.run_id)
        assert await rt.held_up(waiting.run_id) == ""
        assert await of_kind(rt, waiting.run_id, DeclarationChanged) == []
    assert (done.status, done.report.done) == ("completed", ("pay",))


async def test_a_drained_run_can_be_cancelled(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel([ToolCall("pay", PAY), "Done."]), tools=[pay_tool([])])
    waiting = await begun(tmp_path, desk)
    new = replace(desk, instructions="Be brief.", on_change="drain")
    async with Runtime(url(tmp_path), patterns=[new]) as rt:
        await rt.cancel(waiting.run_id)
        result = await rt.result(waiting.run_id)
        while not result.over:
            result = await rt.result(waiting.run_id)
    assert result.reason == "cancelled"

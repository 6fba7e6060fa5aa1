"""A run cut at any commit and resumed comes to the same end; a finished run replays without a
difference.

Shapes are drawn from seeds: turns of reads, effects, invented tools and bad arguments, provider
errors, limits, guardrails, typed output. Every cut is a copy of the store as a commit left it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from roadworthy import (
    Agent,
    Limits,
    Price,
    RunContext,
    RunResult,
    Runtime,
    Tool,
    ToolCall,
    Verdict,
    tool,
)
from roadworthy.agent import Reconciled
from roadworthy.errors import ModelOutcomeUnknown, ModelUnavailable, NotApplied, ToolError
from roadworthy.events import (
    Delivered,
    ModelFailed,
    ModelIntended,
    ModelReplied,
    RunEvent,
    ToolAttemptFailed,
    ToolFailed,
    ToolOutcome,
    ToolSucceeded,
)
from roadworthy.guardrails import guardrail
from roadworthy.messages import TokenUsage
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.testing.scripted import Turn
from tests.properties.books import books
from tests.properties.snapshots import Snapshots

pytestmark = pytest.mark.requirement("REC-8", "BEY-3", "MEM-3")

PRICE = Price(input=1, output=10)
USAGE = TokenUsage(input=50, output=5)
SHAPES = 12


class Answer(BaseModel):
    """What a typed run answers with."""

    text: str
    count: int = 0


def tools() -> Iterator[Tool[None]]:
    """One of each kind; what they return depends on their arguments alone."""

    @tool(effect="read")
    async def look(item: str) -> str:
        """Look."""
        return f"{item} is there"

    @tool(effect="read", cost="0.0001")
    def search(item: str) -> str:
        """Search."""
        if item == "none":
            raise ToolError("nothing found")
        return f"{item} found"

    @tool(effect="write")
    def put(run: RunContext[None], item: str) -> str:
        """Put."""
        return f"{item} put under {run.key[:4]}"

    def done(run: RunContext[None], item: str) -> Reconciled:
        return ("applied", f"{item} paid {run.key[:4]}")

    @tool(reconcile=done)
    async def pay(run: RunContext[None], item: str) -> str:
        """Pay."""
        return f"{item} paid {run.key[:4]}"

    @tool(approval="operator", reconcile=done)
    def close_account(run: RunContext[None], item: str) -> str:
        """Close."""
        return f"{item} paid {run.key[:4]}"

    @tool(retries=2)
    def flaky(run: RunContext[None], item: str) -> str:
        """Work at the second attempt."""
        if run.attempt == 1:
            raise NotApplied("busy")
        return f"{item} done"

    yield from (look, search, put, pay, close_account, flaky)


NAMES = ("look", "look", "search", "put", "pay", "close_account", "invented")


def script_of(draw: random.Random) -> list[Turn]:
    """Two to six turns of one to three calls, now and then a provider error, an answer."""
    script: list[Turn] = []
    for _ in range(draw.randint(2, 6)):
        if draw.random() < 0.2:
            unavailable = draw.random() < 0.5
            script.append(ModelUnavailable("503") if unavailable else ModelOutcomeUnknown("cut"))
        items = draw.sample("abcdefgh", draw.randint(1, 3))
        script.append([_call(draw, item) for item in items])
    return script


def _call(draw: random.Random, item: str) -> ToolCall:
    name = draw.choice(NAMES)
    wrong: Mapping[str, Any] = {"thing": item}
    item = "none" if name == "search" and draw.random() < 0.4 else item
    return ToolCall(name, wrong if draw.random() < 0.1 else {"item": item})


@guardrail("output")
def polite(_: RunContext[None], text: str) -> Verdict:
    """No promises."""
    return Verdict.revise("Do not promise.") if "promise" in text else Verdict.allow()


def agent_of(seed: int) -> Agent[None, Any]:
    """An agent of this shape, with a fresh model."""
    draw = random.Random(seed)  # noqa: S311
    script = script_of(draw)
    kind = seed % 4
    limits, more = Limits(), dict[str, Any]()
    if kind == 0:
        limits = Limits(turns=2)  # ends early, with a closing answer
        script += ["what there is"] * 9
    elif kind == 1:
        script += ["I promise it.", "It is done."]
        more = {"guardrails": [polite], "instructions": ["Be kind.", lambda run: f"{run.today}"]}
    elif kind == 2:
        script += ["no answer yet", ToolCall("final_answer", {"text": "it is", "count": 2})]
        more = {"output": Answer}
    else:
        script += ["done"]
    model = ScriptedModel(script, price=PRICE, usage=USAGE)
    return Agent("shape", model=model, tools=list(tools()), limits=limits, **more)


async def see_through(rt: Runtime, run_id: str) -> RunResult[Any]:
    """Approve whatever it waits for."""
    while not (result := await rt.wait(run_id)).over:
        for approval in result.waiting:
            decision = "approve" if approval.kind == "approval" else "respond"
            await rt.resolve(approval.id, decision, by="lea", note="done")  # type: ignore[arg-type]
    return result


async def journal(rt: Runtime, run_id: str) -> list[RunEvent]:
    return [event async for event in rt.events(run_id) if isinstance(event, RunEvent)]


def essence(events: list[RunEvent]) -> dict[str, Any]:
    """Every outcome by its key, without what depends on time and attempts."""
    found = {}
    for event in events:
        if event.outcome:
            assert event.key not in found, f"{event.key} has two outcomes"
            plain = msgspec.to_builtins(event)
            for name in ("at", "seq", "micros", "attempt", "attempts", "request_hash", "source"):
                plain.pop(name, None)
            if isinstance(event, ToolOutcome):
                plain.pop("nanos", None)
                plain.pop("phase", None)  # a crashed attempt is used up: the next one recovers
            found[event.key] = (type(event).__name__, plain)
    return found


@pytest.mark.parametrize("seed", range(SHAPES))
@pytest.mark.sqlite_only
async def test_a_cut_at_every_commit_comes_to_the_same_end(tmp_path: Path, seed: int) -> None:
    snapshots = Snapshots(tmp_path / "store.db", tmp_path / "cuts")
    clock = FakeClock(auto=True)
    async with Runtime(snapshots.url, clock=clock, on_event=snapshots.taken) as rt:
        run_id = await rt.start(agent_of(seed), "go", conversation="c")
        whole = await see_through(rt, run_id)
        recorded = await journal(rt, run_id)
        assert (await rt.replay(run_id)).differences == ()
    assert whole.text
    assert len(snapshots.files) > 10
    for cut in snapshots.files:
        url = f"sqlite:///{cut}"
        agent = agent_of(seed)
        async with Runtime(url, patterns=[agent], clock=FakeClock(auto=True)) as rt:
            resumed = await see_through(rt, run_id)
            events = await journal(rt, run_id)
            assert (await rt.replay(run_id)).differences == (), cut
        assert essence(events) == essence(recorded), cut
        assert (resumed.status, resumed.reason, resumed.text, resumed.output) == (
            whole.status,
            whole.reason,
            whole.text,
            whole.output,
        )
        assert resumed.report == whole.report
        check_money(url, events, resumed)
    shutil.rmtree(tmp_path / "cuts")


def check_money(url: str, events: list[RunEvent], result: RunResult[Any]) -> None:
    """The result, the journal and the accounts say the same; nothing is held."""
    replied = sum(e.nanos for e in events if isinstance(e, ModelReplied))
    assumed = sum(e.assumed for e in events if isinstance(e, ModelFailed | ToolAttemptFailed))
    paid = ToolSucceeded | ToolFailed | ToolAttemptFailed
    tools_ = sum(e.nanos for e in events if isinstance(e, paid))
    settled, thought, held = books(url)["run"]
    assert held == 0
    assert settled + thought == replied + assumed + tools_
    assert settled >= replied
    assert result.usage.nanos == replied + tools_
    assert result.usage.assumed_nanos == assumed
    assert settled == replied + tools_
    phases = result.usage.by_phase.values()
    assert sum(p.nanos for p in phases) == result.usage.nanos + result.usage.assumed_nanos
    intended = sum(isinstance(e, ModelIntended) for e in events)
    ends = sum(isinstance(e, ModelReplied | ModelFailed) for e in events)
    assert intended == ends


async def test_a_reopened_run_replays_and_counts_everything(tmp_path: Path) -> None:
    """Ended by its turns, reopened with more of them: one journal, one bill, no difference."""
    script: list[Turn] = [ToolCall("look", {"item": item}) for item in "abcd"]
    script[2:2] = ["so far"]  # the closing answer after two turns
    model = ScriptedModel([*script, "done"], price=PRICE, usage=USAGE)
    agent = Agent("shape", model=model, tools=list(tools()), limits=Limits(turns=2))
    url = f"sqlite:///{tmp_path}/s.db"
    async with Runtime(url) as rt:
        first = await rt.run(agent, "go", conversation="c")
        assert (first.status, first.text) == ("partial", "so far")
        await rt.resume(first.run_id, limits=Limits(turns=20))
        second = await rt.wait(first.run_id)
        events = await journal(rt, first.run_id)
        replayed = await rt.replay(first.run_id)
        history = await rt.history("c")
    assert (second.status, second.text) == ("completed", "done")
    assert [e.text for e in events if isinstance(e, Delivered)] == ["so far", "done"]
    assert sum(isinstance(e, ToolSucceeded) for e in events) == 4
    assert replayed.differences == ()
    check_money(url, events, second)
    assert history[-1].text == "done"


async def test_a_changed_instruction_shows_in_a_replay_only(tmp_path: Path) -> None:
    """Resume never fails on a prompt difference; a replay says where it is."""
    snapshots = Snapshots(tmp_path / "s.db", tmp_path / "cuts")
    script: list[Turn] = [ToolCall("look", {"item": "a"}), "done"]

    def agent(instructions: str) -> Agent[None, str]:
        model = ScriptedModel(script, price=PRICE, usage=USAGE)
        return Agent("shape", model=model, tools=list(tools()), instructions=instructions)

    async with Runtime(snapshots.url, on_event=snapshots.taken) as rt:
        result = await rt.run(agent("Be kind."), "go")
    async with Runtime(snapshots.url, patterns=[agent("Be brief.")]) as rt:
        differences = (await rt.replay(result.run_id)).differences
    assert [d.partition(":")[0] for d in differences] == ["turn/1/model", "turn/2/model"]
    middle = f"sqlite:///{snapshots.files[len(snapshots.files) // 2]}"
    async with Runtime(middle, patterns=[agent("Be brief.")]) as rt:
        assert (await rt.wait(result.run_id)).status == "completed"

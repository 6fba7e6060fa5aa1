"""The runs of a chaos trial: every kind of tool, model and wait, and a driver that sees them end.

Executed in child processes, again and again on the same folder until all runs are over. Invariant:
what the model says and what the tools do depends on the run and the turn alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from roadworthy import (
    Agent,
    Approval,
    Budget,
    Limits,
    Price,
    RunContext,
    Runtime,
    Tool,
    ToolCall,
    tool,
)
from roadworthy.agent import Reconciled
from roadworthy.clock import SystemClock
from roadworthy.errors import ModelOutcomeUnknown, ModelUnavailable, NotApplied, UnknownApproval
from roadworthy.messages import ModelRequest, TokenUsage
from roadworthy.testing import ScriptedModel
from roadworthy.testing.scripted import Turn
from tests.chaos.world import Deed, Outside, World

PRICE = Price(input="2.50", output=10)
RUNS = ("mixed", "waits", "money", "failing", "asks", "chat-1", "chat-2")
EFFECTS = dict(zip(RUNS, (3, 2, 2, 2, 1, 1, 1), strict=True))  # of each, by its script
THERE = "it is there"
_PAUSE = 0.004  # seconds a model takes, so that a kill finds calls in flight

SCRIPTS: dict[str, list[Turn]] = {
    "mixed": [
        [ToolCall("look", {"item": "a"}), ToolCall("look", {"item": "b"})],
        [ToolCall("put", {"item": "a"}), ToolCall("pay", {"item": "a"})],
        [ToolCall("put", {"item": "b"}), ToolCall("invented", {})],
        "mixed done",
    ],
    "waits": [
        [ToolCall("look", {"item": "c"}), ToolCall("mail", {"item": "c"})],
        [ToolCall("close_account", {"item": "c"})],
        "waits done",
    ],
    "money": [
        [ToolCall("search", {"item": "d"}), ToolCall("look", {"item": "d"})],
        [ToolCall("put", {"item": "d"}), ToolCall("mail", {"item": "d"})],
        "money done",
    ],
    "failing": [
        ModelUnavailable("503"),
        [ToolCall("flaky", {"item": "e"})],
        ModelOutcomeUnknown("cut off"),
        [ToolCall("lossy", {"item": "e"})],
        "failing done",
    ],
    "asks": [
        [ToolCall("ask_user", {"question": "Which one?"})],
        [ToolCall("put", {"item": "g"})],
        "asks done",
    ],
    "chat-1": [[ToolCall("put", {"item": "f"})], "chat-1 done"],
    "chat-2": [[ToolCall("pay", {"item": "f"})], "chat-2 done"],
}


class Hurry(SystemClock):
    """The real clock, but waiting takes a fortieth of the time: backoffs do not slow a trial."""

    async def sleep(self, seconds: float) -> None:
        """Wait a fortieth."""
        await super().sleep(seconds / 40)


def agent_for(world: Outside) -> Agent[None, str]:
    """The agent of all runs; which script it follows stands in the user's words."""

    async def say(request: ModelRequest) -> Turn:
        world.ask(request.run_id, request.ordinal)
        own = [m.text for m in request.messages if m.role == "user" and m.text in SCRIPTS]
        script = SCRIPTS[own[-1]]
        return script[request.ordinal] if request.ordinal < len(script) else "It ends here."

    model = ScriptedModel(
        lambda request: say(request),
        price=PRICE,
        usage=TokenUsage(input=400, output=30),
        latency=_PAUSE,
    )
    return Agent("desk", model=model, tools=list(tools_of(world)), limits=Limits(usd="0.50"))


def deed(run: RunContext[None], name: str, item: str) -> Deed:
    return Deed(run.run_id, name, item, run.key, run.attempt)


def tools_of(world: Outside) -> Iterator[Tool[None]]:
    """Reads, writes under a key, irreversible calls that can and cannot be reconciled."""
    yield from reads(world)
    yield from writes(world)
    yield from irreversible(world)


def reads(world: Outside) -> Iterator[Tool[None]]:
    @tool(effect="read")
    def look(run: RunContext[None], item: str) -> str:
        """Look."""
        world.look(deed(run, "look", item))
        return f"{item} is there"

    @tool(effect="read", cost="0.001")
    async def search(run: RunContext[None], item: str) -> str:
        """Search, for money."""
        world.look(deed(run, "search", item))
        return f"{item} was found"

    yield from (look, search)


def writes(world: Outside) -> Iterator[Tool[None]]:
    @tool(effect="write")
    async def put(run: RunContext[None], item: str) -> str:
        """Put."""
        world.do(deed(run, "put", item), honours_key=True)
        return f"{item} is put"

    @tool(effect="write", retries=4, breaker=None)
    def lossy(run: RunContext[None], item: str) -> str:
        """Put, and lose the reply the first time."""
        seen = world.has(run.key)
        world.do(deed(run, "lossy", item), honours_key=True)
        if not seen:
            raise ConnectionError("reply lost")
        return f"{item} is put"

    yield from (put, lossy)


def irreversible(world: Outside) -> Iterator[Tool[None]]:
    @tool(retries=4, breaker=None)
    async def flaky(run: RunContext[None], item: str) -> str:
        """Surely do nothing twice, then act."""
        if run.attempt <= 2:
            raise NotApplied("busy")
        world.do(deed(run, "flaky", item), honours_key=False)
        return f"{item} is done"

    async def paid(run: RunContext[None], item: str) -> Reconciled:
        there = world.settle(run.key, run.attempt)
        return ("applied", f"{item} is paid") if there else "not_applied"

    @tool(reconcile=paid)
    async def pay(run: RunContext[None], item: str) -> str:
        """Pay; the bank can be asked whether it happened."""
        world.do(deed(run, "pay", item), honours_key=False)
        return f"{item} is paid"

    @tool
    def mail(run: RunContext[None], item: str) -> str:
        """Send a letter; nobody can tell whether it left."""
        world.do(deed(run, "mail", item), honours_key=False)
        return f"{item} is mailed"

    @tool(approval="operator")
    async def close_account(run: RunContext[None], item: str) -> str:
        """Close an account, once a person agrees."""
        world.do(deed(run, "close_account", item), honours_key=False)
        return f"{item} is closed"

    yield from (flaky, pay, mail, close_account)


def open_runtime(folder: Path, agent: Agent[None, str]) -> Runtime:
    """The runtime of a trial."""
    budgets = [Budget("tenant", "day", usd="2"), Budget("user", "month", usd="1", tokens=400_000)]
    return Runtime(f"sqlite:///{folder}/store.db", patterns=[agent], budgets=budgets, clock=Hurry())


async def drive(folder: Path, at: Callable[[str], None], _: object = None) -> None:
    """Start all runs (again), answer whatever they wait for, return when all are over."""
    world = World(folder / "world.db", at)
    agent = agent_for(world)
    async with open_runtime(folder, agent) as rt:
        journal = rt._open.journal
        journal._tx.connection.set_trace_callback(lambda sql: boundary(sql, at))
        ids = []
        for name in RUNS:
            chat = name.partition("-")[0] if name in ("asks", "chat-1", "chat-2") else None
            ids.append(await rt.start(agent, name, key=name, conversation=chat))
        async with asyncio.TaskGroup() as group:
            for run_id in ids:
                group.create_task(_see_through(rt, agent, world, run_id))


def boundary(sql: str, at: Callable[[str], None]) -> None:
    word = sql.split(maxsplit=1)[0]
    if word in ("BEGIN", "COMMIT", "RELEASE"):
        at(word)


async def _see_through(rt: Runtime, agent: Agent[None, str], world: World, run_id: str) -> None:
    while not (result := await rt.wait(run_id)).over:
        if result.question is not None:
            await rt.start(agent, "the red one", conversation="asks")
        for approval in result.waiting:
            with suppress(UnknownApproval):  # decided in the moment before a kill
                await rt.resolve(approval.id, decision(world, approval), by="lea", note=THERE)


def decision(world: Outside, approval: Approval) -> Literal["respond", "approve"]:
    """A person who looks first: what has happened is told as its result, else it may run."""
    happened = world.has_item(approval.run_id, approval.tool, str(approval.arguments["item"]))
    return "respond" if approval.kind == "unknown_outcome" and happened else "approve"

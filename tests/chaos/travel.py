"""What is killed while it undoes: a journey booked in part, and its bookings taken back.

Executed in child processes, again and again on the same folder until the undoing is over.
Invariant: which effects there are depends on the plan alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from roadworthy import Agent, Limits, RunContext, Runtime, Tool, ToolCall, ToolError, tool
from roadworthy.agent import Reconciled
from roadworthy.errors import UnknownApproval
from roadworthy.testing import ScriptedModel
from roadworthy.tools import Undo
from tests.chaos.desk import Hurry, boundary, decision, deed
from tests.chaos.world import Outside, World

BOOKED = ("flight", "hotel", "tour")


def tools_of(world: Outside) -> Iterator[Tool[Any]]:
    """Three bookings, each taken back by a tool of another class, and one that fails."""

    def gone(run: RunContext[None], item: str) -> Reconciled:
        there = world.settle(run.key, run.attempt)
        return ("applied", "cancelled") if there else "not_applied"

    @tool(effect="write")
    def cancel_flight(run: RunContext[None], item: str) -> str:
        """Cancel; the same key is the same deed."""
        world.do(deed(run, "cancel_flight", item), honours_key=True)
        return "cancelled"

    @tool(reconcile=gone, breaker=None)
    def cancel_hotel(run: RunContext[None], item: str) -> str:
        """Cancel; the hotel can be asked whether it happened."""
        world.do(deed(run, "cancel_hotel", item), honours_key=False)
        return "cancelled"

    @tool
    def cancel_tour(run: RunContext[None], item: str) -> str:
        """Cancel; nobody can tell whether the letter left, so a person looks."""
        world.do(deed(run, "cancel_tour", item), honours_key=False)
        return "cancelled"

    for name, undo in zip(BOOKED, (cancel_flight, cancel_hotel, cancel_tour), strict=True):
        yield _booking(world, name, undo)

    @tool(effect="read")
    def find_car(item: str) -> str:
        """Fail."""
        raise ToolError("sold out")

    yield find_car


def _booking(world: Outside, name: str, undo: Tool[Any]) -> Tool[Any]:
    @tool(name=f"book_{name}", effect="write", undo=Undo(undo, {"item": "result.id"}))
    def book(run: RunContext[None], item: str) -> dict[str, str]:
        """Book; the same key is the same deed."""
        world.do(deed(run, f"book_{name}", item), honours_key=True)
        return {"id": f"{name}-{item}"}

    return book


def agent_for(world: Outside) -> Agent[None, str]:
    """Books flight, hotel and tour; then there is no car, and no turn left."""
    names = [*(f"book_{name}" for name in BOOKED), "find_car"]
    calls = [ToolCall(name, {"item": "a"}) for name in names]
    model = ScriptedModel(
        lambda request: [calls[request.ordinal]] if request.ordinal < len(calls) else "In part."
    )
    return Agent("travel", model=model, tools=list(tools_of(world)), limits=Limits(turns=4))


async def drive(folder: Path, at: Callable[[str], None], _: object = None) -> None:
    """Book what there is, have it undone, answer what is asked, return when that is over."""
    world = World(folder / "world.db", at)
    agent = agent_for(world)
    url = f"sqlite:///{folder}/store.db"
    async with Runtime(url, patterns=[agent], clock=Hurry()) as rt:
        rt._open.journal._tx.connection.set_trace_callback(lambda sql: boundary(sql, at))
        first = await rt.run(agent, "Book my journey.", key="journey")
        assert first.status == "partial"
        undo = await rt.undo(first.run_id, by="ana")
        while not (result := await rt.wait(undo)).over:
            for approval in result.waiting:
                with suppress(UnknownApproval):  # decided in the moment before a kill
                    await rt.resolve(approval.id, decision(world, approval), by="lea", note="gone")

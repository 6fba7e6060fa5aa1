"""Cost per step stays constant however long a run is: events, SQL statements, bytes."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from roadworthy import Agent, Limits, Price, Runtime, ToolCall, tool
from roadworthy.events import RunEvent, StreamEvent
from roadworthy.messages import TokenUsage
from roadworthy.testing import ScriptedModel
from roadworthy.testing.scripted import Turn

pytestmark = [pytest.mark.requirement("OBS-2", "REC-8"), pytest.mark.sqlite_only]

STEPS = 100  # turns of one model call and one tool call


@tool(effect="write", idempotent_by_nature=True)
async def put(item: str) -> str:
    """Put."""
    return f"{item} is put where it belongs, on the shelf behind the door"


async def long_run(url: str) -> tuple[list[RunEvent], Counter[int]]:
    """Events of the run and SQL statements by turn."""
    statements: Counter[int] = Counter()
    turn = 0
    events: list[RunEvent] = []

    def seen(event: StreamEvent) -> None:
        nonlocal turn
        if isinstance(event, RunEvent):
            events.append(event)
            turn = int(event.key.split("/")[1]) if event.key.startswith("turn/") else turn

    def statement(_: str) -> None:
        statements[turn] += 1

    script: list[Turn] = [ToolCall("put", {"item": f"{n:03}"}) for n in range(STEPS)]
    model = ScriptedModel(
        [*script, "done"], price=Price(input=1, output=1), usage=TokenUsage(input=50, output=5)
    )
    limits = Limits(turns=STEPS + 1, tool_calls=STEPS)
    agent = Agent("long", model=model, tools=[put], limits=limits)
    async with Runtime(url, on_event=seen) as rt:
        rt._open.journal._tx.connection.set_trace_callback(statement)
        result = await rt.run(agent, "go")
        assert result.status == "completed", result.report
        assert (await rt.replay(result.run_id)).differences == ()
    return events, statements


async def test_a_hundred_steps_cost_the_same_each(tmp_path: Path) -> None:
    events, statements = await long_run(f"sqlite:///{tmp_path}/s.db")
    per_turn = Counter(e.key.split("/")[1] for e in events if e.key.startswith("turn/"))
    assert {per_turn[str(n)] for n in range(2, STEPS)} == {5}
    early = [statements[n] for n in range(5, 15)]
    late = [statements[n] for n in range(STEPS - 10, STEPS)]
    assert sum(late) <= 1.3 * sum(early), (early, late)
    assert sum(late) / 10 < 60
    written = sizes(tmp_path / "s.db", events)
    first, last = sum(written[5:15]), sum(written[-11:-1])
    print(f"{sum(written) / STEPS:.0f} bytes a step, {sum(statements.values()) / STEPS:.0f} SQL")  # noqa: T201
    assert last <= 1.3 * first
    assert last / 10 < 4_000


def sizes(store: Path, events: list[RunEvent]) -> list[int]:
    """Bytes of rows and payloads by turn."""
    connection = sqlite3.connect(store)
    found = [0] * (STEPS + 2)
    query = (
        "SELECT key, 16 + length(run_id || type || key || body || refs),"
        " (SELECT coalesce(sum(length(id) + length(data)), 0) FROM payload"
        "  WHERE instr(event.refs, payload.id)) FROM event WHERE run_id = ?"
    )
    for key, row, payloads in connection.execute(query, (events[0].run_id,)):
        if key.startswith("turn/"):
            found[int(key.split("/")[1])] += row + payloads
    connection.close()
    return found

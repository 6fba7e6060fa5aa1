"""Roadworthy with a scripted model, one scenario per process: `python -m bench.scripted NAME`.

No network, so that what is measured is ours. Prints a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from statistics import median

from bench.meter import Reading, ends, read, slope
from bench.workload import PAID_STEPS, TASK
from bench.workshop import Script, budgets, desk, scripted
from roadworthy import Limits, RunOptions, Runtime, ToolCall
from roadworthy.messages import ModelRequest

LONG, RUNS, LATENCY = 100, 200, 0.2
Told = Mapping[str, float]


class Watched(Script):
    """A script that reads the meter at every turn."""

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        self.readings: list[Reading] = []

    def __call__(self, request: ModelRequest) -> ToolCall | str:
        """What is said next."""
        self.readings.append(read())
        return super().__call__(request)


async def alone(folder: str) -> Told:
    """Short runs one after the other: the whole CPU of a run without its provider."""
    async with Runtime(f"sqlite:///{folder}/alone.db", budgets=budgets()) as rt:
        agent = desk(scripted(Script(PAID_STEPS)), PAID_STEPS)
        for _ in range(20):
            await rt.run(agent, TASK)
        rounds = []
        for _ in range(5):
            before = read()
            for _ in range(40):
                await rt.run(agent, TASK)
            rounds.append(read() - before)
    return {
        "cpu_ms": median(r.cpu for r in rounds) / 40 * 1e3,
        "wall_ms": median(r.wall for r in rounds) / 40 * 1e3,
    }


async def together(folder: str) -> Told:
    """Many runs at once, each call taking its time: wall over ideal, CPU per run."""
    async with Runtime(f"sqlite:///{folder}/together.db", budgets=budgets()) as rt:
        await rt.run(desk(scripted(Script(PAID_STEPS)), PAID_STEPS), TASK)
        agent = desk(scripted(Script(PAID_STEPS), LATENCY), PAID_STEPS)
        rounds = []
        for _ in range(3):
            before = read()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(rt.run(agent, TASK)) for _ in range(RUNS)]
            rounds.append(read() - before)
            assert all(task.result().status == "completed" for task in tasks)  # noqa: S101 - or it is no figure
    wall = median(r.wall for r in rounds)
    ideal = (PAID_STEPS + 1) * LATENCY
    cpu = median(r.cpu for r in rounds) / RUNS * 1e3
    return {"wall_s": wall, "ideal_s": ideal, "over_ideal": wall / ideal, "cpu_ms": cpu}


async def long(folder: str) -> Told:
    """Runs of many steps: what a step costs at the start and at the end."""
    per_step: list[list[float]] = []
    path = f"{folder}/long.db"
    async with Runtime(f"sqlite:///{path}", budgets=budgets()) as rt:
        for _ in range(6):
            script = Watched(LONG)
            result = await rt.run(desk(scripted(script), LONG), TASK)
            assert result.status == "completed"  # noqa: S101 - or it is no figure
            turns = script.readings
            per_step.append([(turns[i + 1] - turns[i]).cpu * 1e6 for i in range(LONG)])
    typical = [median(step) for step in zip(*per_step[1:], strict=True)]  # the first one warms up
    sizes = _bytes_per_step(path, result.run_id)
    first, last = ends(typical)
    bytes_first, bytes_last = ends(sizes)
    return {
        "cpu_us_first_ten": first,
        "cpu_us_last_ten": last,
        "cpu_last_over_first": last / first,
        "cpu_us_growth_per_step": slope(typical),
        "bytes_first_ten": bytes_first,
        "bytes_last_ten": bytes_last,
        "bytes_last_over_first": bytes_last / bytes_first,
    }


def _bytes_per_step(path: str, run_id: str) -> list[float]:
    """What the journal holds of each turn: rows and payloads."""
    query = """
        SELECT sum(length(e.key) + length(e.body) + length(e.refs) + coalesce((
            SELECT sum(length(p.data)) FROM json_each(nullif(e.refs, '')) r
            JOIN payload p ON p.id = r.value), 0))
        FROM event e WHERE e.run_id = ? AND e.key LIKE 'turn/' || ? || '/%'"""
    connection = sqlite3.connect(path)
    found = [connection.execute(query, (run_id, n + 1)).fetchone()[0] for n in range(LONG)]
    connection.close()
    return [float(size) for size in found]


async def resume(folder: str) -> Told:
    """A run of 100 recorded steps goes on: from `resume` to the first new model call."""
    url = f"sqlite:///{folder}/resume.db"
    rounds = []
    for _ in range(3):
        script = Watched(LONG + 1)
        agent = desk(scripted(script), LONG)
        async with Runtime(url, budgets=budgets()) as rt:
            cut = Limits(turns=LONG, tool_calls=LONG + 20, usd=1_000)
            run_id = (await rt.run(agent, TASK, options=RunOptions(limits=cut))).run_id
        script.readings.clear()
        async with Runtime(url, budgets=budgets(), patterns=[agent]) as rt:
            before = read()
            await rt.resume(run_id, limits=Limits(turns=LONG + 20, tool_calls=LONG + 20, usd=1_000))
            assert (await rt.wait(run_id)).status == "completed"  # noqa: S101 - or it is no figure
        rounds.append(script.readings[0] - before)
    return {
        "wall_ms": median(r.wall for r in rounds) * 1e3,
        "cpu_ms": median(r.cpu for r in rounds) * 1e3,
    }


SCENARIOS: Mapping[str, Callable[[str], Awaitable[Told]]] = {
    "alone": alone,
    "together": together,
    "long": long,
    "resume": resume,
}


async def main(name: str) -> None:
    """Run one scenario on a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(await SCENARIOS[name](folder)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

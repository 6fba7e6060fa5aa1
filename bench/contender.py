"""One contender in a process of its own: `python -m bench.contender NAME URL`.

Reads `RUNS STEPS` from stdin, does so many runs one after the other, and answers with a line of
JSON: CPU and wall time of a run.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from contextlib import AsyncExitStack

from bench.contenders import Job
from bench.meter import read


async def main(name: str, url: str) -> None:
    """Serve the conductor until it closes our stdin."""
    contender = importlib.import_module(f"bench.contenders.{name}")
    async with AsyncExitStack() as stack:
        job: Job = await contender.start(url, stack)
        while line := await asyncio.to_thread(sys.stdin.readline):
            runs, steps = map(int, line.split())
            before = read()
            for _ in range(runs):
                answer = await job(steps)
                if "DONE" not in answer:
                    raise SystemExit(f"{name} answered {answer!r}")
            used = read() - before
            told = {"cpu_ms": used.cpu / runs * 1e3, "wall_ms": used.wall / runs * 1e3}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))

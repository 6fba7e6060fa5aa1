"""The engine of one process: each run once at a time, looked at again when asked meanwhile."""

from __future__ import annotations

import asyncio

from roadworthy.engine.inline import InlineEngine
from roadworthy.errors import StoreUnavailable


class Work:
    """What an engine executes: begins, and ends when it is let."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = asyncio.Event()
        self.started = asyncio.Event()
        self.error: Exception | None = None

    async def execute(self, run_id: str) -> None:
        self.begun.append(run_id)
        self.started.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error


async def idle(engine: InlineEngine) -> None:
    await engine.close(grace=5)


async def test_a_run_started_while_it_executes_is_looked_at_again_not_doubled() -> None:
    work = Work()
    engine = InlineEngine(work.execute)
    engine.start("r")
    await work.started.wait()
    engine.start("r")
    engine.start("r")
    assert work.begun == ["r"]
    assert engine.running == {"r"}
    work.go.set()
    await idle(engine)
    await idle(engine)
    assert work.begun == ["r", "r"]
    assert engine.running == frozenset()


async def test_an_error_of_one_run_leaves_the_others_alone() -> None:
    for error in (RuntimeError("a bug"), StoreUnavailable("full")):
        work = Work()
        work.error = error
        work.go.set()
        engine = InlineEngine(work.execute)
        engine.start("r")
        engine.start("s")
        await idle(engine)
        assert sorted(work.begun) == ["r", "s"]
        assert engine.running == frozenset()


async def test_no_more_than_so_many_execute_at_once() -> None:
    work = Work()
    engine = InlineEngine(work.execute, most=2)
    for name in "abcd":
        engine.start(name)
    await work.started.wait()
    assert work.begun == ["a", "b"]
    work.go.set()
    await idle(engine)
    assert work.begun == ["a", "b", "c", "d"]


async def test_closing_leaves_what_is_late_to_the_next_process() -> None:
    work = Work()
    engine = InlineEngine(work.execute)
    engine.start("r")
    await work.started.wait()
    await engine.close(grace=0)
    assert engine.running == frozenset()

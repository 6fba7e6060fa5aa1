"""kill -9 of the process that calls an MCP server: what follows goes by the class of the tool."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from roadworthy import Runtime
from roadworthy.events import ToolIntended, ToolSucceeded
from roadworthy.testing import FakeClock
from roadworthy.tools.mcp.connection import KEY
from tests.scenarios.mcp_worker import agent
from tests.scenarios.odd_http import OddHttp
from tests.scenarios.world import of_kind, url
from tests.structure.tree import ROOT

pytestmark = pytest.mark.requirement("TOL-4", "REC-8", "BEY-7")

Effect: TypeAlias = Literal["read", "write", "irreversible"]
EFFECTS: list[Effect] = ["read", "write", "irreversible"]


@asynccontextmanager
async def worker(folder: Path, where: str, effect: Effect) -> AsyncIterator[Process]:
    """A process that executes the run; killed when the block is left, if not before."""
    command = [sys.executable, "-m", "tests.scenarios.mcp_worker", url(folder), where, effect]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    try:
        yield process
    finally:
        await kill(process)


async def kill(process: Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    await process.wait()


async def taken_up(folder: Path, where: str, effect: Effect) -> tuple[list[str], list[str]]:
    """What another process makes of it: what it waits for, or how it ended; the keys intended."""
    desk = agent(where, effect)
    async with Runtime(url(folder), patterns=[desk], clock=FakeClock(auto=True)) as rt:
        (row,) = await rt.runs()
        result = await rt.wait(row.id)
        found: list[str] = [approval.kind for approval in result.waiting]
        found = found or [result.status]
        keys = [event.idempotency_key for event in await of_kind(rt, row.id, ToolIntended)]
        if result.waiting:
            await rt.resolve(result.waiting[0].id, "respond", by="lea", note="It took place.")
            assert (await rt.wait(row.id)).status == "completed"
        assert len(await of_kind(rt, row.id, ToolSucceeded)) == 1
        return found, keys


def check(effect: Effect, outcome: tuple[list[str], list[str]], called: list[str]) -> None:
    """called: the keys that arrived at the server, of both processes."""
    found, intended = outcome
    assert found == (["unknown_outcome"] if effect == "irreversible" else ["completed"])
    assert len(called) == (1 if effect == "irreversible" else 2)
    assert len(set(called)) == 1, "the same key again"
    if effect != "read":
        assert set(intended) == set(called)


def keys_of(state: Path) -> list[str]:
    lines = Path(f"{state}.calls").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["_meta"][KEY] for line in lines]


@pytest.mark.parametrize("effect", EFFECTS)
async def test_a_server_that_is_our_child_dies_with_us(tmp_path: Path, effect: Effect) -> None:
    state, pipe = tmp_path / "odd.json", tmp_path / "odd.json.pipe"
    state.write_text(json.dumps({"tools": {"look": "Looks."}, "say": "hang once"}))
    os.mkfifo(pipe)
    async with worker(tmp_path, str(state), effect) as process:
        told = await asyncio.to_thread(os.open, pipe, os.O_RDONLY)
        assert await asyncio.to_thread(os.read, told, 6) == b"called"
        await kill(process)
        assert await asyncio.to_thread(os.read, told, 1) == b"", "the server has ended, too"
        os.close(told)
    outcome = await taken_up(tmp_path, str(state), effect)
    check(effect, outcome, keys_of(state))


@pytest.mark.parametrize("effect", EFFECTS)
async def test_a_server_over_http_lives_on_without_us(tmp_path: Path, effect: Effect) -> None:
    with OddHttp(hold=True) as odd:
        async with worker(tmp_path, odd.url, effect) as process:
            assert await asyncio.to_thread(odd.called.wait, 60)
            await kill(process)
        odd.go_on.set()  # it does what it was asked, and finds nobody to tell
        outcome = await taken_up(tmp_path, odd.url, effect)
        check(effect, outcome, odd.keys)

"""Every fault of the far side x every effect x how often: the right end, each effect once or put
before a person, and no longer than declared.

The server and the wire are real; pauses pass on the injected clock.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from roadworthy import Agent, NotApplied, RunContext, RunResult, Runtime, Tool, ToolCall, tool
from roadworthy.agent import Effect
from roadworthy.events import ToolFailed, ToolRefused, ToolSucceeded
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.tools import AskPerson, Default
from tests.scenarios.far_side import ALWAYS, RETRY_AFTER, FarSide, Fault
from tests.scenarios.world import of_kind, url

FAULTS: list[Fault] = ["timeout", "reset", "429", "500", "slow", "malformed", "schema", "hang"]
EFFECTS: list[Effect] = ["read", "write", "irreversible"]
TIMES = [1, 3, ALWAYS]
TIMEOUT, HTTP_TIMEOUT = 1.0, 0.4
BACKOFF = 0.2 + 0.4  # the most that two pauses take


async def ask(side: FarSide, effect: Effect, key: str) -> int:
    """What a careful author writes."""
    hangs = side.fault == "hang"
    async with httpx.AsyncClient(timeout=None if hangs else HTTP_TIMEOUT) as client:
        headers = {"Idempotency-Key": key}
        answer = await client.post(f"{side.url}/{effect}", headers=headers, json={})
    if answer.status_code == 429 and effect != "read":
        raise NotApplied("Too many requests.", retry_after=float(answer.headers["Retry-After"]))
    answer.raise_for_status()
    return int(answer.json()["value"])


def acting(side: FarSide, effect: Effect) -> Tool[None]:
    timeout = HTTP_TIMEOUT if side.fault == "hang" else TIMEOUT
    fallback = Default("unknown") if effect == "read" else AskPerson()

    @tool(effect=effect, timeout=timeout, fallback=fallback)
    async def act(run: RunContext[None], x: int) -> int:
        """Act. x: any."""
        return await ask(side, effect, run.key)

    return act


def expected(fault: Fault, effect: Effect, times: int) -> str:
    """How the run stands: done, degraded, or before a person and with which question."""
    if fault == "slow":
        return "done"
    if effect == "read":
        transient = fault != "schema"  # to ask again gives the same shape
        return "done" if transient and times == 1 else "degraded"
    if fault == "429":
        return "done" if times == 1 else "failure"
    if effect == "write" and times == 1:
        return "done"
    return "unknown_outcome"


async def stands(rt: Runtime, result: RunResult) -> str:
    if result.waiting:
        return result.waiting[0].kind
    (done,) = await of_kind(rt, result.run_id, ToolSucceeded)
    assert result.status == "completed"
    return {"call": "done", "default": "degraded"}[done.source]


@pytest.mark.requirement("REC-1", "REC-7", "TOL-3", "TOL-4")
@pytest.mark.parametrize("times", TIMES, ids=["once", "three", "always"])
@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault(tmp_path: Path, fault: Fault, effect: Effect, times: int) -> None:
    async with FarSide(fault, times).serving() as side:
        model = ScriptedModel([ToolCall("act", {"x": 1}), "Done."])
        agent = Agent("desk", model=model, tools=[acting(side, effect)])
        async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
            result = await rt.run(agent, "Go")
            assert await stands(rt, result) == expected(fault, effect, times)
            pauses = 2 * RETRY_AFTER if fault == "429" else BACKOFF
            assert result.usage.seconds <= pauses + 0.01
            assert side.asked <= 3
            await put_right(rt, side, result)
            if effect != "read":
                assert side.applied[f"/{effect}"] == 1
            replayed = await rt.replay(result.run_id)
    assert replayed.differences == ()


async def put_right(rt: Runtime, side: FarSide, result: RunResult) -> None:
    """The far side is well again, and a person says what is true."""
    side.times = 0
    for approval in result.waiting:
        if approval.kind == "failure" or not side.applied:
            await rt.resolve(approval.id, "approve", by="lea")
        else:
            await rt.resolve(approval.id, "respond", by="lea", note="42")
        assert (await rt.result(result.run_id)).status == "completed"
        assert await of_kind(rt, result.run_id, ToolSucceeded)
        assert not await of_kind(rt, result.run_id, ToolFailed)
        assert not await of_kind(rt, result.run_id, ToolRefused)


ASKED = ["waiting", "unknown_outcome"]
EXITS: dict[tuple[Effect, int], tuple[list[str], int]] = {  # how it ends, after how many deaths
    ("read", 1): (["completed"], 1),
    ("read", 3): (["completed"], 3),
    ("read", ALWAYS): (["stopped"], 4),  # parked: the first of them came to a reply
    ("write", 1): (["completed"], 1),
    ("write", 3): (ASKED, 3),
    ("write", ALWAYS): (ASKED, 3),
    ("irreversible", 1): (ASKED, 1),
    ("irreversible", 3): (ASKED, 1),
    ("irreversible", ALWAYS): (ASKED, 1),
}


@pytest.mark.requirement("REC-1", "REC-7", "REC-8", "TOL-4")
@pytest.mark.sqlite_only
@pytest.mark.parametrize("times", TIMES, ids=["once", "three", "always"])
@pytest.mark.parametrize("effect", EFFECTS)
async def test_a_process_that_exits_in_the_call(tmp_path: Path, effect: Effect, times: int) -> None:
    """What kills processes is not tried for ever."""
    async with FarSide("exit", times).serving() as side:
        said: list[Any] | None = None
        deaths = 0
        while said is None and deaths < 6:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.scenarios.exiting", url(tmp_path), effect, side.url,
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, _ = await child.communicate()
            if child.returncode == 0:
                said = json.loads(out)
            else:
                assert child.returncode == 17
                deaths += 1
    assert (said, deaths) == EXITS[effect, times]
    if effect != "read":
        assert side.applied[f"/{effect}"] == 1

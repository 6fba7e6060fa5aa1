"""What keeps failing at the far side is left alone for a while, and a slow tool alone is slow."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from roadworthy import (
    Agent,
    RunContext,
    RunResult,
    Runtime,
    Tool,
    ToolCall,
    ToolError,
    User,
    tool,
)
from roadworthy.errors import ModelUnavailable
from roadworthy.events import (
    BreakerRefused,
    ModelIntended,
    ToolAttemptFailed,
    ToolFailed,
    ToolIntended,
    ToolRungLeft,
    ToolSucceeded,
)
from roadworthy.messages import ModelRequest
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.tools import Breaker, Default
from tests.scenarios.world import Given, of_kind, url

QUICK = Breaker(failures=2, cooldown=30)


def once(name: str) -> ScriptedModel:
    """Asks for the tool once in each run."""

    def said(request: ModelRequest) -> str | ToolCall:
        done = any(message.role == "tool" for message in request.messages)
        return "Done." if done else ToolCall(name, {"x": 1})

    return ScriptedModel(said)


class Line:
    """What is behind a tool: `up` says whether it answers."""

    def __init__(self, error: Exception | None = None) -> None:
        self.up, self.asked, self.error = False, 0, error or ConnectionError("down")

    def tool(self, **options: Given) -> Tool[None]:
        @tool(**{"effect": "read", "retries": 0, **options})
        def look(x: int) -> str:
            """Look. x: any."""
            self.asked += 1
            if not self.up:
                raise self.error
            return "seen"

        return look


def desk(*tools: Tool[None]) -> Agent[None, str]:
    return Agent("desk", model=once(tools[0].name), tools=tools)


async def outcome(rt: Runtime, result: RunResult) -> ToolSucceeded | ToolFailed:
    found = await of_kind(rt, result.run_id, ToolSucceeded | ToolFailed)  # type: ignore[arg-type]
    return found[0]


@pytest.mark.requirement("REC-1", "REC-7")
async def test_an_open_breaker_leads_to_the_next_rung_at_once_and_one_probe_closes_it(
    tmp_path: Path,
) -> None:
    line, clock = Line(), FakeClock(auto=True)
    agent = desk(line.tool(breaker=QUICK, fallback=Default("?")))
    async with Runtime(url(tmp_path), clock=clock) as rt:
        for _ in range(2):
            await rt.run(agent, "Go")
        refused = await rt.run(agent, "Go")
        (left,) = await of_kind(rt, refused.run_id, ToolRungLeft)
        assert (line.asked, left.code, left.attempts) == (2, "breaker_open", 0)
        assert (await outcome(rt, refused)).result.content.startswith(
            "[look failed (breaker_open); a declared stand-in"
        )
        assert (await rt.replay(refused.run_id)).differences == ()
        await clock.sleep(30)
        await rt.run(agent, "Go")  # a probe, which fails
        await rt.run(agent, "Go")
        assert line.asked == 3
        line.up = True
        await clock.sleep(30)
        for _ in range(3):
            done = await outcome(rt, await rt.run(agent, "Go"))
            assert isinstance(done, ToolSucceeded)
            assert done.source == "call"
    assert line.asked == 6


@pytest.mark.requirement("REC-1")
async def test_without_another_rung_the_model_is_told_in_one_line(tmp_path: Path) -> None:
    line = Line()
    agent = desk(line.tool(breaker=Breaker(failures=1)))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        await rt.run(agent, "Go")
        failed = await outcome(rt, await rt.run(agent, "Go"))
    assert isinstance(failed, ToolFailed)
    assert (line.asked, failed.code) == (1, "breaker_open")
    assert failed.result.content == (
        "look failed: it failed too often just now and is left alone. Do not repeat the same call; "
        "use another way or tell the user."
    )


@pytest.mark.parametrize("error", [ToolError("No such order."), KeyError("price"), ValueError("x")])
async def test_what_says_nothing_of_the_far_side_opens_no_breaker(
    tmp_path: Path, error: Exception
) -> None:
    line = Line(error)
    agent = desk(line.tool(breaker=Breaker(failures=1)))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        for _ in range(4):
            await rt.run(agent, "Go")
    assert line.asked == 4


def answered(status: int) -> Exception:
    request = httpx.Request("GET", "http://far.example")
    response = httpx.Response(status, request=request)
    return httpx.HTTPStatusError(str(status), request=request, response=response)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429])
async def test_what_one_tenant_is_refused_opens_no_breaker_for_others(
    tmp_path: Path, status: int
) -> None:
    line = Line(answered(status))
    agent = desk(line.tool(breaker=QUICK))
    ana, ben = User("ana", "acme"), User("ben", "bolt")
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        for _ in range(4):
            await rt.run(agent, "Go", user=ana)
        assert line.asked == (2 if status == 429 else 4)  # who asks too much is left alone itself
        line.up = True
        assert isinstance(await outcome(rt, await rt.run(agent, "Go", user=ben)), ToolSucceeded)


async def test_a_tenant_that_asked_too_much_is_let_in_again_by_a_probe_of_its_own(
    tmp_path: Path,
) -> None:
    line, clock = Line(answered(429)), FakeClock(auto=True)
    agent, ana = desk(line.tool(breaker=QUICK)), User("ana", "acme")
    async with Runtime(url(tmp_path), clock=clock) as rt:
        for _ in range(3):
            await rt.run(agent, "Go", user=ana)
        found = [f.what for f in await rt.crew.checkup() if f.level == "warning"]
        assert [what.partition(" is open")[0].endswith(" of tenant acme") for what in found] == [
            True
        ]
        line.up = True
        await clock.sleep(30)
        for _ in range(2):
            done = await outcome(rt, await rt.run(agent, "Go", user=ana))
            assert isinstance(done, ToolSucceeded)
    assert line.asked == 4


async def test_a_far_side_that_is_down_is_down_for_all_tenants(tmp_path: Path) -> None:
    line = Line(answered(503))
    agent = desk(line.tool(breaker=QUICK))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        for name in ("ana", "ben", "cleo"):
            await rt.run(agent, "Go", user=User(name, f"tenant of {name}"))
    assert line.asked == 2


@pytest.mark.requirement("REC-1", "TOL-4")
async def test_a_write_of_unknown_outcome_is_not_repeated_into_an_open_breaker(
    tmp_path: Path,
) -> None:
    line = Line()
    agent = desk(line.tool(effect="write", idempotent_by_nature=True, retries=5, breaker=QUICK))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(agent, "Go")
        assert (result.status, result.waiting[0].kind) == ("waiting", "unknown_outcome")
        assert line.asked == 2
        assert len(await of_kind(rt, result.run_id, ToolIntended)) == 2


def failing_model(name: str, asked: list[str], up: list[bool]) -> ScriptedModel:
    def said(_: ModelRequest) -> Given:
        asked.append(name)
        return "Hello." if up[0] else ModelUnavailable("503")

    return ScriptedModel(said, name=name)


@pytest.mark.requirement("REC-7", "TOL-3")
async def test_a_model_that_keeps_failing_is_passed_over_until_its_probe_goes_well(
    tmp_path: Path,
) -> None:
    asked: list[str] = []
    up = [False]
    tier = [failing_model("first", asked, up), failing_model("second", asked, [True])]
    clock, agent = FakeClock(auto=True), Agent("desk", model="large")
    async with Runtime(url(tmp_path), tiers={"large": tier}, clock=clock) as rt:
        for _ in range(3):
            assert (await rt.run(agent, "Hi")).text == "Hello."
        whole = ["first"] * 4 + ["second"]
        assert asked == [*whole, *whole, "first", "first", "second"]  # the tenth failure opens it
        passed = await rt.run(agent, "Hi")
        (refused,) = await of_kind(rt, passed.run_id, BreakerRefused)
        intended = await of_kind(rt, passed.run_id, ModelIntended)
        assert (refused.model, [i.model for i in intended]) == ("first", ["second"])
        assert refused.until > refused.at
        assert (await rt.replay(passed.run_id)).differences == ()
        up[0] = True
        await clock.sleep(31)
        await rt.run(agent, "Hi")
        await rt.run(agent, "Hi")
    assert asked[-3:] == ["second", "first", "first"]


async def test_when_no_model_is_left_the_run_ends_as_when_models_fail(tmp_path: Path) -> None:
    asked: list[str] = []
    agent = Agent("desk", model=failing_model("only", asked, [False]))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        ends = [await rt.run(agent, "Hi") for _ in range(4)]
    assert {(end.status, end.reason) for end in ends} == {("failed", "model_failed")}
    assert len(asked) == 10
    assert "left alone" in ends[3].report.why


async def test_doctor_tells_what_is_left_alone(tmp_path: Path) -> None:
    agent = desk(Line().tool(breaker=QUICK))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        for _ in range(2):
            await rt.run(agent, "Go")
        found = [f.what for f in await rt.crew.checkup() if f.level == "warning"]
    assert len(found) == 1
    assert found[0].startswith("the breaker of tool:look:")
    assert found[0].endswith(
        "is open (ConnectionError) since 2026-01-01 00:00:00 UTC; one call tries in 30 s"
    )


async def test_a_breaker_that_is_open_outlives_its_process(tmp_path: Path) -> None:
    line, clock = Line(), FakeClock(auto=True)
    agent = desk(line.tool(breaker=QUICK))
    for _ in range(2):
        async with Runtime(url(tmp_path), clock=clock) as rt:
            for _ in range(2):
                await rt.run(agent, "Go")
    assert line.asked == 2


# --- bulkheads ----------------------------------------------------------------------------


@pytest.mark.requirement("REC-7")
async def test_a_slow_tool_cannot_take_all_threads(tmp_path: Path) -> None:
    """80 runs wait for a tool that hangs; another tool answers all the same."""
    go, begun = threading.Event(), threading.Semaphore(0)
    running = 0

    @tool(effect="read")
    def slow(x: int) -> str:
        """Slow. x: any."""
        nonlocal running
        running += 1
        begun.release()
        go.wait(20)
        return "late"

    @tool(effect="read")
    def quick(x: int) -> str:
        """Quick. x: any."""
        return "at once"

    hung = Agent("hung", model=once("slow"), tools=[slow])
    well = Agent("well", model=once("quick"), tools=[quick])
    async with Runtime(url(tmp_path), patterns=[hung, well]) as rt:
        waiting = [await rt.start(hung, "Go") for _ in range(80)]
        for _ in range(16):
            assert await asyncio.to_thread(begun.acquire, timeout=10)
        async with asyncio.timeout(10):
            assert (await rt.run(well, "Go")).status == "completed"
        assert running == 16  # a quarter of the threads
        go.set()
        ends = [await rt.wait(run_id) for run_id in waiting]
        done = [await outcome(rt, end) for end in ends]
    assert {end.status for end in ends} == {"completed"}
    assert sum(1 for each in done if each.waited) >= 64


@pytest.mark.requirement("REC-7")
@pytest.mark.parametrize("effect", ["read", "irreversible"])
async def test_a_call_that_gets_no_place_in_its_time_was_never_begun(
    tmp_path: Path, effect: Given
) -> None:
    """Also an effect: that it got no place is no unknown outcome."""
    go, begun = asyncio.Event(), asyncio.Event()

    @tool(effect=effect, concurrency=1, timeout=0.2, retries=0, name="look")
    async def look(run: RunContext[None], x: int) -> str:
        """Look. x: any."""
        begun.set()
        await go.wait()
        return "seen"

    first = Agent("first", model=once("look"), tools=[_patient(look)])
    second = Agent("second", model=once("look"), tools=[look])
    async with Runtime(url(tmp_path), patterns=[first, second]) as rt:
        holder = await rt.start(first, "Go")
        await begun.wait()
        result = await rt.run(second, "Go")
        failed = await outcome(rt, result)
        assert isinstance(failed, ToolFailed)
        assert failed.code == "busy"
        assert "all 1 calls it may have at once stayed busy" in failed.result.content
        assert await of_kind(rt, result.run_id, ToolIntended) == []
        assert await of_kind(rt, result.run_id, ToolAttemptFailed) == []
        go.set()
        assert (await rt.wait(holder)).status == "completed"
        assert isinstance(await outcome(rt, await rt.run(second, "Go")), ToolSucceeded)


@pytest.mark.requirement("REC-7")
async def test_a_thread_that_outlives_its_time_keeps_its_place_until_it_returns(
    tmp_path: Path,
) -> None:
    go, over = threading.Event(), threading.Event()
    asked = 0

    @tool(effect="read", concurrency=1, timeout=0.2, retries=0, breaker=None)
    def look(x: int) -> str:
        """Look. x: any."""
        nonlocal asked
        asked += 1
        if asked == 1:
            go.wait(20)
            over.set()
        return "seen"

    agent = desk(look)
    async with Runtime(url(tmp_path)) as rt:
        codes = []
        for _ in range(2):
            failed = await outcome(rt, await rt.run(agent, "Go"))
            assert isinstance(failed, ToolFailed)
            codes.append(failed.code)
        assert (codes, asked) == (["timeout", "busy"], 1)
        go.set()
        assert await asyncio.to_thread(over.wait, 10)
        assert isinstance(await outcome(rt, await rt.run(agent, "Go")), ToolSucceeded)


def _patient(made: Tool[None]) -> Tool[None]:
    return replace(made, timeout=20.0)

"""Several processes on one store: one owner executes; the others start, view and cancel."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from roadworthy import Agent, Limits, RunEvent, Runtime, ToolCall, tool
from roadworthy.errors import PatternUnknown
from roadworthy.events import RunEnded, SegmentLeft
from roadworthy.messages import ModelRequest
from roadworthy.store.opening import open_database
from roadworthy.testing import ScriptedModel
from tests.scenarios.world import of_kind, url

DESK = '''
import asyncio, sys
from pathlib import Path
from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.store.opening import open_database
from roadworthy.testing import ScriptedModel

folder = Path(sys.argv[1])

@tool(effect="write", idempotent_by_nature=True)
def note(text: str) -> str:
    """Note. text: what."""
    with (folder / "notes.txt").open("a") as file:
        file.write(text + "\\n")
    return "noted"

async def turn(request):
    words = request.messages[0].text.split()
    if words[0] == "hang" and request.ordinal == 1:
        print("hanging", flush=True)
        await asyncio.Event().wait()
    return "Done." if request.ordinal else ToolCall("note", {"text": words[-1]})

desk = Agent("desk", model=ScriptedModel(turn), tools=[note])
runtime = Runtime(patterns=[desk])
'''

OWNER = (
    DESK
    + """
async def main():
    async with runtime:
        if len(sys.argv) > 2:
            await runtime.start(desk, sys.argv[2], key="first")
        print("open", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
)

GUEST = (
    DESK
    + """
async def main():
    async with runtime:
        result = await runtime.run(desk, "write guest", key="guest")
        print(result.status, result.text, flush=True)
        for row in await runtime.runs():
            print(row.id, row.status, flush=True)
            if row.status == "running":
                await runtime.cancel(row.id, by="guest")
                print((await runtime.result(row.id)).reason, flush=True)

asyncio.run(main())
"""
)


async def begin(folder: Path, code: str, *arguments: str) -> Process:
    """A process of its own that runs this code."""
    command = [sys.executable, "-c", code, str(folder), *arguments]
    store = open_database(url(folder)).url  # the file, or what stands for it
    return await asyncio.create_subprocess_exec(
        *command, stdout=PIPE, env={**os.environ, "ROADWORTHY_URL": store}
    )


async def said(process: Process, word: str) -> None:
    """Wait until the process has printed this line."""
    assert process.stdout is not None
    async for line in process.stdout:
        if line.decode().strip() == word:
            return
    raise AssertionError(f"the process never said {word!r}")


async def end(process: Process) -> None:
    """As a power cut does it."""
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    await process.wait()


@tool(effect="write", idempotent_by_nature=True)
def note(text: str) -> str:
    """Note. text: what."""
    return "noted here"


def desk(folder: Path) -> Agent:
    """The same agent in this process."""

    def turn(request: ModelRequest) -> str | ToolCall:
        words = request.messages[0].text.split()
        return "Done." if request.ordinal else ToolCall("note", {"text": words[-1]})

    @tool(effect="write", idempotent_by_nature=True, name="note")
    def keep(text: str) -> str:
        """Note. text: what."""
        with (folder / "notes.txt").open("a") as file:
            file.write(text + "\n")
        return "noted"

    return Agent("desk", model=ScriptedModel(turn), tools=[keep])


async def test_a_guest_starts_runs_that_the_owner_executes_and_sees_them_end(
    tmp_path: Path,
) -> None:
    owner = await begin(tmp_path, OWNER)
    try:
        await said(owner, "open")
        agent = desk(tmp_path)
        model = agent.model
        async with Runtime(url(tmp_path), patterns=[agent]) as rt:
            result = await rt.run(agent, "write here", key="k")
            again = await rt.run(agent, "write here", key="k")
            names = [type(e).__name__ async for e in rt.stream(agent, "write there")]
    finally:
        await end(owner)
    assert (result.status, result.text) == ("completed", "Done.")
    assert again.run_id == result.run_id
    assert names[0] == "RunStarted"
    assert names[-1] == "RunEnded"
    assert isinstance(model, ScriptedModel)
    assert model.requests == []  # nothing was executed here
    assert (tmp_path / "notes.txt").read_text().split() == ["here", "there"]


async def test_a_guest_cancels_what_the_owner_executes(tmp_path: Path) -> None:
    owner = await begin(tmp_path, OWNER, "hang once")
    try:
        await said(owner, "hanging")
        async with Runtime(url(tmp_path)) as rt:
            (row,) = await rt.runs()
            assert row.status == "running"
            await rt.cancel(row.id, by="ops")
            result = await rt.result(row.id)
            (ended,) = await of_kind(rt, row.id, RunEnded)
    finally:
        await end(owner)
    assert (result.status, result.reason) == ("stopped", "cancelled")
    assert ended.status == "stopped"


@pytest.mark.requirement("REC-8", "MEM-3")
async def test_when_the_owner_is_killed_another_process_goes_on_where_it_was(
    tmp_path: Path,
) -> None:
    owner = await begin(tmp_path, OWNER, "hang once")
    try:
        await said(owner, "hanging")
        agent = desk(tmp_path)
        async with Runtime(url(tmp_path), patterns=[agent]) as rt:
            (row,) = await rt.runs()
            assert row.status == "running"
            await end(owner)
            result = await rt.result(row.id)
            events = [e async for e in rt.events(row.id) if isinstance(e, RunEvent)]
    finally:
        await end(owner)
    assert (result.status, result.text) == ("completed", "Done.")
    assert (tmp_path / "notes.txt").read_text().split() == ["once"]
    names = [type(e).__name__ for e in events]
    assert names.count("SegmentStarted") == 2
    assert names.count("ToolSucceeded") == 1
    assert [e.seq for e in events] == list(range(len(events)))


async def test_while_this_process_owns_the_file_another_starts_views_and_cancels(
    tmp_path: Path,
) -> None:
    never = asyncio.Event()
    begun = asyncio.Event()

    async def turn(request: ModelRequest) -> str | ToolCall:
        words = request.messages[0].text.split()
        if words[0] == "hang":
            begun.set()
            await never.wait()
        return "Done." if request.ordinal else ToolCall("note", {"text": words[-1]})

    agent = Agent("desk", model=ScriptedModel(turn), tools=[note])
    async with Runtime(url(tmp_path), patterns=[agent]) as rt:
        hanging = await rt.start(agent, "hang here")
        await begun.wait()
        guest = await begin(tmp_path, GUEST)
        output, _ = await guest.communicate()
        assert (await rt.result(hanging)).reason == "cancelled"
    lines = output.decode().splitlines()
    assert guest.returncode == 0
    assert lines[0] == "completed Done."
    assert f"{hanging} running" in lines
    assert lines[-1] == "cancelled" or "cancelled" in lines
    assert not (tmp_path / "notes.txt").exists()  # the owner's tool ran, not the guest's


async def test_a_decision_by_a_guest_wakes_the_owners_run(tmp_path: Path) -> None:
    @tool(approval="operator")
    def pay(order_id: str) -> str:
        """Pay. order_id: such as A-17."""
        return "paid"

    model = ScriptedModel([ToolCall("pay", {"order_id": "A"}), "Paid."])
    agent = Agent("desk", model=model, tools=[pay])
    code = DESK + (
        "\nasync def main():\n"
        "    async with runtime:\n"
        "        await runtime.resolve(sys.argv[2], 'approve', by='lea')\n"
        "asyncio.run(main())\n"
    )
    async with Runtime(url(tmp_path), patterns=[agent]) as rt:
        waiting = await rt.run(agent, "Pay")
        guest = await begin(tmp_path, code, waiting.waiting[0].id)
        assert await guest.wait() == 0
        done = await rt.result(waiting.run_id)
    assert (done.status, done.text) == ("completed", "Paid.")


async def test_two_runtimes_of_one_process_share_the_file_too(tmp_path: Path) -> None:
    agent = Agent("desk", model=ScriptedModel(lambda _: "Hi."))
    async with Runtime(url(tmp_path), patterns=[agent]) as first:
        async with Runtime(url(tmp_path), patterns=[agent]) as second:
            result = await second.run(agent, "Hello")
            assert (await first.result(result.run_id)).text == "Hi."
        assert (await first.run(agent, "Hello")).text == "Hi."


def told(request: ModelRequest) -> str:
    return "Done."


async def wait_for(rt: Runtime, agent: Agent) -> None:
    await rt.run(agent, "x", key="k")


async def follow(rt: Runtime, agent: Agent) -> None:
    async for _ in rt.stream(agent, "x", key="k"):
        pass


@pytest.mark.parametrize("ask", [wait_for, follow])
async def test_a_guest_is_told_that_the_owner_does_not_know_its_agent(
    tmp_path: Path, ask: Callable[[Runtime, Agent], Awaitable[None]]
) -> None:
    known = Agent("known", model=ScriptedModel(told))
    strange = Agent("strange", model=ScriptedModel(told))
    async with Runtime(url(tmp_path), patterns=[known]) as owner:
        async with Runtime(url(tmp_path)) as guest:
            assert (await guest.run(known, "x")).text == "Done."
            with pytest.raises(PatternUnknown, match=r"no pattern 'strange'.*patterns=\[strange\]"):
                await ask(guest, strange)
        assert {row.pattern: row.status for row in await owner.runs()} == {
            "known": "completed",
            "strange": "queued",
        }
    async with (
        Runtime(url(tmp_path), patterns=[known, strange]),
        Runtime(url(tmp_path)) as guest,
    ):
        assert (await guest.run(strange, "x", key="k")).text == "Done."


async def test_a_slow_run_survives_any_number_of_deployments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each closes the process in the middle of a model call: nobody died, no attempt is used up."""
    monkeypatch.setattr("roadworthy.runtime.CLOSE_SECONDS", 0.0)
    asked = asyncio.Event()

    async def slow(request: ModelRequest) -> str:
        assert request.ordinal == 0  # the model did not fail: a script does not go on
        asked.set()
        if deployment < 6:
            await asyncio.Event().wait()
        return "Done."

    desk = Agent("desk", model=ScriptedModel(slow), limits=Limits(usd=None))
    run_id = ""
    for deployment in range(7):
        asked.clear()
        async with Runtime(url(tmp_path), patterns=[desk]) as rt:
            run_id = run_id or await rt.start(desk, "x")
            await asked.wait()
            if deployment == 6:
                result = await rt.result(run_id)
                left = await of_kind(rt, run_id, SegmentLeft)
    assert (result.status, result.text, len(left)) == ("completed", "Done.", 6)


async def test_who_only_looks_executes_nothing(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel(told))
    looking = Runtime(url(tmp_path), patterns=[desk], execute=False)
    async with looking:
        run_id = await looking.start(desk, "x")
        async with Runtime(url(tmp_path), patterns=[desk]) as rt:  # the lease is free for others
            assert (await rt.result(run_id)).text == "Done."
        assert (await looking.result(run_id)).text == "Done."
        later = await looking.start(desk, "y")
    async with Runtime(url(tmp_path), patterns=[desk], execute=False) as rt:
        assert (await rt.find(later)).status == "queued"

"""A store moves to Postgres: whole, comparable, and its runs go on there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from roadworthy import Agent, Budget, Runtime, ToolCall, tool
from roadworthy.errors import ConfigurationError, StoreUnavailable
from roadworthy.store.copying import copy_store
from roadworthy.store.opening import open_database
from roadworthy.testing import ScriptedModel
from tests.scenarios.world import url

if TYPE_CHECKING:
    from tests.postgres import Server

pytestmark = pytest.mark.sqlite_only

KILLED = """
import os, signal, sys
from roadworthy.store.copying import copy_store
from roadworthy.store.opening import open_database

left = int(sys.argv[3])

def tell(line):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

copy_store(open_database(sys.argv[1]), open_database(sys.argv[2]), tell)
"""
BUDGET = Budget("tenant", "total", usd=5)


@tool(effect="write", idempotent_by_nature=True, approval="operator")
def refund(order: str) -> str:
    """Refund. order: which."""
    return f"refunded {order}"


def desk() -> Agent:
    model = ScriptedModel([ToolCall("refund", {"order": "A-1"}), "Refunded, Zoë\x00."])
    return Agent("desk", model=model, tools=[refund])


async def filled(store: str) -> tuple[str, str]:
    """Finished runs, and one that waits: its id and its approval's."""
    chat = Agent("chat", model=ScriptedModel(lambda request: f"Ü {request.messages[-1].text}"))
    async with Runtime(store, budgets=[BUDGET]) as rt:
        for number in range(40):
            await rt.run(chat, f"word {number}", conversation=f"c{number % 3}")
        waiting = await rt.run(desk(), "refund A-1", conversation="Zoë/1", key="k")
        ended = await rt.start(desk(), "refund A-1")
        await rt.wait(ended)
        await rt.cancel(ended)
        await rt.wait(ended)
    return waiting.run_id, waiting.waiting[0].id


async def test_a_run_that_waits_is_approved_on_postgres(postgres: Server, tmp_path: Path) -> None:
    run_id, approval = await filled(url(tmp_path))
    target, said = postgres.empty(), list[str]()
    copied = copy_store(open_database(url(tmp_path)), open_database(target), said.append)
    assert copied.tables["run"].rows == 42
    assert f"event: {copied.tables['event'].rows:,} of {copied.tables['event'].rows:,}" in said
    agent = desk()
    async with Runtime(target, patterns=[agent], budgets=[BUDGET]) as rt:
        await rt.resolve(approval, "approve", by="ana")
        result = await rt.result(run_id)
        assert (result.status, result.text) == ("completed", "Refunded, Zoë\x00.")
        assert (await rt.run(agent, "refund A-1", conversation="Zoë/1", key="k")).run_id == run_id
        again = await rt.start(agent, "refund A-1")  # a command after those that were copied
        await rt.wait(again)
        await rt.cancel(again)
        assert (await rt.wait(again)).reason == "cancelled"


@pytest.mark.parametrize("lines", [1, 4, 8])
async def test_a_killed_copy_goes_on_where_it_was(
    postgres: Server, tmp_path: Path, lines: int
) -> None:
    run_id, approval = await filled(url(tmp_path))
    target = postgres.empty()
    command = [sys.executable, "-c", KILLED, url(tmp_path), target, str(lines)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL  # noqa: S603, ASYNC221
    agent = desk()
    with pytest.raises(StoreUnavailable, match="unfinished copy"):  # half a store is nobody's
        async with Runtime(target, patterns=[agent]):
            pass
    other = tmp_path / "other"
    other.mkdir()
    await filled(url(other))
    with pytest.raises(ConfigurationError, match="unfinished copy of another"):
        copy_store(open_database(url(other)), open_database(target))
    async with Runtime(url(tmp_path)) as rt:  # the source goes on being used
        await rt.run(Agent("chat", model=ScriptedModel(["hello"])), "one more")
    copied = copy_store(open_database(url(tmp_path)), open_database(target))
    assert copied.tables["run"].rows == 43
    async with Runtime(target, patterns=[agent]) as rt:
        await rt.resolve(approval, "approve", by="ana")
        assert (await rt.result(run_id)).status == "completed"


async def test_what_is_in_use_or_not_empty_is_refused(postgres: Server, tmp_path: Path) -> None:
    target = postgres.fresh()
    with pytest.raises(ConfigurationError, match="There is no store"):
        copy_store(open_database(url(tmp_path)), open_database(target))
    assert not (tmp_path / "t.db").exists()
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(Agent("chat", model=ScriptedModel(["hello"])), "hi")
        with pytest.raises(ConfigurationError, match="source is in use by process"):
            copy_store(open_database(url(tmp_path)), open_database(target))
    async with Runtime(target) as rt:
        with pytest.raises(ConfigurationError, match="target is in use by process"):
            copy_store(open_database(url(tmp_path)), open_database(target))
        await rt.run(Agent("chat", model=ScriptedModel(["hello"])), "hi")
    with pytest.raises(ConfigurationError, match="not empty: it has rows in"):
        copy_store(open_database(url(tmp_path)), open_database(target))
    with pytest.raises(ConfigurationError, match="same store"):
        copy_store(open_database(url(tmp_path)), open_database(url(tmp_path)))


async def test_the_command_says_how_far_it_is_and_what_it_compared(
    postgres: Server, tmp_path: Path
) -> None:
    from roadworthy.cli.store import app  # noqa: PLC0415 - as the command line loads it

    await filled(url(tmp_path))
    done = CliRunner().invoke(app, ["copy", url(tmp_path), postgres.empty()])
    assert done.exit_code == 0, done.output
    assert "run: 42 of 42" in done.output
    assert "run: 42 rows, equal" in done.output
    back = f"sqlite:///{tmp_path}/back.db"
    there = postgres.empty()
    assert CliRunner().invoke(app, ["copy", url(tmp_path), there]).exit_code == 0
    assert copy_store(open_database(there), open_database(back)).tables["run"].rows == 42

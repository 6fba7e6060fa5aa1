"""Our agents and tools as an MCP server, listed and called by the stock client of the library."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from roadworthy import Agent, Runtime
from roadworthy.errors import ConfigurationError
from roadworthy.mcp_server import Served, create_server
from roadworthy.testing import ScriptedModel
from tests.scenarios.faces import ROADWORTHY, Place, environment

CLI = [*ROADWORTHY[1:], "mcp", "desk.py"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@asynccontextmanager
async def over_stdio(place: Place, *options: str) -> AsyncIterator[ClientSession]:
    started = StdioServerParameters(
        command=sys.executable,
        args=[*CLI, *options],
        env=environment(),
        cwd=place.folder,
    )
    with (place.folder / "log.txt").open("w", encoding="utf-8") as log:
        async with (
            stdio_client(started, errlog=log) as (received, to_send),
            ClientSession(received, to_send) as session,
        ):
            await session.initialize()
            yield session


@asynccontextmanager
async def over_http(place: Place, *options: str) -> AsyncIterator[tuple[ClientSession, str]]:
    process = subprocess.Popen(  # noqa: S603, ASYNC220 - its first line is read before it is used
        [sys.executable, *CLI, "--port", "0", *options],
        cwd=place.folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        address = line.split()[2]
        async with (
            streamable_http_client(address) as (received, to_send),
            ClientSession(received, to_send) as session,
        ):
            await session.initialize()
            yield session, address
    finally:
        process.terminate()
        process.wait(10)
        process.stderr.close()


def text(result: Any) -> str:  # noqa: ANN401 - of the library
    assert isinstance(result, CallToolResult)
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def facts(result: Any) -> dict[str, Any]:  # noqa: ANN401 - of the library
    assert isinstance(result, CallToolResult)
    assert isinstance(result.structured_content, dict)
    return result.structured_content


@pytest.mark.requirement("BEY-7")
async def test_a_stock_client_lists_and_calls_over_stdio(place: Place) -> None:
    async with over_stdio(place, "--agent", "desk", "--tool", "find_order") as session:
        listed = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert list(listed) == ["desk", "find_order", "get_run"]
        hints = listed["find_order"].annotations
        assert hints is not None
        assert hints.read_only_hint
        asked = await session.call_tool("desk", {"message": "Where is A-17?"})
        assert text(asked).endswith("Two lamps. <img src=x onerror=alert(1)>")
        assert facts(asked)["status"] == "completed"
        again = await session.call_tool("get_run", {"run_id": facts(asked)["run_id"]})
        assert text(again) == text(asked)
        found = await session.call_tool("find_order", {"order_id": "A-17"})
        assert text(found).startswith("A-17: two lamps")
        wrong = await session.call_tool("find_order", {"order": "A-17"})
        assert isinstance(wrong, CallToolResult)
        assert wrong.is_error
        assert "missing: order_id" in text(wrong)


@pytest.mark.requirement("BEY-7")
async def test_a_stock_client_lists_and_calls_over_http(place: Place) -> None:
    async with over_http(place, "--agent", "desk") as (session, address):
        assert [tool.name for tool in (await session.list_tools()).tools] == ["desk", "get_run"]
        asked = await session.call_tool("desk", {"message": "Where is A-17?"})
        assert facts(asked)["status"] == "completed"
        async with httpx.AsyncClient(trust_env=False) as client:
            stranger = await client.post(address, headers={"host": "evil.example"}, json={})
            assert stranger.status_code in {403, 421}, "a page elsewhere reaches nothing"


@pytest.mark.requirement("BEY-7", "HIT-1")
async def test_an_effect_waits_for_a_person_whoever_asks_for_it(place: Place) -> None:
    async with over_stdio(place, "--agent", "payer", "--tool", "refund") as session:
        arguments = {"order_id": "A-17", "euros": 40}
        for name, given in (("payer", {"message": "Pay it back."}), ("refund", arguments)):
            asked = await session.call_tool(name, given)
            assert facts(asked)["status"] == "waiting"
            assert "refund {" in text(asked)
            assert f"Run {facts(asked)['run_id']}: ask get_run for it later" in text(asked)
            looked = await session.call_tool("get_run", {"run_id": facts(asked)["run_id"]})
            assert facts(looked)["status"] == "waiting"
    assert not (place.folder / "bank.txt").exists()


async def test_what_is_wrong_is_said(place: Place) -> None:
    async with over_stdio(place, "--agent", "desk") as session:
        for name, given, said in (
            ("desk", {}, "give what the user wants"),
            ("desk", {"message": "a", "more": 1}, "Give message and"),
            ("get_run", {"run_id": "run_0"}, "run_0"),
            ("nothing", {}, "There is no tool 'nothing'. There are: desk, get_run."),
        ):
            wrong = await session.call_tool(name, given)
            assert isinstance(wrong, CallToolResult)
            assert wrong.is_error
            assert said in text(wrong)


@pytest.mark.requirement("BEY-7", "TOL-4")
async def test_the_key_of_a_call_is_the_key_of_its_run(place: Place) -> None:
    """As our own client sends it: a call sent again after a broken connection is the same run."""
    meta: Any = {"roadworthy/idempotency-key": "k-1"}
    found = []
    for _ in range(2):
        async with over_stdio(place, "--agent", "desk") as session:
            asked = await session.call_tool("desk", {"message": "Where is A-17?"}, meta=meta)
            found.append(facts(asked)["run_id"])
    assert found[0] == found[1]
    assert [run["id"] for run in place.runs()] == found[:1]


def test_two_things_of_one_name_are_refused(tmp_path: Path) -> None:
    one = Agent("get_run", model=ScriptedModel(["a"]))
    with pytest.raises(ConfigurationError, match="are named get_run"):
        create_server(Runtime(f"sqlite:///{tmp_path}/t.db"), Served(agents=[one]))


# --- roadworthy pin ------------------------------------------------------------------------


def test_pin_shows_what_is_offered_and_accepts_it(tmp_path: Path) -> None:
    odd = Path(__file__).parent / "odd_server.py"
    state = tmp_path / "odd.json"
    state.write_text(json.dumps({"tools": {"do_it": "Does."}, "say": {}}), encoding="utf-8")
    (tmp_path / "desk.py").write_text(
        "import sys\n"
        "from roadworthy import Agent\n"
        "from roadworthy.testing import ScriptedModel\n"
        "from roadworthy.tools.mcp import MCP\n"
        f"odd = MCP('odd', command=[sys.executable, {str(odd)!r}, {str(state)!r}], pin='odd.pin')\n"
        "desk = Agent('desk', model=ScriptedModel(['Hello.']), tools=[odd])\n",
        encoding="utf-8",
    )

    def pin(*options: str) -> subprocess.CompletedProcess[str]:
        command = [*ROADWORTHY, "pin", "desk.py", *options]
        return subprocess.run(  # noqa: S603 - our own command
            command,
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    first = pin()
    assert first.returncode == 1
    assert "do_it (irreversible): Does." in first.stdout
    assert pin("--write").returncode == 0
    assert pin().returncode == 0
    state.write_text(json.dumps({"tools": {"do_it": "Does more."}, "say": {}}), encoding="utf-8")
    changed = pin()
    assert changed.returncode == 1
    assert '+    "description": "Does more."' in changed.stdout


# --- without the extra ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("import roadworthy.tools.mcp", "MCP servers need: pip install 'roadworthy[mcp]'"),
        (
            "sys.argv = ['roadworthy', 'mcp', 'desk.py']; from roadworthy.cli import main; main()",
            "This needs the extra `mcp`. Mend: pip install 'roadworthy[mcp]'",
        ),
    ],
)
def test_a_missing_extra_is_named(place: Place, what: str, said: str) -> None:
    code = f"import sys; sys.modules['mcp'] = sys.modules['mcp_types'] = None; {what}"
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", code],
        cwd=place.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert said in done.stderr

"""A process of its own that is killed while a tool of an MCP server is being called.

`python -m tests.scenarios.mcp_worker STORE WHERE EFFECT` starts the run and waits for it. WHERE:
the state file of `odd_server` or the address of an `OddHttp`. Run by test_mcp_killed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from roadworthy import Agent, Runtime, ToolCall
from roadworthy.testing import ScriptedModel
from roadworthy.tools.mcp import MCP

ODD = str(Path(__file__).parent / "odd_server.py")


def agent(where: str, effect: Any) -> Agent[None, str]:  # noqa: ANN401 - from the command line
    """One call of the one tool."""
    if where.startswith("http"):
        server = MCP("odd", url=where, effects={"look": effect}, required=True)
    else:
        command = [sys.executable, ODD, where]
        server = MCP("odd", command=command, effects={"look": effect}, required=True)
    return Agent("desk", model=ScriptedModel([ToolCall("odd_look", {}), "Done."]), tools=[server])


def main(store: str, where: str, effect: str) -> None:
    """Until it is killed."""
    with Runtime(store) as rt:
        rt.run_sync(agent(where, effect), "Go", key="once")


if __name__ == "__main__":
    main(*sys.argv[1:])

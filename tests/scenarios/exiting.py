"""A process of its own that executes one run, and that its tool ends when the far side says so.

`python -m tests.scenarios.exiting STORE EFFECT URL` prints status and the kind of what it waits
for. Run by test_fault_matrix.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any
from urllib.request import Request, urlopen

from roadworthy import Agent, RunContext, Runtime, ToolCall, tool
from roadworthy.testing import ScriptedModel


def agent(effect: Any, url: str) -> Agent[None, str]:  # noqa: ANN401 - from the command line
    """One call of one tool."""

    @tool(effect=effect)
    def act(run: RunContext[None], x: int) -> int:
        """Act. x: any."""
        headers = {"Idempotency-Key": run.key}
        request = Request(f"{url}/{effect}", data=b"{}", headers=headers)  # noqa: S310 - loopback
        with urlopen(request) as answer:  # noqa: S310 - as above
            found = json.load(answer)
        if found["exit"]:
            os._exit(17)
        return int(found["value"])

    return Agent("desk", model=ScriptedModel([ToolCall("act", {"x": 1}), "Done."]), tools=[act])


def main(store: str, effect: str, url: str) -> None:
    """Execute the run, or take it up where the last process left it."""
    with Runtime(store) as rt:
        result = rt.run_sync(agent(effect, url), "Go", key="once")
    waits = [approval.kind for approval in result.waiting]
    print(json.dumps([result.status, *waits]))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main(*sys.argv[1:])

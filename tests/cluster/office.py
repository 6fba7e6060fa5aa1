"""An agent whose tool waits at a gate of the test: `roadworthy worker` executes its runs.

The gate is a pipe: it opens for one call each time the test writes to it.
"""

from __future__ import annotations

import os
from pathlib import Path

from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.escalation import Inbox
from roadworthy.messages import ModelRequest
from roadworthy.testing import ScriptedModel

FOLDER = Path(os.environ.get("OFFICE_FOLDER", "."))


@tool(effect="write", idempotent_by_nature=True, timeout=60)
def slow(order: str) -> str:
    """Something slow. order: such as A-17."""
    with (FOLDER / "begun").open("a") as file:
        file.write(f"{order} {os.getpid()}\n")
    (FOLDER / "gate").read_text()
    with (FOLDER / "done").open("a") as file:
        file.write(f"{order}\n")
    return f"{order} is done"


def said(request: ModelRequest) -> str | ToolCall:
    """One call, then the end."""
    done = any(message.role == "tool" for message in request.messages)
    return "All is done." if done else ToolCall("slow", {"order": "A-17"})


office = Agent("office", model=ScriptedModel(said), tools=[slow])

if "OFFICE_STORE" in os.environ:
    rt = Runtime(os.environ["OFFICE_STORE"], patterns=[office], inbox=Inbox())

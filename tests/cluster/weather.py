"""An agent whose tool asks a server of the test: `roadworthy worker` executes its runs.

The addresses come from the environment of whoever starts the worker.
"""

from __future__ import annotations

import json
import os
from urllib.request import Request, urlopen

from roadworthy import Agent, Runtime, Tool, ToolCall, tool
from roadworthy.messages import ModelRequest
from roadworthy.testing import ScriptedModel
from roadworthy.tools import Breaker, Default

COOLDOWN = 5.0


def look_at(address: str) -> Tool[None]:
    """The tool."""

    @tool(
        effect="read",
        retries=0,
        breaker=Breaker(failures=6, window=30, cooldown=COOLDOWN),
        fallback=Default("unknown"),
    )
    def look(x: int) -> int:
        """Look. x: any."""
        with urlopen(Request(f"{address}/read", data=b"{}")) as answer:  # noqa: S310 - loopback
            return int(json.load(answer)["value"])

    return look


def said(request: ModelRequest) -> str | ToolCall:
    """One call in each run."""
    done = any(message.role == "tool" for message in request.messages)
    return "Done." if done else ToolCall("look", {"x": 1})


def desk(address: str) -> Agent[None, str]:
    """The agent."""
    return Agent("weather", model=ScriptedModel(said), tools=[look_at(address)])


if "WEATHER_STORE" in os.environ:
    rt = Runtime(os.environ["WEATHER_STORE"], patterns=[desk(os.environ["WEATHER_SERVER"])])

"""What the workers of `bench.cluster` execute: `roadworthy worker bench/cluster_desk.py`."""

from __future__ import annotations

import asyncio

from roadworthy import Agent, Price, Runtime, ToolCall, tool
from roadworthy.messages import ModelRequest
from roadworthy.testing import ScriptedModel
from roadworthy.testing.scripted import Turn


@tool(effect="write", approval="operator", idempotent_by_nature=True)
async def close_account(item: str) -> str:
    """Close an account, once a person agrees."""
    return f"{item} is closed"


async def say(request: ModelRequest) -> Turn:
    """`second` takes a second, `wait` waits for a person, anything else is answered at once."""
    word = request.messages[0].text
    if word == "second":
        await asyncio.sleep(1)
    if word == "wait" and not request.ordinal:
        return [ToolCall("close_account", {"item": "a"})]
    return "Done."


desk = Agent(
    "desk", model=ScriptedModel(say, price=Price(input="1", output="1")), tools=[close_account]
)
rt = Runtime(patterns=[desk])

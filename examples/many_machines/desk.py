"""An agent that any number of processes serve and execute: the store is in ROADWORTHY_URL.

`roadworthy serve desk.py --no-work` and `roadworthy worker desk.py`, on as many machines as you
like. Without a key the model is scripted and says so.
"""

from __future__ import annotations

import os

from roadworthy import Agent, Budget, RunContext, Runtime, tool
from roadworthy.testing import ScriptedModel


@tool(effect="read")
async def stock(run: RunContext[None], article: str) -> str:
    """How many of an article are there. article: its name."""
    run.progress(f"counting {article}")
    return f"{len(article)} of {article}"


def _scripted() -> ScriptedModel:
    return ScriptedModel(lambda request: f"(scripted) You said: {request.messages[-1].text}")


desk = Agent(
    "desk",
    model="openai:gpt-5-mini" if os.environ.get("OPENAI_API_KEY") else _scripted(),
    instructions="You answer questions about our stock.",
    tools=[stock],
)
rt = Runtime(patterns=[desk], budgets=[Budget("tenant", "day", usd=50)])

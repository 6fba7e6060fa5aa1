"""What the zombie's workers execute: one call that looks first, then acts.

`roadworthy worker tests/chaos/bank.py`; the environment names store, socket and release.
"""

from __future__ import annotations

import os

from roadworthy import Agent, RunContext, Runtime, ToolCall, tool
from roadworthy.agent import Reconciled
from roadworthy.messages import ModelRequest
from roadworthy.testing import ScriptedModel
from roadworthy.testing.scripted import Turn
from tests.chaos.desk import deed
from tests.chaos.outside import Remote
from tests.chaos.world import Outside


def bank_for(world: Outside, release: str = "1") -> Agent[None, str]:
    """An agent that does what the user says: `put` or `pay`. release: it is told which."""

    @tool(effect="write")
    def put(run: RunContext[None], item: str) -> str:
        """Put; the same key is the same deed."""
        world.look(deed(run, "put", item))
        world.do(deed(run, "put", item), honours_key=True)
        return f"{item} is put"

    def paid(run: RunContext[None], item: str) -> Reconciled:
        there = world.settle(run.key, run.attempt)
        return ("applied", f"{item} is paid") if there else "not_applied"

    @tool(reconcile=paid)
    def pay(run: RunContext[None], item: str) -> str:
        """Pay; the bank can be asked, and then takes a lost attempt no more."""
        world.look(deed(run, "pay", item))
        world.do(deed(run, "pay", item), honours_key=False)
        return f"{item} is paid"

    def say(request: ModelRequest) -> Turn:
        if request.ordinal:
            return "It is done."
        return [ToolCall(request.messages[0].text, {"item": "a"})]

    instructions = f"You are release {release}."
    return Agent("bank", model=ScriptedModel(say), tools=[put, pay], instructions=instructions)


if "CHAOS_WORLD" in os.environ:
    bank = bank_for(Remote(os.environ["CHAOS_WORLD"]), os.environ.get("BANK_RELEASE", "1"))
    rt = Runtime(os.environ["CHAOS_STORE"], patterns=[bank])

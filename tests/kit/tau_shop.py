"""The tau shop for worker processes: `roadworthy worker tests/kit/tau_shop.py`.

The environment names the store, the folder of the tasks' worlds, how often these fail, and whether
tools take a key.
Invariant: a task's world is one file; whichever worker has the run opens it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Literal

from roadworthy import Agent, Limits, RunContext, Runtime, Tool
from roadworthy.messages import ModelRequest
from roadworthy.testing import ScriptedModel
from roadworthy.testing.scripted import Turn
from roadworthy.tools import tool_from_schema
from tests.chaos.desk import Hurry
from tests.kit.tau_desk import kit, turns_of


def asked(number: int) -> str:
    """What the user of a task says."""
    shop, _ = kit()
    return f"{number}: {shop['tasks'][number]['instruction']}"


def world_of(folder: Path, number: int, p: float = 0.0, seed: str = "") -> Any:  # noqa: ANN401
    """The kit's world of a task."""
    shop, tau = kit()
    task = shop["tasks"][number]
    return tau.World(str(folder / f"{number}.db"), task, p, Random(f"{seed}{task['id']}"))  # noqa: S311


def shop_for(folder: Path, p: float, seed: int, *, keyed: bool) -> Agent[None, str]:
    """The shop's agent. keyed: its tools honour the key; otherwise writes are irreversible."""
    shop, _ = kit()
    world = cache(lambda number: world_of(folder, number, p, f"{seed}{os.getpid()}"))
    script = cache(lambda number: turns_of(shop["tasks"][number], p, seed))

    def function_of(name: str) -> Callable[..., Any]:
        async def call(run: RunContext[None], **arguments: object) -> str:
            there = world(int(run.user.id))
            result: str = there.call(name, arguments, run.key if keyed else None)
            return result

        return call

    def say(request: ModelRequest) -> Turn:
        text = next(message.text for message in request.messages if message.role == "user")
        turn: Turn = script(int(text.partition(":")[0]))[request.ordinal]
        return turn

    def made(each: Mapping[str, Any]) -> Tool[None]:
        changes: Literal["write", "irreversible"] = "write" if keyed else "irreversible"
        return tool_from_schema(
            each["name"],
            each["description"],
            each["parameters"],
            function_of(each["name"]),
            effect="read" if each["effect"] == "read" else changes,
            retries=12 if keyed or each["effect"] == "read" else 0,
        )

    return Agent(
        "shop",
        model=ScriptedModel(say),
        tools=[made(each) for each in shop["tools"]],
        limits=Limits(turns=200, tool_calls=200, repeats=4, usd=None),  # as in tau_desk
        instructions=shop["policy"],
    )


if "TAU_P" in os.environ:
    rt = Runtime(
        os.environ["CHAOS_STORE"],
        patterns=[
            shop_for(
                Path(os.environ["CHAOS_WORLD"]),
                float(os.environ["TAU_P"]),
                int(os.environ["TAU_SEED"]),
                keyed=os.environ["TAU_KEYED"] == "1",
            )
        ],
        clock=Hurry(),
    )

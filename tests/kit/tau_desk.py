"""One task of the tau shop on our runtime: the kit's world as tools, the kit's script as the model.

Driven in child processes of the fork server, again after each kill until the run is over.
Invariant: faults, kills and script come from the kit's own code and seeds.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from roadworthy import Agent, Limits, RunContext, Runtime, Tool, ToolCall
from roadworthy.messages import ModelRequest
from roadworthy.testing import ScriptedModel
from roadworthy.testing.scripted import Turn
from roadworthy.tools import tool_from_schema
from tests.chaos.desk import Hurry
from tests.structure.tree import ROOT

KIT = Path(os.environ.get("ROADWORTHY_TESTKIT") or ROOT.parent / "shared" / "testkit") / "tau"


@cache
def kit() -> tuple[dict[str, Any], ModuleType]:
    """The shop with its tasks, and the kit's world and script."""
    with gzip.open(KIT / "retail_test.json.gz", "rt", encoding="utf-8") as file:
        shop: dict[str, Any] = json.load(file)
    spec = importlib.util.spec_from_file_location("tau_chaos", KIT / "chaos.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return shop, module


if KIT.exists():
    kit()  # read before the server forks


def tools_of(world: Any, kill: Callable[[], None]) -> list[Tool[None]]:  # noqa: ANN401 -- the kit's
    """The shop's tools; a process may die on either side of each execution."""
    shop, _ = kit()

    def function_of(name: str) -> Callable[..., Any]:
        async def call(run: RunContext[None], **arguments: object) -> str:
            kill()
            result: str = world.call(name, arguments, run.key)
            kill()
            return result

        return call

    return [
        tool_from_schema(
            each["name"],
            each["description"],
            each["parameters"],
            function_of(each["name"]),
            effect="read" if each["effect"] == "read" else "write",
            retries=12,
        )
        for each in shop["tools"]
    ]


def turns_of(task: Mapping[str, Any], p: float, seed: int) -> list[Turn]:
    """The kit's turns: gold calls with invented tools, dropped arguments, repeats in between."""
    _, tau = kit()
    script = tau.script(task, p, Random(f"{seed}{task['id']}m"))  # noqa: S311
    calls: list[Turn] = [ToolCall(name, args) for _, name, args in script if name is not None]
    return [*calls, "The task is done."]


async def drive(folder: Path, _: object, options: Mapping[str, Any]) -> None:
    """See the run of one task through, from wherever the last process left it."""
    shop, tau = kit()
    seed, p, number = options["seed"], options["p"], options["attempt"]
    task = shop["tasks"][options["task"]]
    world = tau.World(
        str(folder / "world.db"),
        task,
        p,
        Random(f"{seed}{task['id']}w{number}"),  # noqa: S311
    )
    draw = Random(f"{seed}{task['id']}k{number}")  # noqa: S311

    def kill() -> None:
        tau.maybe_kill(draw, p)

    turns = turns_of(task, p, seed)

    def say(request: ModelRequest) -> Turn:
        kill()
        return turns[request.ordinal]

    agent = Agent(
        "shop",
        model=ScriptedModel(say),
        tools=tools_of(world, kill),
        # task 21 looks three times for products that are not there: right here, a loop by default
        limits=Limits(turns=200, tool_calls=200, repeats=4, usd=None),
        instructions=shop["policy"],
    )
    async with Runtime(f"sqlite:///{folder}/store.db", patterns=[agent], clock=Hurry()) as rt:
        result = await rt.run(agent, task["instruction"], key="task")
        while (
            result.reason == "poison"
        ):  # parked after three deaths at one step: a person lets it on
            await rt.resume(result.run_id)
            result = await rt.wait(result.run_id)
        said: dict[str, Any] = {
            "status": result.status,
            "reason": result.reason,
            "why": result.report.why,
        }
        said["differences"] = list((await rt.replay(result.run_id)).differences)
    (folder / "said.json").write_text(json.dumps(said), encoding="utf-8")

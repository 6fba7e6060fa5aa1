"""The workload as a Roadworthy agent, and a model that plays its script without a network."""

from __future__ import annotations

from functools import cache
from typing import Any

from bench.workload import ANSWER, FUNCTIONS, INSTRUCTIONS, PAID_STEPS, READS, book_slot, call
from roadworthy import Agent, Budget, Limits, Price, ToolCall, tool
from roadworthy.agent import Model
from roadworthy.messages import ModelRequest, TokenUsage
from roadworthy.testing import ScriptedModel

PRICE = Price(input=2.5, output=10)
TOOLS = (
    *(tool(effect="read")(function) for function in READS),
    tool(effect="write", idempotent_by_nature=True)(book_slot),
)


def budgets() -> list[Budget]:
    """One shared budget, so that every paid call reserves in two accounts."""
    return [Budget("tenant", "day", usd=1_000_000)]


@cache
def desk(model: str | Model, steps: int) -> Agent[Any, Any]:
    """The agent. Limits as they come, or just enough for a long run."""
    long = Limits(turns=steps + 20, tool_calls=steps + 20, usd=1_000)
    return Agent(
        "workshop",
        model=model,
        instructions=INSTRUCTIONS,
        tools=TOOLS,
        limits=Limits() if steps <= PAID_STEPS else long,
        may=(),
    )


class Script:
    """Plays `steps` tool calls, then the answer."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, request: ModelRequest) -> ToolCall | str:
        """What is said next."""
        if request.ordinal >= self.steps or not request.tools:
            return ANSWER
        return ToolCall(*call(request.ordinal))


def scripted(script: Script, latency: float = 0.0) -> ScriptedModel:
    """A model that costs no CPU to speak of: usage is given, not counted."""
    return ScriptedModel(
        script, price=PRICE, usage=TokenUsage(input=700, output=40), latency=latency
    )


__all__ = ["FUNCTIONS", "PRICE", "TOOLS", "Script", "budgets", "desk", "scripted"]

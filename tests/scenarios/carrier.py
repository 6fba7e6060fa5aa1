"""What the scenarios of late results share: a service that answers when it likes, and its agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from roadworthy import (
    Agent,
    Limits,
    Price,
    RunContext,
    Tool,
    ToolCall,
    tool,
)
from roadworthy.messages import ModelRequest
from roadworthy.testing import ScriptedModel
from roadworthy.testing.scripted import Turn
from tests.scenarios.world import Given

DAY = 86_400.0
PRICE = Price(input=1, output=10)


@dataclass
class Carrier:
    """A service that answers when it likes. `during`: what happens while it is being asked."""

    tokens: list[str] = field(default_factory=list)
    parcels: list[str] = field(default_factory=list)
    during: Callable[[str], Awaitable[object]] | None = None
    says: Any = None

    def tool(self, effect: Given = "write", **options: Given) -> Tool[None]:
        @tool(effect=effect, later=True, **options)
        async def ship(run: RunContext[None], parcel: str) -> object:
            """Ship. parcel: such as P-1."""
            self.tokens.append(run.key)
            self.parcels.append(parcel)
            if self.during is not None:
                return await self.during(run.key)
            return self.says

        return ship


def ship(parcel: str) -> ToolCall:
    return ToolCall("ship", {"parcel": parcel})


def shipper(carrier: Carrier, *script: Given, tools: Sequence[Tool[None]] = (), **options: Given):  # type: ignore[no-untyped-def]
    script = script or (ship("P-1"), "It is shipped.")
    limits = options.pop("limits", Limits())
    said: Any = script[0] if callable(script[0]) else list(script)
    model = ScriptedModel(said, price=PRICE)
    return Agent("shipper", model=model, tools=[carrier.tool(**options), *tools], limits=limits)


def until_told(calls: Sequence[ToolCall]) -> Callable[[ModelRequest], Turn]:
    """A model that asks for these calls until it has results; closing, it has none."""

    def say(request: ModelRequest) -> Turn:
        return "Done." if not request.tools or request.messages[-1].role == "tool" else calls

    return say


def told(agent: Agent) -> tuple[str, ...]:
    """The results that its model saw last."""
    model: Any = agent.model
    results: tuple[str, ...] = model.requests[-1].results
    return results

"""Code as users write it: checked by mypy strict and pyright strict, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal, assert_type

from roadworthy.agent import Agent, Tool
from roadworthy.context import RunContext
from roadworthy.messages import ToolCall
from roadworthy.tools import tool


@dataclass(frozen=True)
class Shop:
    """Dependencies."""

    name: str


@dataclass(frozen=True)
class Answer:
    """Output."""

    text: str


@asynccontextmanager
async def open_shop(run: RunContext[None]) -> AsyncGenerator[Shop, None]:
    yield Shop(run.user.tenant)


@tool(effect="read", timeout=5)
async def find_order(run: RunContext[Shop], order_id: str) -> str:
    """One order. order_id: such as A-17."""
    return run.deps.name + order_id


def who_approves(run: RunContext[Shop], call: ToolCall) -> Literal["user", "operator"] | None:
    return "operator" if call.arguments["usd"] > 50 else "user"


@tool(effect="irreversible", approval=who_approves)
async def refund(run: RunContext[Shop], order_id: str, usd: Decimal) -> str:
    """Refund an order."""
    return f"{run.key} {order_id} {usd}"


@tool(effect="read", fallback=find_order)
def find_slowly(run: RunContext[Shop], order_id: str) -> str:
    """One order, from the archive."""
    return run.deps.name + order_id


@tool
def weather(city: str) -> str:
    """The weather."""
    return city


@tool
def now() -> str:
    """The time."""
    return ""


@tool
async def close(run: RunContext[Shop]) -> None:
    """Close the shop."""
    run.progress("closing")


assert_type(find_order, Tool[Shop])
assert_type(refund, Tool[Shop])
assert_type(find_slowly, Tool[Shop])
assert_type(close, Tool[Shop])
assert_type(weather, Tool[None])
assert_type(now, Tool[None])

support = Agent(
    "support", model="large", deps=open_shop, output=Answer, tools=[find_order, refund, weather]
)
assert_type(support, Agent[Shop, Answer])
assert_type(replace(support, model="small"), Agent[Shop, Answer])
plain = Agent("plain", model="large", tools=[weather, now])
assert_type(plain, Agent[None, str])
assert_type(Agent("mixed", model="large", deps=open_shop, tools=[now]), Agent[Shop, str])
assert_type(Agent("bare", model="large"), Agent[None, str])
declared: Agent[Shop, Answer] = Agent(
    "support", model="large", deps=open_shop, output=Answer, tools=(find_order, weather)
)

"""Mistakes a type checker must find: each ignore below would be reported if it were not needed."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from roadworthy.agent import Agent
from roadworthy.context import RunContext
from roadworthy.tools import tool


class Shop:
    """The agent's dependencies."""


class Bank:
    """Other dependencies."""


@asynccontextmanager
async def open_shop(run: RunContext[None]) -> AsyncGenerator[Shop, None]:
    yield Shop()


@tool(effect="read")
async def balance(run: RunContext[Bank], account: str) -> str:
    """Balance of an account."""
    return account + run.key


Agent("desk", model="large", deps=open_shop, tools=[balance])  # type: ignore[arg-type]
Agent("desk", model="large", deps=open_shop, tools=[len])  # type: ignore[list-item]


@tool(effect="reads")  # type: ignore[call-overload,untyped-decorator]
def wrong_effect() -> str:
    """An effect that does not exist."""
    return ""


@tool(effects="read")  # type: ignore[call-overload,untyped-decorator]
def wrong_option() -> str:
    """An option that does not exist."""
    return ""

"""The support desk: its tools, its agent, its runtime. Copy from here.

`roadworthy chat examples/support_desk/desk.py` talks to it, `roadworthy serve` puts it on the web.
Invariant: what a call may see or do follows from `run.user`, never from what the model writes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from examples.support_desk.script import scripted
from examples.support_desk.shop import POLICY, Order, Shop, connect
from roadworthy import (
    Agent,
    Budget,
    Limits,
    ModelSettings,
    ProviderOptions,
    RunContext,
    Runtime,
    ToolCall,
    ToolError,
    tool,
)
from roadworthy.escalation import EscalationRules, Inbox

DATA = Path(os.environ.get("ROADWORTHY_DEMO_DATA", "demo-data"))
DATA.mkdir(parents=True, exist_ok=True)
SHOP = DATA / "shop.db"
URL = f"sqlite:///{DATA}/runs.db"

OPERATOR_FROM = 50  # euros: from here on a person decides


@asynccontextmanager
async def open_shop(run: RunContext[None]) -> AsyncGenerator[Shop, None]:
    """What the tools work with: opened for one run, closed after it, opened again on a resume."""
    with closing(connect(SHOP)) as db:
        yield Shop(db, customer=run.user.id)


# --- reading: retried, run side by side ---------------------------------------------------------


@tool(effect="read")
def find_customer(run: RunContext[Shop]) -> dict[str, str]:
    """Name, e-mail and address of the customer you talk to."""
    return run.deps.profile()


@tool(effect="read")
def list_orders(run: RunContext[Shop]) -> list[Order]:
    """All orders of the customer."""
    return run.deps.orders()


@tool(effect="read")
def find_order(run: RunContext[Shop], order_id: str) -> Order:
    """One order of the customer. order_id: such as A-1001."""
    return _theirs(run, order_id)


@tool(effect="read", timeout=5, retries=3)
def shipping_status(run: RunContext[Shop], order_id: str) -> dict[str, str]:
    """Where the parcel of an order is now, as the carrier says. order_id: such as A-1001."""
    _theirs(run, order_id)
    return run.deps.parcel(order_id)  # raises CarrierDown: tried again, after a pause


@tool(effect="read")
def refund_policy() -> str:
    """The shop's rules for refunds."""
    return POLICY


# --- writing: harmless to repeat under `run.key` ------------------------------------------------


@tool(effect="write")
def change_address(run: RunContext[Shop], address: str) -> str:
    """Send future parcels elsewhere. address: street, number and town."""
    run.deps.move(address, key=run.key)
    return f"Parcels now go to {address}."


# --- irreversible: done once, or a person is asked ----------------------------------------------


def who_approves(run: RunContext[Any], call: ToolCall) -> Literal["operator"] | None:
    """Small refunds go through, larger ones wait for an operator."""
    return "operator" if call.arguments["euros"] >= OPERATOR_FROM else None


def find_refund(
    run: RunContext[Shop], order_id: str, euros: Decimal, reason: str
) -> tuple[Literal["applied"], str] | Literal["not_applied"]:
    """After a crash in the middle of `refund`: does the bank know of it?"""
    paid = run.deps.refunds(reference=run.key)
    return ("applied", _receipt(paid[0].id, euros, order_id)) if paid else "not_applied"


@tool(effect="irreversible", approval=who_approves, reconcile=find_refund)
def refund(run: RunContext[Shop], order_id: str, euros: Decimal, reason: str) -> str:
    """Pay money back to the customer.

    order_id: such as A-1001. euros: at most what was paid. reason: in a few words.
    """
    order = _theirs(run, order_id)
    if not 0 < euros <= order.euros - order.refunded:
        raise ToolError(f"At most {order.euros - order.refunded} euros can be paid back.")
    number = run.deps.pay_back(order_id, euros, reason, reference=run.key)
    return _receipt(number, euros, order_id)


def _theirs(run: RunContext[Shop], order_id: str) -> Order:
    order = run.deps.order(order_id)
    if order is None:
        raise ToolError(f"This customer has no order {order_id}. Ask for the right number.")
    return order


def _receipt(number: int, euros: Decimal, order_id: str) -> str:
    return f"Refund no. {number}: {euros:.2f} euros for {order_id} are on their way."


# --- the agent and its runtime ------------------------------------------------------------------

support = Agent(
    "support",
    description="Orders, parcels and refunds of the shop.",
    model="front",  # a tier: which model that is, the runtime says
    instructions=[
        "You help customers of a shop. Look things up before you answer, in few words. Refund only "
        "what the policy allows, and the full price where something came damaged or not at all.",
        lambda run: f"Today is {run.today}. The customer's id is {run.user.id}.",
    ],
    deps=open_shop,
    tools=[
        find_customer,
        list_orders,
        find_order,
        shipping_status,
        refund_policy,
        change_address,
        refund,
    ],
    settings=ModelSettings(max_tokens=400),
    limits=Limits(turns=15, tool_calls=20, seconds=120, usd="0.25"),
    # A customer who asks for a person gets one; one that turns in circles ends, as scene 5 shows.
    escalation=EscalationRules(topics=["legal"], repeats=False),
)


def open_runtime(model: str | None = None, base_url: str | None = None) -> Runtime:
    """A runtime on the demo's store, not yet opened. Without a model a script plays one.

    base_url: a server that speaks OpenAI's chat format, such as http://127.0.0.1:11434/v1.
    """
    if base_url is not None and not (model or "").startswith("openai-chat:"):
        model = f"openai-chat:{model}"
    return Runtime(
        URL,
        patterns=[support],
        tiers={"front": [model or scripted]},
        providers={"openai-chat": ProviderOptions(base_url=base_url)} if base_url else {},
        budgets=[Budget("user", "day", usd=2)],
        inbox=Inbox(),  # `roadworthy serve` shows it: /inbox for Lea, /chat/support for Ana
    )


rt = open_runtime(
    os.environ.get("ROADWORTHY_DEMO_MODEL"), os.environ.get("ROADWORTHY_DEMO_BASE_URL")
)

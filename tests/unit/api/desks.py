"""Agents and an app for the API's tests."""

from __future__ import annotations

from pathlib import Path

from roadworthy import Agent, Limits, Price, Runtime, ToolCall, tool
from roadworthy.escalation import Inbox
from roadworthy.messages import Message, ModelRequest, Text
from roadworthy.testing import ScriptedModel

PRICE = Price(input=3, output=15)


@tool(effect="read")
def find_order(order_id: str) -> str:
    """Find an order."""
    return f"{order_id}: secret of the tool"


@tool(approval="operator")
def refund(order_id: str, euros: int) -> str:
    """Pay an order back."""
    return f"refunded {euros} of {order_id}"


def _find(order: str) -> ToolCall:
    return ToolCall("find_order", {"order_id": order})


def _echo(request: ModelRequest) -> str:
    """Says what it was given."""
    last: Message = request.messages[-1]
    return ", ".join(
        part.text if isinstance(part, Text) else f"{part.media_type} of {len(part.data or b'')}"  # type: ignore[union-attr]
        for part in last.parts
    )


desk = Agent(
    "desk", model=ScriptedModel([_find("A-17"), "Two lamps."], price=PRICE), tools=[find_order]
)
payer = Agent(
    "payer",
    model=ScriptedModel([ToolCall("refund", {"order_id": "A-17", "euros": 40}), "Sent."]),
    tools=[refund],
)
small = Agent(
    "small",
    model=ScriptedModel([_find("A-1"), "One so far.", "Both."], price=PRICE),
    tools=[find_order],
    limits=Limits(turns=1, tool_calls=7),
)
echo = Agent("echo", model=ScriptedModel(_echo))
asker = Agent(
    "asker", model=ScriptedModel([ToolCall("ask_user", {"question": "Which?"}), "Thanks."])
)


def runtime(folder: Path) -> Runtime:
    """A runtime on a fresh file."""
    return Runtime(
        f"sqlite:///{folder}/t.db", patterns=[desk, payer, small, echo, asker], inbox=Inbox()
    )

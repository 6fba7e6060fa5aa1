"""One tool call: known? allowed? approved? -> intent -> execute -> outcome."""

from roadworthy.tool_calls.absent import absent
from roadworthy.tool_calls.approval import decided, wait_id
from roadworthy.tool_calls.bulkhead import Bulkheads
from roadworthy.tool_calls.cache import forget_expired
from roadworthy.tool_calls.choice import chosen
from roadworthy.tool_calls.hands import Hands
from roadworthy.tool_calls.later import wait_row
from roadworthy.tool_calls.own import own_tools
from roadworthy.tool_calls.plan import ASK_USER, ESCALATE, may_ask
from roadworthy.tool_calls.turn import OVERTAKEN, Carried, ToolCalls
from roadworthy.tool_calls.watching import watch

__all__ = [
    "ASK_USER",
    "ESCALATE",
    "OVERTAKEN",
    "Bulkheads",
    "Carried",
    "Hands",
    "ToolCalls",
    "absent",
    "chosen",
    "decided",
    "forget_expired",
    "may_ask",
    "own_tools",
    "wait_id",
    "wait_row",
    "watch",
]

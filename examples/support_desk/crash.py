"""The two processes of scene 7: one pays and dies, one goes on.

`scenes.py` starts them. The first one's `refund` is the real one with a SIGKILL after it, so that
the bank has been told and the journal has not.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from decimal import Decimal
from typing import Any

from examples.support_desk.desk import refund, rt, support
from examples.support_desk.scenes import CRASH, TICKET
from examples.support_desk.shop import Shop
from roadworthy import Agent, RunContext


def refund_then_die(run: RunContext[Shop], order_id: str, euros: Decimal, reason: str) -> None:
    """Pay back, and never return."""
    refund(run, order_id, euros, reason)
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


async def ask(agent: Agent[Any, Any]) -> None:
    """The customer's request. Its key makes it the same run in whichever process."""
    async with rt:  # opening it is enough: unfinished runs go on by themselves
        await rt.run(agent, CRASH.words, user=CRASH.user, key=TICKET, options=CRASH.options)


if __name__ == "__main__":
    deadly = replace(refund, function=refund_then_die)
    tools = [deadly if tool is refund else tool for tool in support.tools]
    asyncio.run(ask(replace(support, tools=tools) if sys.argv[1] == "pay-and-die" else support))

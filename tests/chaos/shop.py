"""What the workers of a cluster's trial execute: the desk's runs, against the world of a socket.

`roadworthy worker tests/chaos/shop.py`; the environment names the store and the socket.
"""

from __future__ import annotations

import faulthandler
import os
import signal

from roadworthy import Agent, Budget, Runtime
from tests.chaos.desk import agent_for
from tests.chaos.outside import Remote

BUDGETS = (
    Budget("tenant", "day", usd="20000"),
    Budget("user", "month", usd="10000", tokens=4_000_000_000),
)


def open_runtime(url: str, agent: Agent[None, str], *, execute: bool) -> Runtime:
    """A runtime of the trial."""
    return Runtime(url, patterns=[agent], budgets=BUDGETS, execute=execute)


if "CHAOS_WORLD" in os.environ:
    faulthandler.register(signal.SIGUSR1)  # where is it? asked when a trial fails
    desk = agent_for(Remote(os.environ["CHAOS_WORLD"]))
    rt = open_runtime(os.environ["CHAOS_STORE"], desk, execute=True)

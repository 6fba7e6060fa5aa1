"""What executing calls needs, one per process.

`house` makes it, `ladder` and what lies below work with it. Invariant: nothing of one run is in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from roadworthy.breakers import Circuits
from roadworthy.budget import Ledger
from roadworthy.retries import Backoff
from roadworthy.tool_calls.bulkhead import Bulkheads
from roadworthy.tool_calls.cache import Reader
from roadworthy.tools.execution import ToolThreads


@dataclass(kw_only=True)
class Hands:
    """See above."""

    ledger: Ledger
    threads: ToolThreads
    read: Reader
    circuits: Circuits
    bulkheads: Bulkheads
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.2, most=10.0))

"""Rungs of `fallback=` that are no tools: what stands in for a result that could not be had.

`agent` has them beside `Alternative`. Invariant: plain data, equal in all processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from roadworthy.messages import JsonObject

Asks: TypeAlias = Literal["user", "operator"]


@dataclass(frozen=True)
class LastGood:
    """A rung of `fallback=`: the result of the last equal call that succeeded, at most `seconds`
    old. The model is told that it is, and how old."""

    seconds: float

    def declared(self) -> JsonObject:
        """As data."""
        return {"last_good": self.seconds}


@dataclass(frozen=True)
class Default:
    """A rung of `fallback=`: an answer that is better than none. The model is told what it is."""

    value: Any

    def declared(self) -> JsonObject:
        """As data."""
        return {"default": repr(self.value)}


@dataclass(frozen=True)
class AskPerson:
    """A rung of `fallback=`: a person gives the result, has all tried again, or leaves it."""

    asks: Asks = "operator"

    def declared(self) -> JsonObject:
        """As data."""
        return {"asks": self.asks}

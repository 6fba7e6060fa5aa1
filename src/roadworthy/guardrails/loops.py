"""The loop guard: an agent that comes to the same state again is told, then stopped.

Fed by `tool_calls` with each outcome. State means tool, arguments and result hash, never text, so
polling with changing results passes. Invariant: O(1) per call, and the same outcomes always give
the same notices (a resumed run decides alike).
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from roadworthy.messages import JsonObject

_LONGEST_CYCLE = 4


@dataclass(frozen=True)
class Notice:
    """The same state for the `repeat`-th time."""

    kind: Literal["same_call", "cycle", "varied_call"]
    tool: str
    repeat: int


@dataclass
class LoopGuard:
    """One per run. A successful change of the world starts the count anew."""

    _same: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _varied: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    _states: deque[tuple[str, str, str]] = field(
        default_factory=lambda: deque(maxlen=_LONGEST_CYCLE)
    )
    _cycles: dict[int, int] = field(default_factory=dict)
    _counted: set[tuple[str, ...]] = field(default_factory=set)

    def next_reply(self) -> None:
        """What follows answers another reply. Equal calls of one reply count once: the model had
        seen no result yet."""
        self._counted.clear()

    def observe(
        self, tool: str, arguments: JsonObject, arguments_hash: str, result_hash: str
    ) -> Notice | None:
        """One outcome. Returns the gravest repeat it makes, or None for the first of its kind."""
        state = (tool, arguments_hash, result_hash)
        if not self._first(state):
            return None
        self._same[state] += 1
        found = [Notice("same_call", tool, self._same[state])]
        found.append(Notice("varied_call", tool, self._variations(tool, arguments, result_hash)))
        found.append(Notice("cycle", tool, self._cycle(state)))
        worst = max(found, key=lambda notice: notice.repeat)
        return worst if worst.repeat > 1 else None

    def changed(self) -> None:
        """The world changed (a write succeeded, the user spoke): looking again is no loop."""
        self._same.clear()
        self._varied.clear()
        self._states.clear()
        self._cycles.clear()

    def _variations(self, tool: str, arguments: JsonObject, result_hash: str) -> int:
        """Calls alike but for one argument, with the same result: a key per argument left out."""
        most = 0
        for name in arguments:
            rest = {k: v for k, v in arguments.items() if k != name}
            key = (tool, name, msgspec.json.encode(rest, order="sorted").decode(), result_hash)
            if self._first(key):
                self._varied[key] += 1
                most = max(most, self._varied[key])
        return most

    def _first(self, key: tuple[str, ...]) -> bool:
        """Whether this is the first of its kind since the last reply."""
        known = key in self._counted
        self._counted.add(key)
        return not known

    def _cycle(self, state: tuple[str, str, str]) -> int:
        """How often a cycle of 2 to 4 states has been walked, counted as this state closes it."""
        most, recent = 0, list(self._states)
        for length in range(2, _LONGEST_CYCLE + 1):
            matches = len(recent) >= length and recent[-length] == state
            self._cycles[length] = self._cycles.get(length, 0) + 1 if matches else 0
            if matches and len({*recent[-length:]}) > 1:
                most = max(most, 1 + self._cycles[length] // length)
        self._states.append(state)
        return most

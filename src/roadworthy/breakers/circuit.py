"""One breaker as one process sees it: outcomes of the last seconds, and until when it is open.

`circuits` holds one per tool and model. Invariant: a pure state machine; the time is handed in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from roadworthy.clock import MICROS
from roadworthy.limits import Breaker

_SLOTS = 12  # of a window: what is older than it is forgotten slot by slot


@dataclass
class Slot:
    """Outcomes of a part of the window. at: when it began, in microseconds."""

    at: int
    calls: int = 0
    failures: int = 0
    kinds: set[str] = field(default_factory=set)


@dataclass
class Circuit:
    """open_until: 0 is closed; past, one call may try. elsewhere: (failures, calls) that other
    processes told of; told: those they were told of. shared: that it is open is in the store.
    since, cause: when it opened, and by what failure, if it is open. kinds: what failed, by whoever
    asked, of which it takes `least_kinds` to open it."""

    breaker: Breaker
    open_until: int = 0
    probing_until: int = 0
    elsewhere: tuple[int, int] = (0, 0)
    told: tuple[int, int] = (0, 0)
    shared: bool = False
    since: int = 0
    cause: str = ""
    least_kinds: int = 1
    slots: deque[Slot] = field(default_factory=deque)

    def count(self, now: int, *, failed: bool, kind: str = "") -> None:
        """One outcome of a closed breaker's call."""
        slots = self.slots
        self._forget(now)
        width = self.breaker.window * MICROS / _SLOTS
        if not slots or now - slots[-1].at >= width:
            slots.append(Slot(now))
        slots[-1].calls += 1
        slots[-1].failures += failed
        if failed:
            slots[-1].kinds.add(kind)

    def seen(self, now: int) -> tuple[int, int]:
        """(failures, calls) of the window in this process."""
        self._forget(now)
        return sum(s.failures for s in self.slots), sum(s.calls for s in self.slots)

    def trips(self, now: int) -> bool:
        """Whether what failed, here and elsewhere, is enough to open it."""
        if self.open_until:
            return False
        failures, calls = self.seen(now)
        if len({kind for slot in self.slots for kind in slot.kinds}) < self.least_kinds:
            return False
        failures, calls = failures + self.elsewhere[0], calls + self.elsewhere[1]
        return failures >= self.breaker.failures and failures >= self.breaker.share * calls

    def open(self, until: int, since: int, cause: str) -> None:
        """Refuse until then; what was counted is over."""
        self.since, self.cause = since, cause
        self.open_until, self.probing_until, self.shared = until, 0, False
        self._reset()

    def close(self) -> None:
        """Begin anew."""
        self.open_until = self.probing_until = self.since = 0
        self.shared, self.cause = False, ""
        self._reset()

    def _reset(self) -> None:
        self.slots.clear()
        self.elsewhere = self.told = (0, 0)

    def _forget(self, now: int) -> None:
        oldest = now - self.breaker.window * MICROS
        while self.slots and self.slots[0].at <= oldest:
            self.slots.popleft()

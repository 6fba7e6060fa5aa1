"""A run's times with a person, as recorded: each handover, and how it came back.

Part of `run.Past`; the loop's gate reads it. Invariant: at most the last one is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roadworthy.events import HandedBack


def handover_key(number: int) -> str:
    """Where the handover of this number stands in the journal, from 1."""
    return f"escalation/{number}"


@dataclass(frozen=True, kw_only=True)
class Errand:
    """Something the person who owns the run wants done. kind: "draft" a reply, or "call" a tool."""

    key: str
    kind: str
    tool: str
    detail: Mapping[str, Any]
    by: str


@dataclass(frozen=True, kw_only=True)
class Handover:
    """One time with a person. why: plain words. back: None while it is open."""

    key: str
    trigger: str
    why: str
    by: str = ""
    back: HandedBack | None = None
    errands: Sequence[Errand] = ()


@dataclass(frozen=True)
class Handovers:
    """All of a run, in order."""

    all: Sequence[Handover] = ()

    @property
    def open(self) -> Handover | None:
        """The one that holds the run now."""
        last = self.all[-1] if self.all else None
        return last if last is not None and last.back is None else None

    @property
    def next_key(self) -> str:
        """Where the one that is open stands, or the next one would."""
        return self.open.key if self.open is not None else handover_key(len(self.all) + 1)

    @property
    def any_back(self) -> bool:
        """Whether the run was with a person, and is not any more."""
        return any(handover.back is not None for handover in self.all)

    def back_after(self, seq: int) -> bool:
        """Whether one came back behind this place in the journal."""
        return any(each.back is not None and each.back.seq > seq for each in self.all)

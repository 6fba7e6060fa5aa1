"""What a run has used, counted from its recorded events.

`Run` holds one and counts each event once. Invariant: the same events give the same usage, however
often the run was resumed, and the phases add up to what was spent and assumed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from roadworthy.events import (
    ModelFailed,
    ModelReplied,
    RunEvent,
    ToolAcknowledged,
    ToolAttemptFailed,
    ToolFailed,
    ToolSucceeded,
)
from roadworthy.limits import Phase, PhaseUsage, Usage

# Sources of results for which nothing was done again, and codes of calls that surely did nothing.
_UNDONE = frozenset({"repeat", "cache"})
_WITHOUT_EFFECT = frozenset({"tool_error", "not_applied", "left", "breaker_open", "busy"})
# A result that stands in for one, such as an old value, proves nothing: only these do.
_PROOFS = frozenset({"call", "cache", "repeat", "reconciled", "person", "fallback", "later"})
_OURS = ("crashed", "ModelInterrupted")  # the model did not fail; it is asked the same again


@dataclass
class Meter:
    """What the run has used, counted from recorded events only."""

    turns: int = 0
    tool_calls: int = 0
    replies: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    nanos: int = 0
    assumed: int = 0
    earlier_seconds: float = 0.0
    by_phase: dict[Phase, PhaseUsage] = field(default_factory=dict)
    succeeded: set[str] = field(default_factory=set)  # tools
    happened: Counter[str] = field(default_factory=Counter)  # by tool; in doubt it did

    def count(self, event: RunEvent) -> None:
        """Add one event."""
        match event:
            case ModelReplied():
                self.replies += 1
                self.input_tokens += event.input_tokens
                self.output_tokens += event.output_tokens
                self.cache_read_tokens += event.cache_read_tokens
                self.nanos += event.nanos
                self._phase(event.phase, event.nanos, event.input_tokens, event.output_tokens)
            case ModelFailed():
                self.failures += event.code not in _OURS
                self._assume(event.assumed)
            case ToolAttemptFailed():
                self._pay(event.nanos, event.phase)
                self._assume(event.assumed)
            case ToolAcknowledged():
                self._pay(event.nanos)
            case ToolSucceeded() | ToolFailed():
                self.tool_calls += 1
                self._pay(event.nanos, event.phase)
                self._deed(event)
            case _:
                pass

    def _deed(self, event: ToolSucceeded | ToolFailed) -> None:
        """What rules look at."""
        if isinstance(event, ToolFailed):
            self.happened[event.tool] += event.code not in _WITHOUT_EFFECT
            return
        self.happened[event.tool] += event.source not in _UNDONE
        of_user = event.source == "person" and event.asked == "user"  # of a tool, they know less
        if event.source in _PROOFS and not of_user:
            self.succeeded.add(event.tool)

    def usage(self, seconds: float) -> Usage:
        """As a value. seconds: active time of this segment."""
        return Usage(
            turns=self.turns,
            tool_calls=self.tool_calls,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cache_read_tokens=self.cache_read_tokens,
            nanos=self.nanos,
            assumed_nanos=self.assumed,
            seconds=round(self.earlier_seconds + seconds, 3),
            by_phase=dict(self.by_phase),
        )

    def _pay(self, nanos: int, phase: Phase = "execute") -> None:
        """What tools cost is spent on executing, beyond the first attempt on recovering."""
        self.nanos += nanos
        if nanos:
            self._phase(phase, nanos)

    def _assume(self, nanos: int) -> None:
        """What nobody knows the truth of is the price of recovering."""
        self.assumed += nanos
        if nanos:
            self._phase("recover", nanos)

    def _phase(self, phase: Phase, nanos: int, tokens_in: int = 0, tokens_out: int = 0) -> None:
        old = self.by_phase.get(phase, PhaseUsage())
        self.by_phase[phase] = PhaseUsage(
            input_tokens=old.input_tokens + tokens_in,
            output_tokens=old.output_tokens + tokens_out,
            nanos=old.nanos + nanos,
        )

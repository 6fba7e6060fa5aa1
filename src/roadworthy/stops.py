"""How a run's code is left: a `Stop`, a `Suspend` with what is waited for, a replay's end.

Raised by the loop and what lies below it, caught once. Invariant: none of them is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from roadworthy.result import Reason


class Stop(Exception):
    """The run ends here. Caught once, in `loop`; carries how and why."""

    def __init__(
        self, reason: Reason, why: str, *, text: str | None = None, trigger: str = ""
    ) -> None:
        super().__init__(why)
        self.reason: Reason = reason
        self.why = why
        self.text = text
        self.trigger = trigger  # of an escalation


class Suspend(Exception):
    """The run waits; `waits` are the rows that will wake it."""

    def __init__(self, waits: Sequence[Wait]) -> None:
        super().__init__("waiting")
        self.waits = tuple(waits)


class RecordEnds(Exception):
    """A replay came to a step that was never recorded."""


@dataclass(frozen=True, kw_only=True)
class Wait:
    """One thing a run waits for: a decision on a call, the user's answer, a call's result."""

    id: str
    key: str
    kind: Literal["user", "approval", "unknown_outcome", "failure", "version", "later", "handover"]
    detail: Any
    tool: str = ""
    asks: Literal["user", "operator"] = "operator"
    arguments_hash: str = ""
    reason: str = ""
    expires: int | None = None
    choices: tuple[str, ...] = ()  # of a question


def handover_wait(run_id: str, key: str, judged: tuple[str, str], by: str = "") -> Wait:
    """What a run waits for while it is with persons. judged: trigger, and why in plain words."""
    trigger, why = judged
    return Wait(
        id=person_id(run_id, key),
        key=key,
        kind="handover",
        detail={"trigger": trigger, "why": why, "by": by},
        reason=why,
    )


def person_id(run_id: str, key: str) -> str:
    """The id of a handover's or an errand's wait."""
    return "hnd_" + hashlib.sha256(f"{run_id}\0{key}".encode()).hexdigest()[:20]

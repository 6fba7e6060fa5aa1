"""What a run comes to: `RunResult`, its `Report`, and what it waits for.

Made by the loop, journaled in `RunEnded` and `RunWaiting`, handed to callers. Invariant: `text`
is always what the user may see, whatever the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeAlias

from msgspec import Struct, field
from typing_extensions import TypeVar

from roadworthy.errors import RunNotCompleted
from roadworthy.limits import Usage
from roadworthy.messages import JsonObject

Output = TypeVar("Output", default=Any)

EndStatus: TypeAlias = Literal["completed", "partial", "stopped", "failed"]
WaitStatus: TypeAlias = Literal["waiting", "escalated"]
Status: TypeAlias = Literal[
    "queued", "running", "waiting", "escalated", "completed", "partial", "stopped", "failed"
]
ENDS: tuple[EndStatus, ...] = ("completed", "partial", "stopped", "failed")

Reason: TypeAlias = Literal[
    "answered",
    "turn_limit",
    "tool_call_limit",
    "time_limit",
    "budget",
    "loop",
    "cancelled",
    "guardrail",
    "escalated",
    "model_failed",
    "model_rejected",
    "invalid_output",
    "declaration_changed",
    "poison",
    "error",
    "waiting",
    "resolved",
    "joined",
]
Mark: TypeAlias = Literal["limit", "resumable", "outside"]
MARKS: Mapping[Reason, frozenset[Mark]] = {
    "answered": frozenset(),
    "turn_limit": frozenset({"limit", "resumable"}),
    "tool_call_limit": frozenset({"limit", "resumable"}),
    "time_limit": frozenset({"limit", "resumable"}),
    "budget": frozenset({"limit", "resumable", "outside"}),
    "loop": frozenset({"limit", "resumable"}),
    "cancelled": frozenset({"outside"}),
    "guardrail": frozenset(),
    "escalated": frozenset(),
    "model_failed": frozenset({"resumable", "outside"}),
    "model_rejected": frozenset({"resumable", "outside"}),
    "invalid_output": frozenset({"limit", "resumable"}),
    "declaration_changed": frozenset({"outside"}),  # a person stopped it
    "poison": frozenset({"resumable", "outside"}),  # a person looked at what killed the processes
    "error": frozenset({"resumable", "outside"}),
    "waiting": frozenset(),
    "resolved": frozenset(),  # a person settled it
    "joined": frozenset({"outside"}),  # its message went to the person who owns the conversation
}
"""What the reasons mean, for every reader at once. limit: a bound of its own ended the run, so one
closing answer is worth its price. resumable: what ended it may have been mended, so it may go on
where it stood, if it has come to something (`is_resumable`). outside: no record of a step tells
it, so a replay takes the end's word."""
Decision: TypeAlias = Literal["approve", "edit", "reject", "respond"]
ApprovalKind: TypeAlias = Literal["approval", "unknown_outcome", "failure", "version"]


def is_resumable(status: str, reason: str) -> bool:
    """Whether `resume` may go on with a run that ended so: partial ones, and those that a limit
    or dying processes stopped before there was anything."""
    marks = next((found for known, found in MARKS.items() if known == reason), frozenset())
    stopped = status == "stopped" and ("limit" in marks or reason == "poison")
    return "resumable" in marks and (status == "partial" or stopped)


class Approval(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that waits for a person: a call, or a run whose agent changed.

    kind "approval": may it run? kind "unknown_outcome": did it happen? Then `approve` means "it
    did not, run it", `respond` "it did, this is its result", `reject` "leave it". kind "failure":
    it failed on every way it has: `approve` means "try all again", `respond` "this is its result",
    `reject` "leave it", so that the model is told of the failure. kind "version":
    may the run go on under the agent as it is declared now? `approve` or `reject` (it stops);
    `arguments` holds what changed and which calls are pending.
    expires: microseconds since 1970 UTC, or None.
    """

    id: str
    run_id: str
    tool: str
    arguments: JsonObject
    asks: Literal["user", "operator"] = "operator"
    kind: ApprovalKind = "approval"
    reason: str = ""
    expires: int | None = None


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The status report every run ends with: what was done, what is missing, why, and spent.

    undoable: the tools, newest first, whose effects `rt.undo` would take back.
    """

    done: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    why: str = ""
    undoable: tuple[str, ...] = ()


class RunResult(Struct, Generic[Output], frozen=True, kw_only=True, omit_defaults=True):
    """The answer to `rt.run`.

    status: how it ended, or `waiting` / `escalated` (not over). reason: why, as a code.
    text: what the user may see. output: the typed answer of a completed run with `output=`.
    waiting: approvals that hold the run up. question: what the agent asks the user. choices: the
    answers it offers, if it does; any other words are an answer too.
    """

    run_id: str
    status: Status
    reason: Reason
    text: str = ""
    output: Output | None = None
    report: Report = field(default_factory=Report)
    usage: Usage = field(default_factory=Usage)
    waiting: tuple[Approval, ...] = ()
    question: str | None = None
    choices: tuple[str, ...] = ()
    conversation: str | None = None

    @property
    def over(self) -> bool:
        """Whether the run has ended (`waiting` and `escalated` have not)."""
        return self.status in ENDS

    def unwrap(self) -> Output:
        """The output of a completed run (its text when no `output=` was declared).

        Raises: RunNotCompleted: the run ended otherwise; the message says how and why.
        """
        if self.status != "completed":
            raise RunNotCompleted(
                f"Run {self.run_id} is {self.status} ({self.reason}): "
                f"{self.report.why or 'no further detail'}"
            )
        return self.output if self.output is not None else self.text  # type: ignore[return-value]

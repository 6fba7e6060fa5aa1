"""The exception tree. Errors say what happened, why, and how to mend it.

RoadworthyError
├── DeclarationError           an Agent, tool, limit or budget is declared wrong
├── ConfigurationError         a setting, key, price or extra is missing or wrong
│   ├── PriceUnknown           no price for a model: refused, not free
│   └── ToolsetUnavailable     a toolset cannot be opened
│       └── ToolsChanged       its tools are not those that were accepted
├── StoreError                 the store cannot be used
│   ├── StoreUnavailable       full, locked too long, unreachable or corrupt
│   ├── StoreVersionError      written by another release
│   └── Fenced                 another process took this run over; nothing was written
├── RunError                   what was asked cannot be done with this run
│   ├── UnknownRun · UnknownApproval · NotResumable · NotUndoable
│   ├── PatternUnknown · VersionHeld
│   ├── IdempotencyConflict · ConversationBusy · Overloaded
│   ├── UnknownToken · ResultConflict · ResultTooLate      a result that arrived later
│   ├── UnknownEscalation · NotYours                       what an operator asked
│   └── RunNotCompleted        `unwrap()` of a run that did not complete
├── ToolError                  raised by tools: told to the model, never crashes the run
│   └── NotApplied             the effect surely did not happen
└── ModelError                 one attempt at a model failed (internal to retry and fallback)
    ├── ModelRateLimited · ModelUnavailable      nothing was charged
    ├── ModelOutcomeUnknown                      timeout, cut stream: perhaps charged
    │   └── ModelInterrupted                     we broke it off: asked again, no failure
    └── ModelRejected                            never retried
        └── ModelContextOverflow · ModelAuthenticationFailed

Stops (how a run's code is left; not errors) are in `roadworthy.stops`.
"""

from __future__ import annotations

from typing import ClassVar


class RoadworthyError(Exception):
    """Root of everything Roadworthy raises on purpose. `mend`: what to do about this kind."""

    mend: ClassVar[str] = "Read the message; the log of the process that raised it says more."


class DeclarationError(RoadworthyError):
    """A declaration is wrong; the message says which and how to mend it."""

    mend = "Correct the declaration that the message names, and start the process again."


class ConfigurationError(RoadworthyError):
    """A setting, credential or optional package is missing or wrong."""

    mend = "Set or correct what the message names, and start the process again."


class PriceUnknown(ConfigurationError):
    """No price is known for a model. Unknown is refused, never free."""

    mend = "Declare its price: Runtime(..., prices={...}), or Price.free()."

    def __init__(self, model: str) -> None:
        super().__init__(
            f"No price is known for model {model!r}, so its cost cannot be bounded. Declare one: "
            f"Runtime(..., prices={{{model!r}: Price(input=2, output=8)}}) in dollars per million "
            f"tokens, or Price.free() for a model you run yourself."
        )
        self.model = model


class ToolsetUnavailable(ConfigurationError):
    """A toolset cannot be opened: not there, too slow, or not what it should be."""

    mend = "Start or correct what the message names; its tools come back by themselves."


class ToolsChanged(ToolsetUnavailable):
    """A toolset offers other tools than those that were accepted. They are not called."""

    mend = "Read what changed. If it is right, accept the new tools under the pin it names."


class StoreError(RoadworthyError):
    """The store refused or lost an operation."""

    mend = "Ask again in a moment; if it stays, look at the store and its disk."


class StoreUnavailable(StoreError):
    """The store cannot commit (full disk, locked for long, corrupt, unreachable)."""

    mend = "Free the disk or the lock that the message names. What was accepted is kept."


class StoreVersionError(StoreError):
    """The store or one of its journals was written by an unknown release."""

    mend = "Open the store with the newest release that has written to it."


class Fenced(StoreError):
    """Another process owns this run now (its epoch moved on). Nothing was written."""

    mend = "Nothing is lost: ask again, the process that owns the run now will answer."


class RunError(RoadworthyError):
    """What was asked cannot be done with this run."""

    mend = "Correct the request as the message says, and send it again."


class UnknownRun(RunError):
    """No run has this id in this store."""

    mend = "Use the id that the start of the run gave, with the store it was started in."


class UnknownApproval(RunError):
    """No approval has this id, or it was decided or has expired."""

    mend = "Read the run again: its result lists the approvals that are open."


class NotResumable(RunError):
    """Only `partial` and limit-stopped runs can be resumed; others need a new run."""

    mend = "Start a new run."


class NotUndoable(RunError):
    """Only runs that are over are undone, and only what their tools can take back."""

    mend = "Wait for the run's end or cancel it; what no tool takes back, a person has to."


class PatternUnknown(RunError):
    """The run's pattern is not registered in this process."""

    mend = "Open the runtime with the agent: Runtime(..., patterns=[agent])."


class VersionHeld(RunError):
    """The run's agent is declared otherwise here, and its policy is to drain."""

    mend = (
        "Run a process with the declaration that the run began with until it is done, or declare "
        'on_change="continue" or "ask", or cancel the run.'
    )


class IdempotencyConflict(RunError):
    """The same idempotency key was used before with another request (HTTP 409)."""

    mend = "Use a new key for a new request; repeat a request unchanged."


class Overloaded(RunError):
    """Too many runs wait to begin (HTTP 429). retry_after: seconds after which to ask again."""

    mend = "Send it again later, after as long as the answer says, or start more workers."

    def __init__(self, message: str, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ConversationBusy(RunError):
    """The conversation's active run is not over, and the message was not to be queued."""

    mend = 'Wait for the active run, or send with when_busy="queue".'


class UnknownToken(RunError):
    """No call of this store waits, or waited, for a result under this token."""

    mend = "Send the token exactly as the tool was given it: `run.key`."


class ResultConflict(RunError):
    """Another result was delivered under this token before (HTTP 409). That one stands."""

    mend = "Repeat a delivery unchanged. A correction is a new request to the agent."


class ResultTooLate(RunError):
    """The call is over without this result (HTTP 410): its deadline passed, it failed, or its run
    has ended. Nothing was recorded."""

    mend = "Look at the run; if the result still matters, start a new one with it."


class RunNotCompleted(RunError):
    """`RunResult.unwrap()` was called on a run that did not complete with an output."""

    mend = "Look at status and report before you unwrap."


class ToolError(RoadworthyError):
    """Raise it in a tool to tell the model what to do instead.

    `retry=True` marks a transient failure of what is behind the tool: the runtime may retry by
    itself (reads, and effects that are safe under their key) and go down the tool's ladder before
    it tells the model. retry_after: seconds after which the far side asked to come back.
    """

    mend = "Call the tool as its message says."

    def __init__(
        self, message: str, *, retry: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.retry = retry
        self.retry_after = retry_after


class NotApplied(ToolError):
    """Raise it when the effect surely did not happen: the call may then be tried again."""

    mend = "Call the tool again."

    def __init__(
        self, message: str, *, retry: bool = True, retry_after: float | None = None
    ) -> None:
        super().__init__(message, retry=retry, retry_after=retry_after)


class ModelError(RoadworthyError):
    """One attempt at a model call failed. `retry_after` in seconds when the provider said so.

    cause: in a word, such as "status 503"; "connection": nothing was reached, or it broke.
    """

    mend = "Ask again later, or name another model."

    retryable = False
    charge_unknown = False

    def __init__(self, message: str, *, retry_after: float | None = None, cause: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.cause = cause


class ModelRateLimited(ModelError):
    """HTTP 429: nothing was charged, try later."""

    mend = "Ask again later, or raise the quota at the provider."

    retryable = True


class ModelUnavailable(ModelError):
    """The provider refused or failed before working (5xx, connection refused): try again."""

    mend = "Ask again later, or give the tier a second model to fall back on."

    retryable = True


class ModelOutcomeUnknown(ModelError):
    """Timeout, reset or cut reply after the request left: it may have been charged."""

    mend = "Raise ModelSettings(timeout=), or ask for shorter answers."

    retryable = True
    charge_unknown = True


class ModelInterrupted(ModelOutcomeUnknown):
    """We broke the call off: the run was cancelled, out of time, or left to another process."""

    mend = "Nothing: a run that goes on asks again."


class ModelRejected(ModelError):
    """The provider refuses this request for good (bad request, quota, not found)."""

    mend = "Correct the request or the model's name as the message says."


class ModelContextOverflow(ModelRejected):
    """The request is longer than the model's context window."""

    mend = "Send less: a shorter conversation, smaller tool results."


class ModelAuthenticationFailed(ModelRejected):
    """The provider refused the credentials."""

    mend = "Set the provider's key to one that it accepts."


class UnknownEscalation(RunError):
    """There is no such escalation, or it is of another tenant."""

    mend = "Look at the list of escalations; a resolved one can be read, and not acted on."


class NotYours(RunError):
    """Another person owns this, or nobody does and the action needs an owner."""

    mend = "Take it first, or ask the person whom the message names to hand it over."

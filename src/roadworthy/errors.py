"""The exception tree. Errors say what happened, why, and how to mend it.

RoadworthyError
├── DeclarationError           an Agent, tool, limit or budget is declared wrong
├── ConfigurationError         a setting, key, price or extra is missing or wrong
│   └── PriceUnknown           no price for a model: refused, not free
├── StoreError                 the store cannot be used
│   ├── StoreUnavailable       full, locked too long, unreachable or corrupt
│   ├── StoreVersionError      written by another release
│   └── Fenced                 another process took this run over; nothing was written
├── RunError                   what was asked cannot be done with this run
│   ├── UnknownRun · UnknownApproval · NotResumable · PatternUnknown
│   ├── IdempotencyConflict · ConversationBusy
│   └── RunNotCompleted        `unwrap()` of a run that did not complete
├── ToolError                  raised by tools: told to the model, never crashes the run
│   └── NotApplied             the effect surely did not happen
└── ModelError                 one attempt at a model failed (internal to retry and fallback)
    ├── ModelRateLimited · ModelUnavailable      nothing was charged
    ├── ModelOutcomeUnknown                      timeout, cut stream: perhaps charged
    └── ModelRejected                            never retried
        └── ModelContextOverflow · ModelAuthenticationFailed

Stops (how a run's code is left; not errors) are in `roadworthy.run`.
"""

from __future__ import annotations


class RoadworthyError(Exception):
    """Root of everything Roadworthy raises on purpose."""


class DeclarationError(RoadworthyError):
    """A declaration is wrong; the message says which and how to mend it."""


class ConfigurationError(RoadworthyError):
    """A setting, credential or optional package is missing or wrong."""


class PriceUnknown(ConfigurationError):
    """No price is known for a model. Unknown is refused, never free."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"No price is known for model {model!r}, so its cost cannot be bounded. Declare one: "
            f"Runtime(..., prices={{{model!r}: Price(input=2, output=8)}}) in dollars per million "
            f"tokens, or Price.free() for a model you run yourself."
        )
        self.model = model


class StoreError(RoadworthyError):
    """The store refused or lost an operation."""


class StoreUnavailable(StoreError):
    """The store cannot commit (full disk, locked for long, corrupt, unreachable)."""


class StoreVersionError(StoreError):
    """The store or one of its journals was written by an unknown release."""


class Fenced(StoreError):
    """Another process owns this run now (its epoch moved on). Nothing was written."""


class RunError(RoadworthyError):
    """What was asked cannot be done with this run."""


class UnknownRun(RunError):
    """No run has this id in this store."""


class UnknownApproval(RunError):
    """No approval has this id, or it was decided or has expired."""


class NotResumable(RunError):
    """Only `partial` and limit-stopped runs can be resumed; others need a new run."""


class PatternUnknown(RunError):
    """The run's pattern is not registered in this process."""


class IdempotencyConflict(RunError):
    """The same idempotency key was used before with another request (HTTP 409)."""


class ConversationBusy(RunError):
    """The conversation's active run is not over, and the message was not to be queued."""


class RunNotCompleted(RunError):
    """`RunResult.unwrap()` was called on a run that did not complete with an output."""


class ToolError(RoadworthyError):
    """Raise it in a tool to tell the model what to do instead.

    `retry=True` marks a transient failure that the runtime may retry by itself before it
    tells the model (reads, and effects that are safe under their key).
    """

    def __init__(self, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.retry = retry


class NotApplied(ToolError):
    """Raise it when the effect surely did not happen: the call may then be tried again."""

    def __init__(self, message: str, *, retry: bool = True) -> None:
        super().__init__(message, retry=retry)


class ModelError(RoadworthyError):
    """One attempt at a model call failed. `retry_after` in seconds when the provider said so."""

    retryable = False
    charge_unknown = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelRateLimited(ModelError):
    """HTTP 429: nothing was charged, try later."""

    retryable = True


class ModelUnavailable(ModelError):
    """The provider refused or failed before working (5xx, connection refused): try again."""

    retryable = True


class ModelOutcomeUnknown(ModelError):
    """Timeout, reset or cut reply after the request left: it may have been charged."""

    retryable = True
    charge_unknown = True


class ModelRejected(ModelError):
    """The provider refuses this request for good (bad request, quota, not found)."""


class ModelContextOverflow(ModelRejected):
    """The request is longer than the model's context window."""


class ModelAuthenticationFailed(ModelRejected):
    """The provider refused the credentials."""

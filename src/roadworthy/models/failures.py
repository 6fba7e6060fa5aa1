"""What the model library raises, as our errors.

`adapter.py` calls it for every failed attempt. Invariant: what may have been charged is never
called refused, and what was surely refused is never called unknown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from roadworthy.errors import (
    ConfigurationError,
    ModelAuthenticationFailed,
    ModelContextOverflow,
    ModelError,
    ModelOutcomeUnknown,
    ModelRateLimited,
    ModelRejected,
    ModelUnavailable,
)

if TYPE_CHECKING:
    from pydantic_ai.exceptions import ModelAPIError

_MOST = 500
UNREACHED = "connection"
"""The cause of a failure that says more of a provider than of one model."""

# Answered by something in front of the model that may have passed the request on.
_GATEWAY = frozenset({408, 502, 504, 520, 522, 524})
_BUSY = frozenset({409, 425})
_PASSING = _GATEWAY | _BUSY | {429}
_SERVER = 500
_TOO_LARGE = 413
_KEY = re.compile(r"\b(?=[A-Za-z_-]*\d)(sk-|gsk_|AIza|Bearer )[A-Za-z0-9_-]{16,}")


def failure(error: Exception, *, sent: bool, secret: str = "") -> ModelError | ConfigurationError:
    """Our error for one of the library's. `sent`: the request may have left this machine.

    secret: the key that was used; no error quotes it.
    """
    from pydantic_ai import exceptions as theirs

    if isinstance(error, ModelError | ConfigurationError):
        return error
    said = _said(error, secret)
    if isinstance(error, theirs.ModelAPIError):
        return _of_api(error, said)
    if isinstance(error, theirs.UserError | theirs.ContentFilterError) or not sent:
        return ModelRejected(said)
    return ModelOutcomeUnknown(said)  # an unreadable reply, or a fault inside the library


def _of_api(error: ModelAPIError, said: str) -> ModelError:
    from pydantic_ai import exceptions as theirs

    status = error.status_code if isinstance(error, theirs.ModelHTTPError) else None
    refused = isinstance(error, theirs.ModelRequestRejectedError | theirs.ModelQuotaExceededError)
    if refused or (status is not None and status not in _PASSING and status < _SERVER):
        return _refused(error, status)(said)
    cause = "" if status is None else f"status {status}"
    if isinstance(error, theirs.ModelConnectionError):
        cause = UNREACHED
    return _passing(error, status)(said, retry_after=error.retry_after, cause=cause)


def _passing(error: ModelAPIError, status: int | None) -> type[ModelError]:
    """What another attempt may mend: was anything charged?"""
    from pydantic_ai import exceptions as theirs

    if isinstance(error, theirs.ModelConnectionError):
        unsent = error.phase in ("pool", "connect")
        return ModelUnavailable if unsent else ModelOutcomeUnknown
    if error.in_stream or status in _GATEWAY:  # it had begun, or was passed on
        return ModelOutcomeUnknown
    if isinstance(error, theirs.ModelRateLimitError):
        return ModelRateLimited
    down = isinstance(error, theirs.ModelUnavailableError | theirs.ModelServerError)
    return ModelUnavailable if down or status in _BUSY else ModelOutcomeUnknown


def _refused(error: ModelAPIError, status: int | None) -> type[ModelRejected]:
    from pydantic_ai import exceptions as theirs

    if isinstance(error, theirs.ModelContextWindowExceededError) or status == _TOO_LARGE:
        return ModelContextOverflow
    if isinstance(error, theirs.ModelAuthenticationError):
        return ModelAuthenticationFailed
    return ModelRejected


def _said(error: Exception, secret: str) -> str:
    """The message, short, with the key and anything that looks like a credential taken out."""
    text = str(error) or type(error).__name__
    text = text.replace(secret, "***") if secret else text
    return _KEY.sub(r"\1***", text)[:_MOST]

"""What an exception of a tool says of the far side: is it down, busy, and when to come back?

`execution` asks it. Invariant: it looks, it imports no library to do so, and it never raises.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from roadworthy.clock import MICROS
from roadworthy.errors import ToolError

_PASSING = frozenset({408, 425, 429})
_BUSY = frozenset({425, 429})
_SERVER, _CLIENT = 500, 400
_MOST_STATUS = 600
_LONGEST, _MOST_WAIT = 64, 86_400.0  # characters and seconds of a Retry-After
_LIBRARIES = ("aiohttp", "httpcore", "httpx", "httpx2", "requests", "urllib3")
# What these libraries call a far side that did not answer.
_NAMES = frozenset({"TransportError", "TimeoutException", "ClientConnectionError", "HTTPError"})
_GONE = (ConnectionError, TimeoutError, socket.gaierror)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """far_side: it failed there, be it down, out of reach or busy. busy: with this caller, it said,
    which says nothing of others. passing: another attempt may help. retry_after: seconds it asked
    for. cause: in a word, without anything that was said."""

    far_side: bool
    passing: bool
    busy: bool = False
    retry_after: float | None = None
    cause: str = ""


NO_FAULT = Fault(far_side=False, passing=False)


def fault(error: BaseException, now: int) -> Fault:
    """What went wrong where. now: microseconds UTC, for a Retry-After that is a date."""
    if isinstance(error, ToolError):
        behind = error.__cause__  # what the tool made its words of
        return Fault(
            far_side=error.retry,
            passing=error.retry,
            busy=error.retry and behind is not None and _status(behind) in _BUSY,
            retry_after=_sane(error.retry_after),
            cause=_cause(behind or error),
        )
    status = _status(error)
    if status is not None:
        down = status in _PASSING or status >= _SERVER
        return Fault(
            far_side=down,
            passing=down,
            busy=status in _BUSY,
            retry_after=_retry_after(error, now) if down else None,
            cause=_cause(error),
        )
    gone = isinstance(error, _GONE) or _is_transport(error)
    if not gone and isinstance(reason := getattr(error, "reason", None), _GONE):  # urllib's
        gone = reason is not None
    return Fault(far_side=gone, passing=True, cause=_cause(error))


def _cause(error: BaseException) -> str:
    status = _status(error)
    return type(error).__name__ if status is None else f"status {status}"


def _is_transport(error: BaseException) -> bool:
    return any(
        kind.__name__ in _NAMES and kind.__module__.partition(".")[0] in _LIBRARIES
        for kind in type(error).__mro__
    )


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error carries, as the usual libraries have it."""
    places = (getattr(error, "response", None), error)
    for place in places:
        for name in ("status_code", "status", "code"):
            found = getattr(place, name, None)
            if type(found) is int and _CLIENT <= found < _MOST_STATUS:
                return found
    return None


def _retry_after(error: BaseException, now: int) -> float | None:
    """Seconds to wait, from the header (RFC 9110, 10.2.3): a number or a date."""
    own = getattr(error, "retry_after", None)
    if isinstance(own, int | float) and not isinstance(own, bool):
        return _sane(own)
    for place in (getattr(error, "response", None), error):
        headers = getattr(place, "headers", None)
        if headers is None or not hasattr(headers, "get"):
            continue
        said = _header(headers)
        if isinstance(said, str):
            return retry_after(said, now / MICROS)
    return None


def _header(headers: Mapping[str, str]) -> str | None:
    return headers.get("Retry-After") or headers.get("retry-after")


def retry_after(said: str, now: float | None) -> float | None:
    """Seconds to wait as a Retry-After says: a number or a date (RFC 9110, 10.2.3). None: it says
    nothing of use. now: seconds UTC by the clock the date is read against; None: there is none."""
    try:
        return _sane(float(said.strip()[:_LONGEST]))
    except ValueError:
        moment = timestamp(said)
    return None if moment is None or now is None else _sane(moment - now)


def timestamp(said: str) -> float | None:
    """A date of a header in seconds UTC. None: it is none."""
    try:
        moment = parsedate_to_datetime(said.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def _sane(seconds: float | None) -> float | None:
    if seconds is None or not math.isfinite(seconds):
        return None
    return min(max(0.0, seconds), _MOST_WAIT)

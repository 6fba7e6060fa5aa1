"""What exceptions of tools say of the far side."""

from __future__ import annotations

import socket
import urllib.error
from email.message import Message

import httpx
import pytest

from roadworthy.errors import NotApplied, ToolError
from roadworthy.tools.faults import fault

NOW = 1_767_225_600_000_000  # 2026-01-01 00:00 UTC


def http(status: int, **headers: str) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://desk")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.HTTPStatusError(
        "x", request=request, response=httpx.Response(status, headers=named)
    )


def from_urllib(status: int) -> urllib.error.HTTPError:
    headers = Message()
    headers["Retry-After"] = "3"
    return urllib.error.HTTPError("http://desk", status, "x", headers, None)


@pytest.mark.requirement("TOL-3", "REC-7")
@pytest.mark.parametrize(
    ("error", "far_side", "passing", "after"),
    [
        (ConnectionResetError("x"), True, True, None),
        (TimeoutError(), True, True, None),
        (socket.gaierror("x"), True, True, None),
        (httpx.ReadTimeout("x"), True, True, None),
        (httpx.ConnectError("x"), True, True, None),
        (urllib.error.URLError(ConnectionRefusedError("x")), True, True, None),
        (http(429, Retry_After="7"), True, True, 7.0),
        (http(503, Retry_After="Thu, 01 Jan 2026 00:00:09 GMT"), True, True, 9.0),
        (http(503, Retry_After="Wed, 31 Dec 2025 23:00:00 GMT"), True, True, 0.0),
        (http(429, Retry_After="soon"), True, True, None),
        (http(429, Retry_After="nan"), True, True, None),
        (http(500), True, True, None),
        (http(404, Retry_After="7"), False, False, None),
        (http(422), False, False, None),
        (from_urllib(429), True, True, 3.0),
        (from_urllib(400), False, False, None),
        (ToolError("No such order."), False, False, None),
        (ToolError("Busy.", retry=True, retry_after=2), True, True, 2.0),
        (NotApplied("Busy."), True, True, None),
        (FileNotFoundError("x"), False, True, None),
        (ValueError("not JSON"), False, True, None),
        (RuntimeError("?"), False, True, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_an_exception_says(
    error: BaseException, far_side: bool, passing: bool, after: float | None
) -> None:
    found = fault(error, NOW)
    assert (found.far_side, found.passing, found.retry_after) == (far_side, passing, after)


def of_a_status(status: int, outer: ToolError) -> ToolError:
    outer.__cause__ = http(status)
    return outer


@pytest.mark.parametrize(
    ("error", "busy", "cause"),
    [
        (http(429), True, "status 429"),
        (http(425), True, "status 425"),
        (http(503), False, "status 503"),
        (of_a_status(429, NotApplied("Busy.")), True, "status 429"),
        (of_a_status(503, ToolError("Down.", retry=True)), False, "status 503"),
        (of_a_status(429, ToolError("No.")), False, "status 429"),
        (ConnectionResetError("key=secret"), False, "ConnectionResetError"),
        (NotApplied("key=secret"), False, "NotApplied"),
    ],
)
def test_who_asked_too_much_is_told_from_what_is_down(
    error: BaseException, busy: bool, cause: str
) -> None:
    found = fault(error, NOW)
    assert (found.busy, found.cause) == (busy, cause)
    if isinstance(error, urllib.error.HTTPError):
        error.close()

"""One error model for everything that goes wrong over HTTP: `{error, message, mend}`.

Invariant: no answer below 600 carries a traceback or another shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from roadworthy import errors
from roadworthy.api.bodies import Problem

_CODES: Mapping[type[errors.RoadworthyError], tuple[int, str]] = {
    errors.UnknownRun: (404, "unknown_run"),
    errors.UnknownApproval: (404, "unknown_approval"),
    errors.UnknownToken: (404, "unknown_token"),
    errors.UnknownEscalation: (404, "unknown_escalation"),
    errors.PatternUnknown: (404, "unknown_agent"),
    errors.IdempotencyConflict: (409, "idempotency_conflict"),
    errors.ResultConflict: (409, "result_conflict"),
    errors.ResultTooLate: (410, "result_too_late"),
    errors.ConversationBusy: (409, "conversation_busy"),
    errors.Overloaded: (429, "overloaded"),
    errors.NotYours: (409, "not_yours"),
    errors.NotResumable: (409, "not_resumable"),
    errors.NotUndoable: (409, "not_undoable"),
    errors.VersionHeld: (409, "version_held"),
    errors.RunError: (422, "invalid_request"),
    errors.DeclarationError: (422, "invalid_request"),
    errors.StoreError: (503, "store_unavailable"),
    errors.RoadworthyError: (500, "configuration"),
}
_HTTP = {404: "not_found", 405: "method_not_allowed", 400: "invalid_json"}
# In the order of likelihood; the same for every route, so that clients need one place for errors.
DOCUMENTED = {
    code: {"model": Problem} for code in (400, 403, 404, 405, 409, 410, 413, 422, 429, 500, 503)
}


class ApiError(Exception):
    """Raised by routes for what is wrong with the request itself."""

    def __init__(self, status: int, error: str, message: str, mend: str) -> None:
        super().__init__(message)
        self.status, self.error, self.mend = status, error, mend


def problem(status: int, error: str, message: str, mend: str) -> JSONResponse:
    """An error as an answer."""
    # escapes what UTF-8 cannot hold: a client may send half a surrogate pair, and is quoted
    content = Problem(error=error, message=_encodable(message), mend=mend).model_dump()
    return JSONResponse(content, status)


def install(app: FastAPI) -> None:
    """Answer every error of this app in the one shape."""
    app.add_exception_handler(errors.RoadworthyError, _ours)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(_: Request, error: Exception) -> Response:
    status, code = next(_CODES[cls] for cls in type(error).__mro__ if cls in _CODES)
    assert isinstance(error, errors.RoadworthyError)  # noqa: S101 - registered for it
    answer = problem(status, code, str(error), error.mend)
    if isinstance(error, errors.Overloaded):
        answer.headers["Retry-After"] = str(math.ceil(error.retry_after))
    return answer


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - registered for it
    return problem(error.status, error.error, str(error), error.mend)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    code = "invalid_json" if first["type"] == "json_invalid" else "invalid_request"
    mend = "The fields of every request are described in /openapi.json."
    return problem(422, code, f"{place}: {first['msg']}", mend)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    code = _HTTP.get(error.status_code, "refused")
    message = {
        404: f"There is nothing at {request.url.path}.",
        405: f"{request.method} is not possible at {request.url.path}.",
    }.get(error.status_code, str(error.detail))
    answer = problem(error.status_code, code, message, "Every route is described in /openapi.json.")
    answer.headers.update(error.headers or {})
    return answer


async def _unexpected(_: Request, error: Exception) -> Response:
    mend = "The traceback is in the server's log."
    return problem(500, "internal", f"{type(error).__name__} in the server.", mend)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()

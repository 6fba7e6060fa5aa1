"""A call of an operation: request, answer, and what its status means for the run.

`declare` and `openapi` make tools of it. Invariant: an effect counts as not having happened only
where nothing was sent or the server says that it refused.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from roadworthy.agent import Effect, Tool
from roadworthy.context import RunContext
from roadworthy.errors import NotApplied, ToolError
from roadworthy.messages import File
from roadworthy.tools.declare import Approval, tool_from_schema
from roadworthy.tools.faults import retry_after, timestamp
from roadworthy.tools.http.client import Answer, Client, Request, merged
from roadworthy.tools.http.operations import Operation, filled
from roadworthy.tools.http.security import Credential, Sign, signed
from roadworthy.tools.sources import of_url

Headers = (
    Mapping[str, str]
    | Callable[[RunContext[Any]], Mapping[str, str] | Awaitable[Mapping[str, str]]]
)
"""Of each request; a function of the run for credentials of its user."""

ACCEPT = "application/json, text/*;q=0.9, */*;q=0.5"
MOST_SAID = 400
_MEDIA = ("image/", "audio/", "video/", "application/pdf")
_LATER = frozenset({425, 429})
_DEEP = 100


class Answered(Exception):
    """Behind an error of a call: the status that the server answered."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@dataclass(frozen=True)
class Service:
    """What the tools of one service share."""

    client: Client
    _: KW_ONLY
    headers: Headers
    credentials: Mapping[str, Credential] = field(default_factory=dict, repr=False)
    timeout: float | None = None
    approval: Approval | None = None


def tool_of(
    service: Service, operation: Operation, effect: Effect, signs: Sequence[Sign] = ()
) -> Tool[Any]:
    """The operation as a tool, signed so. Raises: DeclarationError."""
    changes = effect != "read"

    async def call(run: RunContext[Any], /, **given: Any) -> object:  # noqa: ANN401 - JSON
        parts = filled(operation, given)
        ours = {"Idempotency-Key": run.key} if changes and run.key else {}
        own = await _headers(service.headers, run)  # which no argument may change
        signature = await signed(signs, service.credentials, run)
        headers = merged({"Accept": ACCEPT}, parts.headers, signature.headers, own, ours)
        if signature.cookies:
            already = [value for name, value in headers.items() if name.lower() == "cookie"]
            headers = merged(headers, {"Cookie": "; ".join([*already, *signature.cookies])})
        url = parts.url
        if signature.query:
            url += ("&" if "?" in url else "?") + "&".join(signature.query)
        request = Request(method=operation.method, url=url, headers=headers, body=parts.body)
        where = f"{operation.method} {operation.path}"
        try:
            answer = await service.client.send(request)
        except (ConnectionError, TimeoutError) as error:
            if changes:
                raise
            raise ToolError(f"{where}: {str(error) or 'no answer in time'}", retry=True) from error
        return meaning(answer, where, changes=changes)

    return tool_from_schema(
        operation.name,
        operation.description,
        operation.schema,
        call,
        effect=effect,
        timeout=service.timeout,
        approval=service.approval if changes else None,
        source=of_url(f"{operation.base}{operation.path}"),
    )


async def _headers(headers: Headers, run: RunContext[Any]) -> dict[str, str]:
    if isinstance(headers, Mapping):
        return dict(headers)
    try:
        found = headers(run)
        return dict(await found if inspect.isawaitable(found) else found)
    except ToolError:
        raise
    except Exception as error:  # border: a user's function; REC-7, and nothing was sent
        raise NotApplied(f"The credentials cannot be had: {type(error).__name__}") from error


def meaning(answer: Answer, where: str, *, changes: bool) -> object:
    """The result of an answer.

    Raises: ToolError: the server refused (4xx), or failed in a read. NotApplied: it asks to come
    back. RuntimeError: what became of an effect is not known (5xx, 408, an odd redirect).
    """
    status = answer.status
    if 200 <= status < 300 or (changes and status == 303):  # 303: done, look there
        return _value(answer)
    said = f"{where} answered {status}{_said(answer)}"
    if 300 <= status < 400:
        return _not_followed(answer, said, changes=changes)
    if status in _LATER:
        pause = _retry_after(answer)
        raise NotApplied(said, retry=True, retry_after=pause) from Answered(status)
    if status >= 500 or status == 408:
        if changes:
            raise RuntimeError(said) from Answered(status)
        pause = _retry_after(answer)
        raise ToolError(said, retry=True, retry_after=pause) from Answered(status)
    raise ToolError(said)


def _not_followed(answer: Answer, said: str, *, changes: bool) -> object:
    if answer.status == 304:
        return "not modified"
    if changes and answer.status not in (307, 308):  # many servers answer what they did so
        raise RuntimeError(f"{said}; a redirect, which an effect does not follow")
    raise NotApplied(
        f"{said}; a redirect, which is not followed (follow= allows some)", retry=False
    )


def _value(answer: Answer) -> object:
    if answer.status in (204, 205) or not answer.body:
        return "done"
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith(_MEDIA) and not answer.cut:
        return File(media_type=kind, data=answer.body, name=f"answer.{kind.rpartition('/')[2]}")
    text = _text(answer)
    if answer.cut:
        return f"[cut: only the first {len(answer.body):,} bytes were read. Ask for less.]\n{text}"
    if text is None:
        return f"done: {len(answer.body):,} bytes of {kind or 'an unknown kind'}, not shown"
    if (not kind or kind.endswith("json")) and (found := _json(text)) is not None:
        return found
    return text


def _json(text: str) -> object:
    """What the text says as JSON; None when it is none, or is nested beyond reason."""
    try:
        found: object = json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return found if _shallow(found) else None


def _shallow(value: object) -> bool:
    level = [value]
    for _ in range(_DEEP):
        level = [
            inner for each in level for inner in (_inside(each)) if isinstance(inner, dict | list)
        ]
        if not level:
            return True
    return False


def _inside(value: object) -> Sequence[object]:
    if isinstance(value, dict):
        return [*value.values()]
    return value if isinstance(value, list) else ()


def _text(answer: Answer) -> str | None:
    """The body as text; None: it is none."""
    kind = answer.headers.get("content-type", "")
    charset = kind.partition("charset=")[2].partition(";")[0].strip(" \"'") or "utf-8"
    try:
        text = answer.body.decode(
            charset, "replace" if answer.cut or "charset" in kind else "strict"
        )
    except LookupError:
        text = answer.body.decode("utf-8", "replace")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _said(answer: Answer) -> str:
    """The server's own words, in one line."""
    text = " ".join((_text(answer) or "").split())
    if not text:
        return ""
    return f": {text[:MOST_SAID]}{'...' if len(text) > MOST_SAID else ''}"


def _retry_after(answer: Answer) -> float | None:
    """Seconds it asked for; a date is read by the server's own clock."""
    return retry_after(
        answer.headers.get("retry-after", ""), timestamp(answer.headers.get("date", ""))
    )

"""What every page of the console is made with: who visits, templates, parts that refresh, errors.

Handlers take a `Visit` and return a response. Invariant: text of users and models enters a page
escaped, and a page's policy lets nothing run or load that does not come from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from roadworthy import errors
from roadworthy.agent import Agent
from roadworthy.clock import Clock, SystemClock
from roadworthy.console import assets, words
from roadworthy.console.operators import Form, Operator, SignIn
from roadworthy.runtime import Runtime
from roadworthy.store.runs import RunRow

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "same-origin",  # with none, a browser sends no origin with its posts
}
_STATUS: Mapping[type[Exception], int] = {
    errors.UnknownRun: 404,
    errors.UnknownApproval: 409,
    errors.UnknownEscalation: 404,
    errors.NotYours: 409,
    errors.IdempotencyConflict: 409,
    errors.ConversationBusy: 409,
    errors.NotResumable: 409,
    errors.StoreError: 503,
    errors.ConfigurationError: 500,
    errors.RoadworthyError: 422,
}
_templates = Environment(
    loader=PackageLoader("roadworthy.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(words.FILTERS)


@dataclass(frozen=True, kw_only=True)
class Console:
    """One app's console. clock: only paces what is looked up again."""

    rt: Runtime
    agents: Mapping[str, Agent[Any, Any]]
    sign_in: SignIn
    clock: Clock = field(default_factory=SystemClock)


class Missing(Exception):
    """There is no such thing, or it is not this operator's to see: the two look alike."""


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One request of a known operator."""

    request: Request
    console: Console
    operator: Operator

    @property
    def rt(self) -> Runtime:
        """The runtime."""
        return self.console.rt

    def asked(self, name: str, default: str = "") -> str:
        """A field of the address."""
        return self.request.query_params.get(name, default)

    def part(self, template: str, context: Mapping[str, object]) -> Markup:
        """A part of a page that can be fetched again; it carries the mark of what it shows."""
        text = render(self.request, template, {"operator": self.operator, **context})
        return Markup(text.replace("@mark@", _mark(text), 1))  # noqa: S704 - rendered, escaped

    def page(self, template: str, context: Mapping[str, object]) -> Response:
        """A whole page."""
        return page(self.request, template, {"operator": self.operator, **context})

    def refreshed(self, template: str, context: Mapping[str, object]) -> Response:
        """The part again, or 204 when the reader has it as it is."""
        text = render(self.request, template, {"operator": self.operator, **context})
        mark = _mark(text)
        if self.request.headers.get("x-have") == mark:
            return Response(status_code=204)
        return HTMLResponse(text.replace("@mark@", mark, 1), headers=HEADERS)


async def seen_run(visit: Visit, run_id: str) -> RunRow:
    """A run that is this operator's to see. Raises: Missing."""
    with suppress(errors.UnknownRun):
        row = await visit.rt.find(run_id)
        if visit.operator.sees(row.tenant):
            return row
    raise Missing(f"No run {run_id!r} is known here.")


Handler: TypeAlias = Callable[[Visit], Awaitable[Response]]
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


def signed_in(handler: Handler) -> Endpoint:
    """The handler, for operators; others are asked to sign in, and what goes wrong is a page."""

    @wraps(handler)
    async def endpoint(request: Request) -> Response:
        console = console_of(request)
        operator = await console.sign_in.operator(request)
        if operator is None:
            return _ask(request, console.sign_in)
        try:
            return await handler(Visit(request=request, console=console, operator=operator))
        except Missing as missing:
            return failed(request, 404, str(missing), "It may be over, or not yours to see.")
        except errors.RoadworthyError as error:
            status = next(_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS)
            mend = "" if type(error) is errors.RunError else error.mend  # its message says all
            return failed(request, status, str(error), mend)

    return endpoint


def console_of(request: Request) -> Console:
    """The console that this request came to."""
    found: Console = request.app.state.console
    return found


def base_of(request: Request) -> str:
    """Where the app is mounted, without a slash at the end."""
    root: str = request.scope.get("root_path", "")
    return quote(root.rstrip("/"))


def render(request: Request, template: str, context: Mapping[str, object]) -> str:
    """A template as text."""
    theme = request.cookies.get("roadworthy_theme", "")
    given = {
        "base": base_of(request),
        "static": f"{base_of(request)}/console/static/{assets.release()}",
        "theme": theme if theme in ("light", "dark") else "",
        "path": request.url.path.removeprefix(base_of(request)),
        "query": lambda **fields: urlencode({k: v for k, v in fields.items() if v}),
    }
    return _templates.get_template(template).render({**given, **context})


def page(
    request: Request, template: str, context: Mapping[str, object], status: int = 200
) -> Response:
    """A template as a page."""
    return HTMLResponse(render(request, template, context), status, headers=HEADERS)


def failed(request: Request, status: int, message: str, mend: str) -> Response:
    """What went wrong: a line for a part of a page, else a page."""
    template = "problem_line.html" if "hx-request" in request.headers else "problem.html"
    return page(request, template, {"message": message, "mend": mend}, status)


def _ask(request: Request, sign_in: SignIn) -> Response:
    trouble = sign_in.trouble(request) if isinstance(sign_in, Form) else ""
    if trouble:
        return failed(request, 403, "The console is closed from here.", trouble)
    if not isinstance(sign_in, Form):
        mend = "Sign in where you usually do, then load this page again."
        return failed(request, 401, "You are not signed in.", mend)
    if "hx-request" in request.headers or request.method != "GET":
        return failed(request, 401, "You are signed out.", "Load the page again to sign in.")
    to = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    address = f"{base_of(request)}/console/sign-in?{urlencode({'to': to})}"
    return RedirectResponse(address, 303, headers=HEADERS)


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]

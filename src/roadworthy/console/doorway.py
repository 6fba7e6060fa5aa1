"""Signing in and out, and where an operator lands.

Invariant: after signing in one lands on a page of this console, never elsewhere.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from roadworthy.console.operators import COOKIE, Form
from roadworthy.console.pages import HEADERS, Visit, base_of, console_of, failed, page

_MOST_SECONDS = 30 * 24 * 3600


async def land(visit: Visit) -> Response:
    """Operators begin at the inbox."""
    return RedirectResponse(f"{base_of(visit.request)}/inbox", 303, headers=HEADERS)


async def known(request: Request) -> Response:
    """204 for whoever is signed in. The form asks: a link from elsewhere brings no cookie."""
    found = await console_of(request).sign_in.operator(request)
    return Response(status_code=202 if found is None else 204)


async def ask(request: Request) -> Response:
    """The form."""
    return _form(request, request.query_params.get("to", ""), wrong=False)


async def enter(request: Request) -> Response:
    """What was typed, exchanged for a cookie."""
    sign_in = console_of(request).sign_in
    async with request.form() as form:
        said, to = str(form.get("said", "")), str(form.get("to", ""))
    if not isinstance(sign_in, Form) or sign_in.trouble(request):
        return _form(request, to, wrong=True)
    cookie = sign_in.cookie(said)
    if cookie is None:
        return _form(request, to, wrong=True)
    answer = RedirectResponse(_within(request, to), 303, headers=HEADERS)
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=_MOST_SECONDS,
        path=base_of(request) or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


async def leave(request: Request) -> Response:
    """Forget who it was."""
    answer = RedirectResponse(f"{base_of(request)}/console/sign-in", 303, headers=HEADERS)
    answer.delete_cookie(COOKIE, path=base_of(request) or "/")
    return answer


def _form(request: Request, to: str, *, wrong: bool) -> Response:
    sign_in = console_of(request).sign_in
    if not isinstance(sign_in, Form):
        mend = "Sign in where you usually do, then open the console again."
        return failed(request, 404, "The console has no sign-in of its own here.", mend)
    trouble = sign_in.trouble(request)
    if trouble:
        return failed(request, 403, "The console is closed from here.", trouble)
    context = {"form": sign_in, "to": to, "wrong": wrong}
    return page(request, "sign_in.html", context, 422 if wrong else 200)


def _within(request: Request, to: str) -> str:
    """Where to go on: a path of ours, else the inbox."""
    base = base_of(request)
    inside = to.startswith(f"{base}/") and not to.startswith(("//", "/\\")) and "\\" not in to
    return to if inside and to.isprintable() else f"{base}/inbox"

"""What every request passes before the routes: size, host, origin; and headers of every answer.

Wrapped around the app by `create_app`. Invariant: no page of another site can act here through a
reader's browser, and no body beyond the bound is held in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from roadworthy.api.problems import problem

MOST_BYTES = 8_000_000
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Door:
    """ASGI middleware. hosts: the names this server answers to; None means any."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str] | None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._stranger(scope)
        if refused is None:
            body = await _body(Headers(scope=scope), receive)
            if body is not None:
                await self._app(scope, _again(body, receive), answer)
                return
            refused = problem(
                413,
                "too_large",
                f"The request is larger than {MOST_BYTES:,} bytes.",
                "Send less, or let a tool fetch the large part.",
            )
        await refused(scope, receive, answer)

    def _stranger(self, scope: Scope) -> Response | None:
        """A request for another name (DNS rebinding), or sent by a page of another site."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            mend = "Use http://127.0.0.1, or serve with --host."
            return problem(403, "wrong_host", f"This server is not called {_name(host)!r}.", mend)
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in ("GET", "HEAD") and _at(origin) != host:
            mend = "Call the API from a server or a page of its own."
            return problem(403, "wrong_origin", f"Pages of {origin} may not act here.", mend)
        return None


async def _body(headers: Headers, receive: Receive) -> bytes | None:
    """The whole body, or None when it is too large."""
    said = headers.get("content-length", "0")
    if said.isdecimal() and int(said) > MOST_BYTES:
        return None
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more, then whatever follows it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _at(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""

"""Who looks at the console: `Operator`, the port `SignIn`, and two ways to sign in.

`create_app(rt, sign_in=...)` takes one. Invariant: without an operator no page of the console is
shown, and a name alone is believed on this machine only.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from urllib.parse import quote, unquote, urlsplit

from starlette.requests import Request

from roadworthy.clock import MICROS, Clock, SystemClock
from roadworthy.errors import ConfigurationError

COOKIE = "roadworthy_operator"
_FORWARDED = ("forwarded", "via", "x-real-ip", "true-client-ip", "x-forwarded-", "cf-")
_MOST_NAME = 80
_LEAST_TOKEN = 16


@dataclass(frozen=True)
class Operator:
    """A person who helps users. tenant: whose conversations they see, None for all. skills: what
    they are asked first; none means anything."""

    id: str
    name: str
    tenant: str | None = None
    skills: tuple[str, ...] = ()

    def sees(self, tenant: str) -> bool:
        """Whether this tenant's conversations are theirs to read and act on."""
        return self.tenant is None or self.tenant == tenant


@runtime_checkable
class SignIn(Protocol):
    """Who sends a request. Implement it over the sign-in you have."""

    async def operator(self, request: Request) -> Operator | None:
        """None: nobody we know."""
        ...


class Form:
    """A sign-in of one field, remembered in a cookie. The console shows the form."""

    label = ""
    hint = ""
    secret = False

    def trouble(self, request: Request) -> str:
        """Why nobody can sign in from there; "" when they can."""
        del request
        return ""

    def cookie(self, said: str) -> str | None:
        """What to remember of what was typed; None: not accepted."""
        raise NotImplementedError


class NameOnly(Form):
    """Asks for a name and believes it. This is no security: it works on this machine only."""

    label = "Your name"
    hint = "It stands beside what you decide. Nobody checks it: this works on one's own machine."

    def trouble(self, request: Request) -> str:
        """A request from elsewhere, or through a proxy, is not ours to believe."""
        client = request.client.host if request.client is not None else ""
        here = is_here(client) and is_here(_name(request.headers.get("host", "")))
        if here and not any(name.startswith(_FORWARDED) for name in request.headers):
            return ""
        return (
            "The console has no sign-in, so it answers only a browser on the machine it runs on, "
            "at http://127.0.0.1. To open it to others, give it one: create_app(rt, "
            "sign_in=Tokens({...})), or your own class with `async def operator(request)`."
        )

    def cookie(self, said: str) -> str | None:
        """The name."""
        name = " ".join(said.split())
        return quote(name, safe="") if 0 < len(name) <= _MOST_NAME else None

    async def operator(self, request: Request) -> Operator | None:
        """Whoever the cookie says."""
        if self.trouble(request):
            return None
        name = " ".join(unquote(request.cookies.get(COOKIE, "")).split())[:_MOST_NAME]
        return Operator(name, name) if name else None


class Tokens(Form):
    """Secret tokens, each an operator's. A token is typed once and exchanged for a cookie that
    holds for some hours; taking it out of the mapping ends its sessions.

    Raises: ConfigurationError: none, or one that could be guessed.
    """

    label = "Your token"
    hint = "The one you were given for this console."
    secret = True

    def __init__(
        self, tokens: Mapping[str, Operator], *, hours: float = 12, clock: Clock | None = None
    ) -> None:
        if not tokens or min(map(len, tokens)) < _LEAST_TOKEN:
            raise ConfigurationError(
                f"Tokens(...) needs tokens of at least {_LEAST_TOKEN} characters. Make one: "
                'python -c "import secrets; print(secrets.token_urlsafe())"'
            )
        self._tokens = {token.encode(): operator for token, operator in tokens.items()}
        self._clock: Clock = clock or SystemClock()
        self._lasts = int(hours * 3600 * MICROS)

    def cookie(self, said: str) -> str | None:
        """When the session ends, sealed with the token; the token itself is not in it."""
        given = said.strip().encode()
        found = [token for token in self._tokens if hmac.compare_digest(token, given)]
        ends = str(self._clock.now() + self._lasts)
        return f"{ends}.{_seal(found[0], ends)}" if found else None

    async def operator(self, request: Request) -> Operator | None:
        """Whose token sealed the cookie, while it holds."""
        ends, _, seal = request.cookies.get(COOKIE, "").partition(".")
        given = seal.encode()
        found = [
            operator
            for token, operator in self._tokens.items()
            if hmac.compare_digest(_seal(token, ends).encode(), given)
        ]
        return found[0] if found and int(ends) > self._clock.now() else None


def is_here(host: str) -> bool:
    """Whether this address or name is of this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _seal(token: bytes, ends: str) -> str:
    return hmac.new(token, f"console/{ends}".encode(), hashlib.sha256).hexdigest()


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""

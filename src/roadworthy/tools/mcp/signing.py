"""How a client signs in at a server over HTTP: a bearer token, or OAuth's client credentials.

`declare` takes it as `auth=`, `http` sends by it. Invariant: no secret is shown or written, and a
request goes out a second time only after a 401, which did nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import httpx2
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from roadworthy.errors import DeclarationError

_UNAUTHORIZED = 401


@dataclass(frozen=True, kw_only=True)
class ClientCredentials:
    """A client that a sign-in server knows: tokens are fetched there and fetched anew.

    issuer: the sign-in server's address; the secret goes to no other. scope: what is asked for,
    separated by spaces. Raises: DeclarationError.
    """

    client_id: str
    client_secret: str = field(repr=False)
    issuer: str
    scope: str | None = None

    def __post_init__(self) -> None:
        if not self.issuer.startswith(("http://", "https://")):
            raise DeclarationError(
                f"ClientCredentials: issuer={self.issuer!r} is no address. Give the sign-in "
                'server\'s: issuer="https://auth.example.com".'
            )


Token: TypeAlias = str | Callable[[], Awaitable[str]]
Auth: TypeAlias = Token | ClientCredentials | httpx2.Auth
"""A token, an async function that gives the one of now, or a way to sign in."""


def signed(auth: Auth | None, url: str) -> httpx2.Auth | None:
    """As the HTTP client takes it; one for each connection."""
    if auth is None or isinstance(auth, httpx2.Auth):
        return auth
    if isinstance(auth, ClientCredentials):
        return ClientCredentialsOAuthProvider(
            url,
            _Memory(),
            client_id=auth.client_id,
            client_secret=auth.client_secret,
            scope=auth.scope,
            issuer=auth.issuer,
        )
    return _Bearer(auth)


class _Bearer(httpx2.Auth):
    def __init__(self, token: Token) -> None:
        self._token = token

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """With the token of now; once more where that was refused and there is another now."""
        token = await self._now()
        request.headers["authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == _UNAUTHORIZED and (newer := await self._now()) != token:
            request.headers["authorization"] = f"Bearer {newer}"
            yield request

    async def _now(self) -> str:
        if isinstance(self._token, str):
            return self._token
        try:
            return await self._token()
        except Exception as error:  # noqa: BLE001 - border: a user's function; its words may be secret
            why = f"the token cannot be had ({type(error).__name__})"
            raise httpx2.ConnectError(why) from None


class _Memory:
    """Tokens of one connection: they are fetched again by the next."""

    def __init__(self) -> None:
        self._tokens: OAuthToken | None = None
        self._client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """Those of now."""
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep them."""
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Who signs in."""
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep it."""
        self._client = client_info

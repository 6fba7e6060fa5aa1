"""A client for what tools ask of the network: one request, one connection, one checked address.

`calls` sends with it; users may in tools of their own. Invariant: a name is resolved once, every
address found is checked, and the connection goes to one of those; nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from roadworthy.errors import DeclarationError, NotApplied
from roadworthy.spelling import spelled
from roadworthy.tools.http.addresses import Allowed

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as text."""

CONNECT_SECONDS = 10.0
MOST_BYTES = 1_000_000
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNFIT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "te", "upgrade"})
_MOVED = frozenset({301, 302, 303, 307, 308})
_KEPT = frozenset({"accept", "user-agent"})  # on another host


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is sent. url: whole, and encoded as it goes over the wire."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back, unpacked. headers: by lower-case name. cut: there was more body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False


class Cut(ConnectionError):
    """The connection broke after something may have been sent."""


async def system(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@spelled
@dataclass(frozen=True, kw_only=True)
class Client:
    """Sends requests to public addresses, and to those in `allow` (hosts, addresses, networks).

    follow: redirects that a GET or HEAD may take, each checked like the first; headers but Accept
    stay behind on another host. most: bytes of a body that are read, after unpacking. seconds: of
    one request with all its redirects. resolve: how names become addresses.
    No cookies, and no proxies of the environment. Raises: DeclarationError.
    """

    allow: Sequence[str] = ()
    follow: int = 0
    most: int = MOST_BYTES
    seconds: float = 30.0
    resolve: Resolve = field(default=system, repr=False)
    allowed: Allowed = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.follow < 0 or self.most <= 0 or not 0 < self.seconds < float("inf"):
            raise DeclarationError("follow= must not be negative; most= and seconds= are over 0.")
        object.__setattr__(self, "allowed", Allowed(self.allow))

    def check(self, url: str) -> None:
        """Say early what `send` would refuse. Raises: DeclarationError."""
        try:
            target = URL(url)
        except ValueError as error:
            raise DeclarationError(f"{url!r} is no URL: {error}.") from None
        if target.scheme not in ("http", "https") or not target.host:
            raise DeclarationError(f"{url!r}: give http:// or https:// and a host.")
        if target.user is not None or target.password is not None:
            raise DeclarationError(f"{target.host}: credentials belong in headers=, not in a URL.")
        host = target.host
        local = host == "localhost" or host.endswith(".localhost")
        if (literal := _literal(host)) is not None:
            local = not self.allowed.takes(host, literal)
        if local and not self.allowed.names(host):
            raise DeclarationError(
                f"{host} is not a public address. If it is meant: allow=[{host!r}]."
            )

    async def send(self, request: Request) -> Answer:
        """The answer, whatever its status; a redirect that is not followed is an answer.

        Raises: NotApplied: nothing was sent. ConnectionError, TimeoutError: what became of it is
        not known.
        """
        _check_headers(request.headers)
        left = self.follow if request.method in ("GET", "HEAD") else 0
        async with asyncio.timeout(self.seconds):
            while True:
                answer = await self._once(request)
                if answer.status not in _MOVED or not left or "location" not in answer.headers:
                    return answer
                request, left = _moved(request, answer.headers["location"]), left - 1

    async def _once(self, request: Request) -> Answer:
        url = URL(request.url, encoded=True)
        pinned = await self._found(url)
        connector = aiohttp.TCPConnector(resolver=pinned, use_dns_cache=False, force_close=True)
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            skip_auto_headers=("Content-Type",),
            middlewares=(_only_once,),
        )
        headers = merged({"User-Agent": "roadworthy"}, request.headers, {"Accept-Encoding": "gzip"})
        async with session:
            try:
                async with session.request(
                    request.method, url, headers=headers, data=request.body, allow_redirects=False
                ) as response:
                    return await self._read(response)
            except aiohttp.ClientError as error:
                _meant(error, url)

    async def _found(self, url: URL) -> _Pinned:
        """The checked addresses of a URL's host. Raises: NotApplied."""
        host, port = url.raw_host, url.port
        if url.scheme not in ("http", "https") or not host or port is None:
            raise NotApplied(f"{url.scheme or 'no scheme'}: only http and https.", retry=False)
        literal = _literal(host)
        if literal is not None:
            addresses: Sequence[str] = [host]
        else:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    addresses = await self.resolve(host, port)
            except (OSError, TimeoutError, UnicodeError) as error:
                raise NotApplied(f"{host} cannot be found: {str(error) or 'no answer'}") from error
        if not addresses:
            raise NotApplied(f"{host} has no address")
        for text in addresses:
            address = _literal(text)
            if address is None or not self.allowed.takes(host, address):
                raise NotApplied(
                    f"{host} is at {text}, which is not a public address; it is not called. "
                    f"The deployer opens it with allow=[{host!r}].",
                    retry=False,
                )
        return _Pinned(host, addresses)

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        packing = response.headers.get("Content-Encoding", "identity").strip().lower()
        headers = {name.lower(): value for name, value in response.headers.items()}
        answer = Answer(status=response.status, headers=headers)
        if packing not in ("", "identity", "gzip", "x-gzip"):
            return replace(answer, body=f"[packed as {packing[:40]}: not readable]".encode())
        body = _Body(self.most, packed="gzip" in packing)
        async for chunk in response.content.iter_chunked(65536):
            if body.full(chunk):
                break
        return replace(answer, body=bytes(body.data[: self.most]), cut=len(body.data) > self.most)


class _Body:
    """Bytes of a body, unpacked as far as they are wanted and one more."""

    def __init__(self, most: int, *, packed: bool) -> None:
        self.data = bytearray()
        self._most = most
        self._gzip = zlib.decompressobj(wbits=31) if packed else None

    def full(self, chunk: bytes) -> bool:
        wanted = self._most + 1 - len(self.data)
        if self._gzip is None:
            self.data += chunk[:wanted]
        else:
            try:
                self.data += self._gzip.decompress(chunk, wanted)
            except zlib.error as error:
                raise Cut(f"the answer cannot be unpacked: {error}") from error
        return len(self.data) > self._most


class _Pinned(AbstractResolver):
    """Knows one host, at the addresses that were checked."""

    def __init__(self, host: str, addresses: Sequence[str]) -> None:
        self._host, self._addresses = host, addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host != self._host:
            raise OSError(f"{host} was not checked")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def _only_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """The library sends a PUT or DELETE again by itself when its connection breaks; not here."""
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise  # nothing was sent
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise Cut(f"{request.url.host} broke the connection off") from error


def _meant(error: aiohttp.ClientError, url: URL) -> NoReturn:
    """Raises: NotApplied: no connection came about. Cut: one did."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        raise NotApplied(f"{url.host}: no trusted connection: {error}", retry=False) from error
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        raise NotApplied(f"{url.host} cannot be reached: {error}") from error
    if isinstance(error, aiohttp.InvalidURL):
        raise NotApplied(f"{url.host} is no host: {error}", retry=False) from error
    raise Cut(f"{url.host}: {type(error).__name__}: {str(error)[:200]}") from error


def _moved(request: Request, location: str) -> Request:
    """The next hop of a redirect. Raises: NotApplied: it is not gone."""
    here = URL(request.url, encoded=True)
    try:
        there = here.join(URL(location))
    except ValueError as error:
        raise NotApplied(f"{here.host} redirects to what is no URL", retry=False) from error
    if there.user is not None or there.password is not None or not there.host:
        raise NotApplied(f"{here.host} redirects to credentials of its own", retry=False)
    if here.scheme == "https" and there.scheme != "https":
        raise NotApplied(f"{here.host} redirects to {there.scheme}, unprotected", retry=False)
    headers = request.headers
    if here.origin() != there.with_scheme(there.scheme).origin():
        headers = {name: value for name, value in headers.items() if name.lower() in _KEPT}
    return replace(request, url=str(there.with_fragment(None)), headers=headers)


def merged(*several: Mapping[str, str]) -> dict[str, str]:
    """Headers of all; of one that several have, however they spell it, the last."""
    found = {name.lower(): (name, value) for each in several for name, value in each.items()}
    return dict(found.values())


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _OURS:
            raise NotApplied(f"{name!r} is no header that can be set", retry=False)
        if _UNFIT.search(value):
            raise NotApplied(f"The header {name} holds signs that no header may hold", retry=False)


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None

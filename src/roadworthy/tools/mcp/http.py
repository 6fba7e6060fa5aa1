"""A server at a URL, over streamable HTTP, and how one signs in there.

`declare` connects by it. Invariant: no answer is held in memory beyond the bound, and a compressed
one is refused; that holds for bodies here, for events of a stream in the library. Redirects to
another origin are not followed (the library sees to that).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2
from mcp.client.streamable_http import streamable_http_client

from roadworthy.tools.mcp.lines import MOST_BYTES
from roadworthy.tools.mcp.signing import Auth, signed
from roadworthy.tools.mcp.stdio import Streams

_PLAIN = {"accept-encoding": "identity"}


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a server is, what is sent with every request, and how one signs in."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    auth: Auth | None = field(default=None, repr=False)

    @asynccontextmanager
    async def connect(self, _: Callable[[], None]) -> AsyncIterator[Streams]:
        """Its streams. A connection of HTTP has no end of its own to tell of."""
        client = httpx2.AsyncClient(
            headers={**self.headers, **_PLAIN},
            auth=signed(self.auth, self.url),
            timeout=httpx2.Timeout(30, read=300),
            transport=_Bounded(),
        )
        async with (
            client,
            streamable_http_client(
                self.url, http_client=client, max_sse_event_size=MOST_BYTES
            ) as streams,
        ):
            yield streams  # type: ignore[misc]  # the library's own wrappers of the same streams


class _Bounded(httpx2.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        kind = response.headers.get("content-type", "")
        stream = response.stream
        if isinstance(stream, httpx2.AsyncByteStream) and "event-stream" not in kind:
            packed = response.headers.get("content-encoding", "identity") != "identity"
            response.stream = _Counted(stream, 0 if packed else MOST_BYTES)
        return response


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, most: int) -> None:
        self._stream, self._most = stream, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._most:
                raise httpx2.StreamError("the answer is too large, or compressed unasked")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()

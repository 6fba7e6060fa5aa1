"""A client at one server: connected, compared with what was accepted, connected again when lost.

Made by `declare` for each opening of a toolset. Invariant: nothing is sent to a server whose tools
are not those that were accepted, and nothing is sent twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolResult,
    Implementation,
    Tool,
    ToolListChangedNotification,
)
from mcp_types.jsonrpc import (
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
)
from pydantic import ValidationError

from roadworthy.clock import MICROS
from roadworthy.context import RunContext
from roadworthy.errors import NotApplied, RoadworthyError, ToolError, ToolsChanged
from roadworthy.messages import JsonObject
from roadworthy.tools.holding import Held, told
from roadworthy.tools.mcp.pins import Accepted, Offer, fingerprint
from roadworthy.tools.mcp.stdio import UNREAD

KEY = "roadworthy/idempotency-key"
"""Of the `_meta` of a call: our servers take it, others leave it."""

BELIEVED, BELIEVED_FOR_EFFECTS = 60 * MICROS, 5 * MICROS
"""How long a listing stands. Before an effect it is new, which also finds a dead connection while
nothing is sent yet, instead of an outcome that nobody knows."""

FIRST_RETRY, MOST_RETRY = 0.5, 30.0
_MOST_PAGES = 50
_BROKEN = (anyio.ClosedResourceError, anyio.BrokenResourceError)
_UNLISTED = (MCPError, ValidationError, TimeoutError, *_BROKEN)


class Server(Protocol):
    """How a server is reached: `stdio.Child` or `http.Endpoint`."""

    def connect(self, ended: Callable[[], None], /) -> AbstractAsyncContextManager[Any]:
        """Its streams. `ended` is called when it says no more."""
        ...


@dataclass
class _Link:
    """One connection. suspect: the server said that its tools changed."""

    client: Client
    ended: bool = False
    suspect: bool = False
    seen: int = 0

    def is_good(self, since: int) -> bool:
        return not (self.ended or self.suspect) and self.seen > since


class Connection:
    """What a toolset's tools call. `offers`: those chosen of the server's tools, once open."""

    def __init__(
        self,
        name: str,
        server: Server,
        *,
        accepted: Accepted | None,
        only: Sequence[str] | None,
        seconds: float,
    ) -> None:
        self.offers: tuple[Offer, ...] = ()
        self._name, self._server, self._seconds = name, server, seconds
        self._accepted = accepted
        self._only = only
        self._held: Held[_Link] | None = None
        self._link: _Link | None = None
        self._retry_at, self._pause, self._why = 0, FIRST_RETRY, ""
        self._one_at_a_time = asyncio.Lock()

    async def open(self) -> None:
        """Connect, list, compare. Raises: ToolsetUnavailable, ToolsChanged."""
        held = Held(f"MCP server {self._name!r}", self._linked, self._seconds)
        self._link = await held.opened()
        self._held = held

    async def close(self) -> None:
        """Leave it."""
        held, self._held, self._link = self._held, None, None
        if held is not None:
            await held.close()

    async def call(
        self, run: RunContext[Any], tool: str, given: JsonObject, *, changes: bool
    ) -> CallToolResult:
        """The server's answer. changes: it may be an effect.

        Raises: NotApplied: nothing was sent, or the server took nothing. ToolError: it refused.
        ConnectionError, RuntimeError: what became of the call is not known.
        """
        link = await self._ready(run.now, BELIEVED_FOR_EFFECTS if changes else BELIEVED)
        meta: Any = {KEY: run.key} if run.key else None
        try:
            return await link.client.call_tool(tool, dict(given), meta=meta)
        except MCPError as error:
            raise self._meaning(error, link) from error
        except _BROKEN as error:
            link.ended = True
            raise ConnectionError(f"The connection to {self._name} broke.") from error

    def _meaning(self, error: MCPError, link: _Link) -> Exception:
        if error.message == "Session terminated":  # the library's words for a server begun anew
            link.ended = True
            return NotApplied(f"{self._name} began anew.")
        if error.code in (METHOD_NOT_FOUND, INVALID_PARAMS):
            return ToolError(f"{self._name} refused the call: {error.message}")
        if error.code == CONNECTION_CLOSED:
            link.ended = True
            return ConnectionError(f"The connection to {self._name} broke during the call.")
        if error.code == UNREAD:
            return RuntimeError(f"{error.message}; ask {self._name} for less")
        return RuntimeError(f"{self._name}: {error.message}")

    # --- connecting ----------------------------------------------------------------------

    async def _ready(self, now: int, believed: int) -> _Link:
        """A connection to the tools that were accepted. Raises: NotApplied: there is none."""
        if self._link is not None and self._link.is_good(now - believed):
            return self._link
        async with self._one_at_a_time:
            if self._link is not None and self._link.is_good(now - believed):
                return self._link
            if self._link is not None and not self._link.ended:
                await self._look_again(self._link, now)
                return self._link
            return await self._again(now)

    async def _again(self, now: int) -> _Link:
        if now < self._retry_at:
            raise NotApplied(f"{self._name} cannot be reached: {self._why}")
        await self.close()
        try:
            await self.open()
        except RoadworthyError as error:
            self._why = str(error)
            self._retry_at = now + int(self._pause * MICROS)
            self._pause = min(self._pause * 2, MOST_RETRY)
            raise NotApplied(str(error), retry=not isinstance(error, ToolsChanged)) from error
        self._pause = FIRST_RETRY
        assert self._link is not None  # noqa: S101 - `open` made it
        self._link.seen = now
        return self._link

    async def _look_again(self, link: _Link, now: int) -> None:
        """The listing is old, or the server said that it changed."""
        link.suspect = False  # from here on it may say so again
        try:
            async with asyncio.timeout(self._seconds):
                self._compare(self._chosen(await _listed(link.client)))
        except ToolsChanged as error:
            link.suspect = True
            raise NotApplied(str(error), retry=False) from error
        except _UNLISTED as error:
            link.ended = True
            raise NotApplied(f"{self._name} does not list its tools: {told(error)}") from error
        link.seen = now

    @asynccontextmanager
    async def _linked(self) -> AsyncIterator[_Link]:
        found: list[_Link] = []

        def ended() -> None:
            for link in found:
                link.ended = True

        async def heard(message: object) -> None:
            if isinstance(message, ToolListChangedNotification):
                for link in found:
                    link.suspect = True

        client = Client(
            self._server.connect(ended),
            message_handler=heard,
            cache=None,
            client_info=Implementation(name="roadworthy", version="1"),
        )
        async with client:
            offers = self._chosen(await _listed(client))
            self._compare(offers)
            self.offers = self.offers or offers
            found.append(_Link(client))
            yield found[0]

    # --- comparing -----------------------------------------------------------------------

    def _chosen(self, offers: Sequence[Offer]) -> tuple[Offer, ...]:
        if self._only is None:
            return tuple(offers)
        there = {offer.name: offer for offer in offers}
        missing = [name for name in self._only if name not in there]
        if missing:
            raise ToolsChanged(
                f"MCP server {self._name!r} has no tool {', '.join(missing)}. It has: "
                f"{', '.join(sorted(there)) or 'none'}."
            )
        return tuple(there[name] for name in self._only)

    def _compare(self, offers: tuple[Offer, ...]) -> None:
        """Raises: ToolsChanged: these are not what was accepted."""
        now = fingerprint(offers)
        if self._accepted is None:  # for as long as the process lives, the first it saw
            self._accepted = Accepted.of(offers)
        if now != self._accepted.fingerprint:
            raise ToolsChanged(
                f"MCP server {self._name!r} offers other tools than were accepted: "
                f"{self._accepted.changes(offers)}. None is called. `roadworthy pin FILE` shows "
                f"the difference; if it is right, accept it: pin={now!r}."
            )


async def _listed(client: Client) -> tuple[Offer, ...]:
    """All its tools, page by page."""
    found: list[Tool] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if not cursor:
            break
    return tuple(map(_offer, found))


def _offer(tool: Tool) -> Offer:
    hints = tool.annotations
    said = {} if hints is None else hints.model_dump(exclude_none=True, exclude={"title"})
    return Offer(
        name=tool.name,
        description=tool.description or "",
        parameters=tool.input_schema,
        returns=tool.output_schema,
        hints=said,
    )

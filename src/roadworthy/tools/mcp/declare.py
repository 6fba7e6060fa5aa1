"""`MCP`: a server's tools as a toolset, with the effects a deployer accepts.

Invariant: a tool is irreversible unless somebody who may says otherwise, and hints of a server
that may change them at will are never believed.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

from roadworthy.agent import Effect, Tool, Toolset
from roadworthy.context import RunContext
from roadworthy.errors import ConfigurationError, DeclarationError
from roadworthy.spelling import spelled
from roadworthy.tools.declare import Approval, tool_from_schema
from roadworthy.tools.mcp.connection import Connection, Server
from roadworthy.tools.mcp.contents import rendered
from roadworthy.tools.mcp.http import Endpoint
from roadworthy.tools.mcp.pins import Accepted, Offer, fingerprint
from roadworthy.tools.mcp.signing import Auth
from roadworthy.tools.mcp.stdio import Child
from roadworthy.tools.names import named
from roadworthy.tools.results import Rendered
from roadworthy.tools.sources import of_command, of_url
from roadworthy.tools.toolset import checked

log = logging.getLogger("roadworthy.tools")

Headers = Mapping[str, str] | Callable[[RunContext[None]], Mapping[str, str]]


@spelled
@dataclass(frozen=True, eq=False)
class MCP(Toolset[None]):
    """The tools of an MCP server: `command` starts one (stdio), `url` is one (streamable HTTP).

    pin: the fingerprint of the tools that were accepted, or the file that has it; `roadworthy pin`
    shows and writes both. A server that offers others is not used. Without a pin what it offers
    first counts for as long as the process lives. only: take these of its tools.
    effects: what you know of single tools, by their names at the server. trust_hints: believe the
    server's own hints for the others (needs a pin): read-only is a read, idempotent a write. All
    else is irreversible. approval: who agrees to whatever is no read.
    prefix: of the tools' names here (None: the name). env, cwd: of the command, which gets little
    else of the environment. headers: sent with each request; a function of the run for per="run".
    auth: how to sign in at `url`: a bearer token, an async function that gives the one of now, or
    `ClientCredentials` (or another `httpx2.Auth`, such as the library's own).
    timeout: seconds of one call. per, required, seconds: as `Toolset` says.
    Raises: DeclarationError.
    """

    name: str
    _: KW_ONLY
    command: Sequence[str] = ()
    url: str = ""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    headers: Headers = field(default_factory=dict, repr=False)
    auth: Auth | None = field(default=None, repr=False)
    pin: str | Path | None = None
    only: Sequence[str] | None = None
    effects: Mapping[str, Effect] = field(default_factory=dict)
    trust_hints: bool = False
    approval: Approval | None = None
    prefix: str | None = None
    timeout: float | None = None
    per: Literal["process", "run"] = "process"
    required: bool = False
    seconds: float = 30.0

    def __post_init__(self) -> None:
        wrong = self._wrong()
        if wrong:
            raise DeclarationError(f"MCP {self.name!r}: {wrong}")
        checked(self)

    def _wrong(self) -> str | None:
        if bool(self.command) == bool(self.url):
            return 'give command=["program", "argument"] or url="https://...", one of the two.'
        if isinstance(self.command, str):
            return f"command= is a list: {self.command.split()!r}."
        if self.trust_hints and self.pin is None:
            return (
                "trust_hints= needs pin=: a server may change its hints at any time. "
                "`roadworthy pin FILE` shows the pin, effects={...} says what you know yourself."
            )
        if self.auth is not None and not self.url:
            return "auth= is for a url; a command gets its keys by env=."
        if callable(self.headers) and self.per == "process":
            return 'headers= as a function of the run needs per="run".'
        return None

    @asynccontextmanager
    async def open(self, run: RunContext[None]) -> AsyncIterator[Sequence[Tool[None]]]:
        """Connect and list; what is yielded calls the server."""
        connection = self.connection(run, None if self.pin is None else Accepted.read(self.pin))
        await connection.open()
        try:
            if self.pin is None and not run.run_id:
                log.warning(
                    "MCP server %r is not pinned: whatever it offers at the next start is taken. "
                    "Accept what it offers now with pin=%r.",
                    self.name,
                    fingerprint(connection.offers),
                )
            yield self._tools(connection)
        finally:
            await connection.close()

    def connection(self, run: RunContext[None], accepted: Accepted | None) -> Connection:
        """A connection that is not open yet."""
        return Connection(
            self.name, self._server(run), accepted=accepted, only=self.only, seconds=self.seconds
        )

    @property
    def source(self) -> str:
        """What is behind its tools."""
        if self.command:
            return f"{self.name}/{of_command(self.command, self.env, self.cwd)}"
        return of_url(self.url)

    def effect(self, offer: Offer) -> Effect:
        """What a tool counts as."""
        if offer.name in self.effects:
            return self.effects[offer.name]
        if not self.trust_hints:
            return "irreversible"
        if offer.hints.get("read_only_hint") is True:
            return "read"
        return "write" if offer.hints.get("idempotent_hint") is True else "irreversible"

    def _server(self, run: RunContext[None]) -> Server:
        if self.command:
            return Child(command=tuple(self.command), env=self.env, cwd=self.cwd)
        headers = self.headers(run) if callable(self.headers) else self.headers
        return Endpoint(url=self.url, headers=headers, auth=self.auth)

    def _tools(self, connection: Connection) -> list[Tool[None]]:
        offers = connection.offers
        prefix = self.name if self.prefix is None else self.prefix
        names = named(prefix, (offer.name for offer in offers))
        found = []
        for offer in offers:
            try:
                found.append(self._tool(connection, offer, names[offer.name]))
            except (DeclarationError, RecursionError) as error:  # of the server's making
                log.warning("MCP server %r: %s Left out.", self.name, error)
        unknown = sorted(set(self.effects) - set(names))
        if unknown:
            raise ConfigurationError(
                f"MCP {self.name!r}: effects= names {', '.join(unknown)}, which the server does "
                f"not offer. It offers: {', '.join(sorted(names)) or 'nothing'}."
            )
        return found

    def _tool(self, connection: Connection, offer: Offer, name: str) -> Tool[None]:
        effect = self.effect(offer)

        async def call(run: RunContext[Any], /, **given: Any) -> Rendered:  # noqa: ANN401 - JSON
            changes = effect != "read"
            return rendered(name, await connection.call(run, offer.name, given, changes=changes))

        return tool_from_schema(
            name,
            offer.description or f"{offer.name} of {self.name}; it has no description.",
            offer.parameters,
            call,
            effect=effect,
            timeout=self.timeout,
            approval=None if effect == "read" else self.approval,
            source=self.source,
        )

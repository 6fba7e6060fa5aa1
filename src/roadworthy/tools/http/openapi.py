"""`OpenAPI`: the operations of a service as a toolset, from its description.

Invariant: the document is the deployer's; it is read when it is declared, and never fetched.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

from roadworthy.agent import Effect, Tool, Toolset
from roadworthy.context import RunContext
from roadworthy.errors import DeclarationError
from roadworthy.messages import JsonObject
from roadworthy.spelling import spelled
from roadworthy.tools.declare import Approval
from roadworthy.tools.http.calls import Headers, Service, tool_of
from roadworthy.tools.http.client import Client
from roadworthy.tools.http.declare import READS
from roadworthy.tools.http.document import Described, Unsaid, described, operation, read, server
from roadworthy.tools.http.security import Credential, needed, schemes
from roadworthy.tools.names import named
from roadworthy.tools.toolset import checked

log = logging.getLogger("roadworthy.tools")


@spelled
@dataclass(frozen=True, eq=False)
class OpenAPI(Toolset[Any]):
    """The operations of an OpenAPI document (3.0, 3.1: a dict, or a file of JSON or YAML) as tools.

    base_url: where the service is; else the document's first server. only: take these operations,
    by operationId (or `get_orders_id` where there is none). effects: of single operations; else
    GET, HEAD and OPTIONS are reads, all others irreversible. Effects carry `run.key` as
    Idempotency-Key: say "write" where the service honours it, or repeating does no harm.
    headers: of each request, or a function of the run. credentials: by the document's security
    schemes, a value or a function of the run: keys, tokens, `user:password`. client: which
    addresses, redirects, sizes.
    approval: who agrees to whatever is no read. prefix: of the tools' names. timeout: seconds of
    one call. tools: what it offers. Raises: DeclarationError.
    """

    name: str
    document: JsonObject | str | Path = field(repr=False)
    _: KW_ONLY
    base_url: str = ""
    only: Sequence[str] | None = None
    effects: Mapping[str, Effect] = field(default_factory=dict)
    headers: Headers = field(default_factory=dict, repr=False)
    credentials: Mapping[str, Credential] = field(default_factory=dict, repr=False)
    client: Client = field(default_factory=Client)
    approval: Approval | None = None
    prefix: str = ""
    timeout: float | None = None
    per: Literal["process", "run"] = "process"
    required: bool = False
    seconds: float = 30.0
    tools: tuple[Tool[Any], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        checked(self)
        try:
            object.__setattr__(self, "tools", tuple(self._made()))
        except (DeclarationError, Unsaid) as error:
            raise DeclarationError(f"OpenAPI {self.name!r}: {error}") from error

    @asynccontextmanager
    async def open(self, run: RunContext[None]) -> AsyncIterator[Sequence[Tool[Any]]]:
        """Its tools; there is nothing to connect."""
        yield self.tools

    def _made(self) -> list[Tool[Any]]:
        document = read(self.document)
        base = (self.base_url or server(document)).rstrip("/")
        if not base.startswith(("http://", "https://")) or "?" in base or "#" in base:
            raise DeclarationError(
                f"{base or 'the document'!r} does not say where the service is; give "
                'base_url="https://host/path".'
            )
        self.client.check(base)
        there = {one.id: one for one in described(document)}
        self._known(there, self.only or (), "only")
        self._known(there, self.effects, "effects")
        chosen = [one for one in there.values() if self.only is None or one.id in self.only]
        names = named(self.prefix, (one.id for one in chosen))
        known = schemes(document, self.credentials)
        service = Service(
            self.client,
            headers=self.headers,
            credentials=self.credentials,
            timeout=self.timeout,
            approval=self.approval,
        )
        made = []
        for one in chosen:
            try:
                told = operation(document, one, names[one.id], base)
                signs = needed(document, one.node, known)
                made.append(tool_of(service, told, self.effect(one), signs))
            except (Unsaid, ValueError, RecursionError, DeclarationError) as error:
                if self.only is not None:
                    raise DeclarationError(f"{one.id}: {str(error) or 'too deep'}") from error
                log.warning("OpenAPI %r: %s: %s. Left out.", self.name, one.id, error)
        return made

    def effect(self, one: Described) -> Effect:
        """What an operation counts as."""
        default: Effect = "read" if one.method in READS else "irreversible"
        return self.effects.get(one.id, default)

    def _known(
        self, there: Mapping[str, object], asked: Sequence[str] | Mapping[str, Effect], option: str
    ) -> None:
        for each in asked:
            if each not in there:
                near = difflib.get_close_matches(each, there, 3) or sorted(there)[:10]
                raise DeclarationError(
                    f"{option}= names {each!r}, which the document does not have. "
                    f"It has, for example: {', '.join(near) or 'nothing'}."
                )

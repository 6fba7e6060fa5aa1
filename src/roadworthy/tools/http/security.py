"""What an OpenAPI document says of signing in, and the credentials a deployer gives for it.

`openapi` reads it, `calls` signs each request. Invariant: no credential is an argument, shown, or
sent elsewhere than where the document says it belongs.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from roadworthy.context import RunContext
from roadworthy.errors import DeclarationError, NotApplied, ToolError
from roadworthy.messages import JsonObject
from roadworthy.tools.schemas import lookup, mapping

Credential: TypeAlias = str | Callable[[RunContext[Any]], str | Awaitable[str]]
"""A key, a token or `user:password`; a function of the run for those of its tenant or user."""

_Kind: TypeAlias = Literal["header", "query", "cookie", "bearer", "basic"]
_TOKENS = frozenset({"oauth2", "openIdConnect"})


@dataclass(frozen=True)
class Sign:
    """Where the credential of a scheme goes. name: of the header, query parameter or cookie."""

    scheme: str
    kind: _Kind
    name: str = ""


@dataclass(frozen=True)
class Signed:
    """What a request carries beside its arguments."""

    headers: Mapping[str, str]
    query: Sequence[str]
    cookies: Sequence[str]


def schemes(document: JsonObject, given: Mapping[str, Credential]) -> Mapping[str, Sign]:
    """How those schemes sign that a credential is given for. Raises: DeclarationError: the document
    does not have one, or it is none that we can sign by."""
    there = mapping(mapping(document.get("components")).get("securitySchemes"))
    if unknown := sorted(set(given) - set(there)):
        known = ", ".join(sorted(there)) or "none"
        raise DeclarationError(
            f"credentials= names {', '.join(unknown)}, which is no security scheme of the "
            f"document. It has: {known}."
        )
    found = {}
    for name in given:
        node = mapping(there[name])
        if isinstance(node.get("$ref"), str):
            node = mapping(lookup(document, node["$ref"]))
        found[name] = _sign(name, node)
    return found


def _sign(scheme: str, node: JsonObject) -> Sign:
    kind, at, name = node.get("type"), node.get("in"), str(node.get("name") or "")
    way = str(node.get("scheme", "")).lower()
    if kind == "apiKey" and name and at in ("header", "query", "cookie"):
        return Sign(scheme, at, name)
    if kind in _TOKENS or (kind == "http" and way == "bearer"):
        return Sign(scheme, "bearer")
    if kind == "http" and way == "basic":
        return Sign(scheme, "basic")
    raise DeclarationError(
        f"Security scheme {scheme!r} is {kind} {way}".rstrip() + ": there is signing in by apiKey, "
        "http bearer and basic, and oauth2 or openIdConnect with a token. For another use headers=."
    )


def needed(document: JsonObject, node: JsonObject, known: Mapping[str, Sign]) -> tuple[Sign, ...]:
    """How an operation is signed: by the first of its alternatives that all is there for; by
    nothing, where it asks for nothing or there is none."""
    asked = node.get("security", document.get("security"))
    for one in asked if isinstance(asked, list) else ():
        names = list(mapping(one))
        if names and all(name in known for name in names):
            return tuple(known[name] for name in names)
    return ()


async def signed(
    signs: Sequence[Sign], credentials: Mapping[str, Credential], run: RunContext[Any]
) -> Signed:
    """Raises: NotApplied: a credential cannot be had; nothing was sent. ToolError: its own."""
    headers: dict[str, str] = {}
    query: list[str] = []
    cookies: list[str] = []
    for sign in signs:
        value = await _now(credentials[sign.scheme], run)
        if sign.kind == "bearer":
            headers["Authorization"] = f"Bearer {value}"
        elif sign.kind == "basic":
            headers["Authorization"] = f"Basic {base64.b64encode(value.encode()).decode()}"
        elif sign.kind == "header":
            headers[sign.name] = value
        else:
            pair = f"{quote(sign.name, safe='')}={quote(value, safe='')}"
            (query if sign.kind == "query" else cookies).append(pair)
    return Signed(headers, query, cookies)


async def _now(credential: Credential, run: RunContext[Any]) -> str:
    if isinstance(credential, str):
        return credential
    try:
        found = credential(run)
        return await found if inspect.isawaitable(found) else found
    except ToolError:
        raise
    except Exception as error:  # border: a user's function; REC-7, and nothing was sent
        raise NotApplied(f"The credentials cannot be had: {type(error).__name__}") from error

"""`http_tool`: one request to one service as a tool.

Invariant: the URL's host is in the declaration, never in an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from roadworthy.agent import Effect, Tool
from roadworthy.errors import DeclarationError
from roadworthy.messages import JsonObject
from roadworthy.spelling import spelled
from roadworthy.tools.declare import Approval
from roadworthy.tools.http.calls import Headers, Service, tool_of
from roadworthy.tools.http.client import Client
from roadworthy.tools.http.operations import PLACEHOLDER, Body, Operation, Parameter

READS = frozenset({"GET", "HEAD", "OPTIONS"})
METHODS = READS | {"POST", "PUT", "PATCH", "DELETE"}
_BODIES = frozenset({"POST", "PUT", "PATCH"})


@spelled
def http_tool(  # noqa: PLR0913 - a declaration
    name: str,
    description: str,
    url: str,
    parameters: JsonObject | None = None,
    *,
    method: str = "GET",
    effect: Effect | None = None,
    headers: Headers | None = None,
    client: Client | None = None,
    approval: Approval | None = None,
    timeout: float | None = None,
) -> Tool[Any]:
    """A request as a tool: `http_tool("order", "One order.", "https://shop.example/orders/{id}",
    {"id": {"type": "string"}})`.

    url: {places} in its path and query take arguments, encoded. parameters: JSON schemas by name
    (all are required), or the schema of an object. Arguments without a place become the query of a
    GET, HEAD or DELETE and the JSON body of the others. effect: None: GET and HEAD are reads, the
    others irreversible; effects carry `run.key` as Idempotency-Key, so say "write" where the server
    honours it. headers: of each request, or a function of the run. client: which addresses,
    redirects, sizes. approval, timeout: as `@tool`.
    Raises: DeclarationError.
    """
    method = method.upper()
    if method not in METHODS:
        raise DeclarationError(f"Tool {name!r}: method={method!r} is none of {sorted(METHODS)}.")
    client = client or Client()
    operation = _operation(name, description, method, url, _schema(parameters))
    client.check(operation.base)
    service = Service(client, headers=headers or {}, timeout=timeout, approval=approval)
    return tool_of(service, operation, effect or ("read" if method in READS else "irreversible"))


def _schema(parameters: JsonObject | None) -> JsonObject:
    given = parameters or {}
    if isinstance(given.get("properties"), Mapping) or given.get("type") == "object":
        return given
    return {"type": "object", "properties": dict(given), "required": list(given)}


def _operation(name: str, description: str, method: str, url: str, schema: JsonObject) -> Operation:
    parts = urlsplit(url)
    if "{" in parts.netloc or "{" in parts.scheme or not parts.netloc:
        raise DeclarationError(
            f"Tool {name!r}: scheme and host of url= are fixed, {{places}} come after them."
        )
    known = schema.get("properties", {})
    places = [Parameter(key=each, name=each, at="path") for each in PLACEHOLDER.findall(parts.path)]
    fixed = []
    for pair in filter(None, parts.query.split("&")):
        wire, _, value = pair.partition("=")
        found = PLACEHOLDER.fullmatch(value)
        if found is None and "{" in pair:
            raise DeclarationError(f"Tool {name!r}: {pair!r}: a place is all of a query's value.")
        if found is None:
            fixed.append(pair)
        else:
            places.append(_in_query(found[1], wire))
    used = {place.key for place in places}
    if unknown := sorted(used - set(known)):
        raise DeclarationError(
            f"Tool {name!r}: {', '.join(unknown)} in url= is not in parameters=."
        )
    required = schema.get("required", ())
    if loose := [each.key for each in places if each.at == "path" and each.key not in required]:
        raise DeclarationError(f"Tool {name!r}: {', '.join(loose)} is in the path: require it.")
    rest = [each for each in known if each not in used]
    body = None
    if method in _BODIES:
        body = Body(media_type="application/json", fields={each: each for each in rest})
    else:
        places += [_in_query(each, each) for each in rest]
    return Operation(
        name=name,
        description=description,
        method=method,
        base=f"{parts.scheme}://{parts.netloc}",
        path=parts.path or "/",
        fixed_query="&".join(fixed),
        parameters=tuple(places),
        body=body,
        schema=schema,
    )


def _in_query(key: str, name: str) -> Parameter:
    return Parameter(key=key, name=name, at="query", style="form", explode=True)

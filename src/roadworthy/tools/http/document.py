"""Reads OpenAPI documents (3.0, 3.1): operations with their parameters, bodies and schemas.

`openapi` makes tools of what it finds. Invariant: nothing is fetched; references stay in the
document; what cannot be said faithfully is left out with its reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from roadworthy.errors import DeclarationError
from roadworthy.messages import JsonObject
from roadworthy.tools.http.operations import (
    MULTIPART,
    PLACEHOLDER,
    Body,
    Operation,
    Parameter,
    Place,
)
from roadworthy.tools.http.shapes import Shapes
from roadworthy.tools.schemas import lookup, mapping

METHODS = ("get", "head", "options", "post", "put", "patch", "delete")
MOST_TEXT = 1_000
_KEY = re.compile(r"[^A-Za-z0-9_.-]")
_STYLES: Mapping[str, tuple[str, ...]] = {
    "path": ("simple",),
    "header": ("simple",),
    "cookie": ("form",),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
}
_IGNORED = frozenset({"accept", "content-type", "authorization", "idempotency-key"})
_FORM = "application/x-www-form-urlencoded"
_TEXTS = (_FORM, MULTIPART, "text/plain", "*/*")


class Unsaid(Exception):
    """An operation that cannot be made a tool; why."""


@dataclass(frozen=True, kw_only=True)
class Described:
    """An operation as the document has it."""

    id: str
    method: str
    path: str
    node: JsonObject
    shared: tuple[Any, ...]  # parameters of the whole path
    elsewhere: bool  # it has a server of its own


def read(document: JsonObject | str | Path) -> JsonObject:
    """The document: as it is, or from a file of JSON or YAML. Raises: DeclarationError."""
    found: object = document
    if not isinstance(document, Mapping):
        try:
            text = Path(document).read_text(encoding="utf-8")
            found = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
            found = json.loads(json.dumps(found, default=str))  # keys and dates as JSON has them
        except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
            raise DeclarationError(f"{document}: cannot be read: {str(error)[:300]}") from error
    if not isinstance(found, Mapping) or not str(found.get("openapi", "")).startswith("3."):
        raise DeclarationError(
            "It is no OpenAPI document of 3.0 or 3.1 (`openapi: 3.x` at its top). Convert older "
            "ones first."
        )
    return found


def server(document: JsonObject) -> str:
    """The first server's URL, its variables at their defaults; "" where there is none."""
    first = next(iter(_list(document.get("servers"))), None)
    if not isinstance(first, Mapping):
        return ""
    variables = mapping(first.get("variables"))

    def default(found: re.Match[str]) -> str:
        return str(mapping(variables.get(found[1])).get("default", ""))

    return PLACEHOLDER.sub(default, str(first.get("url", "")))


def described(document: JsonObject) -> Iterator[Described]:
    """The operations, each with an id of its own."""
    taken = set[str]()
    for path, item in mapping(document.get("paths")).items():
        item = _found(document, item)
        for method in METHODS:
            node = item.get(method)
            if not isinstance(node, Mapping) or not str(path).startswith("/"):
                continue
            plain = f"{method}_{str(path).strip('/')}".replace("{", "").replace("}", "")
            name = str(node.get("operationId") or plain)
            if name in taken:
                name = f"{name}_{plain}"
            taken.add(name)
            yield Described(
                id=name,
                method=method.upper(),
                path=str(path),
                node=node,
                shared=tuple(_list(item.get("parameters"))),
                elsewhere=bool(node.get("servers") or item.get("servers")),
            )


def operation(document: JsonObject, one: Described, name: str, base: str) -> Operation:
    """Raises: Unsaid: it cannot be called faithfully."""
    if one.elsewhere:
        raise Unsaid("it has a server of its own")
    making = _Making(document, one)
    making.read_parameters()
    making.read_body()
    return Operation(
        name=name,
        description=_description(one),
        method=one.method,
        base=base,
        path=quote(one.path, safe="/{}:@!$&'()*+,;=~%"),
        parameters=tuple(making.parameters),
        body=making.body,
        schema=making.schema(),
    )


class _Making:
    """One operation while it is read."""

    def __init__(self, document: JsonObject, one: Described) -> None:
        self.parameters: list[Parameter] = []
        self.body: Body | None = None
        self._document, self._one = document, one
        self._shapes = Shapes(document)
        self._properties: dict[str, Any] = {}
        self._required: list[str] = []

    def schema(self) -> JsonObject:
        return self._shapes.whole(self._properties, self._required)

    def read_parameters(self) -> None:
        """Those of the operation win over those of its path."""
        nodes: dict[tuple[str, str], JsonObject] = {}
        for each in (*self._one.shared, *_list(self._one.node.get("parameters"))):
            node = _found(self._document, each)
            nodes[str(node.get("name", "")), str(node.get("in", ""))] = node
        for (name, at), node in nodes.items():
            self._read_parameter(name, at, node)
        there = {each.name for each in self.parameters if each.at == "path"}
        places = set(PLACEHOLDER.findall(self._one.path))
        if places != there:
            raise Unsaid(f"its path and its path parameters differ: {sorted(places ^ there)}")

    def _read_parameter(self, name: str, at: str, node: JsonObject) -> None:
        if at == "header" and name.lower() in _IGNORED:
            return  # decided by the runtime and by headers=
        required = node.get("required") is True or at == "path"
        content = mapping(node.get("content"))
        style = str(node.get("style") or ("form" if at in ("query", "cookie") else "simple"))
        if style not in _STYLES.get(at, ()) or (content and not _json_type(content)):
            if required:
                raise Unsaid(f"parameter {name!r}: {at or 'no place'} in style {style}")
            return
        whole = content.get(_json_type(content) or "", node)
        schema = self._shapes.of(mapping(whole).get("schema", {}))
        key = self._free(name, at)
        self.parameters.append(
            Parameter(
                key=key,
                name=name,
                at=_place(at),
                style=style,
                explode=bool(node.get("explode", style == "form")),
                as_json=bool(content),
            )
        )
        self._take(key, schema, required=required, about=node.get("description"))

    def read_body(self) -> None:
        node = _found(self._document, self._one.node.get("requestBody"))
        content = mapping(node.get("content"))
        if not content:
            return
        required = node.get("required") is True
        media_type = _json_type(content) or _form_or_text(content)
        if media_type is None:
            if required:
                raise Unsaid(f"its body is {', '.join(content)}")
            return
        given = mapping(content[media_type]).get("schema", {})
        schema = self._shapes.of(given)
        flat = self._shapes.properties(schema)
        if media_type == MULTIPART and not flat:
            raise Unsaid("its multipart body is no plain object")
        media_type = media_type if "*" not in media_type else "application/json"
        if required and flat and media_type != "text/plain" and self._fit(flat):
            self._flatten(media_type, flat, self._shapes.required(schema))
            return
        key = self._free("body", "body")
        self.body = Body(media_type=media_type, key=key)
        self._take(key, schema, required=required, about=node.get("description"))

    def _fit(self, flat: JsonObject) -> bool:
        return not any(name in self._properties or name != _key(name) for name in flat)

    def _flatten(self, media_type: str, flat: JsonObject, required: frozenset[str]) -> None:
        for name, schema in flat.items():
            self._take(name, schema, required=name in required, about=None)
        self.body = Body(media_type=media_type, fields={name: name for name in flat})

    def _free(self, name: str, at: str) -> str:
        key = _key(name) or at
        while key in self._properties:
            key = f"{key[: 63 - len(at)]}_{at}"
            if len(key) >= 64:
                raise Unsaid(f"parameter {name!r} is there too often")
        return key

    def _take(self, key: str, schema: object, *, required: bool, about: object) -> None:
        if isinstance(schema, Mapping) and isinstance(about, str) and about.strip():
            schema = {**schema, "description": about.strip()[:MOST_TEXT]}
        self._properties[key] = schema
        if required:
            self._required.append(key)


def _description(one: Described) -> str:
    said = [str(one.node.get(key) or "").strip() for key in ("summary", "description")]
    if said[1].startswith(said[0]):
        said = said[1:]
    text = " ".join(" ".join(filter(None, said)).split()) or f"{one.method} {one.path}"
    text = text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 3]}..."
    return f"{text} (deprecated)" if one.node.get("deprecated") is True else text


def _found(document: JsonObject, node: object) -> JsonObject:
    """The node, or what it refers to. Raises: Unsaid: a reference to nowhere, or round and
    round."""
    current = mapping(node)
    for _ in range(20):
        if "$ref" not in current:
            return current
        current = mapping(lookup(document, current["$ref"]))
        if not current:
            break
    return _nowhere(node)


def _nowhere(node: object) -> JsonObject:
    raise Unsaid(f"a reference that leads nowhere: {mapping(node).get('$ref')!r:.100}")


def _json_type(content: JsonObject) -> str | None:
    plain = {name: name.partition(";")[0].strip().lower() for name in content}
    for name, kind in plain.items():
        if kind == "application/json":
            return name
    return next((name for name, kind in plain.items() if kind.endswith("+json")), None)


def _form_or_text(content: JsonObject) -> str | None:
    return next((kind for kind in _TEXTS if kind in content), None)


def _place(at: str) -> Place:
    places: tuple[Place, ...] = ("path", "query", "header", "cookie")
    return next(place for place in places if place == at)


def _key(name: str) -> str:
    return _KEY.sub("_", name)[:64]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []

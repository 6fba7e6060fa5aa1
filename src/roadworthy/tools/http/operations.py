"""One operation of a service as data, and the request that a model's arguments make of it.

`declare` and `document` describe operations, `calls` carries them out. Invariant: arguments fill
places in path, query, headers, cookies and body; scheme, host and the path around them stay.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, urlencode

from roadworthy.errors import ToolError
from roadworthy.messages import JsonObject

Place = Literal["path", "query", "header", "cookie"]
PLACEHOLDER = re.compile(r"\{([^{}/]+)\}")
_DOTS = re.compile(r"(?:^|[/\\])\.{1,2}(?:[/\\]|$)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
MULTIPART = "multipart/form-data"
_JOINED = {"form": ",", "spaceDelimited": "%20", "pipeDelimited": "%7C"}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A place for an argument. key: the argument; name: there. style: as OpenAPI calls it."""

    key: str
    name: str
    at: Place
    style: str = "simple"
    explode: bool = False
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class Body:
    """What is sent as the body. key: the argument that is all of it; fields: else by argument."""

    media_type: str
    key: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """method and path of a service at `base` (scheme, host and what comes before every path)."""

    name: str
    description: str
    method: str
    base: str
    path: str
    fixed_query: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    schema: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class Filled:
    """An operation with a model's arguments in their places."""

    url: str
    headers: Mapping[str, str]
    body: bytes | None


def filled(operation: Operation, values: JsonObject) -> Filled:
    """Raises: ToolError: an argument cannot stand where it belongs."""
    query = [operation.fixed_query] if operation.fixed_query else []
    headers: dict[str, str] = {}
    cookies: list[str] = []
    paths: dict[str, str] = {}
    for parameter in operation.parameters:
        value = values.get(parameter.key)
        if value is None and parameter.at != "path":
            continue
        if parameter.at == "path":
            paths[parameter.name] = _in_path(parameter, value)
        elif parameter.at == "query":
            query += _in_query(parameter, value)
        elif parameter.at == "header":
            headers[parameter.name] = _in_header(parameter, value)
        else:
            cookies.append(f"{quote(parameter.name)}={quote(_plain(parameter, value), safe='')}")
    if cookies:
        headers["Cookie"] = "; ".join(cookies)
    body = _body(operation.body, values)
    if operation.body is not None and body is not None:
        headers["Content-Type"] = _content_type(operation.body.media_type, body)
    path = PLACEHOLDER.sub(lambda found: paths[found[1]], operation.path)
    joined = "&".join(each for each in query if each)
    return Filled(f"{operation.base}{path}{'?' if joined else ''}{joined}", headers, body)


def _in_path(parameter: Parameter, value: object) -> str:
    text = _plain(parameter, value)
    if not text or _DOTS.search(text) or _CONTROL.search(text):
        raise ToolError(
            f"{parameter.key}: {text[:40]!r} cannot stand in a path; it must not be empty, and "
            "must hold no '.' or '..' between slashes and no control characters."
        )
    return quote(text, safe="")


def _in_header(parameter: Parameter, value: object) -> str:
    text = _plain(parameter, value)
    if _CONTROL.search(text) or not text.isascii():
        raise ToolError(f"{parameter.key}: a header takes printable ASCII on one line.")
    return text


def _in_query(parameter: Parameter, value: object) -> list[str]:
    name = quote(parameter.name, safe="")
    if parameter.as_json:
        return [f"{name}={quote(_plain(parameter, value), safe='')}"]
    if isinstance(value, Mapping):
        return _object_in_query(parameter, name, value)
    if isinstance(value, list):
        items = [quote(scalar(item), safe="") for item in value]
        if parameter.explode:
            return [f"{name}={item}" for item in items]
        return [f"{name}={_JOINED.get(parameter.style, ',').join(items)}"]
    return [f"{name}={quote(scalar(value), safe='')}"]


def _object_in_query(parameter: Parameter, name: str, value: Mapping[str, Any]) -> list[str]:
    pairs = [
        (quote(str(key), safe=""), quote(scalar(item), safe="")) for key, item in value.items()
    ]
    if parameter.style == "deepObject":
        return [f"{name}%5B{key}%5D={item}" for key, item in pairs]
    if parameter.explode:
        return [f"{key}={item}" for key, item in pairs]
    return [f"{name}={','.join(part for pair in pairs for part in pair)}"]


def _plain(parameter: Parameter, value: object) -> str:
    """Style `simple` (RFC 6570): lists and objects joined by commas; or JSON."""
    if parameter.as_json:
        return scalar_json(value)
    if isinstance(value, list):
        return ",".join(scalar(item) for item in value)
    if isinstance(value, Mapping):
        between = "=" if parameter.explode else ","
        return ",".join(f"{key}{between}{scalar(item)}" for key, item in value.items())
    return scalar(value)


def scalar(value: object) -> str:
    """A value as it stands in a URL; what is nested goes as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | Mapping):
        return scalar_json(value)
    return str(value).encode(errors="replace").decode()


def scalar_json(value: object) -> str:
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)


def _body(body: Body | None, values: JsonObject) -> bytes | None:
    if body is None:
        return None
    if body.key is not None:
        if body.key not in values:
            return None
        whole = values[body.key]
    else:
        whole = {name: values[key] for key, name in body.fields.items() if key in values}
    if body.media_type == "application/x-www-form-urlencoded" and isinstance(whole, Mapping):
        pairs = [
            (key, scalar(each))
            for key, value in whole.items()
            for each in (value if isinstance(value, list) else [value])
        ]
        return urlencode(pairs).encode()
    if body.media_type == MULTIPART and isinstance(whole, Mapping):
        return _multipart(whole)
    if "json" in body.media_type:
        return scalar_json(whole).encode()
    return scalar(whole).encode()


def _multipart(whole: Mapping[str, Any]) -> bytes:
    """Fields as parts (RFC 7578): text as it is, what is nested as JSON; lists in several parts."""
    parts = []
    for key, value in whole.items():
        name = quote(str(key), safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~")
        for each in value if isinstance(value, list) else [value]:
            kind = "\r\nContent-Type: application/json" if isinstance(each, Mapping) else ""
            head = f'Content-Disposition: form-data; name="{name}"{kind}\r\n\r\n'
            parts.append(f"{head}{scalar(each)}".encode())
    digest = hashlib.sha256(b"".join(parts)).hexdigest()[:32]  # no part can hold its own digest
    line = f"--{digest}".encode()
    return b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + b"--\r\n"


def _content_type(media_type: str, body: bytes) -> str:
    if media_type != MULTIPART:
        return media_type
    return f"{media_type}; boundary={body[2:34].decode()}"  # its first line

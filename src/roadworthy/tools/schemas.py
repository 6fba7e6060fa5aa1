"""JSON schemas of tool arguments: closed, tidied, and shown in one line.

Used by `declare` and `arguments`. Invariant: every object that lists its properties refuses others.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from roadworthy.messages import JsonObject

_IN_PLACE = ("allOf", "anyOf", "oneOf")
_CONDITIONS = ("if", "then", "else", "not")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_ONE = ("items", "additionalProperties", "contains", "propertyNames", "unevaluatedItems")
_OPENERS = ("additionalProperties", "patternProperties", "unevaluatedProperties")
_DECIMAL_PATTERN = "^(?!^[-+.]*$)"  # pydantic's; look-aheads are refused by several providers
MOST_INLINED = 100
MOST_LISTED = 6


def children(schema: JsonObject) -> Iterator[dict[str, Any]]:
    """The schemas directly inside a schema."""
    for key in _MAPS:
        inner = mapping(schema.get(key)).values()
        yield from (child for child in inner if isinstance(child, dict))
    for key in (*_ONE, *_CONDITIONS):
        if isinstance(child := schema.get(key), dict):
            yield child
    for key in (*_IN_PLACE, "prefixItems", "items"):
        if isinstance(several := schema.get(key), list):
            yield from (child for child in several if isinstance(child, dict))


def everywhere(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and every schema inside it."""
    stack = [schema]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(children(current))


def closed(schema: JsonObject) -> dict[str, Any]:
    """A copy in which every object that lists properties refuses others.

    Where objects are composed (`allOf`, `anyOf`, `$ref` beside properties) the whole is closed by
    `unevaluatedProperties` (JSON Schema 2020-12, 11.3) and its pieces stay open. A nested object
    that lists no properties is a map and stays open; at the top it means "no arguments".
    """
    result = copy.deepcopy(dict(schema))
    result.setdefault("type", "object")
    result.setdefault("properties", {})
    pieces = _pieces(result)
    for part in everywhere(result):
        if any(key in part for key in _OPENERS) or id(part) in pieces:
            continue
        composed = any(key in part for key in (*_IN_PLACE, "if", "$ref"))
        if "properties" in part:
            part["unevaluatedProperties" if composed else "additionalProperties"] = False
        elif "allOf" in part:
            part["unevaluatedProperties"] = False
        elif part.get("type") == "object":
            part["additionalProperties"] = True
    return result


def _pieces(schema: dict[str, Any]) -> set[int]:
    """Schemas applied together with others on one object: `additionalProperties` there would
    refuse what the others allow."""
    found: set[int] = set()
    stack = list[dict[str, Any]]()
    for part in everywhere(schema):
        together = [*part.get("allOf", ()), *(part.get(key) for key in _CONDITIONS)]
        if "properties" in part or "allOf" in part:
            together += [*part.get("anyOf", ()), *part.get("oneOf", ())]
            together += [{"$ref": part["$ref"]}] if "$ref" in part else []
        stack.extend(piece for piece in together if isinstance(piece, dict))
    while stack:
        piece = stack.pop()
        target = lookup(schema, piece["$ref"]) if "$ref" in piece else None
        if id(piece) not in found:
            found.add(id(piece))
            stack.extend([target] if isinstance(target, dict) else [])
            stack.extend(p for key in _IN_PLACE for p in piece.get(key, ()) if isinstance(p, dict))
    return found


def lookup(schema: JsonObject, ref: object) -> dict[str, Any] | None:
    """The schema a local `$ref` (`#/$defs/Order`) points at, or None."""
    if not isinstance(ref, str) or not ref.startswith("#"):
        return None
    current: Any = schema
    for step in ref[1:].strip("/").split("/") if len(ref) > 1 else ():
        if not isinstance(current, Mapping):
            return None
        current = current.get(step.replace("~1", "/").replace("~0", "~"))
    return current if isinstance(current, dict) else None


def tidied(schema: dict[str, Any]) -> dict[str, Any]:
    """What pydantic wrote, as models read it best: no titles, no Decimal patterns, references
    replaced by what they point at, unless one is recursive or there are very many."""
    for part in everywhere(schema):
        if isinstance(part.get("title"), str):
            del part["title"]
        if str(part.get("pattern", "")).startswith(_DECIMAL_PATTERN):
            del part["pattern"]
    flat: dict[str, Any] = _inlined(schema, schema, [MOST_INLINED])
    if any("$ref" in part for part in everywhere(flat)):
        return schema
    return flat


def _inlined(schema: Any, root: dict[str, Any], left: list[int]) -> Any:  # noqa: ANN401 - any JSON
    """`left[0]`: how many more references may be replaced."""
    if isinstance(schema, list):
        return [_inlined(item, root, left) for item in schema]
    if not isinstance(schema, dict):
        return schema
    ref = schema.get("$ref")
    target = lookup(root, ref)
    if isinstance(ref, str) and target is not None and left[0] and not _recursive(ref, root):
        left[0] -= 1
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _inlined(target, root, left) | _inlined(beside, root, left)
    return {key: _inlined(value, root, left) for key, value in schema.items() if key != "$defs"}


def _recursive(ref: str, root: dict[str, Any]) -> bool:
    """Whether following references from `ref` leads back to it."""
    stack, met = [ref], set[str]()
    while stack:
        target = lookup(root, stack.pop())
        for part in everywhere(target) if target else ():
            following = part.get("$ref")
            if following == ref:
                return True
            if isinstance(following, str) and following not in met:
                met.add(following)
                stack.append(following)
    return False


def inside(schema: JsonObject, path: Sequence[str | int]) -> JsonObject:
    """The schema of what lies at `path`, as far as it can be told; else an empty one."""
    current = schema
    for step in path:
        properties = mapping(current.get("properties"))
        current = mapping(current.get("items") if isinstance(step, int) else properties.get(step))
        current = (lookup(schema, current["$ref"]) or {}) if "$ref" in current else current
    return current


def known_fields(schema: JsonObject) -> list[str]:
    """The properties an object may have by its schema, those of its alternatives included."""
    options = [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    return [name for option in options for name in mapping(mapping(option).get("properties"))]


def sketch(schema: JsonObject, depth: int = 2) -> str:
    """One line that tells a model the expected form: `{order_id: string, note?: string}`."""
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(allowed, list) and len(allowed) <= MOST_LISTED:
        return "|".join(json.dumps(value, ensure_ascii=False) for value in allowed)
    options = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(options, list):
        return " or ".join(dict.fromkeys(sketch(mapping(option), depth) for option in options))
    properties = mapping(schema.get("properties"))
    if properties and depth:
        return _sketched_object(schema, properties, depth)
    return _sketched_type(schema, depth)


def _sketched_type(schema: JsonObject, depth: int) -> str:
    kind = schema.get("type", "object" if "$ref" in schema else "any")
    if isinstance(kind, list):
        return " or ".join(map(str, kind))
    items = schema.get("items")
    if kind == "array" and isinstance(items, dict) and items:
        return f"[{sketch(items, depth)}]"
    return str(schema.get("format", kind))


def _sketched_object(schema: JsonObject, properties: JsonObject, depth: int) -> str:
    required = schema.get("required", ())
    fields = (
        f"{name}{'' if name in required else '?'}: {sketch(mapping(inner), depth - 1)}"
        for name, inner in properties.items()
    )
    return "{" + ", ".join(fields) + "}"


def mapping(value: object) -> JsonObject:
    """The value, if it is an object; else an empty one."""
    return value if isinstance(value, Mapping) else {}

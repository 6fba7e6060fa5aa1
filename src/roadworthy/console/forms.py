"""A call's arguments as a form that people fill in, from the tool's JSON schema, and back.

The inbox draws it and reads it. Invariant: what the form does not show stays as it is, and what it
shows comes back in the type that the schema asks for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from roadworthy.console import words
from roadworthy.errors import RunError
from roadworthy.messages import Json, JsonObject

Kind: TypeAlias = Literal["text", "long", "number", "date", "choice", "lines", "fixed"]
_DEEPEST = 6
_LONG = 60
_WHOLE_BELOW = 1e15
_WHOLE = re.compile(r"[+-]?\d{1,30}")
_NUMBER = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,3})?")
_YES_NO = (("true", "yes"), ("false", "no"))


@dataclass(frozen=True, kw_only=True)
class Field:
    """One control. name: where its value belongs, such as `address.city`. choices: (value, label).
    kind "lines": a list, one item a line; "fixed": shown, not edited. said: the value in words."""

    name: str
    label: str
    kind: Kind
    value: str
    hint: str = ""
    required: bool = False
    choices: tuple[tuple[str, str], ...] = ()
    said: str = ""


def fields(schema: JsonObject, arguments: JsonObject) -> list[Field]:
    """The controls of a call, in the order of its schema."""
    return [drawn for drawn, _ in _leaves(_Schema(schema, schema), dict(arguments), "", "", 0)]


def read(schema: JsonObject, arguments: JsonObject, said: Mapping[str, str]) -> JsonObject:
    """The arguments as the form has them now; others as they were.

    Raises: RunError: a number or a list of numbers that is none.
    """
    changed: Json = _copied(dict(arguments))
    for field, place in _leaves(_Schema(schema, schema), dict(arguments), "", "", 0):
        text = said.get(field.name)
        if text is None or field.kind == "fixed" or _lines(text) == _lines(field.value):
            continue
        if not text.strip() and not field.required:
            changed = _without(changed, field.name.split("."))
        else:
            changed = _with(changed, field.name.split("."), _typed(place, field, text))
    return changed if isinstance(changed, dict) else {}


@dataclass(frozen=True)
class _Schema:
    """A schema and the whole it may refer to."""

    own: Mapping[str, Json]
    whole: Mapping[str, Json]

    def of(self, part: Json) -> _Schema:
        """A part of it, its reference followed, of alternatives the first that says something."""
        found = part if isinstance(part, Mapping) else {}
        for _ in range(_DEEPEST):
            reference = found.get("$ref")
            if isinstance(reference, str):
                found = {**self._at(reference), **{k: v for k, v in found.items() if k != "$ref"}}
                continue
            variants = found.get("anyOf") or found.get("oneOf") or found.get("allOf")
            if not isinstance(variants, Sequence) or isinstance(variants, str):
                break
            real = [v for v in variants if isinstance(v, Mapping) and v.get("type") != "null"]
            rest = {k: v for k, v in found.items() if k not in ("anyOf", "oneOf", "allOf")}
            found = {**(real[0] if real else {}), **rest}
        return _Schema(found, self.whole)

    def _at(self, reference: str) -> Mapping[str, Json]:
        at: Json = dict(self.whole)
        for step in reference.removeprefix("#").strip("/").split("/"):
            at = at.get(step) if isinstance(at, Mapping) else None
        return at if isinstance(at, Mapping) else {}

    def text(self, key: str) -> str:
        """A keyword that is text."""
        value = self.own.get(key)
        return value if isinstance(value, str) else ""

    @property
    def type(self) -> str:
        """The type; of several the first that is not null."""
        value = self.own.get("type")
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = next((item for item in value if item != "null"), "")
        return value if isinstance(value, str) else ""

    @property
    def properties(self) -> Mapping[str, Json]:
        """Of an object."""
        value = self.own.get("properties")
        return value if isinstance(value, Mapping) else {}

    def requires(self, name: str) -> bool:
        """Whether an object must have this property."""
        value = self.own.get("required")
        return isinstance(value, Sequence) and name in value


_Leaves: TypeAlias = "list[tuple[Field, _Schema]]"


def _leaves(schema: _Schema, value: Json, path: str, label: str, depth: int) -> _Leaves:
    """The controls of an object, of objects in it, and of what a list of objects holds."""
    given = value if isinstance(value, Mapping) else {}
    found: _Leaves = []
    names = [*schema.properties, *(name for name in given if name not in schema.properties)]
    for name in names:
        part = schema.of(schema.properties.get(name))
        place = f"{path}{name}"
        title = f"{label}{words.name(name)}"
        item = given.get(name)
        if "." in name:  # its place could not be told from that of a part: shown, never changed
            if name in given:
                fixed = replace(_control(part, "", title, item, required=False), kind="fixed")
                found.append((fixed, part))
        elif part.properties and depth < _DEEPEST and isinstance(item, Mapping | None):
            found += _leaves(part, item, f"{place}.", f"{title}, ", depth + 1)
        elif depth < _DEEPEST and _has_objects(item):
            for number, one in enumerate(item if isinstance(item, Sequence) else ()):
                inner = part.of(part.own.get("items"))
                head = f"{title} {number + 1}, "
                parts = _leaves(inner, one, f"{place}.{number}.", head, depth + 1)
                found += parts or [(_control(part, "", head[:-2], one, required=False), part)]
        else:
            required = schema.requires(name)
            found.append((_control(part, place, title, item, required=required), part))
    return found


def _control(part: _Schema, place: str, title: str, value: Json, *, required: bool) -> Field:
    choices = _choices(part)
    kind = _kind(part, value)
    shown = words.plain(value) if kind == "fixed" else _shown(value)
    hint = part.text("description")
    if kind == "lines":
        hint = f"{hint} One a line.".strip()
    return Field(
        name=place,
        label=title,
        kind=kind,
        value=shown,
        hint=hint,
        required=required,
        choices=choices,
        said=words.plain(value),
    )


def _kind(part: _Schema, value: Json) -> Kind:
    items = part.of(part.own.get("items"))
    scalars = ("string", "integer", "number")
    if part.type == "array" and (items.type in scalars or not items.own) and _is_plain_list(value):
        return "lines"
    if isinstance(value, Mapping | list | tuple) or part.type in ("object", "array"):
        return "fixed"
    if _choices(part):
        return "choice"
    if part.type in ("integer", "number") and not isinstance(value, str):
        return "number"
    if part.text("format") == "date":
        return "date"
    long = isinstance(value, str) and (len(value) > _LONG or "\n" in value)
    return "long" if long else "text"


def _choices(part: _Schema) -> tuple[tuple[str, str], ...]:
    if part.type == "boolean":
        return _YES_NO
    options = part.own.get("enum")
    if not isinstance(options, Sequence) or isinstance(options, str):
        return ()
    return tuple((_shown(option), words.plain(option)) for option in options if option is not None)


def _has_objects(value: Json) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and bool(value)
        and all(isinstance(item, Mapping) for item in value)
    )


def _is_plain_list(value: Json) -> bool:
    if value is None:
        return True
    return isinstance(value, list) and all(
        isinstance(item, str | int | float) and "\n" not in str(item) for item in value
    )


def _shown(value: Json) -> str:
    """A value as its control holds it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE_BELOW:
        return str(int(value))
    if isinstance(value, list):
        return "\n".join(_shown(item) for item in value)
    return str(value)


def _lines(text: str) -> str:
    """Line ends as one kind: browsers send another than they were given."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _typed(part: _Schema, field: Field, text: str) -> Json:
    if field.kind == "lines":
        items = part.of(part.own.get("items"))
        lines = [line.strip() for line in text.splitlines()]
        return [_scalar(items.type, field.label, line) for line in lines if line]
    if field.kind == "choice":
        options = part.own.get("enum")
        listed = options if isinstance(options, Sequence) and not isinstance(options, str) else ()
        known: Sequence[Json] = listed or (True, False)
        for option in known:
            if option is not None and _shown(option) == text:
                return option
        raise RunError(f"{field.label}: choose one of those offered.")
    kind = part.type if field.kind == "number" else "string"
    return _scalar(kind, field.label, _lines(text))


def _scalar(kind: str, label: str, text: str) -> Json:
    said = text.strip()
    if kind == "integer":
        if not _WHOLE.fullmatch(said):
            raise RunError(f"{label}: {said!r} is no whole number. Write one such as 40.")
        return int(said)
    if kind == "number":
        if not _NUMBER.fullmatch(said):
            raise RunError(f"{label}: {said!r} is no number. Write one such as 40 or 12.50.")
        return int(said) if _WHOLE.fullmatch(said) else float(said)
    return text


def _copied(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _with(value: Json, path: Sequence[str], new: Json) -> Json:
    """The value with something else at a place; objects on the way there are made."""
    if not path:
        return new
    if isinstance(value, list):
        at = int(path[0])
        value[at] = _with(value[at], path[1:], new)
        return value
    made = value if isinstance(value, dict) else {}
    made[path[0]] = _with(made.get(path[0]), path[1:], new)
    return made


def _without(value: Json, path: Sequence[str]) -> Json:
    if isinstance(value, list):
        value[int(path[0])] = _without(value[int(path[0])], path[1:])
    elif isinstance(value, dict) and path[0] in value:
        if len(path) == 1:
            del value[path[0]]
        else:
            value[path[0]] = _without(value[path[0]], path[1:])
    return value

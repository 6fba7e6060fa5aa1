"""What is wrong with a call's arguments, said to the model in one line it can act on.

Used by `arguments`, for pydantic's and for JSON schema's findings. Invariant: at most MOST fields,
whatever was wrong, and never longer than about a kilobyte.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from roadworthy.errors import ToolError
from roadworthy.messages import JsonObject
from roadworthy.tools.schemas import inside, known_fields, sketch

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError
    from pydantic_core import ErrorDetails

MOST = 5
_GOT, _SKETCH, _NAME = 40, 400, 60
Path = Sequence[str | int]

_TYPES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_PYDANTIC = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a string",
    "bool_type": "true or false",
    "none_required": "null",
    "decimal_type": "a number",
    "decimal_parsing": "a number",
    "date_type": 'a date such as "2026-01-31"',
    "date_parsing": 'a date such as "2026-01-31"',
    "date_from_datetime_parsing": 'a date such as "2026-01-31"',
    "datetime_type": 'a moment such as "2026-01-31T12:00:00Z"',
    "datetime_parsing": 'a moment such as "2026-01-31T12:00:00Z"',
    "time_type": 'a time such as "12:00:00"',
    "time_parsing": 'a time such as "12:00:00"',
    "list_type": "an array",
    "tuple_type": "an array",
    "set_type": "an array",
    "frozen_set_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dataclass_type": "an object",
}
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


class Problems:
    """Collects findings about one call and words them."""

    def __init__(self, tool: str, schema: JsonObject, arguments: JsonObject) -> None:
        self._tool = tool
        self._schema = schema
        self._arguments = arguments
        self._missing: list[str] = []
        self._unknown: list[str] = []
        self._wrong: dict[str, tuple[list[str], str]] = {}

    def from_pydantic(self, error: ErrorDetails) -> None:
        """Take one of pydantic's findings. Branches of a union are worded as one."""
        kind, loc = error["type"], error["loc"]
        if kind == "missing":
            path = self._real(loc[:-1])
            self._note(self._missing, _dotted([*path, loc[-1]]))
        elif kind in _UNKNOWN:
            self._unknown_field(self._real(loc[:-1]), str(loc[-1]))
        else:
            self._add(self._real(loc), _worded(kind, error["msg"]), error["input"])

    def from_schema(self, error: ValidationError) -> None:
        """Take one of the JSON schema validator's findings."""
        kind: Any = error.kind
        path: list[str | int] = list(error.instance_path)
        if kind.name == "required":
            self._note(self._missing, _dotted([*path, kind.property]))
        elif kind.name in {"additionalProperties", "unevaluatedProperties"}:
            for name in kind.unexpected:
                self._unknown_field(path, name)
        else:
            word = _SCHEMA.get(kind.name)
            said = word(kind) if word else _clipped(error.message, 120)
            if kind.name in {"anyOf", "oneOf"}:
                said = f"must be {sketch(inside(self._schema, path))}"
            self._add(path, said, _at(self._arguments, path))

    def error(self) -> ToolError:
        """The findings as one ToolError: `tool: findings. Expected: form`."""
        said = [*self._unknown]
        for where, (phrases, got) in self._wrong.items():
            joined = " or ".join([phrases[0], *(p.removeprefix("must be ") for p in phrases[1:4])])
            said.append(f"{where} {joined} (got {got})" if where else joined)
        more = len(said) - MOST
        said = said[:MOST] + ([f"and {more} more"] if more > 0 else [])
        if self._missing:
            left = len(self._missing) - MOST
            tail = f" and {left} more" if left > 0 else ""
            said.append(f"missing: {', '.join(self._missing[:MOST])}{tail}")
        expected = _clipped(sketch(self._schema), _SKETCH)
        return ToolError(f"{self._tool}: {'; '.join(said)}. Expected: {expected}")

    def _real(self, loc: Sequence[str | int]) -> list[str | int]:
        """A pydantic location without the names of union branches and validators in it."""
        path: list[str | int] = []
        current: Any = self._arguments
        for step in loc:
            if _holds(current, step):
                current = current[step]
                path.append(step)
        return path

    def _add(self, path: Path, phrase: str, value: object) -> None:
        phrases, _ = self._wrong.setdefault(_dotted(path), ([], _shown(value)))
        self._note(phrases, phrase)

    def _unknown_field(self, path: Path, name: str) -> None:
        known = known_fields(inside(self._schema, path))
        near = get_close_matches(name[:_NAME], known, n=1)
        hint = f' (did you mean "{near[0]}"?)' if near else ""
        where = _clipped(_dotted([*path, name]), _NAME)
        self._note(self._unknown, f"unknown field {json.dumps(where, ensure_ascii=False)}{hint}")

    @staticmethod
    def _note(said: list[str], text: str) -> None:
        if text not in said:
            said.append(text)


def _worded(kind: str, message: str) -> str:
    if kind in _PYDANTIC:
        return f"must be {_PYDANTIC[kind]}"
    if kind in {"literal_error", "enum"}:
        return "must be one of " + message.removeprefix("Input should be ").replace("'", '"')
    for old in ("Input should be ", "Value should be "):
        if message.startswith(old):
            return "must be " + message.removeprefix(old)
    for old in ("Value error, ", "Assertion failed, "):
        if message.startswith(old):
            return "is wrong: " + message.removeprefix(old)
    _, should, rest = message.partition(" should ")
    return f"must {rest}" if should else message


_SCHEMA: Mapping[str, Callable[[Any], str]] = {
    "type": lambda kind: "must be " + " or ".join(_TYPES.get(t, t) for t in kind.types),
    "enum": lambda kind: "must be one of " + _listed(kind.options),
    "const": lambda kind: "must be " + _shown(kind.expected_value),
    "minimum": lambda kind: f"must be at least {kind.limit}",
    "maximum": lambda kind: f"must be at most {kind.limit}",
    "exclusiveMinimum": lambda kind: f"must be more than {kind.limit}",
    "exclusiveMaximum": lambda kind: f"must be less than {kind.limit}",
    "minLength": lambda kind: f"must have at least {kind.limit} characters",
    "maxLength": lambda kind: f"must have at most {kind.limit} characters",
    "minItems": lambda kind: f"must have at least {kind.limit} items",
    "maxItems": lambda kind: f"must have at most {kind.limit} items",
    "pattern": lambda kind: f"must match the pattern {_clipped(kind.pattern, 80)}",
    "uniqueItems": lambda _: "must not repeat an item",
}


def _listed(options: Sequence[object]) -> str:
    shown = ", ".join(_shown(option) for option in options[:20])
    return shown + (f" and {len(options) - 20} more" if len(options) > 20 else "")


def _holds(value: object, step: str | int) -> bool:
    if isinstance(value, list | tuple):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, Mapping) and step in value


def _at(value: JsonObject, path: Path) -> object:
    current: Any = value
    for step in path:
        current = current[step]
    return current


def _dotted(path: Path) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return _clipped(text.removeprefix("."), 2 * _NAME)


def _shown(value: object) -> str:
    if isinstance(value, dict | list) and len(value) > 10:
        return "an object" if isinstance(value, dict) else f"an array of {len(value)}"
    short = value[: 2 * _GOT] if isinstance(value, str) else value
    try:
        return _clipped(json.dumps(short, ensure_ascii=False), _GOT)
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__name__}"


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

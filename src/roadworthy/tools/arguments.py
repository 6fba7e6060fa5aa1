"""Validates the arguments a model wrote: by type hints (`HintReader`) or by JSON schema.

Made by `declare`, called by `registry` before anything executes. Invariant: no value is coerced in
a way that hides a model's mistake; equal calls give equal canonical JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, cast

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_jsonable_python

from roadworthy.errors import ConfigurationError, DeclarationError, ToolError
from roadworthy.messages import Json, JsonObject
from roadworthy.tools.problems import Problems

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64
_EXACT = 2**53  # above it a float no longer tells neighbouring integers apart
_write = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_write_sorted = json.JSONEncoder(
    allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True
).encode


class ArgumentsTooLarge(ToolError):
    """The arguments pass MAX_BYTES or MAX_DEPTH."""

    mend = "Send less, or hand the large part over as a File."


class HintReader:
    """Reads arguments by a pydantic model made from a function's type hints.

    `keys`: (parameter, field of the model) pairs; parameters are the fields' aliases, so that no
    parameter name can clash with pydantic's own.
    """

    def __init__(
        self, tool: str, model: type[BaseModel], keys: Sequence[tuple[str, str]], schema: JsonObject
    ) -> None:
        self._tool = tool
        self._keys = tuple(keys)
        self._schema = schema
        self._validate: Callable[..., BaseModel] = model.model_validate_json

    def read(self, arguments: JsonObject) -> Mapping[str, Any]:
        """Typed keyword arguments. Raises: ToolError: says which field and the expected form."""
        text = encoded(self._tool, arguments)
        try:
            found = self._validate(text, strict=True, extra="forbid")
        except ValidationError as error:
            found = self._second_look(error, arguments)
        values = found.__dict__
        return {parameter: values[field] for parameter, field in self._keys}

    def canonical(self, values: Mapping[str, Any]) -> JsonObject:
        """The validated arguments as plain JSON, defaults included, in declared order."""
        return {name: plain(value) for name, value in values.items()}

    def _second_look(self, error: ValidationError, arguments: JsonObject) -> BaseModel:
        """JSON does not tell 40.0 from 40: an integral number is an integer."""
        found = error.errors(include_url=False)
        if any(each["type"] == "int_type" and _integral(each["input"]) for each in found):
            try:
                text = _write(integral(arguments))
                return self._validate(text, strict=True, extra="forbid")
            except ValidationError as again:
                found = again.errors(include_url=False)
        problems = Problems(self._tool, self._schema, arguments)
        for each in found:
            problems.from_pydantic(each)
        raise problems.error()


class SchemaReader:
    """Reads arguments by a JSON schema (2020-12 unless it names another draft).

    Raises: DeclarationError: it is none. ConfigurationError: the extra `schemas` is missing.
    """

    def __init__(self, tool: str, schema: JsonObject) -> None:
        self._tool = tool
        self._schema = schema
        self._validator = _validator(tool, schema)
        properties: JsonObject = schema.get("properties", {})
        self._defaults = {
            name: inner["default"]
            for name, inner in properties.items()
            if isinstance(inner, Mapping) and "default" in inner
        }

    def read(self, arguments: JsonObject) -> Mapping[str, Any]:
        """The arguments as they are, integral numbers as int. Raises: ToolError: as above."""
        values: dict[str, Any] = json.loads(encoded(self._tool, arguments))
        if not self._validator.is_valid(values):
            problems = Problems(self._tool, self._schema, values)
            for error in self._validator.iter_errors(values):
                problems.from_schema(error)
            raise problems.error()
        return {name: integral(value) for name, value in values.items()}

    def canonical(self, values: Mapping[str, Any]) -> JsonObject:
        """The arguments with the schema's top-level defaults filled in, in the schema's order."""
        return {name: plain(value) for name, value in (self._defaults | dict(values)).items()}


def _validator(tool: str, schema: JsonObject) -> Any:  # noqa: ANN401 - a class per draft
    """A compiled validator. The library (15 MB) is an extra: `@tool` does not need it."""
    try:
        import jsonschema_rs  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(
            f"Tool {tool!r} has a ready JSON schema; that needs: pip install 'roadworthy[schemas]'"
        ) from error
    named = "$schema" in schema
    build = jsonschema_rs.validator_for if named else jsonschema_rs.Draft202012Validator
    try:
        # offline: a schema of somebody else's must not make this process fetch anything
        return build(dict(schema), offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        line = str(error).partition("\n")[0]
        raise DeclarationError(f"Tool {tool!r}: no valid JSON schema: {line}") from error


def encoded(tool: str, arguments: JsonObject) -> str:
    """The arguments as JSON text, once they are known to be plain, finite and small.

    Raises: ArgumentsTooLarge; ToolError: not JSON, such as NaN or half a surrogate pair.
    """
    try:
        text = _write(arguments if isinstance(arguments, dict) else dict(arguments))
        size = len(text.encode())
    except RecursionError:
        raise _too_deep(tool) from None
    except UnicodeEncodeError:
        raise ToolError(f"{tool}: the arguments hold broken text (a lone surrogate).") from None
    except (TypeError, ValueError) as error:
        raise ToolError(f"{tool}: the arguments are not plain JSON: {error}.") from None
    if size > MAX_BYTES:
        raise ArgumentsTooLarge(
            f"{tool}: the arguments are {size // 1024} KB, at most {MAX_BYTES // 1024} KB are "
            "accepted. Send less, or in several calls."
        )
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(arguments) > MAX_DEPTH:
        raise _too_deep(tool)
    return text


def _too_deep(tool: str) -> ArgumentsTooLarge:
    return ArgumentsTooLarge(
        f"{tool}: the arguments are nested more than {MAX_DEPTH} levels deep. Flatten them."
    )


def _depth(value: object) -> int:
    deepest, level = 0, [value]
    while level and deepest <= MAX_DEPTH:
        deepest += 1
        below: list[object] = []
        for item in level:
            if isinstance(item, Mapping):
                below.extend(item.values())
            elif isinstance(item, list | tuple):
                below.extend(item)
        level = [item for item in below if isinstance(item, Mapping | list | tuple)]
    return deepest


def canonical_bytes(canonical: JsonObject) -> bytes:
    """The one byte form of canonical arguments: sorted keys, no spaces, UTF-8."""
    return _write_sorted(canonical).encode()


def _integral(value: object) -> bool:
    return isinstance(value, float) and value.is_integer() and abs(value) < _EXACT


def integral(value: object) -> Json:
    """JSON data with 40.0 written as 40, everywhere."""
    if isinstance(value, float):
        return int(value) if _integral(value) else value
    if isinstance(value, list | tuple):
        return [integral(item) for item in value]
    if isinstance(value, Mapping):
        return {key: integral(item) for key, item in value.items()}
    return cast("Json", value)


def plain(value: object) -> Json:
    """A validated value as JSON data, the same for equal values.

    Integral floats become integers, Decimals strings without trailing zeros, sets sorted lists.
    """
    if value is None or type(value) in {str, bool, int}:
        return cast("Json", value)
    if isinstance(value, float):
        return int(value) if _integral(value) else value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, BaseModel):
        called = type(value).model_fields
        return {_alias(name, called.get(name)): plain(item) for name, item in value}
    return _plain_scalar(value)


def _alias(name: str, field: FieldInfo | None) -> str:
    """A field as its schema names it: recorded arguments are checked again, and held to rules."""
    alias = None if field is None else field.validation_alias or field.alias
    if isinstance(alias, AliasChoices):
        alias = next((choice for choice in alias.choices if isinstance(choice, str)), None)
    return alias if isinstance(alias, str) else name


def _plain_scalar(value: object) -> Json:
    if isinstance(value, Decimal):
        return format(value.normalize() + 0, "f") if value.is_finite() else str(value)
    if isinstance(value, Enum):
        return plain(value.value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=_write_sorted)
    try:
        return integral(to_jsonable_python(value, bytes_mode="base64"))
    except PydanticSerializationError:
        raise ToolError(f"a {type(value).__name__} has no plain JSON form.") from None


def _key(key: object) -> str:
    written = plain(key)
    return written if isinstance(written, str) else _write_sorted(written)

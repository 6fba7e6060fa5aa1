"""Schemas of OpenAPI as JSON Schema 2020-12, with what they refer to.

`document` builds the arguments of an operation with it. Invariant: every reference of a result
points into the result, also where schemas contain themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roadworthy.messages import JsonObject
from roadworthy.tools.schemas import lookup, tidied

MOST_DEFINITIONS = 200
_AS_IS = frozenset({
    "type", "format", "enum", "const", "default", "description", "title", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern",
    "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "required",
    "dependentRequired",
})  # fmt: skip
_ONE = ("items", "additionalProperties", "not", "contains", "propertyNames", "if", "then", "else")
_SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "dependentSchemas")


class TooLarge(ValueError):
    """More definitions than a tool should carry."""


class Shapes:
    """Schemas of one operation; shared definitions are taken once."""

    def __init__(self, document: JsonObject) -> None:
        self._document = document
        self._old = not str(document.get("openapi", "")).startswith("3.1")
        self._names: dict[str, str] = {}
        self._definitions: dict[str, Any] = {}

    def whole(self, properties: JsonObject, required: list[str]) -> dict[str, Any]:
        """The schema of an object with these properties."""
        schema: dict[str, Any] = {"type": "object", "properties": dict(properties)}
        if required:
            schema["required"] = list(dict.fromkeys(required))
        if self._definitions:
            schema["$defs"] = self._definitions
        return tidied(schema)

    def of(self, schema: object) -> Any:  # noqa: ANN401 - a schema is an object or a bool
        """Raises: TooLarge."""
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, Mapping):
            return {}
        if isinstance(schema.get("$ref"), str):
            return self._referred(schema)
        made = {key: value for key, value in schema.items() if key in _AS_IS}
        for key in _ONE:
            if key in schema:
                made[key] = self.of(schema[key])
        for key in _SEVERAL:
            if isinstance(schema.get(key), list):
                made[key] = [self.of(each) for each in schema[key]]
        for key in _NAMED:
            if isinstance(schema.get(key), Mapping):
                made[key] = {str(name): self.of(each) for name, each in schema[key].items()}
        self._leave_out_read_only(schema, made)
        return self._modern(schema, made) if self._old else made

    def properties(self, schema: object) -> JsonObject:
        """Those of a plain object without alternatives; else none."""
        target = self._target(schema)
        if target.get("type") != "object" or any(key in target for key in (*_SEVERAL, "if", "not")):
            return {}
        if isinstance(target.get("additionalProperties"), Mapping) or target.get("minProperties"):
            return {}
        found = target.get("properties")
        return found if isinstance(found, Mapping) else {}

    def required(self, schema: object) -> frozenset[str]:
        """The properties that must be there."""
        return frozenset(self._target(schema).get("required", ()))

    def _target(self, schema: object) -> JsonObject:
        for _ in range(20):
            if not isinstance(schema, Mapping):
                return {}
            if "$ref" not in schema:
                return schema
            schema = self._definitions.get(str(schema["$ref"]).removeprefix("#/$defs/"))
        return {}

    def _referred(self, schema: JsonObject) -> dict[str, Any]:
        ref = str(schema["$ref"])
        name = self._names.get(ref)
        if name is None:
            if len(self._names) >= MOST_DEFINITIONS:
                raise TooLarge(f"its schemas refer to more than {MOST_DEFINITIONS} others")
            target = lookup(self._document, ref)
            if target is None:
                raise ValueError(f"a reference that leads nowhere: {ref:.100}")
            plain = "".join(sign if sign.isalnum() else "_" for sign in ref.rpartition("/")[2])
            name = plain if plain not in self._definitions else f"{plain}_{len(self._names)}"
            self._names[ref] = name
            self._definitions[name] = {}  # taken, for schemas that contain themselves
            self._definitions[name] = self.of(target)
        made: dict[str, Any] = {"$ref": f"#/$defs/{name}"}
        if not self._old and isinstance(schema.get("description"), str):
            made["description"] = schema["description"]
        return made

    def _leave_out_read_only(self, schema: JsonObject, made: dict[str, Any]) -> None:
        """What only answers have is nothing to ask for."""
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return
        gone = {
            name
            for name, each in properties.items()
            if isinstance(each, Mapping) and each.get("readOnly") is True
        }
        if not gone:
            return
        made["properties"] = {k: v for k, v in made["properties"].items() if k not in gone}
        left = [name for name in made.pop("required", ()) if name not in gone]
        if left:
            made["required"] = left

    def _modern(self, schema: JsonObject, made: dict[str, Any]) -> dict[str, Any]:
        """What 3.0 says in words of its own."""
        for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(made.get(bound), bool):
                exclusive = made.pop(bound)
                if exclusive and limit in made:
                    made[bound] = made.pop(limit)
        if schema.get("nullable") is not True:
            return made
        if isinstance(made.get("type"), str):
            made["type"] = [made["type"], "null"]
            if isinstance(made.get("enum"), list) and None not in made["enum"]:
                made["enum"] = [*made["enum"], None]
            return made
        return {"anyOf": [made, {"type": "null"}]} if made else made

"""The typed final answer: its schema for the model, and the check of what the model gave.

Used by `turns` and `ending`. Invariant: an output reaches the caller only as the declared type.
"""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from roadworthy.errors import DeclarationError, ToolError
from roadworthy.messages import JsonObject, OutputSpec
from roadworthy.tools.schemas import closed, sketch, tidied

FINAL_ANSWER = "final_answer"
_WRAP = "answer"
_MOST_ERRORS = 5


class OutputReader:
    """Schema and validation of `Agent(output=...)`; types that are no JSON object are wrapped.

    Raises: DeclarationError: the type has no JSON schema.
    """

    def __init__(self, output: object, *, native: bool) -> None:
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(cast(Any, output))
            schema = self._adapter.json_schema()
        except Exception as error:  # pydantic raises several kinds for foreign types
            raise DeclarationError(
                f"output={output!r} has no JSON schema ({error}). Use a pydantic model, a "
                "dataclass, or a plain type."
            ) from error
        self._wrapped = schema.get("type") != "object" or "properties" not in schema
        if self._wrapped:
            defs = schema.pop("$defs", None)
            schema = {"type": "object", "properties": {_WRAP: schema}, "required": [_WRAP]}
            if defs:
                schema["$defs"] = defs
        self._schema: JsonObject = closed(tidied(schema))
        self.spec = OutputSpec(
            name=FINAL_ANSWER,
            parameters=self._schema,
            description="Give the final answer to the user. Call it exactly once, at the end.",
            native=native,
        )

    def read_text(self, text: str) -> object:
        """The output from JSON text (native mode). Raises: ToolError."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ToolError(
                f"The answer must be JSON of this form: {sketch(self._schema)}"
            ) from error
        return self.read(value)

    def read(self, value: object) -> object:
        """The output from JSON data. Raises: ToolError: which field is wrong, for the model."""
        if self._wrapped:
            if not isinstance(value, dict) or _WRAP not in value:
                raise ToolError(f"The answer must be {sketch(self._schema)}.")
            value = value[_WRAP]
        try:
            return self._adapter.validate_json(json.dumps(value, allow_nan=False))
        except (ValueError, RecursionError) as error:
            if not isinstance(error, ValidationError):
                raise ToolError("The answer must be finite JSON without NaN.") from error
            lines = [
                f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors()
            ]
            more = "; ".join(lines[:_MOST_ERRORS])
            raise ToolError(
                f"The answer does not fit: {more}. Expected: {sketch(self._schema)}"
            ) from error

    def plain(self, output: object) -> object:
        """The output as JSON data, for the journal."""
        return self._adapter.dump_python(output, mode="json")

    def redacted(self, plain: object, text: str) -> object:
        """The data of an output whose shown text a guardrail changed; None where it cannot be
        told which part of it that text is."""
        changed: object = text
        if isinstance(plain, dict) and isinstance(plain.get("text"), str):
            changed = plain | {"text": text}
        elif not isinstance(plain, str):
            try:
                changed = json.loads(text)
            except ValueError:
                return None
        try:
            self.load(changed)
        except ValidationError:
            return None
        return changed

    def load(self, plain: object) -> object:
        """The output back from the journal."""
        return None if plain is None else self._adapter.validate_json(json.dumps(plain))


def shown(output: object, plain: object) -> str:
    """What the user sees of a typed output: its `text` field, or the data as JSON."""
    text = getattr(output, "text", None)
    if isinstance(text, str):
        return text
    if isinstance(plain, str):
        return plain
    if isinstance(output, BaseModel) or isinstance(plain, dict | list):
        return json.dumps(plain, ensure_ascii=False, indent=2)
    return str(plain)

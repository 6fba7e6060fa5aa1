"""Events and results as plain JSON, every field present, so that readers need no defaults.

Invariant: bytes and what belongs to a provider alone never appear; with detail "user" neither does
text that no guardrail has let through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from msgspec import Struct
from pydantic_core import to_jsonable_python

from roadworthy.events import Delivered, RunEnded, RunEvent, RunWaiting, StreamEvent
from roadworthy.limits import Usage, to_dollars
from roadworthy.messages import File, Json
from roadworthy.store.runs import RunRow

Detail: TypeAlias = Literal["user", "full"]
_FOR_USERS = (Delivered, RunEnded, RunWaiting)  # their text is checked before it is recorded
_PROVIDERS_OWN = ("provider_state", "raw")


def plain_event(event: StreamEvent, detail: Detail = "full") -> dict[str, Any]:
    """An event as a JSON object; `type` is its class. "user" leaves unchecked text out."""
    left_out: tuple[str, ...] = ()
    if detail == "user" and isinstance(event, RunEvent) and not isinstance(event, _FOR_USERS):
        left_out = event.payload
    names = [name for name in event.__struct_fields__ if name not in left_out]
    return {"type": type(event).__name__} | {n: plain_json(getattr(event, n)) for n in names}


def plain_row(row: RunRow) -> dict[str, Any]:
    """A run as listed. Which process holds it is nobody's business outside."""
    found = {
        name: getattr(row, name)
        for name in RunRow.__dataclass_fields__
        if name not in ("epoch", "owner", "ordinal")
    }
    return found | {"usd": _usd(row.nanos)}


def plain_json(value: object) -> Json:
    """Any recorded value as JSON: structs by field, files without their bytes."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Struct):
        return _struct(value)
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain_json(item) for item in value]
    found: Json = to_jsonable_python(value, fallback=str, bytes_mode="base64")
    return found


def _struct(value: Struct) -> dict[str, Json]:
    tag = value.__struct_config__.tag
    found: dict[str, Json] = {"type": tag} if isinstance(tag, str) else {}
    for name in value.__struct_fields__:
        if name not in _PROVIDERS_OWN:
            found[name] = plain_json(getattr(value, name))
    if isinstance(value, File):
        found["data"] = None if value.data is None else f"{len(value.data)} bytes"
    if isinstance(value, Usage):
        found["usd"] = _usd(value.nanos + value.assumed_nanos)
    return found


def _usd(nanos: int) -> str:
    return f"{to_dollars(nanos):f}"

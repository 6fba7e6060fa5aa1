"""What a tool returned, as text a model reads reliably, with files set aside.

Called by `roadworthy.tool_calls` after a tool ran. Invariant: numbers keep every digit, and what
was cut or lost is said.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import NamedTuple, TypeAlias, cast

import msgspec
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from roadworthy.errors import ToolError
from roadworthy.messages import File
from roadworthy.tools.tables import table

MAX_TEXT = 1024 * 1024
"""Bytes of UTF-8 that are kept of one result; what is longer is lost. A model is shown less, and
reads on with `read_more`."""

Plain: TypeAlias = "bool | int | float | Decimal | str | list[Plain] | dict[str, Plain] | None"

_MEND = "Return str, a dict, a list, a dataclass or a pydantic model."
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Rendered(NamedTuple):
    """What the model is told, and the files that go with it."""

    text: str
    files: tuple[File, ...] = ()


def render(value: object, tool: str = "tool", most: int = MAX_TEXT) -> Rendered:
    """Text and files of what the tool named `tool` returned.

    Text stays as it is; None is "done"; dicts, lists, dataclasses, msgspec structs and pydantic
    models become compact JSON, or a table where a list of flat records is shorter so: Decimals as
    numbers with every digit, times in ISO 8601, NaN and infinities as null (which the text then
    says, as it says when keys became equal). A File anywhere is replaced by a short mark and
    returned beside the text. Over `most` bytes the text is cut and says how much is missing.
    What is rendered already stays as it is.
    Broken text (lone surrogates) is replaced by "?".
    Raises: ToolError: no such form (bytes, a generator, an un-awaited coroutine, a foreign type).
    """
    if type(value) is str:
        return Rendered(_fitted(value, most))
    if isinstance(value, Rendered):
        return value
    if value is None:
        return Rendered("done")
    walk = _Walk(tool)
    try:
        plain = walk.plain(value)
    except RecursionError:
        raise ToolError(f"{tool} returned data that contains itself. {_MEND}") from None
    text = plain if isinstance(plain, str) else table(plain, _any_json) or _json(plain)
    if walk.merged:
        text += f" [{walk.merged} values are missing: their keys are equal as text]"
    if walk.lost:
        text += f" [{walk.lost} NaN or infinite numbers are shown as null]"
    return Rendered(_fitted(text, most), tuple(walk.files))


class _Walk:
    """Turns one result into JSON data (Decimals kept), collecting its files."""

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self.files: list[File] = []
        self.lost = 0
        self.merged = 0

    def plain(self, value: object) -> Plain:
        kind = type(value)
        if kind is str or kind is int or kind is bool or value is None:
            return cast("Plain", value)
        if isinstance(value, dict):
            found = {
                key if type(key) is str else self._key(key): self.plain(item)
                for key, item in value.items()
            }
            self.merged += len(value) - len(found)
            return found
        if kind is list or kind is tuple:
            return [self.plain(item) for item in cast("list[object]", value)]
        if isinstance(value, float | Decimal):
            return self._number(value)
        return self._object(value)

    def _number(self, value: float | Decimal) -> float | Decimal | None:
        finite = value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
        if finite:
            return value
        self.lost += 1
        return None

    def _object(self, value: object) -> Plain:
        if isinstance(value, File):
            self.files.append(value)
            return mark(value)
        if isinstance(value, Enum):
            return self.plain(value.value)
        if isinstance(value, date | time):
            return value.isoformat()
        if isinstance(value, set | frozenset):
            return [self.plain(item) for item in sorted(value, key=repr)]
        shape = _shape(value)
        if shape is not None:
            return self.plain(shape)
        return self._foreign(value)

    def _foreign(self, value: object) -> Plain:
        """What else pydantic knows a JSON form of: UUIDs, paths, durations, addresses, ..."""
        if inspect.iscoroutine(value):
            value.close()  # else Python warns that it was never awaited
        if inspect.isawaitable(value):
            raise ToolError(
                f"{self._tool} returned a coroutine: async tool not awaited. Make the tool "
                "`async def` and await inside it."
            )
        if isinstance(value, bytes | bytearray | memoryview):
            raise ToolError(
                f"{self._tool} returned bytes. Return File(media_type=..., data=...), or decode "
                "them to str."
            )
        if isinstance(value, Iterator) or hasattr(value, "__aiter__"):
            raise ToolError(f"{self._tool} returned a {_named(value)}. Return list(...) of it.")
        try:
            return cast("Plain", to_jsonable_python(value))
        except (PydanticSerializationError, UnicodeDecodeError):
            raise ToolError(
                f"{self._tool} returned a {_named(value)}, which has no JSON form. {_MEND}"
            ) from None

    def _key(self, key: object) -> str:
        plain = self.plain(key)
        return plain if isinstance(plain, str) else _json(plain)


def _shape(value: object) -> object:
    """The dict, list or number inside a structured value; None when it is no such thing."""
    if isinstance(value, BaseModel):
        return value.model_dump(warnings=False)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, str | int):  # subclasses
        return str.__str__(value) if isinstance(value, str) else int(value)
    return _collection(value)


def _collection(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return value._asdict() if hasattr(value, "_asdict") else list(value)
    return None


def _json(plain: Plain) -> str:
    try:
        return _encode(plain).decode()
    except UnicodeEncodeError:
        return _encode(_mended(plain)).decode()


def _any_json(value: object) -> str:
    return _json(cast("Plain", value))


def _mended(plain: Plain) -> Plain:
    if isinstance(plain, str):
        return plain.encode(errors="replace").decode()
    if isinstance(plain, list):
        return [_mended(item) for item in plain]
    if isinstance(plain, dict):
        return {key.encode(errors="replace").decode(): _mended(item) for key, item in plain.items()}
    return plain


def mark(file: File) -> str:
    """What stands in a result's text for a file beside it."""
    size = "" if file.data is None else f", {len(file.data):,} bytes"
    return f"[file: {file.name or 'unnamed'}, {file.media_type}{size}]"


def _named(value: object) -> str:
    kind = type(value)
    home = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return home + kind.__qualname__


def _fitted(text: str, most: int) -> str:
    """The text within `most` bytes, cut between characters, and how much is missing."""
    if len(text) * 4 <= most and text.isascii():
        return text
    data = text.encode(errors="replace")
    if len(data) <= most:
        return data.decode()
    shown = data[:most].decode(errors="ignore")
    return (
        f"{shown}\n[cut: {len(data):,} bytes in all, the last {len(data) - len(shown.encode()):,} "
        "are not shown. Ask for less: fewer fields, a narrower search.]"
    )

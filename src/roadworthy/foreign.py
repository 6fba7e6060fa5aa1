"""Conversations of other libraries, as the data our messages are read from.

`messages.py` calls it for imported histories; it imports nothing of theirs. Invariant: system
messages are left out (instructions belong to the agent), nothing else is dropped silently.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from roadworthy.errors import DeclarationError

Data: TypeAlias = dict[str, Any]
Foreign: TypeAlias = Any
"""A thing of another library, read by its names."""
Where = Literal["user", "assistant", "tool"]

_SYSTEM = frozenset({"system", "developer"})
_TEXTS = frozenset({"text", "input_text", "output_text", "refusal", "summary_text"})
_FILES = frozenset({"image-url", "audio-url", "video-url", "document-url", "binary"})


def openai(messages: Iterable[Foreign]) -> list[Data]:
    """Chat messages or Responses items, as dicts or the SDK's objects.

    Raises: DeclarationError: an item is neither, or holds what we cannot keep.
    """
    found, tools = _Found(), dict[str, str]()
    for message in messages:
        item = _plain(message)
        kind, role = item.get("type", "message"), item.get("role")
        if role in _SYSTEM or kind == "reasoning":
            continue
        if kind == "function_call":
            _call(found, tools, item, str(item.get("call_id", "")))
        elif kind == "function_call_output":
            _result(found, tools, item.get("call_id"), item.get("output"))
        elif role in ("tool", "function"):
            _result(found, tools, item.get("tool_call_id"), item.get("content"), item.get("name"))
        elif role == "user":
            found.add("user", _contents(item.get("content")), joined=False)
        elif role == "assistant":
            found.add("assistant", _contents(item.get("content")), joined=False)
            for call in item.get("tool_calls") or ():
                _call(found, tools, _plain(call)["function"], str(call["id"]))
        else:
            raise DeclarationError(f"Message.from_openai: {item!r:.120} is no message.")
    return found.messages


def pydantic_ai(messages: Iterable[Foreign]) -> list[Data]:
    """`ModelMessage` objects of Pydantic AI, or what its type adapter made of them as JSON.

    Raises: DeclarationError: an item is no such message.
    """
    found = _Found()
    for message in messages:
        kind = _get(message, "kind")
        if kind not in ("request", "response"):
            raise DeclarationError(f"Message.from_pydantic_ai: {message!r:.120} is no message.")
        for part in _get(message, "parts"):
            _part(found, part, _get(part, "part_kind"))
    return found.messages


class _Found:
    """Messages so far. Parts of one speaker that follow each other are one message."""

    def __init__(self) -> None:
        self.messages: list[Data] = []

    def add(self, role: Where, parts: list[Data], *, joined: bool = True) -> None:
        if joined and self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["parts"].extend(parts)
        elif parts or not joined:
            self.messages.append({"role": role, "parts": parts})


def _call(found: _Found, tools: dict[str, str], function: Foreign, call_id: str) -> None:
    name = str(_get(function, "name"))
    tools[call_id] = name
    found.add("assistant", [_call_part(name, _get(function, "arguments"), call_id)])


def _call_part(name: str, arguments: Foreign, call_id: str) -> Data:
    part: Data = {"type": "ToolCall", "tool": name, "id": call_id}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            return part | {"malformed": arguments}
    if arguments is None or isinstance(arguments, Mapping):
        return part | {"arguments": dict(arguments or {})}
    return part | {"malformed": json.dumps(arguments)}


def _result(
    found: _Found, tools: dict[str, str], call_id: Foreign, content: Foreign, name: Foreign = None
) -> None:
    parts = _contents(content)
    result = {
        "type": "ToolResult",
        "tool": tools.get(str(call_id)) or str(name or ""),
        "call_id": str(call_id or ""),
        "content": "".join(part["text"] for part in parts if part["type"] == "Text"),
        "files": [part for part in parts if part["type"] == "File"],
    }
    found.add("tool", [result])


def _contents(content: Foreign) -> list[Data]:
    if content is None:
        return []
    if isinstance(content, str):
        return [_text(content)] if content else []
    return [_content(_plain(part)) for part in content]


def _content(part: Data) -> Data:
    kind = part.get("type")
    if kind in _TEXTS:
        return _text(part.get("text") or part.get("refusal") or "")
    if kind in ("image_url", "input_image"):
        link = part["image_url"]
        return _linked(link if isinstance(link, str) else link["url"], "image/png")
    if kind == "input_audio":
        audio = part["input_audio"]
        return _file(base64.b64decode(audio["data"]), f"audio/{audio['format']}")
    file = part.get("file") or part
    if kind in ("file", "input_file") and "file_data" in file:
        found = _linked(file["file_data"], "application/pdf")
        return found | {"name": file.get("filename") or ""}
    raise DeclarationError(
        f"Message.from_openai cannot keep content of type {kind!r}: files held by the provider "
        "and other kinds have no bytes here. Leave it out, or give the file's data."
    )


def _linked(url: str, otherwise: str) -> Data:
    """A file from its URL; a `data:` URL carries the bytes."""
    if not url.startswith("data:"):
        return {"type": "File", "media_type": otherwise, "url": url}
    head, _, body = url[5:].partition(",")
    try:
        return _file(base64.b64decode(body, validate=True), head.partition(";")[0] or otherwise)
    except binascii.Error as error:
        raise DeclarationError(
            f"Message.from_openai: {url:.60}... is no base64 data URL."
        ) from error


def _part(found: _Found, part: Foreign, kind: str) -> None:
    match kind:
        case "user-prompt":
            found.add("user", _prompt(_get(part, "content")))
        case "text":
            found.add("assistant", [_text(_get(part, "content"))])
        case "thinking":
            found.add("assistant", [{"type": "Reasoning", "text": _get(part, "content")}])
        case "tool-call":
            given = _get(part, "args"), str(_get(part, "tool_call_id"))
            found.add("assistant", [_call_part(_get(part, "tool_name"), *given)])
        case "file":
            found.add("assistant", _prompt([_get(part, "content")]))
        case "tool-return" | "retry-prompt" if _get(part, "tool_name"):
            found.add("tool", [_returned(part, kind)])
        case "retry-prompt" | "retry-feedback":
            found.add("user", [_text(_written(_get(part, "content")))])
        case _:
            return  # system prompts, and notes of that library to itself


def _returned(part: Foreign, kind: str) -> Data:
    failed = kind == "retry-prompt" or _get(part, "outcome") not in (None, "success")
    return {
        "type": "ToolResult",
        "tool": _get(part, "tool_name"),
        "call_id": str(_get(part, "tool_call_id") or ""),
        "content": _written(_get(part, "content")),
        "status": "error" if failed else "ok",
    }


def _prompt(content: Foreign) -> list[Data]:
    items = [content] if isinstance(content, str) else content
    parts: list[Data] = []
    for item in items:
        kind = "text-content" if isinstance(item, str) else _get(item, "kind")
        if kind == "text-content":
            parts.append(_text(item if isinstance(item, str) else _get(item, "content")))
        elif kind == "binary":
            data = _get(item, "data")
            data = data if isinstance(data, bytes) else base64.urlsafe_b64decode(data)
            parts.append(_file(data, _get(item, "media_type")))
        elif kind in _FILES:
            media_type = _get(item, "media_type") or "application/octet-stream"
            parts.append({"type": "File", "media_type": media_type, "url": _get(item, "url")})
        elif kind != "cache-point":
            raise DeclarationError(
                f"Message.from_pydantic_ai cannot keep content of kind {kind!r}."
            )
    return parts


def _text(text: str) -> Data:
    return {"type": "Text", "text": text}


def _file(data: bytes, media_type: str) -> Data:
    return {"type": "File", "media_type": media_type, "data": data}


def _written(value: Foreign) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _plain(thing: Foreign) -> Data:
    if isinstance(thing, Mapping):
        return dict(thing)
    if hasattr(thing, "model_dump"):
        return dict(thing.model_dump(exclude_none=True))
    raise DeclarationError(f"Message.from_openai: {thing!r:.120} is no message.")


def _get(thing: Foreign, name: str) -> Foreign:
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)

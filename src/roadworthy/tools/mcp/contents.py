"""What a server answered, as text and files for the model.

`declare` hands results in. Invariant: an error of the tool is a ToolError; files that are too large
or cannot be read are left out, and that is said in their place.
"""

from __future__ import annotations

import base64
import binascii

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)

from roadworthy.errors import ToolError
from roadworthy.messages import File
from roadworthy.tools.results import Rendered, mark, render

MOST_FILES = 8 * 1024 * 1024
"""Bytes of all files of one result."""


def rendered(tool: str, result: CallToolResult) -> Rendered:
    """What the model is told. Raises: ToolError: the tool says that it failed."""
    files: list[File] = []
    pieces = [_piece(block, files) for block in result.content]
    if result.is_error:
        said = "\n".join(pieces) or "it gave no reason"
        raise ToolError(f"{tool}: {said}")
    texts = any(isinstance(block, TextContent) for block in result.content)
    if result.structured_content is not None and not texts:
        pieces.append(render(result.structured_content, tool).text)
    text = "\n".join(pieces)
    return Rendered(render(text, tool).text if text else "done", tuple(files))


def _piece(block: ContentBlock, files: list[File]) -> str:
    match block:
        case TextContent():
            return block.text
        case ImageContent() | AudioContent():
            return _file(block.data, block.mime_type, block.type, files)
        case ResourceLink():
            about = f" ({block.description})" if block.description else ""
            return f"[resource {block.uri}{about}]"
        case EmbeddedResource():
            held = block.resource
            if isinstance(held, BlobResourceContents):
                kind = held.mime_type or "application/octet-stream"
                return _file(held.blob, kind, held.uri, files)
            return f"[resource {held.uri}]\n{held.text}"


def _file(data: str, media_type: str, name: str, files: list[File]) -> str:
    size = len(data) * 3 // 4
    if size + sum(len(file.data or b"") for file in files) > MOST_FILES:
        return f"[{name}, {media_type}, {size:,} bytes: too large, left out]"
    try:
        file = File(media_type=media_type, data=base64.b64decode(data, validate=True), name=name)
    except (binascii.Error, ValueError):
        return f"[{name}, {media_type}: not readable, left out]"
    files.append(file)
    return mark(file)

"""Our messages as the model library's: what is sent.

`adapter.py` calls it once per message. Invariant: what a provider signed goes back only to the
provider that signed it; to others the visible text alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from roadworthy.messages import (
    File,
    Message,
    OutputSpec,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    ToolSpec,
)

if TYPE_CHECKING:
    from pydantic_ai.messages import (
        ModelMessage,
        ModelRequestPart,
        ModelResponsePart,
        MultiModalContent,
        UserContent,
    )
    from pydantic_ai.models import ModelRequestParameters

NATIVE = "native"  # key of a reply part that only its provider understands, in a Reasoning's state


@dataclass(frozen=True)
class Writer:
    """Writes for one provider. `ours` is recorded with replies; the rest is the library's."""

    ours: str
    system: str
    canonical_system: str
    call_id_length: int | None = None

    def message(self, message: Message) -> ModelMessage:
        """One message, in the library's words."""
        from pydantic_ai import messages as theirs

        if message.role != "assistant":
            return theirs.ModelRequest(parts=self._asked(message))
        mine = message.provider == self.ours
        parts = [
            written
            for index, part in enumerate(message.parts)
            if (written := self._said(part, index, mine=mine)) is not None
        ]
        name = self.system if mine else None
        signer = self.canonical_system if mine else None
        return theirs.ModelResponse(parts=parts, provider_name=name, canonical_system=signer)

    def _asked(self, message: Message) -> list[ModelRequestPart]:
        from pydantic_ai import messages as theirs

        parts: list[ModelRequestPart] = []
        content: list[UserContent] = []
        for index, part in enumerate(message.parts):
            if isinstance(part, ToolResult):
                parts.append(self._result(part, index))
            elif isinstance(part, File):
                content.append(media(part))
            elif isinstance(part, Text):
                content.append(part.text)
        if len(content) == 1 and isinstance(content[0], str):
            parts.append(theirs.UserPromptPart(content=content[0]))
        elif content:
            parts.append(theirs.UserPromptPart(content=content))
        return parts

    def _result(self, result: ToolResult, index: int) -> ModelRequestPart:
        from pydantic_ai import messages as theirs

        content: Any = result.told
        if result.files:
            content = [result.told, *map(media, result.files)]
        return theirs.ToolReturnPart(
            tool_name=result.tool,
            content=content,
            tool_call_id=self._call_id(result.call_id, index),
            outcome="success" if result.status == "ok" else "failed",
        )

    def _said(self, part: Part, index: int, *, mine: bool) -> ModelResponsePart | None:
        from pydantic_ai import messages as theirs

        state = _state(part) if mine else {}
        signed: Any = {
            "id": state.get("id"),
            "provider_name": self.system if state else None,
            "provider_details": state.get("details"),
        }
        if isinstance(part, Text):
            return theirs.TextPart(content=part.text, **signed)
        if isinstance(part, ToolCall):
            return theirs.ToolCallPart(
                tool_name=part.tool,
                args=dict(part.arguments) if part.malformed is None else part.malformed,
                tool_call_id=self._call_id(part.id, index),
                **signed,
            )
        if not mine:
            return None
        if isinstance(part, Reasoning) and NATIVE not in state:
            return theirs.ThinkingPart(part.text, signature=state.get("signature"), **signed)
        return _native(part, state)

    def _call_id(self, call_id: str, index: int) -> str:
        """An id this provider takes, the same for a call and its result in every request."""
        call_id = call_id or f"call{index}"
        length = self.call_id_length
        if length is None or (len(call_id) == length and call_id.isascii() and call_id.isalnum()):
            return call_id
        return hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()[:length]


def parameters(
    tools: tuple[ToolSpec, ...], output: OutputSpec | None, instructions: str
) -> ModelRequestParameters:
    """Tools, output and instructions. A non-native output is a tool that ends the answer."""
    from pydantic_ai.messages import InstructionPart
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.output import OutputObjectDefinition
    from pydantic_ai.tools import ToolDefinition

    def definition(
        spec: ToolSpec | OutputSpec, kind: Literal["function", "output"] = "function"
    ) -> ToolDefinition:
        return ToolDefinition(
            name=spec.name,
            description=spec.description,
            parameters_json_schema=dict(spec.parameters),
            kind=kind,
        )

    asked = ModelRequestParameters(
        function_tools=[definition(tool) for tool in tools],
        instruction_parts=[InstructionPart(content=instructions)] if instructions else [],
    )
    if output is None:
        return asked
    if not output.native:
        asked.output_tools = [definition(output, "output")]
        asked.output_mode, asked.allow_text_output = "tool", False
        return asked
    asked.output_mode = "native"
    asked.output_object = OutputObjectDefinition(
        json_schema=dict(output.parameters),
        name=output.name,
        description=output.description or None,
    )
    return asked


def media(file: File) -> MultiModalContent:
    """A file as the library's content: its bytes, or its URL by kind."""
    from pydantic_ai import messages as theirs

    if file.data is not None:
        return theirs.BinaryContent(data=file.data, media_type=file.media_type)
    url, media_type = file.url or "", file.media_type
    match media_type.partition("/")[0]:
        case "image":
            return theirs.ImageUrl(url, media_type=media_type)
        case "audio":
            return theirs.AudioUrl(url, media_type=media_type)
        case "video":
            return theirs.VideoUrl(url, media_type=media_type)
        case _:
            return theirs.DocumentUrl(url, media_type=media_type)


def _state(part: Part) -> dict[str, Any]:
    raw = getattr(part, "provider_state", None)
    return dict(json.loads(raw)) if raw else {}


def _native(part: Part, state: Mapping[str, Any]) -> ModelResponsePart | None:
    """A file, or a part of a kind we do not know; none where this library does not either."""
    from pydantic import TypeAdapter, ValidationError
    from pydantic_ai import messages as theirs

    if isinstance(part, File):
        content = theirs.BinaryContent(data=part.data or b"", media_type=part.media_type)
        return theirs.FilePart(content=content) if part.data is not None else None
    try:
        kept: ModelResponsePart = TypeAdapter(theirs.ModelResponsePart).validate_python(
            state.get(NATIVE)
        )
    except ValidationError:
        return None
    return kept

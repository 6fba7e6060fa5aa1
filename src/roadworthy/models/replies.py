"""The model library's reply as ours: what comes back.

`adapter.py` calls it. Invariant: no part of a reply is lost that its provider must see again, and
usage is never less than what the reply shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from roadworthy.messages import (
    File,
    FinishReason,
    Message,
    ModelRequest,
    Part,
    Reasoning,
    Reply,
    Text,
    TokenUsage,
    ToolCall,
)
from roadworthy.models.history import NATIVE
from roadworthy.models.tokens import fixed_bound, message_bound

if TYPE_CHECKING:
    from pydantic_ai.messages import (
        ModelResponse,
        ModelResponsePart,
        TextPart,
        ThinkingPart,
        ToolCallPart,
    )
    from pydantic_ai.usage import RequestUsage

_FINISH: dict[str | None, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_call": "tools",
    "content_filter": "filtered",
    "error": "error",
}
_USUAL_TIERS = frozenset({"default", "standard", "auto"})
_NOT_RAW = frozenset({"details", "cost"})


def reply(response: ModelResponse, request: ModelRequest, ours: str, model: str) -> Reply:
    """Our reply. `ours` names the provider in the message; `model` is used if it names none."""
    parts = tuple(part for given in response.parts if (part := _part(given)) is not None)
    message = Message(role="assistant", parts=parts, provider=ours)
    # A suspended reply waits for more of the provider's own work, which we do not pay for.
    suspended = response.state == "suspended"
    return Reply(
        message=message,
        usage=_usage(response, request),
        model=response.model_name or model,
        finish="error" if suspended else _FINISH.get(response.finish_reason, "unknown"),
        response_id=response.provider_response_id or "",
    )


def _part(given: ModelResponsePart) -> Part | None:
    from pydantic_ai import messages as theirs

    if isinstance(given, theirs.TextPart):
        state = _state(given)
        return (
            Text(text=clean(given.content), provider_state=state)
            if given.content or state
            else None
        )
    if isinstance(given, theirs.ThinkingPart):
        return Reasoning(text=clean(given.content), provider_state=_state(given))
    if isinstance(given, theirs.ToolCallPart):
        arguments, malformed = _arguments(given.args)
        return ToolCall(
            clean(given.tool_name),
            arguments,
            id=clean(given.tool_call_id),
            malformed=malformed,
            provider_state=_state(given),
        )
    if isinstance(given, theirs.FilePart):
        return File(media_type=given.content.media_type, data=given.content.data)
    if isinstance(given, theirs.SpeechPart):
        return Text(text=clean(given.transcript)) if given.transcript else None
    return _native(given)


def _native(given: object) -> Reasoning:
    """A server-side tool, a compaction or a kind newer than this code: kept for its provider."""
    from pydantic import TypeAdapter
    from pydantic_ai.messages import ModelResponsePart

    plain = TypeAdapter[Any](ModelResponsePart).dump_python(given, mode="json", warnings=False)
    return Reasoning(provider_state=json.dumps({NATIVE: plain}))


def _state(part: TextPart | ThinkingPart | ToolCallPart) -> str | None:
    """What the provider must get back with this part, as JSON."""
    from pydantic_core import to_json

    known = {
        "id": part.id,
        "signature": getattr(part, "signature", None),
        "details": part.provider_details,
    }
    held = {key: value for key, value in known.items() if value}
    return to_json(held).decode() if held else None


def _arguments(given: str | Mapping[str, Any] | None) -> tuple[dict[str, Any], str | None]:
    """The JSON object a model wrote, or the raw text where it wrote something else."""
    if not given:
        return {}, None
    try:
        raw = given if isinstance(given, str) else msgspec.json.encode(given)
        read = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, TypeError, RecursionError):
        return {}, clean(given if isinstance(given, str) else repr(given))
    return (read, None) if isinstance(read, dict) else ({}, clean(str(given)))


def clean(text: str) -> str:
    """Text that can be stored: half characters, which models do write, become question marks."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode()


def measured(response: ModelResponse) -> bool:
    """Whether the provider said what the reply used."""
    given = response.usage
    return not given.unmeasured_requests and bool(given.input_tokens or given.output_tokens)


def _usage(response: ModelResponse, request: ModelRequest) -> TokenUsage:
    given = response.usage
    if not measured(response):
        return _assumed(request)
    cached = given.cache_read_tokens + given.cache_write_tokens
    return TokenUsage(
        input=max(given.input_tokens, cached),
        output=max(given.output_tokens, given.output_reasoning_tokens),
        cache_read=given.cache_read_tokens,
        cache_write=given.cache_write_tokens,
        reasoning=given.output_reasoning_tokens,
        raw=_raw(given, response.provider_details),
    )


def _assumed(request: ModelRequest) -> TokenUsage:
    """The reply came without its usage: its bound stands for it, so that nothing is free."""
    bound = fixed_bound(request.instructions, request.tools, request.output)
    bound += sum(map(message_bound, request.messages))
    return TokenUsage(input=bound, output=request.settings.max_tokens, raw='{"assumed":true}')


def _raw(given: RequestUsage, about: dict[str, Any] | None) -> str:
    record: dict[str, Any] = {k: v for k, v in vars(given).items() if v and k not in _NOT_RAW}
    details = {name: count for name, count in given.details.items() if count}
    if details:
        record["details"] = details
    tier = (about or {}).get("service_tier")
    if isinstance(tier, str) and tier not in _USUAL_TIERS:
        record["service_tier"] = tier
    return msgspec.json.encode(record, enc_hook=str).decode()

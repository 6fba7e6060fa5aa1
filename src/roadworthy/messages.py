"""Our own messages: what is said to and by models. Persisted as they stand here.

Used by everything above; imports no model library (that has one door: `roadworthy.models`).
Invariant: additive changes only, a journal written by an older release always loads.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct, field

from roadworthy import foreign
from roadworthy.errors import DeclarationError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = Mapping[str, Any]
"""A JSON object. Typed loosely: mypy cannot follow the recursive alias through `call["x"] > 5`."""

Role: TypeAlias = Literal["user", "assistant", "tool"]
ToolStatus: TypeAlias = Literal["ok", "error", "refused", "unknown", "skipped"]
_NOT_OK: Mapping[ToolStatus, str] = {
    "error": "[error]",
    "refused": "[refused]",
    "unknown": "[outcome unknown]",
    "skipped": "[not carried out]",
}


class Text(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """What was said. `provider_state` belongs to the provider that wrote it (see Reasoning)."""

    text: str
    provider_state: str | None = None


class Reasoning(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """A model's thinking: hidden from the user, kept byte-exact for the provider that signed it.

    `provider_state` is an opaque JSON string (signature, id, details), returned only to the
    provider named in the message.
    """

    text: str = ""
    provider_state: str | None = None


class ToolCall(Struct, frozen=True, tag=True, omit_defaults=True):
    """A model asks for a tool. `arguments` is the JSON object it wrote.

    `malformed` holds the raw text when the model wrote something that is no JSON object; such a
    call is always refused. `id` is the provider's and is data only: providers repeat ids.
    """

    tool: str
    arguments: JsonObject = field(default_factory=dict)
    id: str = ""
    malformed: str | None = None
    provider_state: str | None = None


class File(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Any media, given to or returned by a tool or a model.

    One of `data` (the bytes) and `url` is set; in the store `sha` stands for the bytes.
    """

    media_type: str
    data: bytes | None = None
    url: str | None = None
    name: str = ""
    sha: str | None = None

    @classmethod
    def open(cls, path: str | Path, media_type: str | None = None) -> File:
        """Read a local file. The media type is guessed from the name unless given.

        Raises: DeclarationError: the type cannot be guessed. OSError: the file cannot be read.
        """
        path = Path(path)
        guessed = media_type or mimetypes.guess_type(path.name)[0]
        if guessed is None:
            raise DeclarationError(f"{path.name}: give media_type=, it cannot be guessed.")
        return cls(media_type=guessed, data=path.read_bytes(), name=path.name)


class ToolResult(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """What the model is told about one of its calls. `content` is text a model reads.

    rest: address of the whole text in the store, where `content` is its beginning.
    """

    tool: str
    call_id: str
    content: str
    status: ToolStatus = "ok"
    files: tuple[File, ...] = ()
    rest: str = ""

    @property
    def told(self) -> str:
        """The content in the one form a model gets it: what is no success begins with its kind."""
        return self.content if self.status == "ok" else f"{_NOT_OK[self.status]} {self.content}"


Part: TypeAlias = Text | Reasoning | ToolCall | ToolResult | File


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of a conversation. `provider` names who wrote an assistant message.

    `by_runtime`: a note of the runtime to the model (limits, loops) in the user's place.
    """

    role: Role
    parts: tuple[Part, ...]
    provider: str = ""
    by_runtime: bool = False

    @property
    def text(self) -> str:
        """The visible text, reasoning left out."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls of an assistant message, in the order the model wrote them."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @classmethod
    def user(cls, content: UserInput) -> Message:
        """A user message of text and files."""
        items = [content] if isinstance(content, str | File) else list(content)
        parts: list[Part] = [Text(text=i) if isinstance(i, str) else i for i in items]
        return cls(role="user", parts=tuple(parts))

    @classmethod
    def assistant(cls, text: str) -> Message:
        """A plain assistant message."""
        return cls(role="assistant", parts=(Text(text=text),))

    @staticmethod
    def from_openai(messages: Iterable[Any]) -> list[Message]:
        """A history kept as OpenAI chat messages or Responses items. System messages are left out.

        Raises: DeclarationError: an item is neither, or holds what cannot be kept.
        """
        return msgspec.convert(foreign.openai(messages), list[Message])

    @staticmethod
    def from_pydantic_ai(messages: Iterable[Any]) -> list[Message]:
        """A history of Pydantic AI's messages. System messages are left out.

        Raises: DeclarationError: an item is no such message.
        """
        return msgspec.convert(foreign.pydantic_ai(messages), list[Message])


UserInput: TypeAlias = "str | File | Sequence[str | File]"


class TokenUsage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens of one model call. `input` is the total and includes cached tokens.

    `raw` keeps the provider's own usage record, as JSON, for disputes.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    raw: str = ""


FinishReason: TypeAlias = Literal["stop", "length", "tools", "filtered", "error", "unknown"]


class Reply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model answered to one request."""

    message: Message
    usage: TokenUsage
    model: str
    finish: FinishReason = "unknown"
    response_id: str = ""

    @property
    def text(self) -> str:
        """The visible text."""
        return self.message.text

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls, in reply order."""
        return self.message.tool_calls


class ToolSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool as a model sees it. `parameters` is a closed JSON schema of type object."""

    name: str
    description: str
    parameters: JsonObject


class OutputSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The wanted shape of the final answer. `native`: the provider's own structured output."""

    name: str
    parameters: JsonObject
    description: str = ""
    native: bool = False


class ModelSettings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Settings of model calls. None leaves the provider's default, except `max_tokens`.

    max_tokens: bound of one reply, reasoning included; always sent, because the ledger reserves it.
    temperature, seed, thinking, service_tier: as the provider defines them.
    timeout: seconds for one whole attempt. extra_headers, extra_body: sent as they are.
    cache: let the provider cache the stable prefix where it needs to be asked.
    """

    max_tokens: int = 2_000
    temperature: float | None = None
    seed: int | None = None
    thinking: bool | Literal["minimal", "low", "medium", "high"] | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    tool_choice: Literal["auto", "required", "none"] | None = None
    timeout: float = 120.0
    cache: bool = True
    extra_headers: Mapping[str, str] = field(default_factory=dict)
    extra_body: JsonObject = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise DeclarationError("ModelSettings(max_tokens=) must be at least 1.")
        if self.timeout <= 0:
            raise DeclarationError("ModelSettings(timeout=) must be more than 0 seconds.")


class ModelRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything a model is asked with. `messages` is never changed after it is handed over.

    run_id, ordinal: which run asks, and how many replies and failed attempts it has had: scripted
    models pick their turn by it, so that a resumed run goes on where it was.
    """

    instructions: str
    messages: Sequence[Message]
    tools: tuple[ToolSpec, ...] = ()
    output: OutputSpec | None = None
    settings: ModelSettings = field(default_factory=ModelSettings)
    run_id: str = ""
    ordinal: int = 0


DeltaSink: TypeAlias = Callable[[str], None]
"""Called with each piece of visible text while a reply streams."""

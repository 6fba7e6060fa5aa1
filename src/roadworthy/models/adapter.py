"""`ProviderModel`: one attempt at one provider's model, through the model library.

`calls.py` asks it as it asks any Model. Invariant: one request on the wire per call, bounded in
time, and nothing leaves but ModelError and ConfigurationError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from roadworthy.errors import ModelOutcomeUnknown
from roadworthy.limits import Price
from roadworthy.messages import DeltaSink, Message, ModelRequest, OutputSpec, Reply, ToolSpec
from roadworthy.models.failures import failure
from roadworthy.models.history import Writer, parameters
from roadworthy.models.replies import clean, measured, reply

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model as LibraryModel
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.settings import ModelSettings as LibrarySettings

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")

_MOST_MESSAGES = 8_192
_MOST_PARAMETERS = 64
_Asked = tuple[tuple[ToolSpec, ...], OutputSpec | None, str]


@dataclass
class ProviderModel:
    """A provider's model. `library` gives the model library's for the running event loop.

    provider: what replies are marked with; what a provider signed goes back only under this name.
    headers: sent with every request. secret: taken out of errors that quote it.
    """

    name: str
    provider: str
    library: Callable[[], LibraryModel]
    closing: Callable[[], Awaitable[None]] | None = field(default=None, repr=False)
    price: Price | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    secret: str = field(default="", repr=False)
    _messages: dict[int, tuple[Message, ModelMessage]] = field(default_factory=dict, repr=False)
    _parameters: dict[tuple[int, int, str], tuple[_Asked, ModelRequestParameters]] = field(
        default_factory=dict, repr=False
    )
    _writer: Writer | None = field(default=None, repr=False)

    async def request(self, request: ModelRequest, on_text: DeltaSink | None = None) -> Reply:
        """One attempt, never retried inside. Visible text is streamed to `on_text` when given.

        Raises: ModelError: its class says whether to retry and whether it may have been charged.
            ConfigurationError: real models are forbidden in this process.
        """
        sent, seconds = False, request.settings.timeout
        try:
            library = self.library()
            messages = self._history(library, request)
            settings = self._settings(library, request)
            asked = self._asked(request)
            sent = True
            # The library keeps `request_timeout` only in its upper layers, not in `request`.
            async with asyncio.timeout(seconds):
                if on_text is None:
                    response = await library.request(messages, settings, asked)
                else:
                    response = await _stream(library, (messages, settings, asked), on_text)
            return reply(response, request, self.provider, self.name.partition(":")[2])
        except TimeoutError as error:
            said = f"{self.name} did not answer in {seconds:g} s"
            raise ModelOutcomeUnknown(said, cause="timeout") from error
        except Exception as error:  # the border: SDKs raise what they like
            raise failure(error, sent=sent, secret=self.secret) from error

    async def close(self) -> None:
        """Close the running loop's connections; the next request opens new ones."""
        if self.closing is not None:
            await self.closing()

    def _history(self, library: LibraryModel, request: ModelRequest) -> list[ModelMessage]:
        """Each message is converted once: a message never changes after it is handed over."""
        known = self._messages
        written: list[ModelMessage] = []
        for message in request.messages:
            found = known.get(id(message))
            if found is None or found[0] is not message:
                found = (message, self._written(library, message))
                known[id(message)] = found
            written.append(found[1])
        if len(known) > _MOST_MESSAGES:
            _forget_older_half(known)
        return written

    def _written(self, library: LibraryModel, message: Message) -> ModelMessage:
        if self._writer is None:
            self._writer = Writer(
                ours=self.provider,
                system=library.system,
                canonical_system=library.canonical_system,
                call_id_length=library.profile.get("tool_call_id_length"),
            )
        return self._writer.message(message)

    def _asked(self, request: ModelRequest) -> ModelRequestParameters:
        key = (id(request.tools), id(request.output), request.instructions)
        found = self._parameters.get(key)
        if found is None:
            asked = (request.tools, request.output, request.instructions)
            found = (asked, parameters(*asked))  # `asked` keeps the ids from being reused
            self._parameters[key] = found
            if len(self._parameters) > _MOST_PARAMETERS:
                _forget_older_half(self._parameters)
        return found[1]

    def _settings(self, library: LibraryModel, request: ModelRequest) -> LibrarySettings:
        ours = request.settings
        wanted: dict[str, Any] = {
            "max_tokens": ours.max_tokens,
            "timeout": ours.timeout,
            "max_retries": 0,
            "framing_announcement": "never",  # else it adds words of its own to our instructions
            "temperature": ours.temperature,
            "seed": ours.seed,
            "thinking": ours.thinking,
            "service_tier": ours.service_tier,
            "tool_choice": _tool_choice(request),
            "cache": True if ours.cache else None,
            "extra_headers": {**self.headers, **ours.extra_headers} or None,
            "extra_body": dict(ours.extra_body) or None,
        }
        if getattr(getattr(library, "client", None), "max_retries", None) == 0:
            del wanted["max_retries"]  # opened so: see `providers`
        refused = library.unsupported_settings
        settings: Any = {k: v for k, v in wanted.items() if v is not None and k not in refused}
        return settings  # type: ignore[no-any-return]


def _forget_older_half(known: dict[KeyT, ValueT]) -> None:
    """At once: taking single entries off the front of a dict gets slower with each."""
    for key in list(known)[: len(known) // 2]:
        del known[key]


def _tool_choice(request: ModelRequest) -> str | None:
    """The library takes `required` as "not the output tool", which is required anyway."""
    choice = request.settings.tool_choice
    output = request.output
    return None if choice == "required" and output is not None and not output.native else choice


async def _stream(
    library: LibraryModel,
    asked: tuple[list[ModelMessage], LibrarySettings, ModelRequestParameters],
    on_text: DeltaSink,
) -> ModelResponse:
    """Raises: ModelOutcomeUnknown: the stream ended before the reply did."""
    from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

    async with library.request_stream(*asked) as stream:
        async for event in stream:
            text = ""
            if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                text = event.part.content
            elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                text = event.delta.content_delta
            if text:
                on_text(clean(text))
        response = stream.get()
    if _cut(response):
        raise ModelOutcomeUnknown("The stream was cut before the reply was complete.")
    return response


def _cut(response: ModelResponse) -> bool:
    """Whether a stream ended early. For chat formats the library then says "stop" all the same,
    so the provider's own word counts, or its usage, which comes last."""
    if response.finish_reason is None or response.state not in ("complete", "suspended"):
        return True
    told = "finish_reason" in (response.provider_details or {})
    return not told and response.finish_reason == "stop" and not measured(response)

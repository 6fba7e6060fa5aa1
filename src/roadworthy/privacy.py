"""What keeps personal data out of the store and away from models: the port `Privacy`, and `Veil`.

Whatever takes text in or hands it out asks the run's veil. Invariant: with a privacy set, clear
text exists only inside a tool's execution and in what is handed to the user; without one nothing
is changed and nothing is paid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from roadworthy.events import Delivered, RunEnded, RunEvent, RunWaiting, StreamEvent
from roadworthy.messages import File, Message, Reasoning, Reply, Text, ToolCall, ToolResult
from roadworthy.result import Approval, Report, RunResult

T = TypeVar("T")

# The fields that hold words of users, models or tools. Names of tools, ids and files' bytes stay.
_WORDS: Mapping[type, tuple[str, ...]] = {
    Text: ("text",),
    Reasoning: ("text",),
    ToolCall: ("arguments", "malformed"),
    ToolResult: ("content", "files"),
    File: ("name", "url"),
    Message: ("parts",),
    Reply: ("message",),
    Approval: ("arguments", "reason"),
    Report: ("missing", "why"),
    RunResult: ("text", "output", "question", "choices", "report", "waiting"),
    Delivered: ("text",),
    RunEnded: ("result",),
    RunWaiting: ("result",),
}
_FOR_THE_USER = (Delivered, RunEnded, RunWaiting)


@dataclass(frozen=True)
class Scope:
    """Whose values these are. conversation: its id, or the run's where it has none."""

    tenant: str
    conversation: str


class Privacy(Protocol):
    """Replaces personal data in text by tokens, and tokens by the data again.

    Within a scope both must be stable: equal values get equal tokens, `conceal` leaves tokens as
    they are, and `reveal` of what was concealed gives the text back. An unknown token stays.

    A vault that numbers its values allocates them in `conceal`: it commits a `Unit` of its own
    through the runtime's one writer and returns when it is durable. The text is stored by a later
    unit of the same first-in-first-out writer, so no token is ever durable before its value. A
    read of the vault is enough where no new value turns up.

    Not concealed, because they are looked up by: ids of users, tenants, conversations, keys, tags
    and `by`. Use opaque ones. Nor are numbers in arguments and the bytes of files. Handed out
    clear on the way: arguments to a tool, its `reconcile`, its validators and its approval rule.
    """

    async def conceal(self, text: str, scope: Scope) -> str:
        """The text with tokens for personal data. Raises: StoreError: they cannot be kept."""
        ...

    async def reveal(self, text: str, scope: Scope) -> str:
        """The text with the data back in place of their tokens."""
        ...


class Veil:
    """One scope's view of a privacy: maps it over our records. None leaves all as it is."""

    def __init__(self, privacy: Privacy | None, tenant: str, conversation: str) -> None:
        self._privacy = privacy
        self._scope = Scope(tenant, conversation)
        self.on = privacy is not None
        self.conversation = conversation

    async def conceal(self, value: T) -> T:
        """A text, a record or plain JSON, ready to be stored, hashed and shown to a model."""
        privacy, scope = self._privacy, self._scope
        if privacy is None:
            return value
        done = await _mapped(value, lambda text: privacy.conceal(text, scope), signed=False)
        return cast(T, done)

    async def reveal(self, value: T) -> T:
        """The same for a tool or a user."""
        privacy, scope = self._privacy, self._scope
        if privacy is None:
            return value
        done = await _mapped(value, lambda text: privacy.reveal(text, scope), signed=True)
        return cast(T, done)

    async def shown(self, event: StreamEvent) -> StreamEvent:
        """An event as the user's channel gets it. The record of what else happened stays veiled."""
        if isinstance(event, RunEvent):
            return await self.reveal(event) if isinstance(event, _FOR_THE_USER) else event
        return replace(event, text=await self.reveal(event.text)) if self.on else event


async def _mapped(
    value: Any,  # noqa: ANN401 - a record, JSON or text
    change: Callable[[str], Awaitable[str]],
    *,
    signed: bool,
) -> Any:  # noqa: ANN401 - the same type as `value`
    """signed: what a provider signed is kept, although the words beside it change."""
    if isinstance(value, str):
        return await change(value) if value else value
    if isinstance(value, Struct):
        return await _record(value, change, signed=signed)
    if isinstance(value, Mapping):
        return {
            await change(key): await _mapped(item, change, signed=signed)
            for key, item in value.items()
        }
    words: tuple[str, ...] = getattr(type(value), "WORDS", ())  # of what operators are shown
    if words:
        shown = {n: await _mapped(getattr(value, n), change, signed=signed) for n in words}
        return dataclasses.replace(value, **shown)
    if isinstance(value, list | tuple):
        items = [await _mapped(item, change, signed=signed) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return value


async def _record(
    value: Struct, change: Callable[[str], Awaitable[str]], *, signed: bool
) -> Struct:
    fresh: dict[str, Any] = {}
    for name in _WORDS.get(type(value), ()):
        before = getattr(value, name)
        after = await _mapped(before, change, signed=signed)
        if after != before:
            fresh[name] = after
    state = None if signed else getattr(value, "provider_state", None)
    if state and (fresh or await change(state) != state):
        fresh["provider_state"] = None  # it holds or signs words that are no longer there
    return replace(value, **fresh) if fresh else value

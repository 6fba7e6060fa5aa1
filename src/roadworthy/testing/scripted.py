"""`ScriptedModel`: a model that says what a test wrote for it.

Invariant: it keeps no position of its own; `ModelRequest.ordinal` picks the turn, so that a run
resumed in another process goes on where it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import msgspec

from roadworthy.clock import Clock, SystemClock
from roadworthy.errors import ModelError, ModelRejected
from roadworthy.estimate import estimate
from roadworthy.limits import Price
from roadworthy.messages import (
    DeltaSink,
    Message,
    ModelRequest,
    Part,
    Reasoning,
    Reply,
    Text,
    TokenUsage,
    ToolCall,
    ToolResult,
)

Said: TypeAlias = str | ToolCall | Reasoning
Turn: TypeAlias = Said | Sequence[Said] | Reply | ModelError
Item: TypeAlias = "Turn | Chosen"
"""One turn: text, a call, several of both in one reply, a whole Reply, an error to raise, or a
function of the request that gives one of these."""
Chosen: TypeAlias = "Callable[[ModelRequest], Item | Awaitable[Item]]"

_CHUNK = 12
_TURNS = (str, ToolCall, Reasoning, Sequence, Reply, ModelError)


class RecordedRequest:
    """One request a model got, as tests ask about it: `"refund" in model.requests[1].tools`."""

    def __init__(self, request: ModelRequest) -> None:
        self.request = request

    @property
    def tools(self) -> tuple[str, ...]:
        """Names of the tools it was offered, the output tool included."""
        output = self.request.output
        names = tuple(tool.name for tool in self.request.tools)
        return names if output is None or output.native else (*names, output.name)

    @property
    def messages(self) -> tuple[Message, ...]:
        """What it was told, the oldest first."""
        return tuple(self.request.messages)

    @property
    def instructions(self) -> str:
        """The agent's instructions as sent."""
        return self.request.instructions

    @property
    def text(self) -> str:
        """What the user said last."""
        users = (message.text for message in reversed(self.messages) if message.role == "user")
        return next(users, "")

    @property
    def results(self) -> tuple[str, ...]:
        """Contents of all tool results so far, in order."""
        parts = (part for message in self.messages for part in message.parts)
        return tuple(part.content for part in parts if isinstance(part, ToolResult))

    @property
    def max_tokens(self) -> int:
        """The bound it was given for its reply."""
        return self.request.settings.max_tokens

    def __repr__(self) -> str:
        return f"RecordedRequest({self.text!r:.60}, tools={self.tools})"


class ScriptedModel:
    """Plays a script, one item per turn.

    script: the items in turn order, or one function of the request. usage: tokens of every reply;
    by default counted from the texts, the same each time. latency: seconds each answer takes on
    `clock`. price: free unless given.
    """

    def __init__(
        self,
        script: Sequence[Item] | Chosen,
        *,
        name: str = "scripted",
        price: Price | None = None,
        usage: TokenUsage | None = None,
        latency: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.price: Price | None = price or Price.free()
        self.requests: list[RecordedRequest] = []
        self._script = script
        self._usage = usage
        self._latency = latency
        self._clock = clock or SystemClock()

    async def request(self, request: ModelRequest, on_text: DeltaSink | None = None) -> Reply:
        """The turn of this ordinal.

        Raises: ModelError: the script says so. ModelRejected: the script is over.
        """
        self.requests.append(RecordedRequest(request))
        if self._latency:
            await self._clock.sleep(self._latency)
        item = await self._item(request)
        if isinstance(item, ModelError):
            raise item
        reply = item if isinstance(item, Reply) else self._reply(item, request)
        if on_text is not None:
            stream(reply, on_text)
        return reply

    async def _item(self, request: ModelRequest) -> Turn:
        if callable(self._script):
            item: Item = self._script
        elif request.ordinal < len(self._script):
            item = self._script[request.ordinal]
        else:
            turns = len(self._script)
            raise ModelRejected(
                f"The script is over: {turns} turns were written, turn {request.ordinal + 1} "
                "was asked."
            )
        while not isinstance(item, _TURNS):
            given = item(request)
            item = await given if inspect.isawaitable(given) else given
        return item

    def _reply(self, item: Said | Sequence[Said], request: ModelRequest) -> Reply:
        items = [item] if isinstance(item, str | ToolCall | Reasoning) else item
        parts = tuple(
            _part(part, f"call_{request.ordinal}_{index}") for index, part in enumerate(items)
        )
        message = Message(role="assistant", parts=parts, provider=self.name)
        return Reply(
            message=message,
            usage=self._usage or _counted(request, message),
            model=self.name,
            finish="tools" if message.tool_calls else "stop",
        )


def stream(reply: Reply, on_text: DeltaSink) -> None:
    """The reply's visible text in pieces."""
    for start in range(0, len(reply.text), _CHUNK):
        on_text(reply.text[start : start + _CHUNK])


def _part(part: Said, call_id: str) -> Part:
    if isinstance(part, str):
        return Text(text=part)
    if isinstance(part, ToolCall) and not part.id:
        return msgspec.structs.replace(part, id=call_id)
    return part


def _counted(request: ModelRequest, said: Message) -> TokenUsage:
    """A likely usage: the same for the same texts."""
    asked = request.instructions + "".join(map(_written, request.messages))
    return TokenUsage(input=estimate(asked), output=max(1, estimate(_written(said))))


def _written(message: Message) -> str:
    try:
        return msgspec.json.encode(message.parts).decode()
    except UnicodeEncodeError:  # half surrogate pairs, to try what becomes of them
        return repr(message.parts)

"""`RecordingModel` writes a real conversation down; `ReplayModel` plays it again.

The file has one JSON reply a line, in the order they were given. Invariant: a replayed reply is
byte for byte the recorded one, usage included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from roadworthy.agent import Model
from roadworthy.errors import ConfigurationError, ModelRejected
from roadworthy.limits import Price
from roadworthy.messages import DeltaSink, ModelRequest, Reply
from roadworthy.testing.scripted import RecordedRequest, stream


class ReplayModel:
    """Plays recorded replies, the one of the request's ordinal. Free unless `price` is given."""

    def __init__(
        self, replies: Sequence[Reply], *, name: str = "replay", price: Price | None = None
    ) -> None:
        self.name = name
        self.price: Price | None = price or Price.free()
        self.replies = tuple(replies)
        self.requests: list[RecordedRequest] = []

    @classmethod
    def load(cls, path: str | Path, *, name: str = "replay") -> ReplayModel:
        """Read what `RecordingModel` or `save` wrote.

        Raises: ConfigurationError: a line is no reply. OSError: the file cannot be read.
        """
        lines = Path(path).read_bytes().splitlines()
        try:
            replies = [msgspec.json.decode(line, type=Reply) for line in lines if line.strip()]
        except msgspec.MsgspecError as error:
            raise ConfigurationError(f"{path} holds no recorded replies: {error}") from error
        return cls(replies, name=name)

    def save(self, path: str | Path) -> None:
        """Write the replies, one a line."""
        Path(path).write_bytes(_lines(self.replies))

    async def request(self, request: ModelRequest, on_text: DeltaSink | None = None) -> Reply:
        """The recorded reply of this ordinal. Raises: ModelRejected: the recording is over."""
        self.requests.append(RecordedRequest(request))
        if request.ordinal >= len(self.replies):
            raise ModelRejected(
                f"The recording is over: it holds {len(self.replies)} replies, "
                f"number {request.ordinal + 1} was asked."
            )
        reply = self.replies[request.ordinal]
        if on_text is not None:
            stream(reply, on_text)
        return reply


class RecordingModel:
    """Passes every request on to `inner` and adds the reply to the file at `path`."""

    def __init__(self, inner: Model, path: str | Path) -> None:
        self.inner = inner
        self.path = Path(path)

    @property
    def name(self) -> str:
        """The inner model's."""
        return self.inner.name

    @property
    def price(self) -> Price | None:
        """The inner model's."""
        return self.inner.price

    async def request(self, request: ModelRequest, on_text: DeltaSink | None = None) -> Reply:
        """The inner model's reply, written down before it is returned. Raises: ModelError."""
        reply = await self.inner.request(request, on_text)
        with self.path.open("ab") as file:
            file.write(_lines([reply]))
        return reply


def _lines(replies: Iterable[Reply]) -> bytes:
    return b"".join(msgspec.json.encode(reply) + b"\n" for reply in replies)

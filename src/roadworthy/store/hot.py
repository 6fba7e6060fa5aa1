"""What is live only, between processes: text as it is written, and word that there is news.

`live` uses it on Postgres: the process that executes a run tells those that watch it, over Redis
where it is given, else by LISTEN/NOTIFY. Invariant: nothing here is a fact. Whoever watches reads
facts in the journal; losing all of this loses time only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from roadworthy.events import (
    LiveEvent,
    RunEvent,
    StreamEvent,
    TextDelta,
    TextReplaced,
    ToolProgress,
)

log = logging.getLogger("roadworthy.store")

WATCHERS = "roadworthy_watch"  # the channel on which watchers say what they watch, and where
AGAIN_SECONDS = 5.0  # watchers repeat it: who executes may have begun later, or missed it
WANTED_SECONDS = 15.0
_MOST_BEHIND = 5_000
_ECHO = "-"
_PIECE = 1_500  # characters: four bytes each and JSON's escapes stay below NOTIFY's 8,000
_RETRY_SECONDS = 1.0
_READY_SECONDS = 5.0
_KINDS: dict[str, type[LiveEvent]] = {
    kind.__name__: kind for kind in (TextDelta, TextReplaced, ToolProgress)
}
Heard: TypeAlias = Callable[[str, LiveEvent | None], None]
"""Told of a run: a live event, or None: there is news in the journal."""


class _Word(msgspec.Struct, omit_defaults=True):
    """What goes over the wire: a watch (`at` a mailbox), a live event, or news (neither)."""

    run: str
    at: str = ""
    kind: str = ""
    event: Any = None


class Hot(ABC):
    """One per process. Used on one event loop only."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self.mailbox = f"roadworthy_{secrets.token_hex(8)}"
        self._watching: set[str] = set()
        self._wanted: dict[str, dict[str, float]] = {}  # run -> mailbox -> until when
        self._out: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(_MOST_BEHIND)
        self._tasks: list[asyncio.Task[None]] = []
        self._listening = asyncio.Event()
        self._echoed = asyncio.Event()

    async def open(self) -> None:
        """Begin to listen and to tell. Never fails: while nobody answers, nothing is live."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._for_ever(self._listen)),
            loop.create_task(self._for_ever(self._tell_on)),
            loop.create_task(self._for_ever(self._remind)),
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_SECONDS):
                await self._listening.wait()

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def carries(self) -> bool:
        """Whether what is told here arrives: a word to ourselves comes back."""
        self._echoed.clear()
        self._put(self.mailbox, _Word(_ECHO))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_SECONDS):
                await self._echoed.wait()
        return self._echoed.is_set()

    def watch(self, run_id: str) -> None:
        """Somebody here watches this run."""
        if run_id not in self._watching:
            self._watching.add(run_id)
            self._put(WATCHERS, _Word(run_id, at=self.mailbox))

    def leave(self, run_id: str) -> None:
        """Nobody here watches it any more."""
        self._watching.discard(run_id)

    def wanted(self, run_id: str) -> bool:
        """Whether somebody elsewhere watches this run."""
        return bool(self._wanted) and any(self._mailboxes(run_id))

    def tell(self, run_id: str, event: StreamEvent) -> None:
        """Show an event to who watches elsewhere; of a journaled one only that it is there."""
        words = [_Word(run_id)] if isinstance(event, RunEvent) else _words(run_id, event)
        for mailbox in list(self._mailboxes(run_id)):
            for word in words:
                self._put(mailbox, word)

    # --- inside --------------------------------------------------------------------------

    @abstractmethod
    async def _listen(self) -> None:
        """Call `_received` for what comes in to WATCHERS and our mailbox, until it fails."""

    @abstractmethod
    async def _send(self, words: Sequence[tuple[str, bytes]]) -> None:
        """Send (channel, data), in order."""

    def _received(self, data: bytes | str) -> None:
        try:
            word = msgspec.json.decode(data, type=_Word)
            kind = _KINDS.get(word.kind)
            event = None if kind is None else msgspec.convert(word.event, kind)
        except msgspec.MsgspecError:
            return  # not of ours
        if word.run == _ECHO:
            self._echoed.set()
        elif word.at and word.at != self.mailbox:
            self._wanted.setdefault(word.run, {})[word.at] = time.monotonic() + WANTED_SECONDS
        elif not word.at and word.run in self._watching:
            self._heard(word.run, event)

    def _mailboxes(self, run_id: str) -> Iterator[str]:
        now = time.monotonic()
        return (box for box, until in self._wanted.get(run_id, {}).items() if until > now)

    def _put(self, channel: str, word: _Word) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # too far behind: it is live only
            self._out.put_nowait((channel, msgspec.json.encode(word)))

    async def _tell_on(self) -> None:
        while True:
            words = [await self._out.get()]
            while not self._out.empty() and len(words) < 100:
                words.append(self._out.get_nowait())
            await self._send(words)

    async def _remind(self) -> None:
        while True:
            await asyncio.sleep(AGAIN_SECONDS)  # noqa: TID251 - real: other processes count on it
            for run_id in self._watching:
                self._put(WATCHERS, _Word(run_id, at=self.mailbox))
            for run_id in [run for run in self._wanted if not any(self._mailboxes(run))]:
                del self._wanted[run_id]

    async def _for_ever(self, work: Callable[[], Any]) -> None:
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - border: a driver's; live events only
                log.warning("live events do not pass between processes just now: %s", error)
            self._listening.set()  # it was tried
            await asyncio.sleep(_RETRY_SECONDS)  # noqa: TID251 - real: a server is away


def _words(run_id: str, event: LiveEvent) -> list[_Word]:
    """A live event in pieces that every carrier takes."""
    first = replace(event, text=event.text[:_PIECE])
    words = [_Word(run_id, kind=type(event).__name__, event=first)]
    offset = event.offset if isinstance(event, TextDelta) else 0
    attempt = event.attempt if isinstance(event, TextDelta) else 1
    if not isinstance(event, ToolProgress):
        for start in range(_PIECE, len(event.text), _PIECE):
            more = TextDelta(
                run_id=run_id,
                key=event.key,
                text=event.text[start : start + _PIECE],
                attempt=attempt,
                offset=offset + start,
            )
            words.append(_Word(run_id, kind="TextDelta", event=more))
    return words


class PostgresHot(Hot):
    """By LISTEN/NOTIFY, on two connections of its own."""

    def __init__(self, url: str, heard: Heard) -> None:
        super().__init__(heard)
        self._url = url
        self._sender: Any = None
        self._closing = False
        self._lock = threading.Lock()
        self._connections: list[Any] = []

    async def _listen(self) -> None:
        connection = await asyncio.to_thread(self._connect)
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[None] = loop.create_future()
        try:
            for channel in (WATCHERS, self.mailbox):
                connection.execute(f"LISTEN {channel}")

            def readable() -> None:
                try:
                    for told in connection.notifies(timeout=0):
                        self._received(told.payload)
                except Exception as error:  # noqa: BLE001 - border: handed to the waiting task
                    loop.remove_reader(number)
                    if not broken.done():
                        broken.set_exception(error)

            number = connection.fileno()
            loop.add_reader(number, readable)
            self._listening.set()
            try:
                await broken
            finally:
                loop.remove_reader(number)
        finally:
            connection.close()

    async def _send(self, words: Sequence[tuple[str, bytes]]) -> None:
        await asyncio.to_thread(self._notify, words)

    def _notify(self, words: Sequence[tuple[str, bytes]]) -> None:
        if self._sender is None or self._sender.closed:
            self._sender = self._connect()
        try:
            with self._sender.cursor() as cursor:
                rows = [(channel, data.decode()) for channel, data in words]
                cursor.executemany("SELECT pg_notify(%s, %s)", rows)
        except Exception:
            self._sender.close()
            raise

    async def close(self) -> None:
        """Stop, and close both connections; one that a thread is still making closes itself."""
        await super().close()
        with self._lock:
            self._closing = True
            for connection in self._connections:
                connection.close()

    def _connect(self) -> Any:  # noqa: ANN401 - a driver's connection
        import psycopg  # noqa: PLC0415 - an extra

        connection = psycopg.connect(self._url, autocommit=True, connect_timeout=10)
        with self._lock:
            self._connections = [known for known in self._connections if not known.closed]
            self._connections.append(connection)
            if self._closing:
                connection.close()
        return connection


class RedisHot(Hot):
    """Over Redis' publish and subscribe."""

    def __init__(self, url: str, heard: Heard) -> None:
        super().__init__(heard)
        from redis.asyncio import Redis  # noqa: PLC0415 - an extra

        self._redis = Redis.from_url(url, socket_connect_timeout=5)

    async def _listen(self) -> None:
        async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(WATCHERS, self.mailbox)
            self._listening.set()
            while True:
                told = await pubsub.get_message(timeout=10.0)
                if told is not None:
                    self._received(told["data"])

    async def _send(self, words: Sequence[tuple[str, bytes]]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for channel, data in words:
                _queued = pipe.publish(channel, data)
            await pipe.execute()

    async def close(self) -> None:
        """Stop, and close its connections."""
        await super().close()
        await self._redis.aclose()


__all__ = ["Hot", "PostgresHot", "RedisHot"]

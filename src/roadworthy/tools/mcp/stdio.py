"""A server as a child process of ours: messages as lines on its stdin and stdout.

The library's own transport joins what arrives in quadratic time and without a bound, so this one
takes its place. Invariant: when it is left, the process and what it started are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import ErrorData, JSONRPCError
from mcp_types.jsonrpc import jsonrpc_message_adapter
from pydantic import ValidationError

from roadworthy.errors import ToolsetUnavailable
from roadworthy.tools.mcp.lines import Lines, TooLong, answers

log = logging.getLogger("roadworthy.tools")
UNREAD = -32099
"""The code of the error that stands for an answer which could not be read."""

_GRACE = 2.0
_CHUNK = 64 * 1024
_Received = MemoryObjectSendStream[SessionMessage | Exception]
_ToSend = MemoryObjectReceiveStream[SessionMessage]
Streams = tuple[
    MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]
]


@dataclass(frozen=True, kw_only=True)
class Child:
    """How to start a server. Of our environment it gets PATH, HOME and the like, and `env`."""

    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None

    @asynccontextmanager
    async def connect(self, ended: Callable[[], None]) -> AsyncIterator[Streams]:
        """Its streams; `ended` is called when it says no more.

        Raises: ToolsetUnavailable: it cannot be started, or ends at once.
        """
        process = await self._start()
        received, for_reader = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        from_writer, to_send = anyio.create_memory_object_stream[SessionMessage](0)
        last_words: deque[bytes] = deque(maxlen=20)
        tasks = [
            asyncio.create_task(_read(process, received, ended)),
            asyncio.create_task(_write(process, to_send, received)),
            asyncio.create_task(_listen(process, last_words)),
        ]
        try:
            yield for_reader, from_writer
        except Exception as error:
            if not await _has_ended(process):
                raise
            raise ToolsetUnavailable(
                f"{self.command[0]} ended with {process.returncode}. {_said(last_words)}"
            ) from error
        finally:
            for stream in (for_reader, from_writer):
                stream.close()
            await _end(process)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for other in (received, to_send):
                other.close()

    async def _start(self) -> Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self.command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env=get_default_environment() | dict(self.env),
                cwd=self.cwd,
                start_new_session=True,  # so that what it starts can be ended with it
            )
        except (OSError, ValueError) as error:
            raise ToolsetUnavailable(f"{self.command[0]} cannot be started: {error}") from error


async def _read(process: Process, received: _Received, ended: Callable[[], None]) -> None:
    """What it says, until it ends or nobody listens."""
    try:
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            async for message in _messages(process):
                await received.send(message)
    finally:
        ended()
        received.close()  # who waits for an answer hears that none will come


async def _messages(process: Process) -> AsyncIterator[SessionMessage]:
    lines, stdout = Lines(), process.stdout
    while stdout is not None and (chunk := await stdout.read(_CHUNK)):
        for line in lines.feed(chunk):
            message = _message(line)
            if message is not None:
                yield message


def _message(line: bytes | TooLong) -> SessionMessage | None:
    if isinstance(line, TooLong):
        log.warning("an MCP server sent %s bytes in one message; thrown away", f"{line.size:,}")
        return _unread(line.id, f"the answer has {line.size:,} bytes, too many to read")
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValidationError as error:
        log.debug("an MCP server wrote what is no message: %.200r", line)
        why = error.errors(include_url=False, include_input=False)[0]["msg"]
        return _unread(answers(line, line), f"the answer cannot be read ({why})")


def _unread(number: str | int | None, why: str) -> SessionMessage | None:
    """Who waits for this answer is told; what answers nobody is passed over."""
    if number is None:
        return None
    error = ErrorData(code=UNREAD, message=why)
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=number, error=error))


async def _write(process: Process, to_send: _ToSend, received: _Received) -> None:
    """What it is told. When it takes no more, who waits for an answer is told at once."""
    stdin = process.stdin
    try:
        async for message in to_send:
            if stdin is not None:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                stdin.write(text.encode("utf-8", "replace") + b"\n")
                await stdin.drain()
    except (OSError, anyio.ClosedResourceError):
        received.close()


async def _listen(process: Process, last_words: deque[bytes]) -> None:
    """Its log: the end is kept for the error that may follow."""
    stderr = process.stderr
    while stderr is not None and (chunk := await stderr.read(_CHUNK)):
        last_words.extend(line[:500] for line in chunk.split(b"\n")[-20:] if line.strip())


async def _has_ended(process: Process) -> bool:
    """Whether it ended; its end is seen a moment after that of its output."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE / 10):
            await process.wait()
    return process.returncode is not None


def _said(last_words: Sequence[bytes]) -> str:
    return f"It said: {last_words[-1].decode(errors='replace')[:300]}" if last_words else ""


async def _end(process: Process) -> None:
    """Close its stdin, then ask it to end, then end it and what it started."""
    if process.stdin is not None:
        process.stdin.close()
    for what in (None, signal.SIGTERM, signal.SIGKILL):
        if what is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, what)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await process.wait()
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # children it left behind

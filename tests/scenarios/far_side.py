"""A real server on loopback that fails as a test says: what is behind the tools of a fault test.

Invariant: what it did and how often it was asked is counted here, whatever its answers said.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias

Fault: TypeAlias = Literal[
    "timeout", "reset", "429", "500", "slow", "malformed", "schema", "hang", "exit"
]
ALWAYS = 1_000_000
RETRY_AFTER = 7
QUICK, SLOW = 0.01, 0.1
_BEFORE = ("429",)  # refused before anything was done; all others fail after it was


class FarSide:
    """fault: of the next `times` requests. applied: how often each effect was done; a request to
    `/write` is done once per Idempotency-Key, as the tool promises."""

    def __init__(self, fault: Fault | None = None, times: int = 0) -> None:
        self.fault, self.times = fault, times
        self.asked = 0
        self.applied: Counter[str] = Counter()
        self.port = 0
        self._known: set[str] = set()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FarSide]:
        """Open while the block runs."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines[1:])
            }
            await reader.readexactly(int(headers.get("content-length", 0)))
            path, key = lines[0].split()[1], headers.get("idempotency-key", "")
            await self._answer(path, key, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(
        self, path: str, key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.asked += 1
        fault = self.fault if self.times > 0 else None
        self.times -= 1
        if fault not in _BEFORE:
            self._do(path, key)
        body, status, more = json.dumps({"value": 42, "exit": fault == "exit"}), "200 OK", ""
        match fault:
            case "timeout" | "hang":
                await reader.read()  # until whoever asks has had enough
                return
            case "reset":
                link: socket.socket = writer.get_extra_info("socket")
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return
            case "429":
                status, more = "429 Too Many Requests", f"Retry-After: {RETRY_AFTER}\r\n"
            case "500":
                status = "500 Internal Server Error"
            case "malformed":
                body = '{"value": <html>'
            case "schema":
                body = '{"amount": 42}'
            case _:
                pass
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        loop.call_later(SLOW if fault == "slow" else QUICK, told.set)
        await told.wait()
        writer.write(
            f"HTTP/1.1 {status}\r\n{more}Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        await writer.drain()

    def _do(self, path: str, key: str) -> None:
        if path == "/write" and key in self._known:
            return
        self._known.add(key)
        self.applied[path] += 1

"""A real HTTP server on loopback for the tests of this folder, and raw ones that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from roadworthy.context import RunContext, User
from roadworthy.tools.http import Client

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LOCAL = Client(allow=["127.0.0.1"], seconds=10)


@dataclass
class Served:
    """url: where it is. seen: (method, raw path) of each request. heard: their headers."""

    url: str
    seen: list[tuple[str, str]] = field(default_factory=list)
    heard: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Served]:
    """It answers every path by `handler`."""
    served = Served("")

    async def handle(request: web.Request) -> web.StreamResponse:
        served.seen.append((request.method, request.raw_path))
        served.heard.append(dict(request.headers))
        served.bodies.append(await request.read())
        return await handler(request)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    served.url = f"http://{host}:{port}"
    try:
        yield served
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw(answer: bytes) -> AsyncIterator[Served]:
    """It reads a request's head, says these bytes and hangs up."""
    served = Served("")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.decode("latin-1").split(" ", 2)
        served.seen.append((method, path))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield served


def at(*answers: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A resolver that gives these answers one after the other, then the last for ever."""
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


def run(key: str = "k-1") -> RunContext[None]:
    """What a tool is handed."""
    return RunContext(run_id="r", user=User("ana", tenant="acme"), deps=None, key=key)


async def text(request: web.Request) -> web.StreamResponse:
    """Says hello."""
    return web.Response(text=f"hello {request.path}")

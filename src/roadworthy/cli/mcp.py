"""`roadworthy mcp FILE`: its agents, and tools of theirs, as an MCP server until it is ended."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any

import typer
import uvicorn
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server

from roadworthy.agent import Agent, Tool
from roadworthy.cli.binding import address, bound, is_loopback
from roadworthy.cli.finding import Found, find
from roadworthy.cli.screen import console
from roadworthy.context import User
from roadworthy.errors import ConfigurationError
from roadworthy.mcp_server import Served, create_server
from roadworthy.runtime import Runtime

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_GRACE_SECONDS = 3


@app.command()
def mcp(  # noqa: PLR0913 - one per option
    target: Annotated[str, typer.Argument(metavar="FILE_OR_MODULE")],
    agent: Annotated[
        list[str] | None, typer.Option(help="Offer this agent, not all. Repeatable.")
    ] = None,
    tool: Annotated[
        list[str] | None, typer.Option(help="Offer this tool of an agent too. Repeatable.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Serve HTTP on this port (0: any free), not stdio."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to bind to.")] = "127.0.0.1",
    user: Annotated[str, typer.Option(help="On whose authority clients act.")] = "mcp",
    wait: Annotated[
        float, typer.Option(min=1, help="Seconds until a client is told to ask later.")
    ] = 300.0,
) -> None:
    """Serve a file's agents to MCP clients: over stdio, or with --port over streamable HTTP.

    Each agent is a tool that takes a message; effects wait for a person as ever, `get_run` tells
    what became of a run.
    """
    found = find(target)
    agents = [found.agent(name) for name in agent] if agent else list(found.agents.values())
    tools = [_tool(found, name) for name in tool or ()]
    served = Served(agents=agents, tools=tools, user=User(user), wait=wait)
    server = create_server(found.rt, served)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            _stdio(found.rt, server) if port is None else _http(found.rt, server, host, port)
        )


def _tool(found: Found, name: str) -> tuple[Tool[Any], Agent[Any, Any]]:
    for agent in found.agents.values():
        if name in agent.toolbelt:
            return agent.toolbelt[name], agent
    names = sorted({known for agent in found.agents.values() for known in agent.toolbelt})
    raise ConfigurationError(f"There is no tool {name!r}. There are: {', '.join(names) or 'none'}.")


async def _stdio(rt: Runtime, server: Server[Any]) -> None:
    async with rt, stdio_server() as (received, to_send):
        await server.run(received, to_send, server.create_initialization_options())


async def _http(rt: Runtime, server: Server[Any], host: str, port: int) -> None:
    sock, err = bound(host, port), console(error=True)
    if not is_loopback(host):
        err.print(
            f"Warning: {host} can be reached by others, and there is no sign-in. Whoever reaches "
            "it can have the agents run. Put your own sign-in in front.",
            style="yellow",
        )
    err.print(f"MCP at {address(host, sock)}/mcp  (Ctrl+C ends)", style="bold")
    config = uvicorn.Config(
        server.streamable_http_app(host="localhost" if is_loopback(host) else host),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        server_header=False,
    )
    async with rt:
        await uvicorn.Server(config).serve(sockets=[sock])

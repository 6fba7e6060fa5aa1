"""`roadworthy pin FILE`: what the MCP servers of its agents offer, what changed, the new pins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from roadworthy.agent import Agent
from roadworthy.cli.finding import find
from roadworthy.cli.screen import clean
from roadworthy.context import RunContext, User
from roadworthy.errors import ConfigurationError
from roadworthy.tools.mcp import MCP, Offer, fingerprint
from roadworthy.tools.mcp.pins import Accepted, is_fingerprint, write

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def pin(
    target: Annotated[str, typer.Argument(metavar="FILE_OR_MODULE")],
    *,
    accept: Annotated[
        bool, typer.Option("--write", help="Accept: write the pin files that are declared.")
    ] = False,
) -> None:
    """Show what the MCP servers of a file's agents offer, against what was accepted.

    Exit codes: 0 nothing changed, or it is accepted now; 1 something changed.
    """
    changed = False
    for server in _servers(*find(target).agents.values()):
        offers = asyncio.run(_offers(server))
        changed = _show(server, offers, accept=accept) or changed
    raise typer.Exit(int(changed))


def _servers(*agents: Agent[object, object]) -> Iterator[MCP]:
    found = {id(t): t for agent in agents for t in agent.toolsets if isinstance(t, MCP)}
    if not found:
        raise ConfigurationError("No agent there has an MCP server: tools=[MCP(...)].")
    yield from found.values()


async def _offers(server: MCP) -> tuple[Offer, ...]:
    nobody: RunContext[None] = RunContext(run_id="", user=User(""), deps=None)
    connection = server.connection(nobody, None)
    await connection.open()
    try:
        return connection.offers
    finally:
        await connection.close()


def _show(server: MCP, offers: tuple[Offer, ...], *, accept: bool) -> bool:
    """Whether what is offered is not what was accepted, also after this."""
    now = fingerprint(offers)
    typer.echo(f"{server.name}: {len(offers)} tools, pin={now!r}")
    for offer in offers:
        typer.echo(clean(f"  {offer.name} ({server.effect(offer)}): {offer.description[:200]}"))
    accepted = _accepted(server)
    if accepted.fingerprint == now:
        typer.echo("  as accepted")
        return False
    if accepted.tools is not None or not accepted.fingerprint:
        typer.echo(clean(accepted.shown(offers)))
    if accept and server.pin is not None and not is_fingerprint(server.pin):
        write(Path(server.pin), server.name, offers)
        typer.echo(f"  accepted in {server.pin}")
        return False
    typer.echo("  not accepted" if server.pin else "  not pinned", err=True)
    return True


def _accepted(server: MCP) -> Accepted:
    missing = server.pin is not None and not is_fingerprint(server.pin)
    if server.pin is None or (missing and not Path(server.pin).exists()):
        return Accepted("")
    return Accepted.read(server.pin)

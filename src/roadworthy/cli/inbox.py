"""`roadworthy inbox FILE`: what waits for a person, in the terminal; also beside a server.

Invariant: it executes no run and shows no JSON; leaving at any moment changes nothing.
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import Annotated

import typer

from roadworthy.cli.finding import find
from roadworthy.cli.inbox_showing import listing, show_packet
from roadworthy.cli.inbox_talk import InboxTalk, decided, pick
from roadworthy.cli.screen import console
from roadworthy.clock import SystemClock
from roadworthy.escalation.views import Escalation, Status
from roadworthy.result import Decision
from roadworthy.runtime import Runtime

app = typer.Typer(rich_markup_mode=None, add_completion=False)
Id = Annotated[str, typer.Argument(metavar="ID", help="Its id, or the end of it.")]
Words = Annotated[list[str], typer.Argument(metavar="WORDS")]
MaybeWords = Annotated[list[str] | None, typer.Argument(metavar="[WORDS]")]
Number = Annotated[int, typer.Option("--call", min=1, help="Which of the waiting calls.")]


@dataclass(frozen=True)
class _Here:
    """What every subcommand works with."""

    rt: Runtime
    by: str


def _me() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "terminal"


@app.callback(invoke_without_command=True)
def inbox(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(metavar="FILE_OR_MODULE")],
    by: Annotated[str | None, typer.Option(help="Who you are; default: your login.")] = None,
) -> None:
    """What waits for a person: look, take over, speak, decide, hand back.

    Alone it lists what waits, and lets you pick one and talk. Whoever serves FILE executes.
    """
    rt = find(target).rt
    rt.execute = False
    ctx.obj = _Here(rt, by or _me())
    if ctx.invoked_subcommand is None:
        with rt:
            InboxTalk(rt, ctx.obj.by).go()


@app.command("list")
def list_them(
    ctx: typer.Context,
    status: Annotated[str | None, typer.Option(help="open, taken or resolved.")] = None,
    queue: Annotated[str | None, typer.Option(help="Of this queue only.")] = None,
) -> None:
    """What waits, first things first."""
    known: dict[str, Status] = {"open": "open", "taken": "taken", "resolved": "resolved"}
    if status is not None and status not in known:
        raise typer.BadParameter("open, taken or resolved", param_hint="--status")
    with ctx.obj.rt as rt:
        state = None if status is None else known[status]
        items = rt.sync(rt.inbox.list(status=state, queue=queue))
        now = SystemClock().now()
    if items:
        console().print(listing(items, now))
    else:
        typer.echo("Nothing waits for a person.")


@app.command()
def show(ctx: typer.Context, escalation: Id) -> None:
    """All that is known of one."""
    with ctx.obj.rt as rt:
        packet = rt.sync(rt.inbox.packet(pick(rt, escalation).id))
        show_packet(console(), packet, SystemClock().now())


@app.command()
def take(ctx: typer.Context, escalation: Id) -> None:
    """Take the conversation over: the agent is silent from now on."""
    with ctx.obj.rt as rt:
        item = rt.sync(rt.inbox.take(pick(rt, escalation).id, ctx.obj.by))
    typer.echo(f"The conversation with {item.user} is yours.")


@app.command()
def say(ctx: typer.Context, escalation: Id, words: Words) -> None:
    """Words to the user; takes over when nobody has."""
    with ctx.obj.rt as rt:
        item = rt.sync(rt.inbox.say(pick(rt, escalation).id, " ".join(words), ctx.obj.by))
    typer.echo(f"Said to {item.user}.")


@app.command()
def note(ctx: typer.Context, escalation: Id, words: Words) -> None:
    """A note for other operators."""
    with ctx.obj.rt as rt:
        rt.sync(rt.inbox.note(pick(rt, escalation).id, " ".join(words), ctx.obj.by))
    typer.echo("Noted.")


@app.command()
def approve(ctx: typer.Context, escalation: Id, call: Number = 1) -> None:
    """Let the waiting call happen."""
    _decide(ctx, escalation, "approve", [], call)


@app.command()
def edit(ctx: typer.Context, escalation: Id, words: Words, call: Number = 1) -> None:
    """Let it happen with other arguments: name=value, each that changes."""
    _decide(ctx, escalation, "edit", words, call)


@app.command()
def reject(ctx: typer.Context, escalation: Id, words: MaybeWords = None, call: Number = 1) -> None:
    """It does not happen; the agent is told why."""
    _decide(ctx, escalation, "reject", words or [], call)


@app.command()
def respond(ctx: typer.Context, escalation: Id, words: Words, call: Number = 1) -> None:
    """It is not run: this is its result."""
    _decide(ctx, escalation, "respond", words, call)


@app.command("hand-back")
def hand_back(ctx: typer.Context, escalation: Id, words: MaybeWords = None) -> None:
    """Give the conversation back to the agent, with an instruction or without."""
    with ctx.obj.rt as rt:
        told = " ".join(words or ())
        item = rt.sync(rt.inbox.hand_back(pick(rt, escalation).id, ctx.obj.by, instruction=told))
    typer.echo(f"{_agent(item)} has the conversation again.")


@app.command()
def close(ctx: typer.Context, escalation: Id, words: MaybeWords = None) -> None:
    """It is settled: the run ends, the agent says nothing more."""
    with ctx.obj.rt as rt:
        how = " ".join(words or ())
        rt.sync(rt.inbox.close(pick(rt, escalation).id, ctx.obj.by, resolution=how))
    typer.echo("Closed.")


def _decide(
    ctx: typer.Context, escalation: str, decision: Decision, words: list[str], number: int
) -> None:
    with ctx.obj.rt as rt:
        packet = rt.sync(rt.inbox.packet(pick(rt, escalation).id))
        typer.echo(decided(rt, packet, decision, words, (number, ctx.obj.by)))


def _agent(item: Escalation) -> str:
    return f"The agent {item.agent}"

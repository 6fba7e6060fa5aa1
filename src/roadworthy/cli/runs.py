"""`roadworthy runs`: list, show, cancel, resume, undo; also while another process has the store."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from roadworthy.cli.finding import find
from roadworthy.cli.following import follow
from roadworthy.cli.screen import (
    COLOURS,
    EXIT,
    Screen,
    clean,
    console,
    status_line,
    usd,
    when,
)
from roadworthy.cli.showing import show_run
from roadworthy.errors import ConfigurationError, PatternUnknown
from roadworthy.result import ENDS
from roadworthy.runtime import Runtime
from roadworthy.store.runs import RunRow
from roadworthy.trace import limits_of, plain_event, plain_row

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="List runs, show one, cancel, resume or undo it.",
)
Url = Annotated[
    str | None, typer.Option(help="The store, default ROADWORTHY_URL or sqlite:///roadworthy.db.")
]
RunId = Annotated[str, typer.Argument(metavar="RUN_ID")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines.")]
_PATIENCE = 3.0


@app.command("list")
def list_runs(
    url: Url = None,
    most: Annotated[int, typer.Option("--most", "-n", min=1, help="How many.")] = 30,
    as_json: AsJson = False,  # noqa: FBT002 - an option
) -> None:
    """The newest runs."""
    with store(url) as rt:
        rows = rt.sync(rt.runs(most))
    if as_json:
        for row in rows:
            typer.echo(json.dumps(plain_row(row)))
        return
    if not rows:
        typer.echo("No run yet.")
        return
    console().print(_table(rows))


@app.command()
def show(run_id: RunId, url: Url = None, as_json: AsJson = False) -> None:  # noqa: FBT002
    """A run's whole trace; with --json its events, one a line."""
    with store(url) as rt:
        row, events = rt.sync(rt.find(run_id)), rt.sync(rt.record(run_id))
        held_up = rt.sync(rt.held_up(run_id))
    if as_json:
        for event in events:
            typer.echo(json.dumps(plain_event(event)))
        return
    show_run(row, events)
    if held_up:
        console().print(f"\n{clean(held_up)}", style="yellow")


@app.command()
def cancel(run_id: RunId, url: Url = None) -> None:
    """Ask a run to stop; effects under way are finished first."""
    with store(url) as rt:
        rt.sync(rt.cancel(run_id, by="terminal"))
        row = _settled(rt, run_id)
    if row.status in ENDS:
        typer.echo(f"{run_id} is {row.status} ({row.reason}).")
        return
    typer.echo(
        f"{run_id} will stop once a process that has {row.pattern!r} executes it "
        "(`roadworthy serve FILE`)."
    )


@app.command()
def resume(
    run_id: RunId,
    dollars: Annotated[
        str | None, typer.Option("--usd", metavar="N", help="Raise the run's own limit to this.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--file", help="The agent's file: go on here, when nobody serves it."),
    ] = None,
    url: Url = None,
) -> None:
    """Go on with a run that a limit or a budget ended."""
    screen = Screen()
    with find(target).rt if target is not None else store(url, execute=True) as rt:
        recorded = rt.sync(rt.record(run_id))
        limits = None
        if dollars is not None:
            limits = dataclasses.replace(limits_of(recorded), usd=dollars)
        try:
            rt.sync(rt.resume(run_id, limits=limits))
        except PatternUnknown as error:
            raise ConfigurationError(
                f"No process executes the runs of {rt.url} just now. Name the agent's file with "
                "--file, or begin `roadworthy serve FILE` first."
            ) from error
        screen.after[run_id] = recorded[-1].seq
        result = follow(rt, run_id, screen)
    console(error=True).print(status_line(result), style="bold")
    raise typer.Exit(EXIT[result.status])


@app.command()
def undo(
    run_id: RunId,
    target: Annotated[
        str, typer.Option("--file", help="The agent's file: its tools say how it is done.")
    ],
) -> None:
    """Take back what a run did that is over, newest first."""
    screen = Screen()
    with find(target).rt as rt:
        result = follow(rt, rt.sync(rt.undo(run_id, by="terminal")), screen)
    console(error=True).print(status_line(result), style="bold")
    raise typer.Exit(EXIT[result.status])


def store(url: str | None, *, execute: bool = False) -> Runtime:
    """A runtime that only looks and leaves commands: it knows no agents.

    execute: stand in for the process that executes runs, to learn that there is none.
    """
    rt = Runtime(url, execute=execute)
    if rt.url.startswith("sqlite:///") and not Path(rt.url.removeprefix("sqlite:///")).is_file():
        raise ConfigurationError(f"There is no store at {rt.url}. Name it with --url.")
    return rt


def _settled(rt: Runtime, run_id: str) -> RunRow:
    """The run once its owner has acted, or after a moment when nobody does."""
    until = time.monotonic() + _PATIENCE
    while True:
        row = rt.sync(rt.find(run_id))
        if row.status in (*ENDS, "waiting") or time.monotonic() > until:
            return row
        time.sleep(0.05)


def _table(rows: list[RunRow]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    widest = max(len(row.id) for row in rows)
    table.add_column("run", no_wrap=True, min_width=widest)  # whole: it is copied
    for name in ("when", "agent", "user", "status", "reason"):
        table.add_column(name, no_wrap=name != "when")
    for name in ("cost", "tokens"):
        table.add_column(name, justify="right", no_wrap=True, min_width=6)
    for row in rows:
        colour = COLOURS.get(row.status, "cyan")
        table.add_row(
            row.id,
            when(row.created_at),
            row.pattern,
            clean(row.user),
            f"{row.status}",
            row.reason,
            usd(row.nanos),
            f"{row.input_tokens + row.output_tokens:,}",
            style=None if row.status == "completed" else colour,
        )
    return table

"""`roadworthy schedules`: list and remove what is started by the clock."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.table import Table

from roadworthy.cli.runs import AsJson, Url, store
from roadworthy.cli.screen import clean, console, when

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="List schedules, or remove one.",
)


@app.command("list")
def list_schedules(url: Url = None, as_json: AsJson = False) -> None:  # noqa: FBT002 - an option
    """Every schedule. Times are UTC in its cron fields, local in the others."""
    with store(url) as rt:
        found = rt.sync(rt.schedules())
    if as_json:
        for schedule in found:
            typer.echo(json.dumps(dataclasses.asdict(schedule)))
        return
    if not found:
        typer.echo("No schedule yet.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "cron (UTC)", "agent", "user", "next", "last", "last run"):
        table.add_column(name, no_wrap=True)
    for each in found:
        table.add_row(
            clean(each.name),
            each.cron,
            each.pattern,
            clean(each.user),
            when(each.next_at),
            "" if each.last_at is None else when(each.last_at),
            each.last_run or "",
        )
    console().print(table)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="As the list shows it.")], url: Url = None
) -> None:
    """Start no further run. One that was started goes on."""
    with store(url) as rt:
        gone = rt.sync(rt.unschedule(name))
    typer.echo(f"{name} is removed." if gone else f"There is no schedule {name}.", err=not gone)
    raise typer.Exit(0 if gone else 1)

"""`roadworthy workers`: who executes runs, how far behind they are, and how to send one home."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Annotated

import typer
from rich.table import Table

from roadworthy.cli.screen import console
from roadworthy.engine.jobs import Health, Worker
from roadworthy.errors import ConfigurationError
from roadworthy.runtime import Runtime

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="List the processes that execute runs, or have one drain.",
)
Url = Annotated[str | None, typer.Option(help="The store, default ROADWORTHY_URL.")]


@app.command("list")
def list_workers(
    url: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,  # noqa: FBT002
) -> None:
    """Workers that live, queues with their lag, and what somebody should look at."""
    workers, health = asyncio.run(_look(url))
    if as_json:
        alive = [dataclasses.asdict(each) for each in workers]
        plain = dataclasses.asdict(health) | {"workers": alive}
        typer.echo(json.dumps(plain, default=str))
        return
    out = console()
    out.print(_workers(workers) if workers else "No worker lives.")
    out.print(_queues(health))
    for alarm in health.alarms:
        out.print(f"! {alarm}", style="yellow")


@app.command()
def drain(worker: Annotated[str, typer.Argument(metavar="WORKER")], url: Url = None) -> None:
    """Have a worker finish or hand over what it executes, and end."""
    if not asyncio.run(_ask(url, worker)):
        raise ConfigurationError(f"No worker {worker!r} lives. `roadworthy workers list` shows.")
    typer.echo(f"{worker} drains.")


async def _look(url: str | None) -> tuple[list[Worker], Health]:
    async with Runtime(url, execute=False) as rt:
        health = await rt.crew.health()
        if health is None:
            raise ConfigurationError(
                f"{rt.url} has no workers: one process executes its runs. Postgres has."
            )
        return list(await rt.crew.workers()), health


async def _ask(url: str | None, worker: str) -> bool:
    async with Runtime(url, execute=False) as rt:
        return await rt.crew.ask_to_drain(worker)


def _workers(workers: list[Worker]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("worker", "host", "pid", "queues", "state", "since", "lease left"):
        table.add_column(name, no_wrap=True)
    for each in workers:
        table.add_row(
            each.id,
            each.host,
            str(each.pid),
            " ".join(each.queues),
            "draining" if each.draining else "working",
            f"{each.started_at:%Y-%m-%d %H:%M:%S}",
            f"{each.lease_left:.1f} s",
        )
    return table


def _queues(health: Health) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("queue")
    for name in ("waiting", "executing", "lag", "stranded"):
        table.add_column(name, justify="right")
    for queue in health.queues:
        table.add_row(
            queue.queue,
            f"{queue.waiting:,}",
            f"{queue.executing:,}",
            f"{queue.lag:.1f} s",
            f"{queue.stranded:,}",
        )
    return table

"""`roadworthy worker FILE`: execute runs until SIGTERM, beside any number of other workers.

Invariant: it ends with nothing in its hands. What it does not finish goes on elsewhere.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Annotated

import typer

from roadworthy.cli.finding import find
from roadworthy.clock import SystemClock
from roadworthy.errors import StoreUnavailable
from roadworthy.runtime import Runtime

_PATIENCE, _PAUSE = 60.0, 1.0  # seconds
app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def worker(
    target: Annotated[str, typer.Argument(metavar="FILE_OR_MODULE")],
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; the last worker to begin sets it.")
    ] = None,
    drain_seconds: Annotated[
        float | None, typer.Option(min=0, help="How long runs may take to finish at the end.")
    ] = None,
    queues: Annotated[
        str, typer.Option(help="What it takes: turns, children, timers; default all.")
    ] = "",
    lease: Annotated[
        float | None, typer.Option(help="Seconds of silence after which others take over.")
    ] = None,
) -> None:
    """Execute the runs of a file's agents. SIGTERM or Ctrl+C drains it; twice: at once."""
    rt = find(target).rt
    rt.execute = True
    rt.engine = rt.engine.adjusted(
        lease=lease,
        concurrency=concurrency,
        drain=drain_seconds,
        roles=[name.strip() for name in queues.split(",") if name.strip()],
    )
    asyncio.run(_work(rt))


async def _open(rt: Runtime, stack: AsyncExitStack) -> None:
    """A server that is just restarting is waited for. Raises: StoreError: it stays away."""
    clock = SystemClock()
    until = clock.monotonic() + _PATIENCE
    while True:
        try:
            await stack.enter_async_context(rt)
        except StoreUnavailable as error:
            if clock.monotonic() > until:
                raise
            typer.echo(f"the store is waited for: {error}", err=True)
            await clock.sleep(_PAUSE)
        else:
            return


async def _work(rt: Runtime) -> None:
    loop, asked = asyncio.get_running_loop(), asyncio.Queue[str]()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.put_nowait, number.name)
    async with AsyncExitStack() as stack:
        await _open(rt, stack)
        names = ", ".join(sorted(agent.name for agent in rt.patterns))
        typer.echo(f"ready: {names}", err=True)
        signalled = loop.create_task(asked.get())
        drained = loop.create_task(rt.crew.drained.wait())  # `roadworthy workers drain`
        await asyncio.wait({signalled, drained}, return_when=asyncio.FIRST_COMPLETED)
        if signalled.done():
            said = f"draining: runs have {rt.engine.drain:g} s to finish; once more ends it at once"
            typer.echo(f"{signalled.result()}: {said}", err=True)
            again = loop.create_task(asked.get())
            draining = loop.create_task(rt.crew.drain(rt.engine.drain))
            await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
            if not draining.done():
                await rt.crew.drain(0)
    typer.echo("ended", err=True)

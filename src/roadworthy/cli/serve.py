"""`roadworthy serve FILE`: the API and its page over a file's agents, until Ctrl+C."""

from __future__ import annotations

from typing import Annotated

import typer
import uvicorn

from roadworthy.api import create_app
from roadworthy.api.door import LOOPBACK
from roadworthy.cli.binding import address, bound, is_loopback
from roadworthy.cli.finding import find
from roadworthy.cli.screen import console

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_GRACE_SECONDS = 3


@app.command()
def serve(
    target: Annotated[str, typer.Argument(metavar="FILE_OR_MODULE")],
    host: Annotated[str, typer.Option(help="The address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free port.")] = 8080,
    work: Annotated[  # noqa: FBT002 - an option
        bool,
        typer.Option("--work/--no-work", help="Also execute runs; else workers do (Postgres)."),
    ] = True,
) -> None:
    """Serve a file's agents over HTTP, with a page to watch them. Ctrl+C ends it."""
    found = find(target)
    found.rt.execute = work
    local = is_loopback(host)
    served = create_app(found.rt, tuple(found.agents.values()), hosts=LOOPBACK if local else None)
    sock = bound(host, port)
    err = console(error=True)
    if not local:
        err.print(
            f"Warning: {host} can be reached by others, and there is no sign-in. Whoever reaches "
            "it can run and approve anything. Put your own sign-in in front.",
            style="yellow",
        )
    url = f"{address(host, sock)}/"
    err.print(f"{', '.join(sorted(found.agents))} at {url}  (Ctrl+C ends)", style="bold")
    config = uvicorn.Config(
        served,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,  # open streams would hold it up
        server_header=False,
    )
    try:
        uvicorn.Server(config).run(sockets=[sock])
    except KeyboardInterrupt:
        err.print("Ended; unfinished runs go on next time.", style="bright_black")

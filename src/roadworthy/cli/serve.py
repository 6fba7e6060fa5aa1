"""`roadworthy serve FILE`: the API and the console over a file's agents, until Ctrl+C."""

from __future__ import annotations

from typing import Annotated

import typer
import uvicorn

from roadworthy.api import create_app
from roadworthy.api.door import LOOPBACK
from roadworthy.cli.binding import address, bound, is_loopback
from roadworthy.cli.finding import find
from roadworthy.cli.screen import console
from roadworthy.console import SignIn
from roadworthy.errors import ConfigurationError

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
    """Serve a file's agents over HTTP, with a console and a chat page each. Ctrl+C ends it."""
    found = find(target)
    found.rt.execute = work
    local = is_loopback(host)
    sign_in = found.sign_in
    if sign_in is not None and not isinstance(sign_in, SignIn):
        raise ConfigurationError(
            f"{target}: sign_in is {type(sign_in).__name__}; it needs "
            "`async def operator(request)`, as roadworthy.console.Tokens({...}) has."
        )
    served = create_app(
        found.rt,
        tuple(found.agents.values()),
        hosts=LOOPBACK if local else None,
        sign_in=sign_in,
    )
    sock = bound(host, port)
    err = console(error=True)
    if not local:
        err.print(
            f"Warning: {host} can be reached by others, and /v1 has no sign-in: whoever reaches it "
            "can run and approve anything. Put your own in front. The console asks "
            + (
                "as sign_in says." if sign_in is not None else "nobody in: the file has no sign_in."
            ),
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

"""`roadworthy replay RUN_ID FILE`: re-execute from the journal, no model and no tool is called."""

from __future__ import annotations

from typing import Annotated

import typer

from roadworthy.cli.finding import find
from roadworthy.cli.screen import clean, console

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def replay(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID")],
    target: Annotated[str, typer.Argument(metavar="FILE_OR_MODULE")],
) -> None:
    """Re-execute a recorded run without any call; say what would differ.

    Exit codes: 0 the same, 1 it would differ, 2 wrong usage or setup.
    """
    found = find(target).rt
    found.execute = False  # looking must not go on with what is unfinished
    with found as rt:
        replayed = rt.sync(rt.replay(run_id))
    if not replayed.differences:
        typer.echo(f"{run_id}: the same, step for step.")
        return
    out = console()
    out.print(f"{run_id} would differ:", style="yellow")
    for difference in replayed.differences:
        out.print(f"  {clean(difference)}")
    raise typer.Exit(1)

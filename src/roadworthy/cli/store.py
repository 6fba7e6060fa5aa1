"""`roadworthy store`: move a store to another database."""

from __future__ import annotations

from typing import Annotated

import typer

from roadworthy.store.copying import copy_store
from roadworthy.store.opening import open_database

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Move a store to another database.",
)


@app.callback()
def _group() -> None:
    """Keeps `copy` a command of its own name."""


@app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="sqlite:///runs.db")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="postgresql://user@host/name")],
) -> None:
    """Copy everything to an empty store and compare. Cut off, it goes on when called again.

    Stop the processes that use the source first; afterwards give them the target's address.
    """
    copied = copy_store(open_database(source), open_database(target), typer.echo)
    for name, digest in copied.tables.items():
        typer.echo(f"{name}: {digest.rows:,} rows, equal ({digest.hash[:12]})")
    typer.echo("Copied. Runs go on where a process opens the target.")

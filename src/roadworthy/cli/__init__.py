"""The command line: `roadworthy run`, `chat`, `runs`, `replay`, `store`, `worker`, `serve`, ...

The table below loads a command's module when it is called, so that `--help` is quick. Exit codes:
0 completed, 1 failed or stopped, 2 wrong usage or setup, 3 waiting for a person, 4 partial.
Invariant: no traceback, unless ROADWORTHY_LOG=debug.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup

from roadworthy import errors

_EXTRAS = {
    "fastapi": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "mcp": "mcp",
    "mcp_types": "mcp",
    "httpx2": "mcp",
}
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "run": ("run", "Run an agent of a file once and print its answer."),
    "chat": ("chat", "Talk to an agent of a file in the terminal."),
    "check": ("check", "Check the tools of a file's agents; say what a model will trip over."),
    "runs": ("runs", "List runs, show one, cancel or resume it."),
    "inbox": ("inbox", "What waits for a person: look, take over, speak, decide, hand back."),
    "schedules": ("schedules", "List the schedules, or remove one."),
    "feedback": ("feedback", "Export what people said of runs, as cases for evals."),
    "replay": ("replay", "Re-execute a recorded run without any call; say what would differ."),
    "worker": ("worker", "Execute the runs of a Postgres store, beside any number of others."),
    "workers": ("workers", "List the processes that execute runs, or have one drain."),
    "store": ("store", "Copy a store to another database."),
    "doctor": ("doctor", "Say whether a deployment is fit, and what to mend."),
    "mcp": ("mcp", "Serve a file's agents to MCP clients, over stdio or HTTP."),
    "pin": ("pin", "Show what the MCP servers of a file's agents offer, and accept it."),
    "serve": ("serve", "Serve a file's agents over HTTP, with a page to watch them."),
}
_EPILOG = (
    "Exit codes: 0 completed, 1 failed or stopped, 2 wrong usage or setup, 3 waiting for a person, "
    "4 partial. ROADWORTHY_URL names the store, ROADWORTHY_LOG=debug shows what happens."
)


class _Commands(TyperGroup):
    """The commands by name; the module of one is imported when it is called."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Their names."""
        return list(_COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> TyperCommand | None:  # type: ignore[override]
        """What help shows of one."""
        found = _COMMANDS.get(cmd_name)
        return None if found is None else TyperCommand(cmd_name, help=found[1])

    def resolve_command(self, ctx, args):  # type: ignore[no-untyped-def]
        """The one that is called, loaded."""
        name, known, rest = super().resolve_command(ctx, args)
        if known is not None and name is not None:
            module = importlib.import_module(f"roadworthy.cli.{_COMMANDS[name][0]}")
            known = typer.main.get_command(module.app)
            known.name = name
        return name, known, rest


app = typer.Typer(
    cls=_Commands,
    help="The runtime that makes AI agents fit for production.",
    epilog=_EPILOG,
    rich_markup_mode=None,  # rich takes as long to load as all the rest
    add_completion=False,
    no_args_is_help=True,
)


def _version(value: bool) -> None:  # noqa: FBT001 - called by typer
    if value:
        typer.echo(f"roadworthy {importlib.import_module('roadworthy').__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def main() -> None:
    """The entry point `roadworthy`."""
    debug = os.environ.get("ROADWORTHY_LOG", "").lower() == "debug"
    try:
        typer.main.get_command(app).main(prog_name="roadworthy")
    except errors.RoadworthyError as error:
        if debug:
            raise
        _fail(str(error), 1 if isinstance(error, errors.StoreError) else 2)
    except ImportError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if debug or extra is None:
            raise
        _fail(f"This needs the extra `{extra}`. Mend: pip install 'roadworthy[{extra}]'", 2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # border: the terminal
        if debug:
            raise
        hint = "This should not happen. ROADWORTHY_LOG=debug shows the traceback."
        _fail(f"{type(error).__name__}: {error}\n{hint}", 1)


def _fail(message: str, code: int) -> None:
    typer.echo(f"Error: {message}", err=True)
    sys.exit(code)

"""`roadworthy doctor [FILE]`: is this deployment fit? What is wrong, and what to do about it.

Exit code 0: fit, 1: something failed, 0 with warnings otherwise.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Annotated

import typer

from roadworthy.checkup import Finding
from roadworthy.cli.finding import find
from roadworthy.cli.screen import console
from roadworthy.errors import RoadworthyError
from roadworthy.runtime import Runtime

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_MARKS = {"ok": ("ok", "green"), "warning": ("!!", "yellow"), "failure": ("XX", "red")}


@app.command()
def doctor(
    target: Annotated[
        str | None, typer.Argument(metavar="[FILE_OR_MODULE]", help="Whose agents to look for.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The store, default ROADWORTHY_URL.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,  # noqa: FBT002
) -> None:
    """Look at the store, the workers, the queues and the live streams; say what to mend."""
    rt = Runtime(url, execute=False) if target is None else find(target).rt
    rt.execute = False
    findings = asyncio.run(_look(rt))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        out = console()
        for finding in findings:
            mark, style = _MARKS[finding.level]
            out.print(f"{mark} ", style=style, end="")
            out.print(finding.what + (f"\n   {finding.mend}" if finding.mend else ""))
    if any(finding.level == "failure" for finding in findings):
        raise typer.Exit(1)


async def _look(rt: Runtime) -> list[Finding]:
    try:
        async with rt:
            return [Finding(level="ok", what=f"{rt.url} opens"), *await rt.crew.checkup()]
    except RoadworthyError as error:
        return [Finding(level="failure", what=str(error), mend=error.mend)]

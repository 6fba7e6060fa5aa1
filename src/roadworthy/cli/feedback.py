"""`roadworthy feedback`: what users and operators said of runs, as labelled cases."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from roadworthy.cli.runs import Url, store

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Export what people said of runs.",
)


@app.callback()
def _root() -> None:
    """Export what people said of runs."""


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="A file to write, JSON lines.")],
    url: Url = None,
) -> None:
    """One case a line, of runs that somebody consented to: asked, answered, tools, label, what
    would have been right. In the words that are stored: without a privacy those are clear."""
    with store(url) as rt:
        found = rt.sync(rt.cases())
    lines = (json.dumps(dataclasses.asdict(case), ensure_ascii=False) for case in found)
    output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    typer.echo(f"{len(found)} cases in {output}")

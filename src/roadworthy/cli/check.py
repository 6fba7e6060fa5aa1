"""`roadworthy check FILE`: are the tools of its agents ones that a model can use rightly?

Exit code 0: no errors (with --strict: nor warnings), 1: some, 2: the file cannot be loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from roadworthy.agent import Agent
from roadworthy.cli.finding import find
from roadworthy.cli.screen import clean
from roadworthy.tools.lint import Finding, lint

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def check(
    target: Annotated[str, typer.Argument(metavar="FILE_OR_MODULE", help="Whose agents to check.")],
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check the tools of a file's agents: descriptions, parameters, effects, look-alikes.

    Nothing is run and nothing is called. Exit codes: 0 no errors, 1 errors (or, with --strict,
    warnings), 2 the file cannot be loaded.
    """
    agents = find(target).agents
    found = {name: lint([*agent.toolbelt.values()]) for name, agent in agents.items()}
    every = [finding for findings in found.values() for finding in findings]
    errors = sum(finding.level == "error" for finding in every)
    if as_json:
        rows = [asdict(f) | {"agent": name} for name, findings in found.items() for f in findings]
        counts = {"errors": errors, "warnings": len(every) - errors}
        typer.echo(json.dumps({"findings": rows, **counts}, ensure_ascii=False))
    else:
        for name, findings in found.items():
            _show(agents[name], findings)
        typer.echo(f"{_count(errors, 'error')}, {_count(len(every) - errors, 'warning')}")
    if errors or (strict and every):
        raise typer.Exit(1)


def _show(agent: Agent[Any, Any], findings: Sequence[Finding]) -> None:
    tools = agent.toolbelt
    typer.echo(clean(f"{agent.name}: {_count(len(tools), 'tool')}{_effects(agent)}"))
    for finding in findings:
        mark = "error  " if finding.level == "error" else "warning"
        typer.echo(clean(f"  {mark} {finding.what} [{finding.code}]"))
        typer.echo(clean(f"          {finding.mend}"))
    unopened = _listed(f"{each.name!r}" for each in agent.toolsets)
    if unopened:
        typer.echo(clean(f"  not checked: the tools of {unopened}, known once they are opened"))
    if not findings and tools:
        typer.echo("  ok")


def _effects(agent: Agent[Any, Any]) -> str:
    """What the tools may do to the world, which is worth a look at each check."""
    kinds = [tool.effect for tool in agent.toolbelt.values()]
    said = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
    return f" ({_listed(said)})" if said else ""


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

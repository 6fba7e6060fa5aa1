"""`roadworthy run FILE "input"`: one request to one agent, the answer on stdout."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from roadworthy.agent import Agent
from roadworthy.cli.finding import Found, find
from roadworthy.cli.following import follow
from roadworthy.cli.screen import EXIT, Screen, console, status_line
from roadworthy.context import User
from roadworthy.result import RunResult
from roadworthy.trace import plain_json

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def run(  # noqa: PLR0913 - one per option
    target: Annotated[str, typer.Argument(metavar="FILE_OR_MODULE")],
    text: Annotated[str, typer.Argument(metavar="INPUT")],
    agent: Annotated[str | None, typer.Option(help="Which agent, when there are several.")] = None,
    user: Annotated[str, typer.Option(help="On whose authority it acts.")] = "anonymous",
    tenant: Annotated[str, typer.Option(help="The user's tenant.")] = "",
    conversation: Annotated[
        str | None, typer.Option(help="Continue this conversation; its history is loaded.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The same key again is the same run, not another.")
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object.")
    ] = False,
) -> None:
    """Run an agent of a file once and print its answer.

    The answer goes to stdout, progress and the status line to stderr. Exit codes: 0 completed,
    1 failed or stopped, 2 wrong usage or setup, 3 waiting for a person, 4 partial.
    """
    found = find(target)
    chosen = found.agent(agent)
    request = _Request(chosen, text, User(user, tenant), conversation, key)
    result = _quietly(found, request) if as_json else _shown(found, request)
    raise typer.Exit(EXIT[result.status])


class _Request:
    def __init__(
        self,
        agent: Agent[Any, Any],
        text: str,
        user: User,
        conversation: str | None,
        key: str | None,
    ) -> None:
        self.agent, self.text, self.user = agent, text, user
        self.conversation, self.key = conversation, key


def _quietly(found: Found, asked: _Request) -> RunResult[Any]:
    with found.rt as rt:
        result = rt.run_sync(
            asked.agent,
            asked.text,
            user=asked.user,
            conversation=asked.conversation,
            key=asked.key,
        )
    typer.echo(json.dumps(plain_json(result)))
    return result


def _shown(found: Found, asked: _Request) -> RunResult[Any]:
    screen = Screen()
    with found.rt as rt:
        run_id = rt.sync(
            rt.start(
                asked.agent,
                asked.text,
                user=asked.user,
                conversation=asked.conversation,
                key=asked.key,
            )
        )
        result = follow(rt, run_id, screen)
    if result.status == "waiting":
        _tell_waiting(result)
    console(error=True).print(status_line(result), style="bold")
    return result


def _tell_waiting(result: RunResult[Any]) -> None:
    err = console(error=True)
    for approval in result.waiting:
        arguments = json.dumps(plain_json(approval.arguments))
        err.print(f"waits for {approval.asks}: {approval.tool} {arguments}", style="yellow")
        err.print(f"  decide it: POST /v1/approvals/{approval.id} of `roadworthy serve`")
    if result.question:
        err.print("answer it: run again with the same --conversation", style="yellow")

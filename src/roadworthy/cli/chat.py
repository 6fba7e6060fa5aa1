"""`roadworthy chat FILE`: a conversation in the terminal, approvals and questions included.

Invariant: leaving at any moment loses nothing; what waits can be decided later.
"""

from __future__ import annotations

import getpass
import json
import secrets
from typing import Annotated, Any

import typer

from roadworthy.agent import Agent
from roadworthy.cli.finding import find
from roadworthy.cli.following import follow
from roadworthy.cli.screen import Screen, clean, console, status_line
from roadworthy.context import User
from roadworthy.errors import RunError
from roadworthy.messages import Json
from roadworthy.result import Approval, Decision
from roadworthy.runtime import Runtime
from roadworthy.trace import plain_json

app = typer.Typer(rich_markup_mode=None, add_completion=False)
_LETTERS: dict[str, Decision] = {"a": "approve", "e": "edit", "r": "reject", "s": "respond"}
_DECISIONS: dict[str, Decision] = _LETTERS | {word: word for word in _LETTERS.values()}
_TITLES = {
    "approval": "This call waits for you:",
    "unknown_outcome": "Did this happen?",
    "failure": "This failed. Approve to try it again, respond with its result, reject to leave it:",
    "version": "The agent changed while this was under way. Approve to go on, reject to stop.",
}


@app.command()
def chat(
    target: Annotated[str, typer.Argument(metavar="FILE_OR_MODULE")],
    agent: Annotated[str | None, typer.Option(help="Which agent, when there are several.")] = None,
    user: Annotated[str, typer.Option(help="On whose authority it acts.")] = "anonymous",
    tenant: Annotated[str, typer.Option(help="The user's tenant.")] = "",
    conversation: Annotated[str | None, typer.Option(help="Continue this conversation.")] = None,
) -> None:
    """Talk to an agent of a file in the terminal.

    Ctrl+C cancels the answer under way, twice leaves; so do Ctrl+D and /quit at the prompt.
    """
    found = find(target)
    chosen = found.agent(agent)
    with found.rt as rt:
        talk = _Talk(rt, chosen, User(user, tenant), conversation or f"chat-{secrets.token_hex(4)}")
        talk.go()


class _Talk:
    def __init__(self, rt: Runtime, agent: Agent[Any, Any], user: User, conversation: str) -> None:
        self.rt, self.agent, self.user, self.conversation = rt, agent, user, conversation
        self.screen = Screen()
        self.err = console(error=True)
        self.last: str | None = None

    def go(self) -> None:
        """Until the user leaves."""
        self.err.print(f"{self.agent.name} · conversation {self.conversation}", style="bold")
        self.err.print("Ctrl+C cancels an answer, twice leaves.", style="bright_black")
        try:
            while (line := self._line("you> ")) is not None:
                if line.strip() in ("/quit", "/exit"):
                    break
                if line.strip():
                    self._answer(line)
        except (KeyboardInterrupt, EOFError):
            self.screen.end_line()
        finally:
            self._say_where_to_look()

    def _line(self, prompt: str) -> str | None:
        """A line of the user, None at the end of input. Ctrl+C once only clears the line."""
        for last in (False, True):
            try:
                return input(prompt)
            except EOFError:
                print()  # noqa: T201 - ends the prompt's line
                return None
            except KeyboardInterrupt:
                if last:
                    raise
                self.err.print("\nCtrl+C again leaves.", style="bright_black")
        return None

    def _answer(self, line: str) -> None:
        try:
            self.last = self.rt.sync(
                self.rt.start(self.agent, line, user=self.user, conversation=self.conversation)
            )
        except RunError as error:
            self.err.print(str(error), style="red")
            return
        result = follow(self.rt, self.last, self.screen)
        for number, choice in enumerate(result.choices, 1):
            self.err.print(f"  {number}  {clean(choice)}")
        while result.waiting:
            for approval in result.waiting:
                self._decide(approval)
            result = follow(self.rt, self.last, self.screen)
        self.err.print(status_line(result), style="bright_black")

    # --- approvals ---------------------------------------------------------------------------

    def _decide(self, approval: Approval) -> None:
        """Ask until the runtime takes the decision."""
        arguments = json.dumps(plain_json(approval.arguments), indent=2, ensure_ascii=False)
        self.err.print(f"{_TITLES[approval.kind]} {approval.tool}".rstrip(), style="bold yellow")
        self.err.print(clean(arguments))
        self.err.print(clean(approval.reason), style="bright_black")
        while True:
            chosen = self._ask("[a]pprove, [e]dit, [r]eject, re[s]pond> ").strip().lower()
            decision = _DECISIONS.get(chosen)
            if decision is None:
                continue
            try:
                self._resolve(approval, decision)
            except (RunError, ValueError) as error:
                self.err.print(f"Not taken: {error}", style="red")
            else:
                return

    def _resolve(self, approval: Approval, decision: Decision) -> None:
        edited: dict[str, Json] | None = None
        note = ""
        if decision == "edit":
            edited = json.loads(self._ask("new arguments as JSON> "))
            if not isinstance(edited, dict):
                raise ValueError("the arguments are a JSON object")
        elif decision == "respond":
            note = self._ask("the result to give the agent> ")
        elif decision == "reject":
            note = self._ask("why (may be empty)> ")
        self.rt.sync(self.rt.resolve(approval.id, decision, by=_me(), arguments=edited, note=note))

    def _ask(self, prompt: str) -> str:
        line = self._line(prompt)
        if line is None:
            raise EOFError
        return line

    def _say_where_to_look(self) -> None:
        if self.last is not None:
            self.err.print(
                f"Look at the last run: roadworthy runs show {self.last} --url {self.rt.url}",
                style="bright_black",
            )


def _me() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "terminal"

"""The inbox as a talk in the terminal: pick one, read it, write to the user, decide, hand back.

`roadworthy inbox FILE` opens it. Invariant: what begins with / is for us, the rest for the user.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from roadworthy.cli.inbox_showing import listing, plain, show_packet, spoken
from roadworthy.cli.screen import clean, console
from roadworthy.clock import SystemClock
from roadworthy.context import User
from roadworthy.errors import RunError
from roadworthy.escalation.views import Escalation
from roadworthy.messages import Json
from roadworthy.packet import Line, Packet
from roadworthy.result import Decision
from roadworthy.runtime import Runtime

_HELP = (
    "What you type goes to the user. /take · /note WORDS · /draft [WISH] · "
    "/approve [N] · /edit [N] name=value ... · /reject [N] [WHY] · /respond [N] RESULT · "
    "/back [INSTRUCTION] · /close [HOW] · /show · /list"
)
_DECISIONS: Mapping[str, Decision] = {
    "/approve": "approve",
    "/edit": "edit",
    "/reject": "reject",
    "/respond": "respond",
}


def pick(rt: Runtime, wanted: str) -> Escalation:
    """The one with this id, or the only open one that ends so. Raises: RunError."""
    items = rt.sync(rt.inbox.list())
    found = [item for item in items if item.id.endswith(wanted)] if len(wanted) > 3 else []
    if len(found) > 1:
        raise RunError(f"Several end in {wanted!r}. Give more of the id.")
    return found[0] if found else rt.sync(rt.inbox.get(wanted))


def decided(
    rt: Runtime, packet: Packet, decision: Decision, words: Sequence[str], which: tuple[int, str]
) -> str:
    """Decide a waiting call. which: (its number, who decides). Raises: RunError."""
    number, by = which
    if not 1 <= number <= len(packet.pending):
        raise RunError("No call waits here." if not packet.pending else "No call of that number.")
    approval = packet.pending[number - 1]
    arguments: dict[str, Json] | None = None
    if decision == "edit":
        schema = packet.schemas.get(approval.tool, {})
        arguments = {**approval.arguments, **edited(words, approval.arguments, schema)}
    note = "" if decision == "edit" else " ".join(words)
    rt.sync(rt.inbox.decide(approval.id, decision, by, arguments=arguments, note=note))
    told = {"approve": "Approved", "edit": "Approved as edited", "reject": "Rejected"}
    what = f": {plain(arguments)}" if arguments is not None else ""
    return clean(f"{told.get(decision, 'Answered')}{what}.")


def edited(
    words: Sequence[str], known: Mapping[str, Any], schema: Mapping[str, Any]
) -> dict[str, Json]:
    """`name=value` each; a value is text, or what the tool's schema wants. Raises: RunError."""
    found: dict[str, Json] = {}
    properties = schema.get("properties", {})
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in {*known, *properties}:
            names = ", ".join(sorted({*known, *properties}))
            raise RunError(f"{word!r}: write name=value; the names are {names}.")
        kind = properties.get(name, {}).get("type")
        text = kind == "string" or (kind is None and isinstance(known.get(name), str))
        found[name] = value if text else _value(value)
    return found


def _value(text: str) -> Json:
    try:
        found: Json = json.loads({"yes": "true", "no": "false", "none": "null"}.get(text, text))
    except ValueError:
        return text
    return found


class InboxTalk:
    """One operator at one terminal."""

    def __init__(self, rt: Runtime, by: str) -> None:
        self.rt, self.by, self.out = rt, by, console()
        self._prompt = ""

    def go(self) -> None:
        """List, pick, talk, until the operator leaves."""
        try:
            while True:
                items = self.rt.sync(self.rt.inbox.list())
                if items:
                    self.out.print(listing(items, SystemClock().now()))
                else:
                    self.out.print("Nothing waits for a person.")
                line = self._line("number, Enter looks again, /quit> ").strip()
                if line in ("/quit", "/exit"):
                    return
                if line.isdecimal() and 1 <= int(line) <= len(items):
                    self._open(items[int(line) - 1])
        except (KeyboardInterrupt, EOFError):
            self.out.print()

    def _open(self, item: Escalation) -> None:
        """One escalation, live, until it is done or left."""
        packet = self._show(item.id)
        self.out.print(f"\n{_HELP}", style="bright_black")
        watching = self.rt.sync(
            self._watch(item, max((line.n for line in packet.conversation), default=0))
        )
        try:
            while True:
                line = self._line(f"{clean(item.user)}> ").strip()
                if line == "/list":
                    return
                try:
                    if line and self._act(item.id, line):
                        return
                except RunError as error:
                    self.out.print(f"Not done: {clean(str(error))}", style="red")
        finally:
            self.rt.sync(_stop(watching))

    def _act(self, item: str, line: str) -> bool:
        """Do what a line says. True: it is done with."""
        word, _, rest = line.partition(" ")
        inbox, rest = self.rt.inbox, rest.strip()
        if not line.startswith("/"):
            self.rt.sync(inbox.say(item, line, self.by))
        elif word in _DECISIONS:
            self._decide(item, _DECISIONS[word], rest.split())
        elif word == "/take":
            self.rt.sync(inbox.take(item, self.by))
            self.out.print("It is yours; the agent is silent.", style="green")
        elif word == "/note":
            self.rt.sync(inbox.note(item, rest, self.by))
        elif word == "/draft":
            text = self.rt.sync(inbox.draft(item, self.by, wish=rest))
            self.out.print(f"A draft nobody has seen: {clean(text)}", style="cyan")
        elif word == "/show":
            self._show(item)
        else:
            return self._end(item, word, rest)
        return False

    def _end(self, item: str, word: str, rest: str) -> bool:
        inbox = self.rt.inbox
        if word == "/back":
            self.rt.sync(inbox.hand_back(item, self.by, instruction=rest))
            self.out.print("The agent has the conversation again.", style="green")
        elif word == "/close":
            self.rt.sync(inbox.close(item, self.by, resolution=rest))
            self.out.print("Closed.", style="green")
        else:
            self.out.print(_HELP, style="bright_black")
            return False
        return True

    def _decide(self, item: str, decision: Decision, words: list[str]) -> None:
        number = int(words.pop(0)) if words and words[0].isdecimal() else 1
        packet = self.rt.sync(self.rt.inbox.packet(item))
        done = decided(self.rt, packet, decision, words, (number, self.by))
        self.out.print(done, style="green")

    def _show(self, item: str) -> Packet:
        packet = self.rt.sync(self.rt.inbox.packet(item))
        show_packet(self.out, packet, SystemClock().now())
        return packet

    async def _watch(self, item: Escalation, shown: int) -> asyncio.Task[None] | None:
        """Begin to show what is said from now on."""
        if item.conversation is None:
            return None
        who = User(item.user, item.tenant)

        async def watch() -> None:
            async for one in self.rt.listen(item.conversation or "", user=who, after=shown):
                if one.by != self.by:  # their own words stand there already
                    line = Line(who=one.who, text=one.text, at=one.at, by=one.by)
                    self.out.print(f"\n{clean(spoken(line))}\n{self._prompt}", end="")

        return asyncio.get_running_loop().create_task(watch())

    def _line(self, prompt: str) -> str:
        self._prompt = prompt
        return input(prompt)


async def _stop(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait([task])

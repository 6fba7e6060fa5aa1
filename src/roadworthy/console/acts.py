"""What operators do with a case: each a form of the inbox, each one call of `rt.inbox`.

Invariant: who acts is who is signed in, and a form sent twice acts once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, get_args
from urllib.parse import quote

from starlette.responses import PlainTextResponse, Response

from roadworthy.clock import MICROS
from roadworthy.console import forms, raising, words
from roadworthy.console.inbox import packet_of, people_of
from roadworthy.console.pages import HEADERS, Missing, Visit, base_of, seen_run
from roadworthy.errors import RunError
from roadworthy.packet import Packet
from roadworthy.people import People
from roadworthy.result import Decision

_MOST_TEXT = 20_000
_MOST_MINUTES = 366 * 24 * 60


@dataclass(frozen=True, kw_only=True)
class Act:
    """One form that was sent about one case."""

    visit: Visit
    packet: Packet
    said: Mapping[str, str]

    @property
    def id(self) -> str:
        """The case."""
        return self.packet.escalation.id

    @property
    def people(self) -> People:
        """The operator's side."""
        return people_of(self.visit)

    @property
    def by(self) -> str:
        """Who."""
        return self.visit.operator.id

    @property
    def key(self) -> str | None:
        """The browser's own name for this sending; sent again, it is the same act."""
        return self.said.get("key", "")[:100] or None

    def text(self, name: str, *, needed: str = "") -> str:
        """A field's words. needed: what to say when there are none. Raises: RunError."""
        words = self.said.get(name, "").strip()
        if needed and not words:
            raise RunError(needed)
        if len(words) > _MOST_TEXT:
            raise RunError(f"This is longer than {_MOST_TEXT:,} characters. Make it shorter.")
        return words


async def act(visit: Visit) -> Response:
    """One form of the case's page."""
    packet = await packet_of(visit, visit.request.path_params["id"])
    doer = _ACTS.get(visit.request.path_params["act"])
    if doer is None:
        raise Missing("There is no such action.")
    async with visit.request.form() as form:
        said = {name: value for name, value in form.items() if isinstance(value, str)}
    return await doer(Act(visit=visit, packet=packet, said=said))


async def take_run(visit: Visit) -> Response:
    """Take the conversation of a run over, though nobody asked for it."""
    row = await seen_run(visit, visit.request.path_params["run_id"])
    if row.conversation is None:
        raise RunError("This run has no conversation to take over.")
    item = await people_of(visit).take_conversation(
        row.conversation, visit.operator.id, tenant=row.tenant
    )
    address = f"{base_of(visit.request)}/inbox?case={quote(item.id)}&tab=mine"
    return _done(go=address)


async def _say(one: Act) -> Response:
    text = one.text("text", needed="Write something first.")
    await one.people.say(one.id, text, by=one.by, key=one.key)
    return _done()


async def _note(one: Act) -> Response:
    text = one.text("text", needed="Write the note first.")
    await one.people.note(one.id, text, by=one.by, key=one.key)
    return _done("Noted. The user does not see it.")


async def _draft(one: Act) -> Response:
    drafted = await one.people.draft(one.id, by=one.by, key=one.key)
    return PlainTextResponse(drafted, headers=HEADERS)


async def _claim(one: Act) -> Response:
    await one.people.claim(one.id, by=one.by, key=one.key)
    return _done("This case is yours now.")


async def _release(one: Act) -> Response:
    await one.people.release(one.id, by=one.by, key=one.key)
    return _done("Back in the queue.")


async def _take(one: Act) -> Response:
    await one.people.take(one.id, by=one.by, key=one.key)
    return _done("You speak to the user now. The agent is silent.")


async def _hand_back(one: Act) -> Response:
    limits = await raising.raised(one.visit.rt, one.packet.escalation, _prefixed(one.said))
    instruction = one.text("instruction")
    await one.people.hand_back(
        one.id, by=one.by, instruction=instruction, limits=limits, key=one.key
    )
    return _done("Handed back. The agent goes on.")


async def _assign(one: Act) -> Response:
    to = one.text("to", needed="Say who takes it.")
    await one.people.assign(one.id, to, by=one.by, key=one.key)
    return _done(f"It is {to}'s now.")


async def _resolve(one: Act) -> Response:
    await one.people.close(one.id, by=one.by, resolution=one.text("resolution"), key=one.key)
    return _done("Resolved.")


async def _snooze(one: Act) -> Response:
    said = one.text("minutes")
    minutes = int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else 0
    if not 0 < minutes <= _MOST_MINUTES:
        raise RunError("Choose how long, up to a year.")
    until = one.visit.console.clock.now() + minutes * 60 * MICROS
    await one.people.snooze(one.id, until, by=one.by)
    return _done("Snoozed. It comes back by itself.")


async def _tag(one: Act) -> Response:
    tags = [tag.strip() for tag in one.text("tags").split(",")]
    await one.people.tag(one.id, [tag for tag in tags if tag], by=one.by, key=one.key)
    return _done("Tagged.")


async def _escalate(one: Act) -> Response:
    reason = one.text("reason", needed="Say why, so that the next person knows.")
    queue = one.text("queue") or None
    await one.people.escalate(one.id, by=one.by, reason=reason, queue=queue, key=one.key)
    return _done("Passed on.")


async def _decide(one: Act) -> Response:
    approval = next((a for a in one.packet.pending if a.id == one.said.get("approval")), None)
    decision = next((d for d in get_args(Decision) if d == one.said.get("decision")), None)
    if approval is None or decision is None:
        raise RunError("This was decided already. The page shows how it stands.")
    choice: Decision = decision
    arguments = None
    if choice == "edit":
        schema = one.packet.schemas.get(approval.tool, {})
        arguments = forms.read(schema, approval.arguments, _prefixed(one.said))
    note = one.text("answer", needed="Write the answer.") if choice == "respond" else ""
    await one.people.decide(
        approval.id, choice, by=one.by, arguments=arguments, note=note or one.text("note")
    )
    return _done(_DECIDED[choice])


async def _call(one: Act) -> Response:
    tool = one.said.get("tool", "")
    if tool not in one.packet.tools:
        raise RunError("This tool cannot be used here.")
    arguments = forms.read(one.packet.schemas.get(tool, {}), {}, _prefixed(one.said))
    attempt = await one.people.call(one.id, tool, arguments, by=one.by, key=one.key)
    return _done(f"{words.name(tool)}: {attempt.outcome}")


_DECIDED: Mapping[Decision, str] = {
    "approve": "Approved.",
    "edit": "Approved as edited.",
    "reject": "Rejected.",
    "respond": "Answered instead.",
}
_Doer: TypeAlias = Callable[[Act], Awaitable[Response]]
_ACTS: Mapping[str, _Doer] = {
    "say": _say,
    "note": _note,
    "draft": _draft,
    "claim": _claim,
    "release": _release,
    "assign": _assign,
    "take": _take,
    "hand-back": _hand_back,
    "resolve": _resolve,
    "snooze": _snooze,
    "tag": _tag,
    "escalate": _escalate,
    "decide": _decide,
    "call": _call,
}


def _done(said: str = "", go: str = "") -> Response:
    """Nothing to draw: the page's parts refresh. said: a word for the operator."""
    headers = dict(HEADERS)
    if said:
        headers["x-said"] = quote(said)
    if go:
        headers["x-go"] = go
    return Response(status_code=204, headers=headers)


def _prefixed(said: Mapping[str, str]) -> dict[str, str]:
    """What was filled in for a call's arguments, which are named apart from the rest."""
    return {
        name.removeprefix("arg."): value for name, value in said.items() if name.startswith("arg.")
    }

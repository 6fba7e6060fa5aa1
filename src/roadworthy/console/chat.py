"""The user's side: a plain chat window with one agent, and with whoever speaks for it.

Agents' and persons' words come the same way and look the same. Invariant: a visitor reads and
decides in their own conversations only.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from roadworthy import errors, wire
from roadworthy.agent import Agent
from roadworthy.console import live, words
from roadworthy.console.inbox import declared
from roadworthy.console.pages import HEADERS, Console, Endpoint, base_of, console_of, failed, page
from roadworthy.context import User
from roadworthy.events import DecisionMade, RunEvent, RunWaiting, TextDelta, TextReplaced
from roadworthy.result import ENDS, Approval

_COOKIE = "roadworthy_visitor"
_NAME = re.compile(r"[\w.:-]{8,100}", re.ASCII)
_MOST_TEXT = 20_000
_MOST_SECONDS = 365 * 24 * 3600
_LOOK_AGAIN_SECONDS = 1.0


class NoSuchAgent(Exception):
    """Nobody of this name is served here."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """One visitor's window on one agent. name: of the conversation, "" before one is begun."""

    request: Request
    console: Console
    agent: Agent[Any, Any]
    user: User
    name: str

    @property
    def conversation(self) -> str:
        """The visitor is in it, so that nobody's address opens another's."""
        return f"{self.user.id}/{self.name}"

    async def run(self) -> str | None:
        """The run that the page says it started here; None when it is not one of theirs."""
        asked = self.request.query_params.get("run", "")
        try:
            row = await self.console.rt.find(asked)
        except errors.UnknownRun:
            return None
        theirs = (row.user, row.tenant, row.conversation)
        return row.id if theirs == (self.user.id, self.user.tenant, self.conversation) else None


async def window(request: Request) -> Response:
    """The page; without a conversation in its address, a new one."""
    try:
        seen = _window(request)
    except NoSuchAgent as missing:
        return failed(request, 404, str(missing), "Look at the address again.")
    if not seen.name:
        address = f"{_at(request)}?c=chat-{secrets.token_urlsafe(12)}"
        answer: Response = RedirectResponse(address, 303, headers=HEADERS)
    else:
        context = {"agent": seen.agent, "conversation": seen.name, "at": _at(request)}
        answer = page(request, "chat.html", context)
    if _COOKIE not in request.cookies:
        answer.set_cookie(
            _COOKIE,
            secrets.token_urlsafe(24),
            max_age=_MOST_SECONDS,
            path=base_of(request) or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",  # a link to the chat finds the visitor again
        )
    return answer


def _at(request: Request) -> str:
    return f"{base_of(request)}/chat/{quote(request.path_params['agent'])}"


def _window(request: Request) -> Window:
    console = console_of(request)
    agent = console.agents.get(request.path_params["agent"])
    if agent is None:
        raise NoSuchAgent("Nobody of this name is here.")
    user = User(f"visitor-{_short(request.cookies.get(_COOKIE, ''))}")
    named = request.query_params.get("c", "")
    return Window(
        request=request,
        console=console,
        agent=agent,
        user=user,
        name=named if _NAME.fullmatch(named) else "",
    )


def _short(secret: str) -> str:
    """The visitor's public name: operators see it, and it opens nothing."""
    return hashlib.sha256(f"visitor/{secret}".encode()).hexdigest()[:12]


def visiting(handler: Callable[[Window], Awaitable[Response]]) -> Endpoint:
    """The handler, for a known visitor in a conversation of a known agent; errors as words."""

    @wraps(handler)
    async def endpoint(request: Request) -> Response:
        try:
            seen = _window(request)
        except NoSuchAgent as missing:
            return _problem(404, str(missing))
        if not seen.name or _COOKIE not in request.cookies:
            return _problem(401, "Load the page again.")
        try:
            return await handler(seen)
        except errors.RoadworthyError:
            return _problem(409, "That did not work just now. Please try again.")

    return endpoint


async def say(seen: Window) -> Response:
    """The user's words: to the agent, or to whoever speaks for it."""
    async with seen.request.form() as form:
        text, key = str(form.get("text", "")).strip(), str(form.get("key", ""))[:100]
    if not text or len(text) > _MOST_TEXT:
        return _problem(422, f"Write between 1 and {_MOST_TEXT:,} characters.")
    run_id = await seen.console.rt.start(
        seen.agent,
        text,
        user=seen.user,
        conversation=seen.conversation,
        key=f"{seen.conversation}/{key}" if key else None,
    )
    return JSONResponse({"run": run_id}, 202, headers=HEADERS)


async def decide(seen: Window) -> Response:
    """The user's yes or no to something they were asked."""
    async with seen.request.form() as form:
        approval, said = str(form.get("approval", "")), str(form.get("decision", ""))
    choice: Literal["approve", "reject"] = "approve" if said == "approve" else "reject"
    run_id = await seen.run()
    asked = await _asked(seen, run_id) if run_id else ()
    if approval not in {one.id for one in asked}:
        return _problem(409, "This was answered already.")
    await seen.console.rt.resolve(approval, choice, by=seen.user.id)
    return Response(status_code=204)


async def listen(seen: Window) -> Response:
    """What is said from where the page left off, what is being written, what the user is asked."""
    run_id = await seen.run()
    heard = _words(seen) if declared(seen.console.rt) else _remembered(seen, run_id)
    sources = [heard]
    if run_id is not None:
        sources.append(_progress(seen, run_id))
    return live.stream(sources)


async def _words(seen: Window) -> AsyncGenerator[str, None]:
    """Each message of the conversation, whoever says it."""
    told = seen.console.rt.listen(seen.conversation, user=seen.user, after=_left_off(seen))
    async for said in told:
        yield _line("user" if said.who == "user" else "assistant", said.text, said.n)


async def _remembered(seen: Window, run_id: str | None) -> AsyncGenerator[str, None]:
    """The same where there is no inbox: what the runs of the conversation remember."""
    rt, after, known = seen.console.rt, _left_off(seen), -1
    while True:
        row = None if run_id is None else await rt.find(run_id)
        if row is None or row.updated_at != known:
            known = 0 if row is None else row.updated_at
            messages = await rt.history(seen.conversation, user=seen.user)
            spoken = [m for m in messages if m.role != "tool" and m.text and not m.by_runtime]
            for place, message in enumerate(spoken[after:], after + 1):
                yield _line(message.role, message.text, place)
            after = max(after, len(spoken))
        await seen.console.clock.sleep(_LOOK_AGAIN_SECONDS)


def _left_off(seen: Window) -> int:
    """The message that the page has already."""
    said = seen.request.headers.get("last-event-id") or seen.request.query_params.get("after", "")
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else 0


def _line(who: str, text: str, place: int) -> str:
    return wire.frame("said", json.dumps({"who": who, "text": text}), str(place))


async def _progress(seen: Window, run_id: str) -> AsyncGenerator[str, None]:
    """What the agent is writing, and what it waits for of the user, each time that changes."""
    rt, after = seen.console.rt, -1
    shown: str | None = None
    while True:
        questions = [_question(one) for one in await _asked(seen, run_id)]
        asked = json.dumps({"asked": questions, "choices": await _offered(seen, run_id)})
        if asked != shown:
            shown = asked
            yield wire.frame("asks", asked)
        status = (await rt.find(run_id)).status
        if status in ENDS:
            return
        if status in ("queued", "running"):
            writing = ""
            async for event in rt.events(run_id, after):
                after = event.seq if isinstance(event, RunEvent) else after
                if isinstance(event, TextDelta | TextReplaced):
                    fresh = isinstance(event, TextReplaced) or not event.offset
                    writing = event.text if fresh else writing + event.text
                    yield _typing(writing)
                elif isinstance(event, DecisionMade) and event.decision == "use_tools":
                    yield _typing("")  # what was written was not said: it acts, and writes again
                elif isinstance(event, RunWaiting):
                    yield _typing(None)
        else:
            await seen.console.clock.sleep(_LOOK_AGAIN_SECONDS)


def _typing(text: str | None) -> str:
    """What is being written; "": it is not known yet; None: nothing is."""
    return wire.frame("typing", json.dumps({"text": text}))


async def _asked(seen: Window, run_id: str) -> tuple[Approval, ...]:
    if (await seen.console.rt.find(run_id)).status != "waiting":
        return ()
    result = await seen.console.rt.result(run_id)
    return tuple(one for one in result.waiting if one.asks == "user")


async def _offered(seen: Window, run_id: str) -> list[str]:
    """The answers that the agent's question offers; any other words are an answer too."""
    if (await seen.console.rt.find(run_id)).status != "waiting":
        return []
    return list((await seen.console.rt.result(run_id)).choices)


def _question(one: Approval) -> dict[str, Any]:
    """In the user's words: what would be done, with what."""
    shown = [[words.name(key), words.plain(value)] for key, value in one.arguments.items()]
    return {"id": one.id, "title": f"{words.name(one.tool)}?", "facts": shown}


def _problem(status: int, message: str) -> Response:
    return JSONResponse({"message": message}, status, headers=HEADERS)

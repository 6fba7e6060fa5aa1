"""A help desk as the inbox: escalations become conversations of a Chatwoot API inbox, and back.

`python -m examples.chatwoot_bridge` beside `roadworthy serve`, settings in the table `_SETTINGS`.
Invariant: a webhook only says where to look. What Chatwoot holds decides, each action bears a key
made of its message, so webhooks that come twice, late or in another order change nothing.

Outward: the packet as a private note, what the user writes as incoming messages. Inward: an agent's
reply is said to the user; "resolved" hands back, with the label `settled` it closes. Calls that
wait for an approval are decided in our own inbox. A crash between posting to Chatwoot and noting it
there may show one message twice to agents; to users never.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Json = dict[str, Any]
_SETTINGS = {
    "ROADWORTHY_API": "our API, such as http://127.0.0.1:8080",
    "CHATWOOT_API": "such as https://chat.example.com/api/v1/accounts/1",
    "CHATWOOT_TOKEN": "an access token of an agent or bot there",
    "CHATWOOT_INBOX": "the number of an inbox of type API",
    "CHATWOOT_SECRET": "the secret of its webhook to this bridge",
}
_OUTGOING = 1  # Chatwoot's number for what an agent sends
_TAG, _SETTLED = "chatwoot:", "settled"
_STALE_SECONDS = 300
_AGAIN_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Chatwoot:
    """Chatwoot's API, as far as it is needed."""

    http: httpx.AsyncClient
    inbox: int

    async def conversation(self, item: Json) -> int:
        """The one of an escalation, made unless it is there."""
        contact, source = await self._contact(item)
        listed = _checked(await self.http.get(f"contacts/{contact}/conversations"))
        for known in listed["payload"]:
            if known["custom_attributes"].get("escalation") == item["id"]:
                return int(known["id"])
        body = {
            "source_id": source,
            "inbox_id": self.inbox,
            "contact_id": contact,
            "status": "open",
            "custom_attributes": {"escalation": item["id"]},
        }
        return int(_checked(await self.http.post("conversations", json=body))["id"])

    async def seen(self, number: int) -> Json:
        """A conversation: status, labels, custom_attributes."""
        return _checked(await self.http.get(f"conversations/{number}"))

    async def post(self, number: int, text: str, *, private: bool) -> None:
        """A private note of ours, or what the user wrote."""
        body = {
            "content": text,
            "private": private,
            "message_type": "outgoing" if private else "incoming",
        }
        _checked(await self.http.post(f"conversations/{number}/messages", json=body))

    async def remember(self, number: int, attributes: Json) -> None:
        """Keep there how far we are; Chatwoot replaces all of them."""
        body = {"custom_attributes": attributes}
        _checked(await self.http.post(f"conversations/{number}/custom_attributes", json=body))

    async def resolve(self, number: int) -> None:
        """Nobody is needed any more."""
        body = {"status": "resolved"}
        _checked(await self.http.post(f"conversations/{number}/toggle_status", json=body))

    async def behind(self, number: int, after: int) -> AsyncIterator[Json]:
        """Its messages behind one, in order."""
        while True:
            where, query = f"conversations/{number}/messages", {"after": after}
            found = _checked(await self.http.get(where, params=query))["payload"]
            if not found:
                return
            for message in sorted(found, key=lambda each: int(each["id"])):
                after = int(message["id"])
                yield message

    async def _contact(self, item: Json) -> tuple[int, str]:
        """(contact, source) of a user. They may write at the same time, so look, make, look."""
        name = f"{item['tenant']}/{item['user']}" if item["tenant"] else item["user"]
        body = {"inbox_id": self.inbox, "name": item["user"], "identifier": name}
        for _ in range(2):
            listed = _checked(await self.http.get("contacts/search", params={"q": name}))
            for one in listed["payload"]:
                sources = [c for c in one["contact_inboxes"] if c["inbox"]["id"] == self.inbox]
                if one["identifier"] == name and sources:
                    return int(one["id"]), str(sources[0]["source_id"])
            made = await self.http.post("contacts", json=body)
        _checked(made)
        raise RuntimeError(f"Chatwoot has no contact {name!r} in inbox {self.inbox}.")


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """Between our API and theirs."""

    ours: httpx.AsyncClient
    theirs: Chatwoot
    locks: defaultdict[int, asyncio.Lock]

    async def run(self) -> None:
        """Look at once and whenever the queue changes, until cancelled."""
        while True:
            try:
                await self._follow()
            except (httpx.HTTPError, RuntimeError) as error:
                print(f"Trying again: {error}")
            await asyncio.sleep(_AGAIN_SECONDS)  # noqa: TID251 - an example's own clock

    async def _follow(self) -> None:
        where = "/v1/escalations/changes"  # a sign of life comes every quarter of a minute
        async with self.ours.stream("GET", where, timeout=60) as changes:
            async for line in changes.aiter_lines():
                if line.startswith("data:"):
                    await self.look()

    async def look(self) -> None:
        """Bring Chatwoot up to date; and hear what a lost webhook would have said."""
        for item in await self._listed("open"):
            number = _number(item) or await self._open(item)
            await self.told(number)
        for item in await self._listed("resolved"):
            done = _number(item)
            if done is not None and (await self.theirs.seen(done))["status"] != "resolved":
                await self.theirs.resolve(done)

    async def told(self, number: int) -> None:
        """A webhook, or a look: both sides of a conversation are read, and each told the news."""
        async with self.locks[number]:
            seen = await self.theirs.seen(number)  # before its messages: they are in by then
            state = dict(seen["custom_attributes"])
            if "said" not in state:
                return  # not ours, or not yet told what it is about
            item = (await self._get(f"/v1/escalations/{state['escalation']}"))["escalation"]
            await self._outward(number, item, state)
            await self._inward(number, item, state)
            if seen["status"] == "resolved" and item["status"] != "resolved":
                await self._end(number, item, seen)

    async def _open(self, item: Json) -> int:
        number = await self.theirs.conversation(item)
        seen = await self.theirs.seen(number)
        if "said" not in seen["custom_attributes"]:
            packet = await self._get(f"/v1/escalations/{item['id']}")
            await self.theirs.post(number, note_of(packet), private=True)
            last = max((m["n"] for m in await self._said(item, 0)), default=0)
            await self.theirs.remember(number, seen["custom_attributes"] | {"said": last})
        tags = [*item["tags"], f"{_TAG}{number}"]
        await self._act(item, "tags", f"chatwoot-{number}", by="chatwoot", tags=tags)
        return number

    async def _outward(self, number: int, item: Json, state: Json) -> None:
        for message in await self._said(item, int(state["said"])):
            if message["who"] == "user":
                await self.theirs.post(number, message["text"], private=False)
            state["said"] = message["n"]
            await self.theirs.remember(number, state)

    async def _inward(self, number: int, item: Json, state: Json) -> None:
        before = state.get("heard", 0)
        async for message in self.theirs.behind(number, int(before)):
            replied = message["message_type"] == _OUTGOING and not message["private"]
            if replied and message.get("content"):
                await self._say(number, item, message)
            state["heard"] = message["id"]
        if state.get("heard", 0) != before:
            await self.theirs.remember(number, state)

    async def _say(self, number: int, item: Json, message: Json) -> None:
        key, by = f"chatwoot-message-{message['id']}", _who(message)
        said = await self._act(item, "say", key, by=by, text=message["content"])
        if said.status_code == httpx.codes.CONFLICT:  # whose it is, Chatwoot decides
            await self._act(item, "assign", f"{key}-assign", by=by, to=by)
            said = await self._act(item, "say", key, by=by, text=message["content"])
        if said.is_client_error:
            why = said.json()["message"]
            await self.theirs.post(number, f"This was not sent to the user: {why}", private=True)

    async def _end(self, number: int, item: Json, seen: Json) -> None:
        now = (await self._get(f"/v1/escalations/{item['id']}"))["escalation"]
        body: Json = {"by": now["assignee"] or "chatwoot"}
        if _SETTLED in seen.get("labels", ()):
            ended = await self._act(item, "close", f"chatwoot-{number}-end", **body)
        else:
            ended = await self._act(item, "hand-back", f"chatwoot-{number}-end", **body)
        if ended.is_client_error:
            why, state = ended.json()["message"], seen["custom_attributes"]
            if state.get("refused") == why:
                return  # told before: our own note comes back as a webhook
            await self.theirs.remember(number, state | {"refused": why})
            await self.theirs.post(number, f"This is not handed back: {why}", private=True)

    async def _listed(self, status: str) -> list[Json]:
        query = {"most": "1000"} if status == "open" else {"status": status, "most": "50"}
        found: list[Json] = (await self._get("/v1/escalations", query))["escalations"]
        return found

    async def _said(self, item: Json, after: int) -> list[Json]:
        if item["conversation"] is None:
            return []
        query = {"user": item["user"], "tenant": item["tenant"], "after": str(after)}
        where = f"/v1/conversations/{item['conversation']}/messages"
        found: list[Json] = (await self._get(where, query | {"detail": "full"}))["messages"]
        return found

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        return _checked(await self.ours.get(path, params=query))

    async def _act(self, item: Json, action: str, key: str, **body: object) -> httpx.Response:
        """One action under its key. What our server cannot do now is tried again later."""
        where = f"/v1/escalations/{item['id']}/{action}"
        done = await self.ours.post(where, json=body, headers={"Idempotency-Key": key})
        if done.is_server_error:
            _checked(done)
        return done


def note_of(packet: Json) -> str:
    """What an agent reads first."""
    tried = [f"- {each['tool']}: {each['outcome']}, {each['result']}" for each in packet["tried"]]
    waits = [f"- {each['tool']}: {each['reason']}" for each in packet["pending"]]
    talk = [f"{line['by'] or line['who']}: {line['text']}" for line in packet["conversation"]]
    parts = {
        "": [packet["summary"]],
        "The conversation": talk,
        "What was tried": tried,
        "Waits to be decided": waits,
        "Suggested reply": [packet["suggested"]] if packet["suggested"] else [],
    }
    return "\n\n".join("\n".join(filter(None, [name, *ls])) for name, ls in parts.items() if ls)


def app(bridge: Bridge, secret: str) -> Starlette:
    """Takes Chatwoot's webhooks, at /chatwoot."""

    async def webhook(request: Request) -> Response:
        body = await request.body()
        if not signed(secret, request.headers, body, time.time()):  # noqa: TID251 - as above
            return Response(status_code=401)
        event = json.loads(body)
        told = event.get("conversation") or event  # of a message, or the conversation itself
        if event.get("event", "").startswith(("message_", "conversation_")) and "id" in told:
            await bridge.told(int(told["id"]))
        return Response(status_code=204)

    @asynccontextmanager
    async def looking(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.ensure_future(bridge.run())
        yield
        task.cancel()

    return Starlette(routes=[Route("/chatwoot", webhook, methods=["POST"])], lifespan=looking)


def signed(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Whether Chatwoot sent it, and not long ago."""
    at = headers.get("x-chatwoot-timestamp", "")
    if not at.isdecimal() or abs(now - int(at)) > _STALE_SECONDS:
        return False
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(f"sha256={digest}", headers.get("x-chatwoot-signature", ""))


def _number(item: Json) -> int | None:
    found = (tag.removeprefix(_TAG) for tag in item["tags"] if tag.startswith(_TAG))
    return next((int(number) for number in found), None)


def _who(message: Json) -> str:
    sender = message.get("sender") or {}
    return str(sender.get("email") or sender.get("name") or "chatwoot")


def _checked(response: httpx.Response) -> Json:
    if response.is_error:
        raise RuntimeError(f"{response.request.url} answered {response.status_code}")
    found: Json = response.json()
    return found


async def main() -> None:
    """Until Ctrl+C."""
    missing = [name for name in _SETTINGS if name not in os.environ]
    if missing:
        raise SystemExit("\n".join(f"Set {name}: {_SETTINGS[name]}." for name in missing))
    env, token = os.environ, {"api_access_token": os.environ["CHATWOOT_TOKEN"]}
    async with (
        httpx.AsyncClient(base_url=env["ROADWORTHY_API"], timeout=30) as ours,
        httpx.AsyncClient(base_url=env["CHATWOOT_API"], headers=token, timeout=30) as http,
    ):
        theirs = Chatwoot(http=http, inbox=int(env["CHATWOOT_INBOX"]))
        bridge = Bridge(ours=ours, theirs=theirs, locks=defaultdict(asyncio.Lock))
        config = uvicorn.Config(app(bridge, env["CHATWOOT_SECRET"]), port=8090)
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main())

"""A help desk of the test: it speaks the part of Chatwoot's API that the bridge needs.

Its webhooks wait in `outbox` until the test sends them, in any order and as often as it likes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Json = dict[str, Any]
INBOX, SECRET, TOKEN = 7, "secret of the webhook", "token of the bridge"


class HelpDesk:
    """Contacts, conversations, messages, and what agents do."""

    def __init__(self) -> None:
        self.contacts: list[Json] = []
        self.conversations: dict[int, Json] = {}
        self.messages: dict[int, list[Json]] = {}
        self.outbox: list[Json] = []
        self._ids = 100

    # --- what agents do --------------------------------------------------------------------

    def reply(self, number: int, text: str, agent: str = "lea@shop.example") -> None:
        """An agent writes to the user."""
        sender = {"id": 1, "name": agent.partition("@")[0], "email": agent, "type": "user"}
        self._add(number, text, private=False, kind=1, sender=sender)

    def resolve(self, number: int) -> None:
        """An agent is done."""
        self._status(number, "resolved")

    def label(self, number: int, label: str) -> None:
        """An agent labels it."""
        self.conversations[number]["labels"].append(label)

    def seen(self, number: int, kind: int, *, private: bool) -> list[str]:
        """What agents see: 0 is of the user, 1 of agents."""
        return [
            m["content"]
            for m in self.messages[number]
            if (m["message_type"], m["private"]) == (kind, private)
        ]

    async def send(self, url: str, *events: Json, secret: str = SECRET) -> list[int]:
        """Webhooks, signed; the answers' status codes."""
        found = []
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            for event in events:
                body, at = json.dumps(event).encode(), str(int(time.time()))  # noqa: TID251 - far side
                key = secret.encode()
                digest = hmac.new(key, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
                headers = {
                    "x-chatwoot-timestamp": at,
                    "x-chatwoot-signature": f"sha256={digest}",
                }
                answer = await http.post(f"{url}/chatwoot", content=body, headers=headers)
                found.append(answer.status_code)
        return found

    # --- its API ---------------------------------------------------------------------------

    def app(self) -> Starlette:
        """The server."""
        one, base = "/{number:int}", "/api/v1/accounts/1"
        table = [
            ("GET", "/contacts/search", self._search),
            ("POST", "/contacts", self._contact),
            ("GET", f"/contacts{one}/conversations", self._of_contact),
            ("POST", "/conversations", self._create),
            ("GET", f"/conversations{one}", self._show),
            ("GET", f"/conversations{one}/messages", self._list),
            ("POST", f"/conversations{one}/messages", self._post),
            ("POST", f"/conversations{one}/custom_attributes", self._attributes),
            ("POST", f"/conversations{one}/toggle_status", self._toggle),
        ]
        return Starlette(
            routes=[Route(base + path, of, methods=[method]) for method, path, of in table]
        )

    async def _search(self, request: Request) -> Response:
        _trusted(request)
        asked = request.query_params["q"]
        found = [c for c in self.contacts if asked in c["identifier"]]
        return JSONResponse({"meta": {"count": len(found)}, "payload": found})

    async def _contact(self, request: Request) -> Response:
        body = await request.json()
        if any(c["identifier"] == body["identifier"] for c in self.contacts):
            return JSONResponse({"message": "Identifier has already been taken"}, 422)
        number = self._next()
        inbox = {"source_id": f"source-{number}", "inbox": {"id": body["inbox_id"]}}
        made = {"id": number, "name": body["name"], "identifier": body["identifier"]}
        self.contacts.append(made | {"contact_inboxes": [inbox]})
        return JSONResponse({"payload": {"contact": made, "contact_inbox": inbox}})

    async def _of_contact(self, request: Request) -> Response:
        contact = request.path_params["number"]
        found = [c for c in self.conversations.values() if c["contact_id"] == contact]
        return JSONResponse({"payload": found})

    async def _create(self, request: Request) -> Response:
        _trusted(request)
        body, number = await request.json(), self._next()
        assert body["inbox_id"] == INBOX
        self.conversations[number] = body | {"id": number, "labels": []}
        self.messages[number] = []
        return JSONResponse(self.conversations[number])

    async def _show(self, request: Request) -> Response:
        return JSONResponse(self.conversations[request.path_params["number"]])

    async def _list(self, request: Request) -> Response:
        after = int(request.query_params["after"])
        found = [m for m in self.messages[request.path_params["number"]] if m["id"] > after]
        return JSONResponse({"meta": {}, "payload": found[:2]})  # small pages

    async def _post(self, request: Request) -> Response:
        _trusted(request)
        body = await request.json()
        kind = {"incoming": 0, "outgoing": 1}[body["message_type"]]
        number = request.path_params["number"]
        made = self._add(number, body["content"], private=body["private"], kind=kind, sender={})
        return JSONResponse(made)

    async def _attributes(self, request: Request) -> Response:
        here = self.conversations[request.path_params["number"]]
        here["custom_attributes"] = (await request.json())["custom_attributes"]
        return JSONResponse({"custom_attributes": here["custom_attributes"]})

    async def _toggle(self, request: Request) -> Response:
        status = (await request.json())["status"]
        self._status(request.path_params["number"], status)
        return JSONResponse({"payload": {"success": True, "current_status": status}})

    def _status(self, number: int, status: str) -> None:
        here = self.conversations[number]
        here["status"] = status
        self.outbox.append(here | {"event": "conversation_status_changed"})

    def _add(self, number: int, text: str, *, private: bool, kind: int, sender: Json) -> Json:
        made: Json = {"id": self._next(), "content": text, "private": private}
        made |= {"message_type": kind, "conversation_id": number, "sender": sender}
        self.messages[number].append(made)
        words = made | {"message_type": ("incoming", "outgoing")[kind]}  # in webhooks a word
        told = {"event": "message_created", "conversation": self.conversations[number]}
        self.outbox.append(words | told)
        return made

    def _next(self) -> int:
        self._ids += 1
        return self._ids


def _trusted(request: Request) -> None:
    assert request.headers["api_access_token"] == TOKEN

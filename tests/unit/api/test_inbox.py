"""The inbox over HTTP: a help desk does all that an operator can, and a channel hears one voice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message

from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.api import create_app
from roadworthy.escalation import EscalationRules, Inbox
from roadworthy.testing import ScriptedModel

PAID: list[int] = []
LEA = {"by": "lea"}


@tool(approval="operator", effect="irreversible")
def refund(order: str, euros: int) -> str:
    """Pay an order back. order: such as A-17. euros: how much."""
    PAID.append(euros)
    return f"refunded {euros}"


@tool(effect="read")
def look_up(order: str) -> str:
    """One order. order: such as A-17."""
    return f"{order}: 40 euros, paid"


@pytest.fixture
async def rt(tmp_path: Path) -> AsyncIterator[Runtime]:
    PAID.clear()
    desk = Agent(
        "desk",
        model=ScriptedModel(["You will get it back.", "Goodbye."]),
        tools=[look_up],
        escalation=EscalationRules(topics=["legal"]),
    )
    payer = Agent(
        "payer",
        model=ScriptedModel([ToolCall("refund", {"order": "A-17", "euros": 40}), "It is paid."]),
        tools=[refund],
    )
    url = f"sqlite:///{tmp_path}/t.db"
    async with Runtime(url, patterns=[desk, payer], inbox=Inbox()) as opened:
        yield opened


@pytest.fixture
async def client(rt: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(rt), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://desk") as made:
        yield made


async def ask(client: httpx.AsyncClient, agent: str, text: str) -> dict[str, Any]:
    body = {"agent": agent, "input": text, "user": "ana", "conversation": "c"}
    found: dict[str, Any] = (await client.post("/v1/runs", json=body)).json()
    return found


async def act(
    client: httpx.AsyncClient, item: str, action: str, key: str = "", **body: object
) -> httpx.Response:
    headers = {"idempotency-key": key} if key else {}
    where = f"/v1/escalations/{item}/{action}"
    return await client.post(where, json=LEA | body, headers=headers)


async def only(client: httpx.AsyncClient, **query: str) -> dict[str, Any]:
    (item,) = (await client.get("/v1/escalations", params=query)).json()["escalations"]
    assert isinstance(item, dict)
    return item


async def heard(client: httpx.AsyncClient, **query: str) -> list[tuple[Any, ...]]:
    found = await client.get("/v1/conversations/c/messages", params={"user": "ana"} | query)
    return [(m["n"], m["who"], m["by"], m["text"]) for m in found.json()["messages"]]


@pytest.mark.requirement("HIT-2", "HIT-3")
async def test_a_help_desk_takes_over_speaks_and_hands_back(client: httpx.AsyncClient) -> None:
    said = await ask(client, "desk", "My lawyer will write")
    assert said["status"] == "escalated"
    item = await only(client, queue="default")
    assert (item["trigger"], item["status"]) == ("topic", "open")
    for action in ("claim", "release", "claim"):
        assert (await act(client, item["id"], action)).status_code == 200
    taken = await act(client, item["id"], "take", "t1")
    assert (taken.json()["status"], taken.json()["assignee"]) == ("taken", "lea")
    drafts = [await act(client, item["id"], "draft", "d1", wish="kindly") for _ in range(2)]
    assert [d.json() for d in drafts] == [{"text": "You will get it back."}] * 2  # asked once
    calls = [
        await act(client, item["id"], "call", "c1", tool="look_up", arguments={"order": "A-17"})
        for _ in range(2)
    ]
    assert [(c.json()["outcome"], c.json()["by"]) for c in calls] == [("ok", "lea")] * 2
    for _ in range(2):
        assert (await act(client, item["id"], "say", "s1", text="Hello Ana")).status_code == 200
        assert (await act(client, item["id"], "note", "n1", text="A regular.")).status_code == 200
        assert (await act(client, item["id"], "tags", "g1", tags=["vip"])).json()["tags"] == ["vip"]
    packet = (await client.get(f"/v1/escalations/{item['id']}")).json()
    assert (packet["owner"], packet["person"]) == ("person", "lea")
    assert [line["text"] for line in packet["conversation"]] == [
        "My lawyer will write",
        "Hello Ana",
    ]
    assert packet["suggested"] == "You will get it back."
    assert [e["text"] for e in packet["log"] if e["action"] == "note"] == ["A regular."]
    assert [a["tool"] for a in packet["tried"]] == ["look_up"]
    assert packet["tools"] == ["look_up"]
    for _ in range(2):
        back = await act(client, item["id"], "hand-back", "b1", instruction="Be brief.")
        assert back.json()["status"] == "resolved"
    run = f"/v1/runs/{said['run_id']}/events"
    async with client.stream("GET", run) as events:
        assert "RunEnded" in (await events.aread()).decode()
    assert (await client.get("/v1/escalations")).json() == {"escalations": []}
    assert (await only(client, status="resolved"))["resolution"] == "Be brief."
    assert await heard(client) == [
        (1, "user", "", "My lawyer will write"),
        (2, "agent", "", "Hello Ana"),
        (3, "agent", "", "Goodbye."),
    ]
    assert await heard(client, detail="full", after="1") == [
        (2, "person", "lea", "Hello Ana"),
        (3, "agent", "", "Goodbye."),
    ]


@pytest.mark.requirement("HIT-3")
async def test_a_call_is_edited_and_the_case_is_closed(client: httpx.AsyncClient) -> None:
    await ask(client, "payer", "Refund A-17")
    item = await only(client)
    (pending,) = (await client.get(f"/v1/escalations/{item['id']}")).json()["pending"]
    assert pending["arguments"] == {"order": "A-17", "euros": 40}
    await act(client, item["id"], "take")
    wrong = {"approval": pending["id"], "decision": "edit", "arguments": {"euros": "many"}}
    assert (await act(client, item["id"], "decide", **wrong)).status_code == 422
    right = wrong | {"arguments": {"order": "A-17", "euros": 30}}
    foreign = await client.post(f"/v1/escalations/{item['id']}/decide", json=right | {"by": "tom"})
    assert (foreign.status_code, foreign.json()["error"]) == (409, "not_yours")
    assert (await act(client, item["id"], "decide", **right)).status_code == 202
    closed = await act(client, item["id"], "close", "x", resolution="Paid 30.")
    assert (closed.json()["status"], closed.json()["resolution"]) == ("resolved", "Paid 30.")


async def test_what_is_missing_or_another_s_is_said_so(client: httpx.AsyncClient) -> None:
    await ask(client, "desk", "My lawyer will write")
    item = await only(client)
    nobody = await act(client, "esc_none", "claim")
    assert (nobody.status_code, nobody.json()["error"]) == (404, "unknown_escalation")
    early = await act(client, item["id"], "draft")
    assert (early.status_code, early.json()["error"]) == (409, "not_yours")
    await act(client, item["id"], "take")
    tom = {"by": "tom"}
    late = await client.post(f"/v1/escalations/{item['id']}/take", json=tom)
    assert (late.status_code, late.json()["message"]) == (409, "lea is on it.")
    hidden = await client.get(f"/v1/escalations/{item['id']}", params={"tenant": "other"})
    assert hidden.status_code == 404
    assert (await client.get("/v1/escalations", params={"tenant": "other"})).json() == {
        "escalations": []
    }
    for path in ("messages", "live"):
        found = await client.get(f"/v1/conversations/c/{path}", params={"user": "tom"})
        assert (found.status_code, found.json()["error"]) == (404, "unknown_conversation")
    assert (await act(client, item["id"], "assign", to="tom")).json()["assignee"] == "tom"
    assert (
        await client.post(f"/v1/escalations/{item['id']}/say", json=tom | {"text": "Hi"})
    ).is_success
    up = await client.post(f"/v1/escalations/{item['id']}/escalate", json=tom | {"reason": "VIP"})
    assert (up.json()["status"], up.json()["level"]) == ("open", 1)
    asleep = await act(client, item["id"], "snooze", until=2**60)
    assert asleep.json()["snoozed_until"] == 2**60


async def test_words_sent_again_do_not_take_a_case_that_was_put_further_up(
    client: httpx.AsyncClient,
) -> None:
    await ask(client, "desk", "My lawyer will write")
    item = await only(client)
    await act(client, item["id"], "say", "s1", text="One moment, Ana")
    await act(client, item["id"], "escalate", reason="a matter for the manager")
    again = await act(client, item["id"], "say", "s1", text="One moment, Ana")
    assert (again.json()["status"], again.json()["assignee"]) == ("open", None)
    assert len(await heard(client)) == 2


async def test_a_conversation_nobody_escalated_is_taken_over(client: httpx.AsyncClient) -> None:
    await ask(client, "desk", "Hello")
    taken = await client.post("/v1/conversations/c/take", json=LEA)
    assert (taken.json()["status"], taken.json()["trigger"]) == ("taken", "takeover")
    again = await client.post("/v1/conversations/c/take", json=LEA)
    assert again.json()["id"] == taken.json()["id"]


async def test_without_an_inbox_there_is_none(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel([]))
    async with Runtime(f"sqlite:///{tmp_path}/t.db", patterns=[desk]) as rt:
        transport = httpx.ASGITransport(create_app(rt), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://desk") as made:
            found = await made.get("/v1/escalations")
    assert (found.status_code, found.json()["error"]) == (404, "no_inbox")


class Stream:
    """A stream that is read until the reader goes away; httpx's own transport waits for its end."""

    def __init__(self, rt: Runtime, path: str, query: str = "", **headers: str) -> None:
        self._got: asyncio.Queue[str] = asyncio.Queue()
        self._gone = asyncio.Event()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
        }
        self._asked = False
        self.task = asyncio.ensure_future(create_app(rt)(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            self._got.put_nowait(message["body"].decode())

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            frame = await self._got.get()
        fields = dict(line.split(": ", 1) for line in frame.splitlines() if line)
        data: dict[str, Any] = json.loads(fields["data"])
        return data | {"id": fields["id"]}

    async def leave(self) -> None:
        self._gone.set()
        await self.task


async def test_the_queue_and_a_conversation_are_followed_live(
    rt: Runtime, client: httpx.AsyncClient
) -> None:
    queue = Stream(rt, "/v1/escalations/changes")
    first = (await queue.next())["number"]
    await ask(client, "desk", "My lawyer will write")
    second = (await queue.next())["number"]
    assert second != first
    window = Stream(rt, "/v1/conversations/c/live", "user=ana")
    assert (await window.next())["text"] == "My lawyer will write"
    item = await only(client)
    await act(client, item["id"], "say", text="Hello Ana")
    assert (await queue.next())["number"] != second
    said = await window.next()
    assert (said["id"], said["who"], said["by"], said["text"]) == ("2", "agent", "", "Hello Ana")
    await window.leave()
    again = Stream(rt, "/v1/conversations/c/live", "user=ana&detail=full", last_event_id="1")
    said = await again.next()
    assert (said["id"], said["who"], said["by"]) == ("2", "person", "lea")
    await again.leave()
    await queue.leave()

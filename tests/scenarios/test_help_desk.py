"""A help desk as the inbox: the bridge to Chatwoot over real servers, webhooks in any order."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp

from examples.chatwoot_bridge import Bridge, Chatwoot, app
from roadworthy import Agent, Runtime
from roadworthy.api import create_app
from roadworthy.escalation import Inbox
from roadworthy.testing import ScriptedModel
from tests.scenarios.far_chatwoot import INBOX, SECRET, TOKEN, HelpDesk

SECONDS = 30.0


@asynccontextmanager
async def serving(application: ASGIApp) -> AsyncIterator[str]:
    """A server on a free port."""
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application, log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server.serve([sock]))
    while not server.started:
        await asyncio.wait([task], timeout=0.01)
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    await task


class World:
    """Our server with one agent, the help desk, and the bridge between them."""

    def __init__(self, ours: httpx.AsyncClient, desk: HelpDesk, hook: str) -> None:
        self.ours, self.desk, self.hook = ours, desk, hook

    async def write(self, text: str) -> dict[str, Any]:
        """The user writes, on their channel."""
        body = {"input": text, "user": "ana", "conversation": "c"}
        found: dict[str, Any] = (await self.ours.post("/v1/runs", json=body)).json()
        return found

    async def heard(self) -> list[tuple[str, str]]:
        """What the user has seen."""
        where, query = "/v1/conversations/c/messages", {"user": "ana"}
        found = (await self.ours.get(where, params=query)).json()
        return [(m["who"], m["text"]) for m in found["messages"]]

    async def number(self) -> int:
        """The help desk's conversation, once it is there."""
        await until(lambda: any("said" in c["custom_attributes"] for c in self._all()))
        (found,) = self.desk.conversations
        return found

    def _all(self) -> list[dict[str, Any]]:
        return list(self.desk.conversations.values())


async def until(true: Callable[[], bool | Awaitable[bool]]) -> None:
    """Until it is so."""
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(SECONDS):
        while True:
            found = true()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.wait([never], timeout=0.02)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    desk = HelpDesk()
    agent = Agent("desk", model=ScriptedModel(["Glad that we could help."]))
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        url = f"sqlite:///{tmp_path}/t.db"
        rt = await enter(Runtime(url, patterns=[agent], inbox=Inbox()))
        our_url = await enter(serving(create_app(rt)))
        far_url = await enter(serving(desk.app()))
        ours = await enter(httpx.AsyncClient(base_url=our_url, timeout=30, trust_env=False))
        headers = {"api_access_token": TOKEN}
        http = await enter(
            httpx.AsyncClient(
                base_url=f"{far_url}/api/v1/accounts/1", headers=headers, trust_env=False
            )
        )
        theirs = Chatwoot(http=http, inbox=INBOX)
        bridge = Bridge(ours=ours, theirs=theirs, locks=defaultdict(asyncio.Lock))
        hook = await enter(serving(app(bridge, SECRET)))
        yield World(ours, desk, hook)


@pytest.mark.requirement("HIT-2", "HIT-3")
async def test_an_agent_of_the_help_desk_answers_and_resolves(world: World) -> None:
    live: list[str] = []

    async def watch() -> None:
        where, query = "/v1/conversations/c/live", {"user": "ana"}
        async with world.ours.stream("GET", where, params=query, timeout=60) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    said = json.loads(line.removeprefix("data: "))
                    live.append(f"{said['who']}: {said['text']}")

    asked = await world.write("I want to talk to a human")
    assert asked["status"] == "escalated"
    watching = asyncio.ensure_future(watch())
    number, desk = await world.number(), world.desk
    (note,) = desk.seen(number, 1, private=True)
    assert "I want to talk to a human" in note
    assert "The user asked for a person." in note

    desk.reply(number, "Hello Ana, what is it?")
    assert await desk.send(world.hook, *desk.outbox) == [204] * len(desk.outbox)
    await until(lambda: "agent: Hello Ana, what is it?" in live)
    await world.write("It is about A-17")
    await until(lambda: desk.seen(number, 0, private=False) == ["It is about A-17"])
    desk.reply(number, "I have refunded it.", agent="tom@shop.example")  # a colleague
    desk.resolve(number)
    await desk.send(world.hook, desk.outbox[-1])  # the reply's own webhook was lost
    await until(lambda: "agent: Glad that we could help." in live)
    watching.cancel()
    assert live == [
        "user: I want to talk to a human",
        "agent: Hello Ana, what is it?",
        "user: It is about A-17",
        "agent: I have refunded it.",
        "agent: Glad that we could help.",
    ]
    run = (await world.ours.get(f"/v1/runs/{asked['run_id']}")).json()
    assert run["run"]["status"] == "completed"


@pytest.mark.requirement("HIT-3")
@pytest.mark.parametrize("seed", range(3))
async def test_webhooks_twice_and_in_any_order_change_nothing(world: World, seed: int) -> None:
    await world.write("I want to talk to a human")
    number, desk = await world.number(), world.desk
    for text in ("One.", "Two.", "Three.", "Three."):  # the same words twice are two messages
        desk.reply(number, text)
    desk.resolve(number)
    events = desk.outbox * 3
    random.Random(seed).shuffle(events)  # noqa: S311 - a test's order
    half = len(events) // 2
    async with asyncio.TaskGroup() as group:
        group.create_task(desk.send(world.hook, *events[:half]))
        group.create_task(desk.send(world.hook, *events[half:]))
    expected = [("user", "I want to talk to a human")]
    expected += [("agent", text) for text in ("One.", "Two.", "Three.", "Three.")]
    expected += [("agent", "Glad that we could help.")]

    async def all_said() -> bool:
        return len(await world.heard()) >= len(expected)

    await until(all_said)
    await desk.send(world.hook, *desk.outbox)
    assert await world.heard() == expected
    listed = (await world.ours.get("/v1/escalations")).json()
    assert listed == {"escalations": []}
    desk.reply(number, "Too late.")
    await desk.send(world.hook, desk.outbox[-1], desk.outbox[-1])
    assert await world.heard() == expected
    refused = [n for n in desk.seen(number, 1, private=True) if n.startswith("This was not sent")]
    assert len(refused) == 1


async def test_what_is_labelled_settled_is_closed(world: World) -> None:
    await world.write("I want to talk to a human")
    number, desk = await world.number(), world.desk
    desk.reply(number, "It is settled.")
    desk.label(number, "settled")
    desk.resolve(number)
    await desk.send(world.hook, *desk.outbox)
    assert await world.heard() == [
        ("user", "I want to talk to a human"),
        ("agent", "It is settled."),
    ]
    listed = (await world.ours.get("/v1/escalations", params={"status": "resolved"})).json()
    assert [item["assignee"] for item in listed["escalations"]] == ["lea@shop.example"]


async def test_a_webhook_that_chatwoot_did_not_sign_is_refused(world: World) -> None:
    await world.write("I want to talk to a human")
    number, desk = await world.number(), world.desk
    desk.reply(number, "Hello")
    assert await desk.send(world.hook, desk.outbox[-1], secret="guessed") == [401]  # noqa: S106
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.post(f"{world.hook}/chatwoot", json={})).status_code == 401
    assert await world.heard() == [("user", "I want to talk to a human")]


async def test_what_is_handed_back_in_our_inbox_is_resolved_there(world: World) -> None:
    await world.write("I want to talk to a human")
    number, desk = await world.number(), world.desk
    (item,) = (await world.ours.get("/v1/escalations")).json()["escalations"]
    body = {"by": "lea"}
    await world.ours.post(f"/v1/escalations/{item['id']}/hand-back", json=body)
    await until(lambda: desk.conversations[number]["status"] == "resolved")

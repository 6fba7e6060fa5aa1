"""The user's chat over HTTP: each visitor has their own conversations, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.api import create_app
from roadworthy.escalation import Inbox
from roadworthy.testing import ScriptedModel

CLOSED: list[str] = []
ADDRESS = "/chat/closer"
C = {"c": "chat-0123456789"}


@tool(approval="user")
def close_account(account: str) -> str:
    """Close an account. account: its number."""
    CLOSED.append(account)
    return f"closed {account}"


closer = Agent(
    "closer",
    model=ScriptedModel([ToolCall("close_account", {"account": "17"}), "It is closed."]),
    tools=[close_account],
)


@pytest.fixture
async def rt(tmp_path: Path) -> AsyncIterator[Runtime]:
    CLOSED.clear()
    url = f"sqlite:///{tmp_path}/t.db"
    async with Runtime(url, patterns=[closer], inbox=Inbox()) as opened:
        yield opened


def visitor(rt: Runtime) -> httpx.AsyncClient:
    """A browser of its own."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(rt)), base_url="http://desk.example"
    )


async def asked(client: httpx.AsyncClient, text: str = "Close it.", **more: str) -> str:
    """Say something; the run's id."""
    await client.get(ADDRESS, params=C)
    sent = await client.post(f"{ADDRESS}/say", params=C, data={"text": text, **more})
    assert sent.status_code == 202, sent.text
    run: str = sent.json()["run"]
    return run


async def decide(client: httpx.AsyncClient, run: str, approval: str) -> httpx.Response:
    fields = {"approval": approval, "decision": "approve"}
    return await client.post(f"{ADDRESS}/decide", params=C | {"run": run}, data=fields)


async def test_a_conversation_begins_with_an_address_of_its_own(rt: Runtime) -> None:
    async with visitor(rt) as ana:
        first = await ana.get(ADDRESS)
        second = await ana.get(ADDRESS)
        places = {first.headers["location"], second.headers["location"]}
        assert len(places) == 2
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "set-cookie" not in second.headers
        page = await ana.get(first.headers["location"])
        assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_only_the_visitor_who_was_asked_decides(rt: Runtime) -> None:
    async with visitor(rt) as ana, visitor(rt) as eve:
        run = await asked(ana)
        (approval,) = (await rt.result(run)).waiting
        await eve.get(ADDRESS, params=C)
        assert (await decide(eve, run, approval.id)).status_code == 409
        async with visitor(rt) as nobody:
            assert (await decide(nobody, run, approval.id)).status_code == 401
        assert (await decide(ana, run, "apr_other")).status_code == 409
        assert CLOSED == []
        assert (await decide(ana, run, approval.id)).status_code == 204
        assert (await rt.result(run)).text == "It is closed."
        assert CLOSED == ["17"]
        assert (await decide(ana, run, approval.id)).status_code == 409


async def test_the_same_address_is_another_conversation_for_another_visitor(rt: Runtime) -> None:
    async with visitor(rt) as ana, visitor(rt) as eve:
        first, second = await asked(ana, "my secret"), await asked(eve, "Hello")
        one, other = await rt.find(first), await rt.find(second)
        assert one.conversation != other.conversation
        assert one.user != other.user
        words = [m.text for m in await rt.history(other.conversation or "", user=other.user)]
        assert "my secret" not in words


async def test_a_message_sent_twice_is_one_message(rt: Runtime) -> None:
    async with visitor(rt) as ana:
        runs = {await asked(ana, key="k"), await asked(ana, key="k")}
        assert len(runs) == 1
        assert len(await rt.runs()) == 1


@pytest.mark.parametrize(
    ("path", "data", "status"),
    [
        ("/chat/nobody/say", {"text": "x"}, 404),
        (f"{ADDRESS}/say", {"text": " "}, 422),
        (f"{ADDRESS}/say", {"text": "x" * 20_001}, 422),
    ],
)
async def test_what_cannot_be_is_said_in_words(
    rt: Runtime, path: str, data: dict[str, str], status: int
) -> None:
    async with visitor(rt) as ana:
        await ana.get(ADDRESS, params=C)
        refused = await ana.post(path, params=C, data=data)
        assert refused.status_code == status
        assert refused.json()["message"]
        assert (await ana.get("/chat/nobody")).status_code == 404
        odd = await ana.get(ADDRESS, params={"c": "../x"})
        assert odd.status_code == 303

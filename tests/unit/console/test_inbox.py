"""The inbox over HTTP: what operators see, what their forms do, and what is refused."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from roadworthy import Agent, Limits, Runtime, ToolCall, User, tool
from roadworthy.api import asgi, create_app
from roadworthy.console import Operator
from roadworthy.escalation import Escalation, EscalationRules, Inbox
from roadworthy.testing import ScriptedModel

PAID: list[tuple[str, int]] = []


@tool(approval="operator")
def refund(order: str, euros: int) -> str:
    """Pay an order back. order: such as A-17. euros: how much."""
    PAID.append((order, euros))
    return f"refunded {euros}"


@tool(effect="read")
def look_up(order: str) -> str:
    """One order. order: such as A-17."""
    return f"{order}: 40 euros"


PAY = ToolCall("refund", {"order": "A-17", "euros": 412})
payer = Agent("payer", model=ScriptedModel([PAY, "It is on its way."]), tools=[refund, look_up])


class Header:
    """Whoever the request says, of the tenant it says."""

    async def operator(self, request: Request) -> Operator | None:
        name = request.headers.get("x-user", "")
        return Operator(name, name, tenant=request.headers.get("x-tenant")) if name else None


@pytest.fixture(autouse=True)
def _nothing_paid() -> None:
    PAID.clear()


@asynccontextmanager
async def desk(
    folder: Path, *, inbox: Inbox | None = None
) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    """A runtime with an inbox, and Lea's client."""
    async with Runtime(f"sqlite:///{folder}/t.db", patterns=[payer], inbox=inbox or Inbox()) as rt:
        transport = httpx.ASGITransport(create_app(rt, sign_in=Header()))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://desk", headers={"x-user": "lea"}
        ) as client:
            yield rt, client


async def waiting(rt: Runtime, text: str = "A-17 <i>please</i>", tenant: str = "") -> Escalation:
    """A case with a refund to decide."""
    await rt.run(payer, text, user=User("ana", tenant), conversation=f"c{tenant}")
    return next(item for item in await rt.inbox.list() if item.tenant == tenant)


async def act(
    client: httpx.AsyncClient, item: Escalation, what: str, **said: str
) -> httpx.Response:
    """Send a form of the case, as the page does."""
    headers = {"hx-request": "true"}
    return await client.post(f"/inbox/{item.id}/{what}", data=said, headers=headers)


def told(response: httpx.Response) -> str:
    """The words of an answer."""
    return re.sub(r"<[^>]+>", "", response.text)


@pytest.mark.requirement("HIT-2")
async def test_a_case_is_shown_in_plain_words(tmp_path: Path) -> None:
    async with desk(tmp_path) as (rt, client):
        item = await waiting(rt)
        page = await client.get(f"/inbox?case={item.id}")
        assert "A-17 &lt;i&gt;please&lt;/i&gt;" in page.text
        assert "<i>" not in page.text
        assert "May this happen?" in page.text
        assert "<dt>Euros</dt><dd>412</dd>" in page.text
        assert "{" not in re.sub(r"<[^>]+>", "", page.text)
        assert item.id not in told(page)


async def test_a_part_is_sent_again_only_when_it_changed(tmp_path: Path) -> None:
    async with desk(tmp_path) as (rt, client):
        item = await waiting(rt)
        for path in ("/inbox/queue", f"/inbox/{item.id}", "/console/badge"):
            part = await client.get(path)
            (mark,) = re.findall(r'data-have="(\w+)"', part.text)
            assert (await client.get(path, headers={"x-have": mark})).status_code == 204
        page = await client.get(f"/inbox?case={item.id}")
        marks = re.findall(r'data-have="(\w+)"', page.text)
        case = {"x-have": marks[-1]}
        assert (await client.get(f"/inbox/{item.id}", headers=case)).status_code == 204
        await act(client, item, "note", text="Be kind.")
        again = await client.get(f"/inbox/{item.id}", headers=case)
        assert "Be kind." in again.text


@pytest.mark.requirement("HIT-3")
async def test_an_operator_of_another_tenant_finds_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as (rt, client):
        theirs = await waiting(rt, "their secret", tenant="other")
        own = await waiting(rt, "our own", tenant="acme")
        client.headers["x-tenant"] = "acme"
        listed = await client.get("/inbox")
        assert own.id in listed.text
        assert theirs.id not in listed.text
        unknown = await client.get("/inbox/esc_none")
        for path in (
            f"/inbox/{theirs.id}",
            f"/inbox?case={theirs.id}",
            f"/console/live?case={theirs.id}",
        ):
            refused = await client.get(path)
            assert refused.status_code == 404
            assert refused.text == unknown.text.replace("esc_none", theirs.id)
        for what in ("say", "take", "note", "resolve", "decide", "claim", "hand-back"):
            refused = await act(client, theirs, what, text="x")
            assert refused.status_code == 404, what
        taken = await client.post(f"/console/runs/{theirs.run_id}/take")
        assert taken.status_code == 404
        packet = await rt.inbox.packet(theirs.id)
        assert packet.escalation.status == "open"
        assert [entry.action for entry in packet.log] == ["raised"]


async def test_a_form_sent_twice_acts_once(tmp_path: Path) -> None:
    async with desk(tmp_path) as (rt, client):
        item = await waiting(rt)
        for _ in range(2):
            sent = await act(client, item, "say", text="Hello Ana.", key="k1")
            assert sent.status_code == 204
        lines = (await rt.inbox.packet(item.id)).conversation
        assert [line.text for line in lines if line.who == "person"] == ["Hello Ana."]


@pytest.mark.requirement("HIT-2")
async def test_an_edit_is_checked_and_then_runs_as_edited(tmp_path: Path) -> None:
    async with desk(tmp_path) as (rt, client):
        item = await waiting(rt)
        (approval,) = (await rt.inbox.packet(item.id)).pending
        edit = {"approval": approval.id, "decision": "edit", "arg.order": "A-17"}
        wrong = await act(client, item, "decide", **edit, **{"arg.euros": "forty"})
        assert wrong.status_code == 422
        assert "&#39;forty&#39; is no whole number" in wrong.text
        none = await act(client, item, "decide", approval="apr_no", decision="approve")
        assert "decided already" in told(none)
        answer = await act(client, item, "decide", approval=approval.id, decision="respond")
        assert "Write the answer." in told(answer)
        done = await act(client, item, "decide", **edit, **{"arg.euros": "40"})
        assert done.headers["x-said"] == "Approved%20as%20edited."
        assert (await rt.result(item.run_id)).text == "It is on its way."
        assert PAID == [("A-17", 40)]
        again = await act(client, item, "decide", **edit, **{"arg.euros": "41"})
        assert again.status_code == 422


async def test_what_another_operator_owns_is_refused_in_words(tmp_path: Path) -> None:
    async with desk(tmp_path) as (rt, client):
        item = await waiting(rt)
        await rt.inbox.take(item.id, "kim")
        for what in ("say", "hand-back", "resolve", "claim"):
            refused = await act(client, item, what, text="x")
            assert refused.status_code == 409, what
            assert "kim" in told(refused)
        assert "kim speaks" in (await client.get(f"/inbox/{item.id}")).text


@pytest.mark.parametrize(
    ("what", "said", "words"),
    [
        ("say", {"text": "  "}, "Write something first."),
        ("say", {"text": "x" * 20_001}, "20,000 characters"),
        ("note", {"text": ""}, "Write the note first."),
        ("snooze", {"minutes": "-1"}, "up to a year"),
        ("snooze", {"minutes": "99999999999"}, "up to a year"),
        ("snooze", {"minutes": "٣"}, "up to a year"),
        ("escalate", {"reason": ""}, "Say why"),
        ("call", {"tool": "launch"}, "cannot be used here"),
    ],
)
async def test_what_is_missing_is_said(
    tmp_path: Path, what: str, said: dict[str, str], words: str
) -> None:
    async with desk(tmp_path) as (rt, client):
        refused = await act(client, await waiting(rt), what, **said)
    assert refused.status_code == 422
    assert words in told(refused)


async def test_the_tabs_hold_what_they_say(tmp_path: Path) -> None:
    async with desk(tmp_path) as (rt, client):
        item = await waiting(rt)

        async def where() -> list[str]:
            found = []
            for tab in ("open", "mine", "snoozed", "resolved", "nonsense"):
                queue = await client.get(f"/inbox/queue?tab={tab}")
                found += [tab] if item.id in queue.text else []
            return found

        assert await where() == ["open", "nonsense"]
        await act(client, item, "claim")
        assert await where() == ["mine"]
        await act(client, item, "assign", to="kim")
        assert "with kim" in (await client.get("/inbox/queue")).text
        await act(client, item, "assign", to="lea")
        await act(client, item, "release")
        assert await where() == ["open", "nonsense"]
        await act(client, item, "snooze", minutes="30")
        assert await where() == ["snoozed"]
        await act(client, item, "tag", tags="vip, <b>, vip")
        assert "&lt;b&gt;" in (await client.get("/inbox/queue?tab=snoozed")).text
        await act(client, item, "take")
        await act(client, item, "resolve", resolution="Settled.")
        assert await where() == ["resolved"]
        assert "Settled." in (await client.get(f"/inbox/{item.id}")).text


async def test_a_conversation_that_nobody_escalated_is_taken_over(tmp_path: Path) -> None:
    async with desk(tmp_path) as (rt, client):
        model = ScriptedModel(["Hello."])
        done = await rt.run(Agent("calm", model=model), "Hi", user="ana", conversation="q")
        taken = await client.post(f"/console/runs/{done.run_id}/take")
        assert taken.status_code == 204
        assert taken.headers["x-go"].startswith("/inbox?case=esc_")
        assert "you speak" in (await client.get(taken.headers["x-go"])).text
        alone = await rt.run(payer, "Hi", user="ana")
        refused = await client.post(f"/console/runs/{alone.run_id}/take")
        assert "no conversation to take over" in refused.text


@pytest.mark.requirement("HIT-3")
async def test_a_run_that_a_limit_stopped_is_handed_back_with_more(tmp_path: Path) -> None:
    look = [ToolCall("look_up", {"order": f"A-{n}"}) for n in range(3)]
    short = Agent(
        "short",
        model=ScriptedModel([*look, "All three."]),
        tools=[look_up],
        limits=Limits(turns=2, usd=0.5),
        escalation=EscalationRules(limits=True),
    )
    async with desk(tmp_path) as (rt, client):
        run = await rt.run(short, "Look at all", user="ana", conversation="c")
        assert run.status == "escalated"
        (item,) = await rt.inbox.list()
        page = await client.get(f"/inbox/{item.id}")
        assert 'name="arg.turns" value="2"' in page.text
        await act(client, item, "take")
        wrong = await act(client, item, "hand-back", **{"arg.turns": "0", "arg.usd": "0.5"})
        assert wrong.status_code == 422
        said = {"arg.turns": "9", "arg.usd": "0.5", "arg.seconds": "600", "instruction": "Go on."}
        assert (await act(client, item, "hand-back", **said)).status_code == 204
        done = await rt.result(run.run_id)
        assert (done.status, done.text) == ("completed", "All three.")
        facts = (await client.get(f"/console/runs/{run.run_id}")).json()
        assert (facts["limits"]["turns"], facts["limits"]["usd"]) == (9, "0.5")


async def test_without_an_inbox_the_page_says_how_to_get_one(tmp_path: Path) -> None:
    async with Runtime(f"sqlite:///{tmp_path}/t.db", patterns=[payer]) as rt:
        transport = httpx.ASGITransport(create_app(rt, sign_in=Header()))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://desk", headers={"x-user": "lea"}
        ) as client:
            page = await client.get("/inbox")
            badge = await client.get("/console/badge")
    assert "inbox=Inbox()" in page.text
    assert (page.status_code, badge.status_code) == (200, 200)


async def test_it_works_below_a_prefix(tmp_path: Path) -> None:
    async with Runtime(f"sqlite:///{tmp_path}/t.db", patterns=[payer], inbox=Inbox()) as rt:
        item = await waiting(rt)
        own = FastAPI()
        own.mount("/agents", asgi(rt, sign_in=Header()))
        transport = httpx.ASGITransport(own)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://desk", headers={"x-user": "lea"}
        ) as client:
            assert (await client.get("/agents/")).headers["location"] == "/agents/inbox"
            for path in (
                f"/agents/inbox?case={item.id}",
                "/agents/runs",
                "/agents/chat/payer?c=chat-12345",
            ):
                page = await client.get(path)
                assert page.status_code == 200
                links: list[Any] = re.findall(
                    r'\s(?:href|src|action|hx-get|hx-sse:connect|data-base)="([^"]*)"', page.text
                )
                assert [link for link in links if not link.startswith(("/agents", "#"))] == []

"""People are told that something waits for them: signed, at least once, without words of users."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message as Mail
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from aiosmtpd.handlers import Message as MailHandler
from aiosmtpd.smtp import SMTP

from roadworthy import Agent, Runtime
from roadworthy.errors import DeclarationError
from roadworthy.escalation import Email, Inbox, QueuePolicy, Slack, Webhook
from roadworthy.testing import FakeClock, ScriptedModel
from tests.scenarios.world import Given, url

pytestmark = pytest.mark.requirement("HIT-4")
SECRET = "whsec_" + base64.b64encode(b"between us").decode()


@dataclass
class Ear:
    """A server that hears notices. answers: status codes of the next requests, then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    heard: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.heard]


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            ear.heard.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status = ear.answers.pop(0) if ear.answers else 200
            self.send_response(status)
            if status == 302:
                self.send_header("location", f"{ear.url}/elsewhere")
            self.end_headers()

        def log_message(self, *_: Given) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ear.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield ear
    server.shutdown()
    thread.join()
    server.server_close()


def desk() -> Agent[None, str]:
    return Agent("desk", model=ScriptedModel(["Bye."]))


async def test_every_change_is_told_signed_and_without_words(tmp_path: Path, ear: Ear) -> None:
    inbox = Inbox(
        notify=[Webhook(url=ear.url, secret=SECRET)],
        link="https://desk.example/inbox/{id}",
        queues=[QueuePolicy(due_seconds=60)],
    )
    clock, agent = FakeClock(), desk()
    async with Runtime(url(tmp_path), inbox=inbox, clock=clock) as rt:
        said = await rt.run(agent, "My PIN is 1234, get me a human", user="ana", conversation="c")
        (item,) = await rt.inbox.list()
        await rt.catch_up()
        await clock.advance(61)
        await rt.catch_up()
        await rt.inbox.escalate(item.id, "lea", reason="not mine")
        await rt.inbox.take(item.id, "tom")
        await rt.result(said.run_id)
        await rt.run(agent, "Hello?", user="ana", conversation="c")
        await rt.inbox.hand_back(item.id, "tom")
        await rt.result(said.run_id)
        for _ in range(3):
            await rt.catch_up()
        told = ear.bodies()
        assert sorted(body["event"] for body in told) == sorted(
            ["raised", "overdue", "escalated", "user_said", "resolved"]
        )
        assert told[0]["link"] == f"https://desk.example/inbox/{item.id}"
        assert (told[0]["trigger"], told[0]["escalation"]) == ("asked_for_person", item.id)
        assert b"1234" not in b"".join(body for _, _, body in ear.heard)
        for _, headers, body in ear.heard:
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            digest = hmac.new(b"between us", signed, hashlib.sha256).digest()
            assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
        assert len({headers["webhook-id"] for _, headers, _ in ear.heard}) == 5


async def test_what_does_not_arrive_is_tried_again_and_given_up(tmp_path: Path, ear: Ear) -> None:
    ear.answers = [500, 302]
    inbox = Inbox(notify=[Slack(url=ear.url, words=True, events=["raised"])])
    clock = FakeClock()
    async with Runtime(url(tmp_path), inbox=inbox, clock=clock) as rt:
        await rt.run(desk(), "I want to talk to a human", user="ana", conversation="c")
        await rt.catch_up()
        await rt.catch_up()
        assert len(ear.heard) == 1  # not at once again
        for _ in range(3):
            await clock.advance(120)
            await rt.catch_up()
        assert [path for path, _, _ in ear.heard] == ["/", "/", "/"]  # no redirect is followed
        assert len({headers["webhook-id"] for _, headers, _ in ear.heard}) == 1
        assert "I want to talk to a human" in ear.bodies()[-1]["text"]
        assert not [f for f in await rt.crew.checkup() if "notices" in f.what]

        ear.answers = [503] * 99
        await rt.run(desk(), "I want to talk to a human", user="bob", conversation="d")
        for _ in range(20):
            await rt.catch_up()
            await clock.advance(3_700)
        assert len(ear.heard) == 3 + 12
        (found,) = [f for f in await rt.crew.checkup() if "notices" in f.what]
        assert found.what == "1 notices were given up over 'slack': it answered 503"


async def test_what_was_written_is_told_after_a_restart(tmp_path: Path, ear: Ear) -> None:
    ear.answers = [503]
    inbox, clock = Inbox(notify=[Webhook(url=ear.url, secret=SECRET)]), FakeClock()
    async with Runtime(url(tmp_path), inbox=inbox, clock=clock) as rt:
        await rt.run(desk(), "I want to talk to a human", user="ana", conversation="c")
        await rt.catch_up()
    await clock.advance(60)
    async with Runtime(url(tmp_path), inbox=inbox, clock=clock) as rt:
        await rt.catch_up()
        assert [body["event"] for body in ear.bodies()] == ["raised", "raised"]


class Post(MailHandler):
    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Mail] = []

    def handle_message(self, message: Mail) -> None:
        self.mails.append(message)


async def test_a_mail_says_what_waits(tmp_path: Path) -> None:
    post = Post()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(post), "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        mail = Email(
            host="127.0.0.1", port=port, tls="none", sender="bot@x.example", to=["lea@x.example"]
        )
        async with Runtime(url(tmp_path), inbox=Inbox(notify=[mail]), clock=FakeClock()) as rt:
            await rt.run(desk(), "I want to talk to a human", user="ana", conversation="c")
            await rt.catch_up()
            (found,) = post.mails
            assert (found["Subject"], found["To"]) == ("desk: needs a person", "lea@x.example")
            assert str(found["Message-ID"]).startswith("<ntc_")
            assert "human" not in str(found.get_payload())
    finally:
        server.close()
        await server.wait_closed()


def test_channels_are_checked_when_declared() -> None:
    for make, what in (
        (lambda: Webhook(url="ftp://x", secret=SECRET), "no http"),
        (lambda: Webhook(url="https://x", secret=""), "secret"),
        (lambda: Slack(url="https://x", events=["all"]), "overdue"),  # type: ignore[list-item]
        (lambda: Email(host="h", sender="a", to="b"), "a list"),
        (lambda: Email(host="h", sender="a", to=["b"], tls="none", user="u"), "without tls"),
        (lambda: Inbox(notify=[Slack(url="https://x"), Slack(url="https://y")]), "name="),
        (lambda: Inbox(link="https://x"), "{id}"),
    ):
        with pytest.raises(DeclarationError, match=what):
            make()


async def test_what_lies_for_a_channel_that_is_gone_holds_up_no_other(
    tmp_path: Path, ear: Ear
) -> None:
    gone = Inbox(notify=[Webhook(url=f"{ear.url}/gone", secret=SECRET, name="gone")])
    agent, clock = desk(), FakeClock()
    ear.answers = [500] * 60
    async with Runtime(url(tmp_path), inbox=gone, clock=clock) as rt:
        for number in range(55):
            await rt.run(agent, "I need a human", user=f"u{number}", conversation=f"c{number}")
        for _ in range(3):
            await rt.catch_up()
    ear.answers, before = [], len(ear.heard)
    assert before > 50
    here = Inbox(notify=[Webhook(url=f"{ear.url}/here", secret=SECRET, name="here")])
    await clock.advance(3_600)
    async with Runtime(url(tmp_path), inbox=here, clock=clock) as rt:
        await rt.run(agent, "I need a human", user="ana", conversation="c")
        for _ in range(3):
            await rt.catch_up()
        assert any(path == "/here" for path, _, _ in ear.heard[before:])

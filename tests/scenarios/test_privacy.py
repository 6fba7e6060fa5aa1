"""Personal data: clear for tools and the user, tokens for the store and the model."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import to_builtins
from pydantic import BaseModel, Field

from roadworthy import (
    Agent,
    RunContext,
    RunOptions,
    RunResult,
    Runtime,
    Tool,
    ToolCall,
    ToolError,
    User,
    tool,
)
from roadworthy.errors import IdempotencyConflict
from roadworthy.events import (
    Delivered,
    RunEnded,
    RunStarted,
    StreamEvent,
    TextDelta,
    ToolSucceeded,
)
from roadworthy.messages import Message, Reasoning
from roadworthy.privacy import Scope
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.tools import Undo
from tests.properties.snapshots import Snapshots
from tests.scenarios.world import of_kind, url

MAIL = re.compile(r"[\w.+-]+@[\w-]+\.\w+")
TOKEN = re.compile(r"\[\[EMAIL_(\d+)\]\]")
ANA, BOB, EVE = "ana@example.org", "bob@example.org", "eve@example.net"


class Vault:
    """E-mail addresses <-> [[EMAIL_1]], numbered in each scope."""

    def __init__(self) -> None:
        self.kept: defaultdict[Scope, list[str]] = defaultdict(list)

    async def conceal(self, text: str, scope: Scope) -> str:
        known = self.kept[scope]

        def token(found: re.Match[str]) -> str:
            if found[0] not in known:
                known.append(found[0])
            return f"[[EMAIL_{known.index(found[0]) + 1}]]"

        return MAIL.sub(token, text)

    async def reveal(self, text: str, scope: Scope) -> str:
        known = self.kept[scope]

        def value(found: re.Match[str]) -> str:
            number = int(found[1])
            return known[number - 1] if 0 < number <= len(known) else found[0]

        return TOKEN.sub(value, text)


def assert_veiled(folder: Path, *models: ScriptedModel) -> None:
    """No address is in the store's files, none was ever sent to a model."""
    for file in folder.rglob("*.db*"):
        assert not re.search(rb"ana@|bob@|eve@|@example", file.read_bytes()), file
    for model in models:
        for asked in model.requests:
            assert "@example" not in json.dumps(to_builtins(asked.request), default=str)


class Post:
    """A desk that writes to people, and what it saw."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def tools(self) -> list[Tool[None]]:
        @tool(effect="read")
        def find_mail(name: str) -> dict[str, str]:
            """The address of somebody."""
            return {"name": name, "mail": BOB}

        @tool(effect="irreversible", approval="operator")
        def send(to: Annotated[str, Field(pattern=MAIL.pattern)], text: str) -> str:
            """Send a mail."""
            self.sent.append((to, text))
            return f"sent to {to}"

        return [find_mail, send]


def post_model() -> ScriptedModel:
    return ScriptedModel(
        [
            ToolCall("find_mail", {"name": "Bob"}),
            ToolCall("ask_user", {"question": "From [[EMAIL_1]] to [[EMAIL_2]]? Copy to whom?"}),
            ToolCall("send", {"to": "[[EMAIL_2]]", "text": "from [[EMAIL_1]]"}),
            [Reasoning(text=f"or was it {ANA}?"), "Sent to [[EMAIL_3]] for [[EMAIL_1]]."],
        ]
    )


async def test_addresses_reach_tools_and_the_user_and_nothing_else(tmp_path: Path) -> None:
    vault, post, model = Vault(), Post(), post_model()
    desk = Agent("post", model=model, tools=post.tools())
    async with Runtime(url(tmp_path), patterns=[desk], privacy=vault) as rt:
        asked = await rt.run(desk, f"I am {ANA}. Write to Bob.", conversation="c", key="k")
        assert asked.question == f"From {ANA} to {BOB}? Copy to whom?"
    async with Runtime(url(tmp_path), patterns=[desk], privacy=vault) as rt:
        waits = await rt.run(desk, f"Nobody, but it is {EVE}", conversation="c")
        assert waits.run_id == asked.run_id
        assert waits.waiting[0].arguments == {"to": BOB, "text": f"from {ANA}"}
        edit = {"to": EVE, "text": f"instead of {BOB}"}
        await rt.resolve(waits.waiting[0].id, "edit", by="lea", arguments=edit)
        result = await rt.result(waits.run_id)
        assert result.text == f"Sent to {EVE} for {ANA}."
        assert post.sent == [(EVE, f"instead of {BOB}")]
        said = [message.text for message in await rt.history("c")]
        assert said[0] == f"I am {ANA}. Write to Bob."
        assert said[-1] == result.text
        shown = [event async for event in rt.events(result.run_id)]
        assert [e.text for e in shown if isinstance(e, Delivered)] == [result.text]
        assert [e.result.text for e in shown if isinstance(e, RunEnded)] == [result.text]
        replayed = await rt.replay(result.run_id)
        assert not replayed.differences
        assert (await rt.run(desk, f"I am {ANA}. Write to Bob.", conversation="c", key="k")).over
    assert_veiled(tmp_path, model)


@pytest.mark.sqlite_only
async def test_a_run_resumed_at_any_commit_stays_veiled(tmp_path: Path) -> None:
    vault = Vault()
    snapshots = Snapshots(tmp_path / "t.db", tmp_path / "cuts")

    def desk(sent: list[str]) -> Agent:
        @tool(effect="write")
        def send(run: RunContext[None], to: str) -> str:
            """Send."""
            sent.append(to)
            return f"sent to {to} under {run.key}"

        model = ScriptedModel([ToolCall("send", {"to": "[[EMAIL_1]]"}), "Done, [[EMAIL_1]]."])
        models.append(model)
        return Agent("post", model=model, tools=[send])

    models: list[ScriptedModel] = []
    first = desk([])
    async with Runtime(snapshots.url, privacy=vault, on_event=snapshots.taken) as rt:
        run_id = (await rt.run(first, f"To {ANA}")).run_id
    for cut in snapshots.files:
        sent: list[str] = []
        async with Runtime(
            f"sqlite:///{cut}", patterns=[desk(sent)], privacy=vault, clock=FakeClock(auto=True)
        ) as rt:
            assert (await rt.result(run_id)).text == f"Done, {ANA}."
            assert set(sent) <= {ANA}
    assert len(snapshots.files) > 5
    assert_veiled(tmp_path, *models)


async def test_whatever_a_tool_says_is_concealed(tmp_path: Path) -> None:
    """Errors, kept results, reconciled ones, fallbacks: each is another way into the journal."""
    saw: list[str] = []

    @tool(effect="read")
    def other(mail: str) -> str:
        """Look elsewhere."""
        saw.append(f"other {mail}")
        return f"elsewhere {mail}"

    @tool(effect="read", fallback=other, retries=0)
    def look(mail: str) -> str:
        """Look."""
        raise ToolError(f"{'x' * 490} {mail} is out of reach", retry=True)

    @tool(effect="read", cache_ttl=60)
    def kept(mail: str) -> str:
        """Keep."""
        saw.append(f"kept {mail}")
        return f"kept for {mail}"

    def status(run: RunContext[None], mail: str) -> object:
        saw.append(f"reconcile {mail}")
        return ("applied", f"found sent to {mail}")

    @tool(effect="irreversible", reconcile=status)
    def send(run: RunContext[None], mail: str) -> str:
        """Send."""
        raise OSError(f"lost on the way to {mail}")

    @tool(effect="write", retries=0)
    def refuse(run: RunContext[None], mail: str) -> str:
        """Refuse."""
        raise ToolError(f"{'x' * 490} {mail} is banned")

    @tool(effect="read")
    def long(mail: str) -> str:
        """Very long."""
        return "x " * (32 * 1024 - 4) + mail

    told = {"mail": "[[EMAIL_1]]"}
    names = ["look", "kept", "kept", "send", "refuse", "long"]
    model = ScriptedModel([*([ToolCall(n, told)] for n in names), "Done."])
    desk = Agent("desk", model=model, tools=[look, kept, send, refuse, long])
    clock = FakeClock(auto=True)
    async with Runtime(url(tmp_path), privacy=Vault(), clock=clock) as rt:
        result = await rt.run(desk, f"I am {ANA}", conversation="c")
        outcomes = await of_kind(rt, result.run_id, ToolSucceeded)
    assert result.status == "completed"
    assert [o.source for o in outcomes] == ["fallback", "call", "cache", "reconciled", "call"]
    assert saw == [f"other {ANA}", f"kept {ANA}", f"reconcile {ANA}"]
    assert "elsewhere [[EMAIL_1]]" in model.requests[1].results[0]
    assert model.requests[4].results[3] == "found sent to [[EMAIL_1]]"
    assert_veiled(tmp_path, model)


async def test_a_kept_result_is_not_reused_where_tokens_mean_others(tmp_path: Path) -> None:
    @tool(effect="read", cache_ttl=60)
    def name_of(mail: str) -> str:
        """Whose address."""
        return mail.partition("@")[0]

    def model() -> ScriptedModel:
        return ScriptedModel([ToolCall("name_of", {"mail": "[[EMAIL_1]]"}), last])

    def last(request: object) -> str:
        return spoken[-1].requests[-1].results[-1]

    spoken: list[ScriptedModel] = []
    async with Runtime(url(tmp_path), privacy=Vault()) as rt:
        for mail in (ANA, BOB):
            spoken.append(model())
            desk = Agent("desk", model=spoken[-1], tools=[name_of])
            assert (await rt.run(desk, mail, user="u")).text == mail.partition("@")[0]


async def test_a_stream_never_shows_half_a_token(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel(["I wrote to [[EMAIL_1]] and [[EMAIL_1]] today."]))
    seen: list[StreamEvent] = []
    async with Runtime(url(tmp_path), privacy=Vault(), on_event=seen.append) as rt:
        events = [event async for event in rt.stream(desk, f"I am {ANA}")]
    deltas = [event.text for event in events if isinstance(event, TextDelta)]
    assert deltas == [f"I wrote to {ANA} and {ANA} today."]
    assert ANA not in repr(seen)  # the hook is told what is recorded


async def test_a_repeated_request_is_the_same_and_another_is_not(tmp_path: Path) -> None:
    model = ScriptedModel(lambda _: "ok")
    desk = Agent("desk", model=model)
    async with Runtime(url(tmp_path), privacy=Vault()) as rt:
        first = await rt.run(desk, f"Refund {ANA}", key="k")
        again = await rt.run(desk, f"Refund {ANA}", key="k")
        assert first.run_id == again.run_id
        with pytest.raises(IdempotencyConflict):
            await rt.run(desk, f"Refund {BOB}", key="k")
        old = [Message.user(f"I was {EVE}"), Message.assistant("Hello.")]
        await rt.run(desk, "And now?", options=RunOptions(history=old))
    assert_veiled(tmp_path, model)


async def test_tokens_of_one_conversation_say_nothing_in_another(tmp_path: Path) -> None:
    desk = Agent("desk", model=ScriptedModel(lambda _: "You are [[EMAIL_1]]."))
    async with Runtime(url(tmp_path), privacy=Vault()) as rt:

        async def say(text: str, tenant: str, conversation: str) -> str:
            user = User("u", tenant)
            return (await rt.run(desk, text, user=user, conversation=conversation)).text

        assert await say(f"I am {ANA}", "t", "c") == f"You are {ANA}."
        assert await say("Who am I?", "t", "c") == f"You are {ANA}."
        assert await say("Who am I?", "t", "d") == "You are [[EMAIL_1]]."
        assert await say("Who am I?", "v", "c") == "You are [[EMAIL_1]]."


class Card(BaseModel):
    text: str
    mail: str


async def test_dependencies_instructions_and_typed_answers(tmp_path: Path) -> None:
    model = ScriptedModel([ToolCall("final_answer", {"text": "Hi", "mail": "[[EMAIL_1]]"})])
    desk = Agent(
        "desk", model=model, output=Card, instructions=["Be kind.", lambda _: f"You serve {ANA}."]
    )
    async with Runtime(url(tmp_path), privacy=Vault()) as rt:
        result: RunResult[Card] = await rt.run(desk, f"I am {ANA}")
        assert result.output == Card(text="Hi", mail=ANA)
    assert "You serve [[EMAIL_1]]." in model.requests[0].instructions

    @asynccontextmanager
    async def broken(run: RunContext[None]) -> AsyncIterator[None]:
        if run.run_id:
            raise OSError(f"no mailbox of {BOB}")
        yield

    failing = Agent("failing", model=model, deps=broken)
    async with Runtime(url(tmp_path), privacy=Vault()) as rt:
        assert BOB in (await rt.run(failing, "x")).report.why
    assert_veiled(tmp_path, model)


@pytest.mark.sqlite_only
async def test_without_a_privacy_all_stays_as_it_is(tmp_path: Path) -> None:
    model = ScriptedModel([f"You are {ANA}, not [[EMAIL_1]]."])
    desk = Agent("desk", model=model)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, f"I am {ANA}")
        started = await of_kind(rt, result.run_id, RunStarted)
    assert result.text == f"You are {ANA}, not [[EMAIL_1]]."
    assert started[0].input.text == f"I am {ANA}"
    with pytest.raises(AssertionError):
        assert_veiled(tmp_path)


@pytest.mark.requirement("REC-5")
async def test_what_is_undone_is_undone_in_clear_and_recorded_in_tokens(tmp_path: Path) -> None:
    vault, done = Vault(), list[str]()

    @tool
    def unsubscribe(mail: str, by: str) -> str:
        """Unsubscribe. mail: who. by: whose word."""
        done.append(f"unsubscribe {mail} {by}")
        return "done"

    @tool(undo=Undo(unsubscribe, {"mail": "result.mail", "by": "name"}))
    def subscribe(name: str) -> dict[str, str]:
        """Subscribe. name: who."""
        done.append(f"subscribe {name}")
        return {"note": EVE, "mail": BOB}

    model = ScriptedModel([ToolCall("subscribe", {"name": "[[EMAIL_1]]"}), "Done."])
    desk = Agent("desk", model=model, tools=[subscribe])
    async with Runtime(url(tmp_path), patterns=[desk], privacy=vault) as rt:
        result = await rt.run(desk, f"Subscribe {ANA}.")
        undo = await rt.result(await rt.undo(result.run_id, by="lea"))
    assert undo.status == "completed", undo
    assert done == [f"subscribe {ANA}", f"unsubscribe {BOB} {ANA}"]
    assert_veiled(tmp_path, model)

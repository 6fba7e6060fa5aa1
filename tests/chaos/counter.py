"""A counter where users, an agent and two operators talk at once, and what must hold of it.

Executed in this process, or in children that are killed, again and again on the same folder until
all is settled. Invariant: who sends what is written down before and after it is sent, so that a
kill leaves no doubt about what must be there.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from roadworthy import Agent, Limits, RunContext, Runtime, ToolCall, tool
from roadworthy.clock import SystemClock
from roadworthy.errors import RunError
from roadworthy.escalation import Escalation, EscalationRules, Inbox, QueuePolicy
from roadworthy.events import ApprovalAsked, ApprovalDecided, Delivered, RunEvent
from roadworthy.messages import Message, ModelRequest, ToolResult
from roadworthy.result import ENDS, Decision
from roadworthy.store import migrations
from roadworthy.store.opening import open_database
from roadworthy.testing import ScriptedModel
from roadworthy.testing.scripted import Turn

CHATS = ("c1", "c2")
MESSAGES = 5  # of each user
CLERKS = ("lea", "tom", "lea")  # lea has two windows open
_PAUSE = 0.003
_DECISIONS: tuple[Decision, ...] = ("approve", "edit", "reject", "respond")
_TABLES = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=OFF;
CREATE TABLE IF NOT EXISTS sent (n INTEGER PRIMARY KEY, chat TEXT, text TEXT, acked INTEGER);
CREATE TABLE IF NOT EXISTS words (n INTEGER PRIMARY KEY, chat TEXT, by TEXT, text TEXT);
CREATE TABLE IF NOT EXISTS paid (n INTEGER PRIMARY KEY, run TEXT, key TEXT, euros INTEGER);
CREATE TABLE IF NOT EXISTS decided (approval TEXT, decision TEXT, by TEXT, euros INTEGER);
CREATE TABLE IF NOT EXISTS launch (n INTEGER PRIMARY KEY);
"""
_SEEN = """
CREATE TABLE IF NOT EXISTS seen (id INTEGER PRIMARY KEY AUTOINCREMENT,
  what TEXT, chat TEXT, a TEXT, b TEXT, n INTEGER);
CREATE TRIGGER IF NOT EXISTS seen_said AFTER INSERT ON said BEGIN
  INSERT INTO seen (what, chat, a, b, n)
  VALUES ('said', NEW.conversation, NEW.who, NEW.by, NEW.n);
END;
CREATE TRIGGER IF NOT EXISTS seen_owner AFTER UPDATE ON conversation
  WHEN OLD.owner <> NEW.owner OR OLD.person <> NEW.person BEGIN
  INSERT INTO seen (what, chat, a, b, n) VALUES ('owner', NEW.id, NEW.owner, NEW.person, 0);
END;
"""


class Ledger:
    """What the users, the operators and the till know; a row is there before its writer goes on."""

    def __init__(self, folder: Path, at: Callable[[str], None]) -> None:
        self._connection = sqlite3.connect(
            folder / "world.db", isolation_level=None, timeout=30, check_same_thread=False
        )
        self._connection.executescript(_TABLES)
        self._at = at

    def put(self, sql: str, *values: object) -> None:
        """Write a row; the process may die before or after it."""
        self._at("before")
        self._connection.execute(sql, values)
        self._at("after")

    def rows(self, sql: str, *values: object) -> list[Any]:
        """Rows."""
        return list(self._connection.execute(sql, values))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def agent_for(ledger: Ledger) -> Agent[None, str]:
    """An agent of moods; what it does depends on the run and on what it was told alone."""

    def say(request: ModelRequest) -> Turn:
        told = "".join(m.text for m in request.messages)
        draw = random.Random(f"{request.run_id}/{request.ordinal}/{told}")  # noqa: S311
        mark = f"{draw.randrange(10**9)}"
        calls: list[Turn] = [
            [ToolCall("refund", {"order": mark, "euros": draw.randrange(100, 999)})],
            [ToolCall("look_up", {"order": mark})],
            [ToolCall("note", {"order": mark})],
            ToolCall("ask_user", {"question": f"Which one, {mark}?"}),
            ToolCall("escalate", {"reason": f"too hard, {mark}"}),
        ]
        offered = {each.name for each in request.tools}
        if not offered or request.ordinal > 6 or draw.random() < 0.45:
            return f"answer {mark}"
        return draw.choice(calls)

    @tool(effect="irreversible", approval="operator")
    async def refund(run: RunContext[None], order: str, euros: int) -> str:
        """Pay back. order: which. euros: how much."""
        ledger.put(
            "INSERT INTO paid (run, key, euros) VALUES (?, ?, ?)", run.run_id, run.key, euros
        )
        return f"refunded {euros}"

    @tool(effect="read")
    def look_up(order: str) -> str:
        """One order. order: which."""
        return f"{order}: paid"

    @tool(effect="write", idempotent_by_nature=True)
    async def note(order: str) -> str:
        """Write a note. order: which."""
        await SystemClock().sleep(_PAUSE)
        return f"{order}: noted"

    model = ScriptedModel(say, latency=_PAUSE)
    return Agent(
        "desk",
        model=model,
        tools=[refund, look_up, note],
        limits=Limits(turns=60, tool_calls=60),
        escalation=EscalationRules(asked_for_person=True),
    )


INBOX = Inbox(queues=[QueuePolicy(silent_seconds=0.5, lock_seconds=0.3, due_seconds=0.4)])


def store_of(folder: Path) -> str:
    """The store, with a record of the order in which words and owners came."""
    url = f"sqlite:///{folder}/store.db"
    database = open_database(url)
    migrations.upgrade(database)
    database.close()
    with sqlite3.connect(folder / "store.db", timeout=30) as connection:
        connection.executescript(_SEEN)
    connection.close()
    return url


async def drive(folder: Path, at: Callable[[str], None], _: Mapping[str, Any]) -> None:
    """All talk at once until the users have said everything; then what is open is settled."""
    ledger = Ledger(folder, at)
    ledger.put("INSERT INTO launch VALUES (NULL)")
    launches = len(ledger.rows("SELECT n FROM launch"))
    seed = f"{folder.name}/{launches}"
    agent = agent_for(ledger)
    async with Runtime(store_of(folder), patterns=[agent], inbox=INBOX) as rt:
        await Counterside(rt, agent, ledger, seed).work()
    ledger.close()


class Counterside:
    """Everybody at work on one open runtime."""

    def __init__(self, rt: Runtime, agent: Agent[None, str], ledger: Ledger, seed: str) -> None:
        self._rt, self._agent, self._ledger = rt, agent, ledger
        self._seed = seed
        self._users = 0
        self._clock = SystemClock()

    async def work(self, seconds: float | None = None) -> None:
        """Until all is said and settled; or break off after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for chat in CHATS:
                    self._users += 1
                    group.create_task(self._user(chat))
                for number, by in enumerate(CLERKS):
                    group.create_task(self._clerk(by, number))
        if seconds is None:
            await self._settle()

    # --- users ---------------------------------------------------------------------------

    async def _user(self, chat: str) -> None:
        draw = random.Random(f"{self._seed}/{chat}")  # noqa: S311
        try:
            done = self._ledger.rows("SELECT 1 FROM sent WHERE chat = ? AND acked = 1", chat)
            for number in range(len(done), MESSAGES):
                await self._send(chat, number, draw)
                await self._clock.sleep(draw.random() * 0.08)
        finally:
            self._users -= 1

    async def _send(self, chat: str, number: int, draw: random.Random) -> None:
        text = f"{chat}/{number}"
        if draw.random() < 0.15 and number == 0:
            text = f"{chat}/{number} I want to talk to a human"
        known = self._ledger.rows("SELECT text FROM sent WHERE chat = ? AND acked = 0", chat)
        text = known[0][0] if known else text
        if not known:
            self._ledger.put("INSERT INTO sent (chat, text, acked) VALUES (?, ?, 0)", chat, text)
        times = 2 if draw.random() < 0.3 else 1  # impatient
        async with asyncio.TaskGroup() as group:
            for _ in range(times):
                work = self._rt.start(
                    self._agent, text, user=f"of {chat}", conversation=chat, key=f"{chat}/{number}"
                )
                group.create_task(work)
        self._ledger.put("UPDATE sent SET acked = 1 WHERE chat = ? AND text = ?", chat, text)

    # --- operators -----------------------------------------------------------------------

    async def _clerk(self, by: str, number: int) -> None:
        draw = random.Random(f"{self._seed}/{by}/{number}")  # noqa: S311
        while self._users:
            with suppress(RunError):  # somebody was quicker
                async with asyncio.timeout(3):
                    await self._act(by, draw)
            await self._clock.sleep(draw.random() * 0.03)

    async def _act(self, by: str, draw: random.Random) -> None:
        items = await self._rt.inbox.list()
        if not items or draw.random() < 0.1:
            if draw.random() < 0.3:
                await self._rt.inbox.take_conversation(draw.choice(CHATS), by)
            return
        item, inbox = draw.choice(items), self._rt.inbox
        soon = self._clock.now() + 100_000
        deeds: dict[str, Callable[[], Awaitable[object]]] = {
            "claim": lambda: inbox.claim(item.id, by),
            "release": lambda: inbox.release(item.id, by),
            "assign": lambda: inbox.assign(item.id, draw.choice(CLERKS), by),
            "snooze": lambda: inbox.snooze(item.id, soon, by),
            "further": lambda: inbox.escalate(item.id, by, reason="harder than it looks"),
            "draft": lambda: inbox.draft(item.id, by),
            "call": lambda: inbox.call(item.id, "note", {"order": "A-17"}, by),
            "take": lambda: inbox.take(item.id, by),
            "close": lambda: inbox.close(item.id, by),
            "say": lambda: self._say(item, by, draw),
            "decide": lambda: self.decide(item, by, draw),
            "back": lambda: inbox.hand_back(item.id, by, instruction="Go on."),
        }
        often = ("say", "decide", "decide", "back", "back")
        await deeds[draw.choice((*deeds, *often))]()

    async def _say(self, item: Escalation, by: str, draw: random.Random) -> None:
        text = f"{by} says {draw.randrange(10**9)}"
        times = 2 if draw.random() < 0.3 else 1
        for _ in range(times):
            await self._rt.inbox.say(item.id, text, by, key=text)
        chat = item.conversation
        self._ledger.put("INSERT INTO words (chat, by, text) VALUES (?, ?, ?)", chat, by, text)

    async def decide(self, item: Escalation, by: str, draw: random.Random) -> None:
        """Decide one call of it, if any waits."""
        pending = (await self._rt.inbox.packet(item.id)).pending
        if not pending:
            return
        approval = draw.choice(pending)
        if approval.kind == "unknown_outcome":
            paid = self._ledger.rows(
                "SELECT euros FROM paid WHERE run = ? AND euros = ?",
                approval.run_id,
                approval.arguments["euros"],
            )
            if paid:
                await self._rt.inbox.decide(approval.id, "respond", by, note="refunded")
            else:
                await self._rt.inbox.decide(approval.id, "approve", by)
            return
        decision = draw.choice(_DECISIONS)
        euros = approval.arguments["euros"]
        arguments = {**approval.arguments, "euros": 7} if decision == "edit" else None
        await self._rt.inbox.decide(approval.id, decision, by, arguments=arguments, note="so it is")
        self._ledger.put(
            "INSERT INTO decided VALUES (?, ?, ?, ?)",
            approval.id,
            decision,
            by,
            7 if arguments else euros,
        )

    # --- the end -------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Every call decided, every conversation handed back, every question answered."""
        draw = random.Random(f"{self._seed}/settle")  # noqa: S311
        async with asyncio.timeout(40):
            while True:
                for item in await self._rt.inbox.list():
                    with suppress(RunError):
                        await self._see_to(item, draw)
                rows = await self._rt.runs(500)
                if all(row.status in ENDS for row in rows) and not await self._rt.inbox.list():
                    return
                for row in rows:
                    if row.status == "waiting":
                        await self._answer(row.id, row.conversation or "")
                await self._clock.sleep(0.02)

    async def _see_to(self, item: Escalation, draw: random.Random) -> None:
        by = item.assignee or "lea"
        await self.decide(item, by, draw)
        if item.kind == "handover":
            await self._rt.inbox.hand_back(item.id, by)

    async def _answer(self, run_id: str, chat: str) -> None:
        result = await self._rt.result(run_id)
        if result.status == "waiting" and result.question is not None:
            number = len(self._ledger.rows("SELECT 1 FROM sent WHERE chat = ?", chat))
            await self._send(chat, number, random.Random(number))  # noqa: S311


# --- what must hold ----------------------------------------------------------------------------


async def audit(folder: Path) -> None:
    """Everything that must hold of a folder in which all is settled."""
    ledger = Ledger(folder, lambda _: None)
    store = sqlite3.connect(folder / "store.db")
    try:
        check_order(store)
        async with Runtime(store_of(folder), inbox=INBOX, execute=False) as rt:
            for chat in CHATS:
                await check_words(rt, ledger, chat)
            await check_calls(rt, ledger)
    finally:
        store.close()
        ledger.close()


def check_order(store: sqlite3.Connection) -> None:
    """The agent speaks only while it owns the conversation; a person only while they do."""
    owners: dict[str, tuple[str, str]] = {}
    places: Counter[str] = Counter()
    for what, chat, a, b, n in store.execute("SELECT what, chat, a, b, n FROM seen ORDER BY id"):
        if what == "owner":
            assert (a == "person") == bool(b), f"{chat}: owned by {a} {b!r}"
            owners[chat] = (a, b)
            continue
        places[chat] += 1
        assert n == places[chat], f"{chat}: message {n} came as number {places[chat]}"
        owner = owners.get(chat, ("agent", ""))
        if a == "agent":
            assert owner[0] == "agent", f"{chat}: the agent spoke (message {n}), owner {owner}"
        if a == "person":
            assert owner == ("person", b), f"{chat}: {b} spoke (message {n}), owner {owner}"
    left = store.execute("SELECT id, owner FROM conversation WHERE owner <> 'agent'").fetchall()
    assert left == [], f"still owned: {left}"


async def check_words(rt: Runtime, ledger: Ledger, chat: str) -> None:
    """What was sent is there once and in order: in the record, and in what the agent knows."""
    sent = [row[0] for row in ledger.rows("SELECT text FROM sent WHERE chat = ? ORDER BY n", chat)]
    said = []
    async for one in rt.listen(chat, user=f"of {chat}"):
        said.append(one)
        last = await rt._open.house.read(
            lambda tx: tx.value(f"SELECT max(n) FROM said WHERE conversation = '{chat}'")  # noqa: S608
        )
        if one.n == last:
            break
    users = [one.text for one in said if one.who == "user"]
    assert users == sent, f"{chat}: said {users}, sent {sent}"
    persons = Counter(one.text for one in said if one.who == "person")
    assert set(persons.values()) <= {1}, f"{chat}: said twice {persons}"
    words = [row[0] for row in ledger.rows("SELECT text FROM words WHERE chat = ?", chat)]
    assert set(words) <= set(persons), f"{chat}: lost {set(words) - set(persons)}"
    told = [text for m in await rt.history(chat) if not m.by_runtime for text in _texts(m)]
    known = [text for text, _ in told if text in {*users, *persons}]
    wanted = [one.text for one in said if one.who in ("user", "person")]
    assert Counter(known) == Counter(wanted), f"{chat}: the agent knows {known}, said was {wanted}"
    answers = {text for text, answer in told if answer}  # one passes a message that is queued
    for some in (answers, set(wanted) - answers):
        order = [text for text in wanted if text in some]
        assert [text for text in known if text in some] == order, f"{chat}: {known}, not {wanted}"


def _texts(message: Message) -> list[tuple[str, bool]]:
    """What it says; whether it is the answer to a question."""
    results = (part for part in message.parts if isinstance(part, ToolResult))
    answers = [(part.content, True) for part in results if part.tool == "ask_user"]
    return [(message.text, False), *answers]


async def check_calls(rt: Runtime, ledger: Ledger) -> None:
    """Each call decided once, and paid at most once, as it was decided."""
    decided = Counter(row[0] for row in ledger.rows("SELECT approval FROM decided"))
    assert set(decided.values()) <= {1}, f"decided twice: {decided}"
    paid = ledger.rows("SELECT run, key, euros FROM paid")
    assert len({key for _, key, _ in paid}) == len(paid), f"paid twice: {paid}"
    agreed: dict[str, set[int]] = {}
    for row in await rt.runs(500):
        events = await rt.record(row.id)
        approvals = [e for e in events if isinstance(e, ApprovalDecided)]
        keys = Counter(e.approval_id for e in approvals)
        assert set(keys.values()) <= {1}, f"{row.id}: recorded twice {keys}"
        agreed[row.id] = {_euros(e, events) for e in approvals if e.decision in ("approve", "edit")}
        texts = [e.text for e in events if isinstance(e, Delivered)]
        assert len(texts) <= 1, f"{row.id}: delivered {texts}"
    for run, key, euros in paid:
        assert euros in agreed[run], f"{run} {key}: paid {euros}, agreed {agreed[run]}"


def _euros(decision: ApprovalDecided, events: list[RunEvent]) -> int:
    if decision.arguments is not None:
        return int(decision.arguments["euros"])
    asked = (e for e in events if isinstance(e, ApprovalAsked))
    shown = next(e for e in asked if e.approval_id == decision.approval_id)
    return int(shown.arguments["euros"])

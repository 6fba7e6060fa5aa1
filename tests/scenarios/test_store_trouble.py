"""The store is full, locked, broken or of another release: said with the mend, nothing lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.errors import ConfigurationError, StoreUnavailable, StoreVersionError
from roadworthy.events import ToolSucceeded
from roadworthy.messages import ModelRequest
from roadworthy.store import sqlite
from roadworthy.testing import ScriptedModel
from tests.scenarios.world import of_kind, url

pytestmark = pytest.mark.sqlite_only


def desk() -> Agent:
    return Agent("desk", model=ScriptedModel(lambda _: "Hi."))


async def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "t.db"
    file.write_text("These are my notes, please keep them. " * 100)
    before = file.read_bytes()
    with pytest.raises(StoreUnavailable, match=r"no SQLite database. Check the URL"):
        async with Runtime(url(tmp_path)):
            pass
    assert file.read_bytes() == before


async def test_a_damaged_database_is_said_to_be_damaged(tmp_path: Path) -> None:
    async with Runtime(url(tmp_path)) as rt:
        for _ in range(50):
            await rt.run(desk(), "Hello " * 50)
    file = tmp_path / "t.db"
    data = bytearray(file.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    file.write_bytes(data)
    with pytest.raises(StoreUnavailable, match=r"Restore it from a backup|no SQLite database"):
        async with Runtime(url(tmp_path)) as rt:
            await rt.run(desk(), "Hello")


async def test_a_folder_that_does_not_exist_is_said_when_the_runtime_is_made(
    tmp_path: Path,
) -> None:
    with pytest.raises(StoreUnavailable, match=r"does not exist; make it"):
        Runtime(f"sqlite:///{tmp_path}/nowhere/t.db")
    with pytest.raises(ConfigurationError, match=r"use sqlite:///file.db"):
        Runtime("redis://localhost")


async def test_a_store_of_a_newer_release_is_refused_and_left(tmp_path: Path) -> None:
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(desk(), "Hello")
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreVersionError, match=r"Upgrade roadworthy"):
        async with Runtime(url(tmp_path)):
            pass


async def test_a_run_with_events_of_a_newer_release_is_refused_and_others_go_on(
    tmp_path: Path,
) -> None:
    ask = ToolCall("ask_user", {"question": "?"})
    agent = Agent("desk", model=ScriptedModel(lambda r: ask if r.ordinal == 0 else "Done."))
    async with Runtime(url(tmp_path)) as rt:
        asked = await rt.run(agent, "Hello", conversation="c")
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("UPDATE event SET type = 'Dreamt' WHERE type = 'DecisionMade'")
        connection.execute("UPDATE run SET status = 'queued'")
    connection.close()
    async with Runtime(url(tmp_path), patterns=[agent]) as rt:
        with pytest.raises(StoreVersionError, match=r"Dreamt v1 of a newer release"):
            await rt.result(asked.run_id)
        other = await rt.run(Agent("other", model=ScriptedModel(["Hi."])), "Hello")
    assert other.status == "completed"


async def test_a_file_locked_for_long_says_who_to_look_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(desk(), "Hello")
        lock = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match=r"locked.*Another process has held the file"):
            await rt.run(desk(), "Hello")
        assert "locked" in (rt.trouble or "")
        lock.execute("ROLLBACK")
        lock.close()
        assert (await rt.run(desk(), "Hello")).status == "completed"
        assert rt.trouble is None


@pytest.mark.requirement("REC-8", "MEM-3")
async def test_an_outcome_in_hand_is_kept_until_the_store_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    paid: list[str] = []
    locks: list[sqlite3.Connection] = []

    @tool
    def pay(order_id: str) -> str:
        """Pay. order_id: such as A-17."""
        paid.append(order_id)
        lock = sqlite3.connect(tmp_path / "t.db", isolation_level=None, check_same_thread=False)
        lock.execute("BEGIN IMMEDIATE")
        locks.append(lock)
        return "paid"

    agent = Agent(
        "desk", model=ScriptedModel([ToolCall("pay", {"order_id": "A"}), "Paid."]), tools=[pay]
    )
    async with Runtime(url(tmp_path)) as rt:
        run_id = await rt.start(agent, "Pay")
        while rt.trouble is None:
            await rt.record(run_id)
        locks[0].execute("ROLLBACK")
        locks[0].close()
        done = await rt.result(run_id)
        (outcome,) = await of_kind(rt, run_id, ToolSucceeded)
    assert (done.status, done.text) == ("completed", "Paid.")
    assert paid == ["A"]
    assert outcome.result.content == "paid"


FULL = '''
import asyncio, resource, signal, sys
from pathlib import Path
from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.errors import StoreUnavailable
from roadworthy.testing import ScriptedModel

paid = Path(sys.argv[2])

@tool
def pay(order_id: str) -> str:
    """Pay. order_id: any."""
    with paid.open("a") as file:
        file.write(order_id + "\\n")
    return "paid " + "x" * 2_000

def turn(request):
    return "Done." if request.ordinal % 2 else ToolCall("pay", {"order_id": request.run_id})

agent = Agent("desk", model=ScriptedModel(turn), tools=[pay])

async def main():
    async with Runtime(f"sqlite:///{sys.argv[1]}", patterns=[agent]) as rt:
        await rt.run(agent, "Hello")
        if sys.argv[3] == "full":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        for number in range(200):
            await rt.run(agent, "Hello " * 400, key=f"k{number}")
        print("no trouble")

try:
    asyncio.run(main())
except StoreUnavailable as error:
    print("said:", error)
'''


@pytest.mark.requirement("REC-8")
def test_a_full_disk_is_said_with_the_mend_and_nothing_is_lost_or_repeated(
    tmp_path: Path,
) -> None:
    script, paid = tmp_path / "full.py", tmp_path / "paid.txt"
    script.write_text(FULL)

    def go(how: str) -> str:
        command = [sys.executable, str(script), str(tmp_path / "t.db"), str(paid), how]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)  # noqa: S603
        assert "Traceback" not in done.stderr
        return done.stdout

    said = go("full")
    assert "said: The store failed" in said
    assert "Free space" in said
    assert "no trouble" in go("room")
    orders = paid.read_text().split()
    assert len(orders) == len(set(orders))
    with sqlite3.connect(tmp_path / "t.db") as connection:
        (completed,) = connection.execute(
            "SELECT count(*) FROM run WHERE status = 'completed'"
        ).fetchone()
        (waiting,) = connection.execute(
            "SELECT count(*) FROM run WHERE status != 'completed'"
        ).fetchone()
    connection.close()
    # a payment in flight when the process ended is put before a person, never repeated
    assert completed + waiting == 202 or completed + waiting == 201
    assert waiting <= 1


def test_a_store_in_memory_is_refused_in_words() -> None:
    for given in ("sqlite:///", "sqlite://:memory:", "t.db"):
        with pytest.raises(ConfigurationError, match=r"use sqlite:///file.db"):
            Runtime(given)
    with pytest.raises(ConfigurationError, match=r"memory"):
        Runtime("sqlite:///:memory:")


def slow(request: ModelRequest) -> str:
    return "Hi."

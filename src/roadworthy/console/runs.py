"""The pages of runs: the newest, and one run with its trace, answer and what it waits for.

Invariant: an operator of one tenant reads and decides that tenant's runs only.
"""

from __future__ import annotations

import dataclasses
from typing import get_args

from starlette.responses import JSONResponse, Response

from roadworthy.console.inbox import declared
from roadworthy.console.pages import HEADERS, Missing, Visit, seen_run
from roadworthy.result import ENDS, Decision
from roadworthy.store.runs import RunRow
from roadworthy.trace import limits_of, plain_json, plain_row, story

_MOST = 200
_GROUPS = {
    "Running": ("running", "queued"),
    "Waiting for a person": ("waiting", "escalated"),
    "Completed": ("completed",),
    "Partial, stopped, failed": ("partial", "stopped", "failed"),
}


async def newest(visit: Visit) -> Response:
    """The list."""
    context = await _listed(visit)
    return visit.page("runs.html", {"list": visit.part("runs_list.html", context)})


async def newest_again(visit: Visit) -> Response:
    """The list, refreshed."""
    return visit.refreshed("runs_list.html", await _listed(visit))


async def one(visit: Visit) -> Response:
    """One run; its script asks for `facts`."""
    row = await _seen(visit)
    return visit.page("run.html", {"run": row, "can_take": declared(visit.rt)})


async def facts(visit: Visit) -> Response:
    """What the page of one run shows."""
    row = await _seen(visit)
    events = await visit.rt.record(row.id)
    stands = row.status in (*ENDS, "waiting", "escalated")
    result = plain_json(await visit.rt.result(row.id)) if stands else None
    steps = [dataclasses.asdict(step) for step in story(events)]
    return JSONResponse(
        {
            "run": plain_row(row),
            "limits": dict(limits_of(events).declared()),
            "result": result,
            "steps": steps,
        },
        headers=HEADERS,
    )


async def decide(visit: Visit) -> Response:
    """A word on what one run waits for, as the page of the run offers it."""
    row = await _seen(visit)
    approval = visit.request.path_params["approval"]
    async with visit.request.form() as form:
        decision = str(form.get("decision", ""))
    given = next((known for known in get_args(Decision) if known == decision), None)
    waiting = (await visit.rt.result(row.id)).waiting if row.status == "waiting" else ()
    if given is None or approval not in {one.id for one in waiting}:
        raise Missing("This was decided already.")
    choice: Decision = given
    await visit.rt.resolve(approval, choice, by=visit.operator.id)
    return Response(status_code=204)


async def _listed(visit: Visit) -> dict[str, object]:
    rows = await visit.rt.runs(_MOST, tenant=visit.operator.tenant)
    groups = {
        label: sum(row.status in statuses for row in rows) for label, statuses in _GROUPS.items()
    }
    return {"runs": rows, "groups": groups, "nanos": sum(row.nanos for row in rows)}


async def _seen(visit: Visit) -> RunRow:
    return await seen_run(visit, visit.request.path_params["run_id"])

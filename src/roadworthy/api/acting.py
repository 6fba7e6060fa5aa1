"""Routes that act on runs: cancel, resume, undo, decide, deliver, feedback.

Invariant: who acted is on record where the client says so.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from roadworthy.api.bodies import (
    Accepted,
    Cancel,
    DecisionBody,
    FeedbackBody,
    LaterBody,
    Resume,
    Taken,
    Undo,
)
from roadworthy.api.desk import AtDesk, Desk, RunId
from roadworthy.trace import limits_of

routes = APIRouter(prefix="/v1")


@routes.post("/runs/{run_id}/cancel", status_code=202, tags=["runs"])
async def cancel(run_id: RunId, body: Cancel, desk: AtDesk) -> Accepted:
    """Ask a run to stop. A run that is over stays as it is."""
    await desk.rt.cancel(run_id, by=body.by)
    return await _accepted(desk, run_id)


@routes.post("/runs/{run_id}/resume", status_code=202, tags=["runs"])
async def resume(run_id: RunId, body: Resume, desk: AtDesk) -> Accepted:
    """Go on with a run that a limit or a budget ended."""
    limits = None
    if body.limits is not None:
        limits = body.limits.over(limits_of(await desk.rt.record(run_id)))
    await desk.rt.resume(run_id, limits=limits)
    return await _accepted(desk, run_id)


@routes.post("/runs/{run_id}/undo", status_code=202, tags=["runs"])
async def undo(run_id: RunId, body: Undo, desk: AtDesk) -> Accepted:
    """Take back what a run did that is over. Answers with the run that does it; asked again it is
    the same one."""
    return await _accepted(desk, await desk.rt.undo(run_id, by=body.by))


@routes.post("/runs/{run_id}/feedback", status_code=202, tags=["runs"])
async def feedback(run_id: RunId, body: FeedbackBody, desk: AtDesk) -> FeedbackBody:
    """Keep what somebody thinks of a run; given again, their latest word stands."""
    await desk.rt.feedback(run_id, **body.model_dump())
    return body


@routes.post("/approvals/{approval}", status_code=202, tags=["approvals"])
async def decide(
    approval: Annotated[str, Path(max_length=200)], body: DecisionBody, desk: AtDesk
) -> DecisionBody:
    """Decide a waiting call; its run goes on. Answers with the decision as recorded."""
    await desk.rt.resolve(
        approval, body.decision, by=body.by, arguments=body.arguments, note=body.note
    )
    return body


@routes.post("/later/{token}", status_code=202, tags=["runs"])
async def deliver(
    token: Annotated[str, Path(max_length=200)], body: LaterBody, desk: AtDesk
) -> Taken:
    """The result of a call that a run waits for; the token, which its tool was given, is the right
    to send it. 410: it comes too late."""
    return Taken(taken=await desk.rt.deliver(token, body.result, error=body.error))


async def _accepted(desk: Desk, run_id: str) -> Accepted:
    row = await desk.rt.find(run_id)
    return Accepted(run_id=run_id, status=row.status)

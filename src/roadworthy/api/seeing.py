"""Routes that only look.

Invariant: none of them waits for a run.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query

from roadworthy.api.bodies import BreakerSeen, Conversation, Health, Runs, RunSeen, Trace
from roadworthy.api.desk import AtDesk, RunId
from roadworthy.api.problems import ApiError
from roadworthy.breakers.rows import Standing
from roadworthy.clock import MICROS
from roadworthy.context import User
from roadworthy.messages import Message
from roadworthy.trace import limits_of, plain_json, plain_row, story

routes = APIRouter()


@routes.get("/v1/runs", tags=["runs"])
async def list_runs(desk: AtDesk, most: Annotated[int, Query(ge=1, le=1_000)] = 50) -> Runs:
    """The newest runs of all users: an operator's view, as whoever has a run's id may act on it."""
    return Runs(runs=[plain_row(row) for row in await desk.rt.runs(most)])


@routes.get("/v1/runs/{run_id}", tags=["runs"])
async def see_run(run_id: RunId, desk: AtDesk) -> RunSeen:
    """One run as it stands."""
    row = await desk.rt.find(run_id)
    limits = limits_of(await desk.rt.record(run_id))
    return RunSeen(
        run=plain_row(row), limits=dict(limits.declared()), result=await desk.latest(run_id)
    )


@routes.get("/v1/runs/{run_id}/trace", tags=["runs"])
async def see_trace(run_id: RunId, desk: AtDesk) -> Trace:
    """What the run did, step by step, with money before and after each."""
    steps = story(await desk.rt.record(run_id))
    return Trace(run_id=run_id, steps=[dataclasses.asdict(step) for step in steps])


@routes.get("/v1/conversations/{conversation}", tags=["conversations"])
async def see_conversation(
    conversation: Annotated[str, Path(max_length=200)],
    desk: AtDesk,
    user: Annotated[str, Query(min_length=1, max_length=200)],
    tenant: Annotated[str, Query(max_length=200)] = "",
) -> Conversation:
    """All messages of a user's own conversation; another's is not found.

    What models thought is left out.
    """
    messages = await desk.rt.history(conversation, user=User(user, tenant))
    if not messages:
        message = f"This user has no conversation {conversation!r} here."
        raise ApiError(
            404, "unknown_conversation", message, "Give the user who began it, and the tenant."
        )
    return Conversation(conversation=conversation, messages=[_shown(m) for m in messages])


@routes.get("/health", tags=["health"], response_model_exclude_none=True)
async def health(desk: AtDesk) -> Health:
    """503 while the store cannot commit; who executes runs, and how far behind they are."""
    trouble = desk.rt.trouble
    if trouble is not None:
        mend = "Results in hand are kept and written once it can; nothing new is begun."
        raise ApiError(503, "store_unavailable", trouble, mend)
    found = await desk.rt.crew.health()
    shut = [_breaker(one) for one in await desk.rt.crew.breakers()] or None
    if found is None:
        return Health(breakers=shut)
    return Health(
        status="alarm" if found.alarms else "ok",
        alarms=list(found.alarms),
        workers=found.workers,
        lag=max((queue.lag for queue in found.queues), default=0.0),
        waiting=sum(queue.waiting for queue in found.queues),
        executing=sum(queue.executing for queue in found.queues),
        breakers=shut,
    )


def _breaker(one: Standing) -> BreakerSeen:
    return BreakerSeen(
        name=one.name,
        state="half-open" if one.half_open else "open",
        since=_moment(one.since) if one.since else None,
        until=_moment(one.until),
        because=one.cause or None,
    )


def _moment(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / MICROS, UTC)


def _shown(message: Message) -> dict[str, object]:
    parts = [part for part in message.parts if type(part).__name__ != "Reasoning"]
    return {
        "role": message.role,
        "text": message.text,
        "parts": plain_json(parts),
        "by_runtime": message.by_runtime,
    }

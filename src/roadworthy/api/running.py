"""Routes that start runs and follow them.

Invariant: a request is durable before its client hears of it.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse, StreamingResponse

from roadworthy.api import sse
from roadworthy.api.bodies import Accepted, NewRun, Result, RunRequest
from roadworthy.api.desk import AtDesk, Key, RunId
from roadworthy.result import ENDS
from roadworthy.trace import Detail

routes = APIRouter(prefix="/v1/runs", tags=["runs"])
_STREAM = {200: {"content": {"text/event-stream": {}}, "description": "Events of the run"}}
After = Annotated[int, Query(ge=-1, le=2**62, description="Only events after this position")]
_DETAIL = Query(description='"user" leaves out text that no guardrail has let through')


@routes.post("", response_model=Result, responses={202: {"model": Accepted}})
async def run(request: NewRun, desk: AtDesk, key: Key = None) -> Result | JSONResponse:
    """Run to an end or a wait; with `background` answer 202 at once."""
    run_id = await desk.start(request, key)
    if request.background:
        row = await desk.rt.find(run_id)
        return JSONResponse({"run_id": run_id, "status": row.status}, 202)
    return Result.of(await desk.rt.wait(run_id))


@routes.post("/stream", response_class=StreamingResponse, responses=_STREAM)  # type: ignore[arg-type]
async def stream(request: RunRequest, desk: AtDesk, key: Key = None) -> StreamingResponse:
    """Run and send its events; going away does not cancel, /v1/runs/{id}/events re-attaches.

    An answer to a question is sent what follows it.
    """
    run_id, events = await desk.follow(request, key)
    return sse.stream(events, run_id, "user")


@routes.get("/{run_id}/events", response_class=StreamingResponse, responses=_STREAM)  # type: ignore[arg-type]
async def events(
    run_id: RunId,
    desk: AtDesk,
    after: After = -1,
    detail: Annotated[Detail, _DETAIL] = "user",
    last_event_id: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """Events after a position, then live ones. 204 when the run is over and nothing follows."""
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdecimal():
        after = max(after, min(int(last_event_id), 2**62))
    row = await desk.rt.find(run_id)
    if row.status in ENDS and not await desk.rt.record(run_id, after):
        return Response(status_code=204)  # tells an EventSource not to come back
    return sse.stream(desk.rt.events(run_id, after), run_id, detail)

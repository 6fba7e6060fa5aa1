"""What every route works with: the runtime and the agents that clients may run.

Invariant: nothing runs that was not handed to `create_app`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Request

from roadworthy.agent import Agent
from roadworthy.api.bodies import Result, RunRequest
from roadworthy.api.problems import ApiError
from roadworthy.context import User
from roadworthy.errors import ConfigurationError
from roadworthy.result import ENDS
from roadworthy.runtime import Runtime


@dataclass(frozen=True)
class Desk:
    """One app's runtime and agents."""

    rt: Runtime
    agents: Mapping[str, Agent[Any, Any]]

    async def start(self, request: RunRequest, key: str | None) -> str:
        """Accept a request. Returns the run's id. Raises: ApiError, RoadworthyError."""
        agent = self.agents.get(request.agent)
        if agent is None:
            raise ApiError(
                404,
                "unknown_agent",
                f"No agent {request.agent!r} is served here.",
                f"Use one of: {', '.join(sorted(self.agents))}.",
            )
        try:
            return await self.rt.start(
                agent,
                request.user_input(),
                user=User(request.user, request.tenant),
                conversation=request.conversation,
                key=key,
                options=request.options.options(agent.limits),
            )
        except ConfigurationError as error:
            if request.options.model is None:
                raise
            raise ApiError(422, "unknown_model", str(error)) from error

    async def latest(self, run_id: str) -> Result | None:
        """What a run came to or waits for; None while it executes."""
        row = await self.rt.find(run_id)
        if row.status not in (*ENDS, "waiting", "escalated"):
            return None
        return Result.of(await self.rt.result(run_id))


def _desk(request: Request) -> Desk:
    found: Desk = request.app.state.desk
    return found


AtDesk = Annotated[Desk, Depends(_desk)]
RunId = Annotated[str, Path(max_length=200)]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="Sent again with the same request: the same run, not another.",
    ),
]

"""What every route works with: the runtime and the agents that clients may run.

Invariant: nothing runs that was not handed to `create_app`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Path, Request

from roadworthy.agent import Agent
from roadworthy.api.bodies import Result, RunRequest
from roadworthy.api.problems import ApiError
from roadworthy.context import User
from roadworthy.errors import ConfigurationError
from roadworthy.events import StreamEvent
from roadworthy.result import ENDS
from roadworthy.runtime import Runtime

T = TypeVar("T")


@dataclass(frozen=True)
class Desk:
    """One app's runtime and agents."""

    rt: Runtime
    agents: Mapping[str, Agent[Any, Any]]

    async def start(self, request: RunRequest, key: str | None) -> str:
        """Accept a request. Returns the run's id. Raises: ApiError, RoadworthyError."""
        return await self._accepted(self.rt.start, request, key)

    async def follow(
        self, request: RunRequest, key: str | None
    ) -> tuple[str, AsyncIterator[StreamEvent]]:
        """Accept a request: the run's id and what happens from now on. Raises: as `start`."""
        return await self._accepted(self.rt.follow, request, key)

    async def _accepted(
        self, accept: Callable[..., Awaitable[T]], request: RunRequest, key: str | None
    ) -> T:
        agent = self._agent(request.agent)
        try:
            return await accept(
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
            raise ApiError(422, "unknown_model", str(error), error.mend) from error

    def _agent(self, name: str | None) -> Agent[Any, Any]:
        if name is None and len(self.agents) == 1:
            return next(iter(self.agents.values()))
        known = ", ".join(sorted(self.agents))
        if name is None:
            message = "Several agents are served here, and the request names none."
            raise ApiError(422, "agent_missing", message, f"Give agent: one of {known}.")
        if name not in self.agents:
            message = f"No agent {name!r} is served here."
            raise ApiError(404, "unknown_agent", message, f"Use one of: {known}.")
        return self.agents[name]

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

"""The application: routes over one runtime, each a few lines, no logic of their own.

`roadworthy serve` runs it; `asgi` mounts it elsewhere. Invariant: a client that goes away changes
nothing; runs are started, decided and cancelled only by what it asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from roadworthy.agent import Agent
from roadworthy.api import acting, inbox, problems, running, seeing, talking
from roadworthy.api.desk import Desk
from roadworthy.api.door import Door
from roadworthy.console import Console, NameOnly, SignIn, routes_of
from roadworthy.errors import ConfigurationError
from roadworthy.runtime import Runtime

_ABOUT = (
    "Runs of agents: durable, bounded, guarded, traced. Every error is `{error, message, mend}`. "
    "They have no sign-in: bind to loopback, or put your own in front. `user` and `tenant` are "
    "taken at their word, whoever has a run's id may read and act on it, and the list of runs is "
    "of all users: give end users neither the list nor `detail=full`. So it is with escalations: "
    "a help desk's server is trusted, and `by` is taken at its word."
)


def create_app(
    rt: Runtime,
    patterns: Sequence[Agent[Any, Any]] | None = None,
    *,
    hosts: Sequence[str] | None = None,
    sign_in: SignIn | None = None,
) -> FastAPI:
    """The API and the console over a runtime.

    patterns: what clients may run; default: what the runtime was made with. hosts: the names this
    server answers to, None for any (give them when it is bound to loopback). sign_in: who may look
    at the console, `roadworthy.console.Tokens({...})` or your own; without one it asks for a name
    and answers only on the machine it runs on. The runtime is opened with the app unless it is
    open already; then the app must run on the same event loop.
    Raises: ConfigurationError: there is nothing to run.
    """
    agents = {agent.name: agent for agent in (rt.patterns if patterns is None else patterns)}
    if not agents:
        raise ConfigurationError(
            "There is no agent to serve. Register some: Runtime(..., patterns=[agent])."
        )

    @asynccontextmanager
    async def opened(_: FastAPI) -> AsyncIterator[None]:
        if _is_open(rt):
            yield
            return
        async with rt:
            yield

    app = FastAPI(
        title="Roadworthy",
        description=_ABOUT,
        version="1",
        lifespan=opened,
        docs_url=None,  # its page loads from a CDN; /openapi.json is there
        redoc_url=None,
        responses=problems.DOCUMENTED,  # type: ignore[arg-type]
    )
    app.state.desk = Desk(rt, agents)
    problems.install(app)
    for routes in (running.routes, seeing.routes, acting.routes):
        app.include_router(routes)
    app.include_router(inbox.routes)
    app.include_router(talking.routes)
    app.state.console = Console(rt=rt, agents=agents, sign_in=sign_in or NameOnly())
    app.router.routes.extend(routes_of())
    app.add_middleware(Door, hosts=hosts)
    return app


def asgi(
    rt: Runtime,
    patterns: Sequence[Agent[Any, Any]] | None = None,
    *,
    sign_in: SignIn | None = None,
) -> ASGIApp:
    """The app to mount in one's own: `your_app.mount("/agents", asgi(rt))`.

    A mounted app's lifespan is not run, so yours opens the runtime: `async with rt: yield`. Who
    may reach it is yours to check as well (docs/decisions/0011).
    Raises: ConfigurationError: there is nothing to run.
    """
    return create_app(rt, patterns, sign_in=sign_in)


def _is_open(rt: Runtime) -> bool:
    try:
        return rt.trouble is None or True
    except ConfigurationError:
        return False

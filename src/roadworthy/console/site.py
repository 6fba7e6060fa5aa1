"""The console's addresses.

`routes_of` is what `create_app` mounts. Invariant: every page of operators is behind the sign-in;
before it are the form itself, files, and the chat, where each visitor has their own conversations.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route

from roadworthy.console import acts, assets, chat, doorway, inbox, live, runs
from roadworthy.console.pages import signed_in


def routes_of() -> Sequence[BaseRoute]:
    """Every route; the app's state holds the `Console` they work with."""
    return [
        Route("/", signed_in(doorway.land)),
        Route("/console/sign-in", doorway.ask, methods=["GET"]),
        Route("/console/sign-in", doorway.enter, methods=["POST"]),
        Route("/console/sign-out", doorway.leave, methods=["POST"]),
        Route("/console/me", doorway.known),
        Route("/console/static/{release}/{name}", assets.serve),
        Route("/console/live", signed_in(live.channel)),
        Route("/console/badge", signed_in(inbox.badge)),
        Route("/inbox", signed_in(inbox.inbox)),
        Route("/inbox/queue", signed_in(inbox.queue_again)),
        Route("/inbox/{id}", signed_in(inbox.case_again)),
        Route("/inbox/{id}/{act}", signed_in(acts.act), methods=["POST"]),
        Route("/chat/{agent}", chat.window),
        Route("/chat/{agent}/live", chat.visiting(chat.listen)),
        Route("/chat/{agent}/say", chat.visiting(chat.say), methods=["POST"]),
        Route("/chat/{agent}/decide", chat.visiting(chat.decide), methods=["POST"]),
        Route("/runs", signed_in(runs.newest)),
        Route("/runs/{run_id}", signed_in(runs.one)),
        Route("/console/runs", signed_in(runs.newest_again)),
        Route("/console/runs/{run_id}", signed_in(runs.facts)),
        Route("/console/runs/{run_id}/take", signed_in(acts.take_run), methods=["POST"]),
        Route(
            "/console/runs/{run_id}/approvals/{approval}",
            signed_in(runs.decide),
            methods=["POST"],
        ),
    ]

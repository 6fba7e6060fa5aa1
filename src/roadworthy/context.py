"""What user functions are handed: `RunContext` and the `User` on whose authority a run acts.

Tools, dependency factories, instructions, guardrails and approval rules receive it. Invariant: it
carries ids and values only; nothing in it is ever stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Generic, TypeVar

from msgspec import Struct

from roadworthy.clock import moment

DepsT = TypeVar("DepsT")


class User(Struct, frozen=True):
    """Who asks. The authority for what a run may do; tools check `run.user`, never the model."""

    id: str
    tenant: str = ""


def _no_progress(_: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class RunContext(Generic[DepsT]):
    """The run, seen from a user's function.

    key: the idempotency key of this effect, equal over retries, resumes and machines; pass it on.
    deps: what the agent's `deps` factory opened. attempt: 1 for the first try. now:
    microseconds since 1970, UTC, from the runtime's clock.
    """

    run_id: str
    user: User
    deps: DepsT
    conversation: str | None = None
    agent: str = ""
    key: str = ""
    attempt: int = 1
    now: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    report: Callable[[str], None] = field(default=_no_progress, repr=False)

    @property
    def today(self) -> date:
        """The UTC date."""
        return moment(self.now).date()

    def progress(self, text: str) -> None:
        """Tell whoever watches the stream what a long tool is doing. Never journaled."""
        self.report(text)

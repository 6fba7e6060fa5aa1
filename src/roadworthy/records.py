"""What is on record, for whoever looks: `Records`, the reading half of `Runtime`.

Invariant: nothing here changes a run (what persons do has a face of its own, `inbox`), or needs the
agent to be known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from roadworthy.cases import Case, cases
from roadworthy.context import User
from roadworthy.escalation import opinions
from roadworthy.escalation.opinions import Feedback, FeedbackKind, Rating
from roadworthy.escalation.views import Said
from roadworthy.events import RunEvent
from roadworthy.feedback import Opinion, give
from roadworthy.messages import Message
from roadworthy.opened import Opened
from roadworthy.people import People
from roadworthy.store import runs
from roadworthy.store.runs import RunRow


class Records(ABC):
    """Questions about runs and conversations, answered from the store."""

    @property
    @abstractmethod
    def _open(self) -> Opened:
        """What an open runtime works with."""

    async def history(self, conversation: str, *, user: User | str | None = None) -> list[Message]:
        """All messages of a conversation, oldest first. With `user`, only that user's own (of
        that tenant); another's reads as empty."""
        return await self._open.history(conversation, User(user) if isinstance(user, str) else user)

    async def runs(self, most: int = 50, *, tenant: str | None = None) -> list[RunRow]:
        """The newest runs; of one tenant, or of all."""
        return await self._open.house.read(lambda tx: runs.recent(tx, most, tenant))

    async def find(self, run_id: str) -> RunRow:
        """One run as it stands, from any process. Raises: UnknownRun."""
        return await self._open.house.read(lambda tx: runs.get(tx, run_id))

    async def held_up(self, run_id: str) -> str:
        """Why a run stays queued where runs execute; "" when it does not. Raises: UnknownRun."""
        return await self._open.held_up(await self.find(run_id))

    async def record(self, run_id: str, after: int = -1) -> list[RunEvent]:
        """What is journaled of a run so far, as recorded, without waiting. Raises: UnknownRun."""
        row, found = await self._open.record_after(run_id, after)
        return [self._open.typed(event, row.pattern) for event in found]

    @property
    def inbox(self) -> People:
        """What persons do: read the queue, take conversations over, speak, hand back."""
        return self._open.people

    async def feedback(  # noqa: PLR0913 - what an opinion is
        self,
        run_id: str,
        *,
        by: str,
        kind: FeedbackKind = "user",
        rating: Rating = 0,
        reason: str = "",
        correction: str = "",
        consent: bool = False,
    ) -> Feedback:
        """Keep what a user or an operator thinks of a run: rating -1, 0 or 1, why, and what would
        have been right. Given again by the same person, the latest stands. consent: it may become
        a case for evals. Raises: UnknownRun; RunError."""
        said = Opinion(
            by=by,
            kind=kind,
            rating=rating,
            reason=reason,
            correction=correction,
            consent=consent,
        )
        return await give(self._open.house, self._open.intake, run_id, said)

    async def feedbacks(self, run_id: str) -> list[Feedback]:
        """What was said of a run, oldest first: opinions, and what operators decided in it."""
        house, row = self._open.house, await self.find(run_id)
        found = await house.read(lambda tx: opinions.of_run(tx, run_id))
        return await house.veil(row).reveal(found)

    async def cases(self, since: int = 0) -> list[Case]:
        """Labelled cases of the runs that somebody consented to since then (microseconds UTC), in
        the words that are stored."""
        return await self._open.house.read(lambda tx: list(cases(tx, since)))

    async def said(
        self, conversation: str, *, user: User | str, after: int = 0
    ) -> list[Said] | None:
        """The messages behind place `after`, at most 1,000; None: this user has no such
        conversation. Kept where an inbox is declared."""
        who = user if isinstance(user, User) else User(user)
        return await self._open.said(conversation, who, after)

    def listen(self, conversation: str, *, user: User | str, after: int = 0) -> AsyncIterator[Said]:
        """Every message of a user's conversation behind place `after`, then each as it comes:
        theirs, the agent's and persons' alike. Never ends by itself; another's has none."""
        who = user if isinstance(user, User) else User(user)
        return self._open.listen(conversation, who, after)

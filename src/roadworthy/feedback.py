"""Takes what users and operators say of a run. `Runtime.feedback` calls it.

Invariant: it changes nothing of the run, and what is kept is concealed like the run's own words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, get_args

from roadworthy.errors import RunError
from roadworthy.escalation import opinions
from roadworthy.escalation.opinions import Feedback, FeedbackKind, Rating
from roadworthy.house import House
from roadworthy.intake import Intake
from roadworthy.run import Unit
from roadworthy.store import runs

_MOST = 20_000


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What somebody says of a run, unchecked."""

    by: str
    kind: str
    rating: int
    reason: str
    correction: str
    consent: bool


async def give(house: House, intake: Intake, run_id: str, said: Opinion) -> Feedback:
    """Keep an opinion; given again by the same person, the latest stands.

    Raises: UnknownRun; RunError: no such rating or kind, or too much text.
    """
    if said.kind not in get_args(FeedbackKind):
        raise RunError(f'kind={said.kind!r}: "user" or "operator".')
    if type(said.rating) is not int or said.rating not in get_args(Rating):
        raise RunError(f"rating={said.rating!r}: -1, 0 or 1.")
    if not said.by or not said.by.strip():
        raise RunError(f"by={said.by!r}: say who.")
    if max(len(said.reason), len(said.correction)) > _MOST:
        raise RunError(f"At most {_MOST:,} characters of reason= and correction=.")
    row = await house.read(lambda tx: runs.get(tx, run_id))
    words = {"reason": said.reason, "correction": said.correction}
    hidden = await house.veil(row).conceal(words)
    given = Feedback(
        tenant=row.tenant,
        run_id=run_id,
        conversation=row.conversation,
        agent=row.pattern,
        kind=cast(FeedbackKind, said.kind),
        by=said.by,
        rating=cast(Rating, said.rating),
        reason=hidden["reason"],
        correction=hidden["correction"],
        consent=said.consent,
        at=house.clock.now(),
    )
    seal = await intake.seal(row.tenant)
    await house.journal.commit(Unit(apply=lambda tx: opinions.put(tx, given, seal)))
    return given

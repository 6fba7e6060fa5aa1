"""Takes what users and operators say of a run. `Runtime.feedback` calls it.

Invariant: it changes nothing of the run, and what is kept is concealed like the run's own words.
"""

from __future__ import annotations

from typing import cast, get_args

from roadworthy.errors import RunError
from roadworthy.escalation import opinions
from roadworthy.escalation.opinions import Feedback, FeedbackKind, Rating
from roadworthy.house import House
from roadworthy.intake import Intake
from roadworthy.run import Unit
from roadworthy.store import runs

_MOST = 20_000


async def give(  # noqa: PLR0913 - what an opinion is
    house: House,
    intake: Intake,
    run_id: str,
    *,
    by: str,
    kind: str,
    rating: int,
    reason: str,
    correction: str,
    consent: bool,
) -> Feedback:
    """Keep an opinion; given again by the same person, the latest stands.

    Raises: UnknownRun; RunError: no such rating or kind, or too much text.
    """
    if kind not in get_args(FeedbackKind):
        raise RunError(f'kind={kind!r}: "user" or "operator".')
    if type(rating) is not int or rating not in get_args(Rating):
        raise RunError(f"rating={rating!r}: -1, 0 or 1.")
    if not by or not by.strip():
        raise RunError(f"by={by!r}: say who.")
    if max(len(reason), len(correction)) > _MOST:
        raise RunError(f"At most {_MOST:,} characters of reason= and correction=.")
    row = await house.read(lambda tx: runs.get(tx, run_id))
    said = await house.veil(row).conceal({"reason": reason, "correction": correction})
    given = Feedback(
        tenant=row.tenant,
        run_id=run_id,
        conversation=row.conversation,
        agent=row.pattern,
        kind=cast(FeedbackKind, kind),
        by=by,
        rating=cast(Rating, rating),
        reason=said["reason"],
        correction=said["correction"],
        consent=consent,
        at=house.clock.now(),
    )
    seal = await intake.seal(row.tenant)
    await house.journal.commit(Unit(apply=lambda tx: opinions.put(tx, given, seal)))
    return given

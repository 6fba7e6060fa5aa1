"""Whether a decision stands, and its place in the log: four eyes, skills.

`intake` calls it in the unit that answers a wait. Invariant: what needs two persons is answered by
the second one who agrees to exactly the same arguments, and one alone can turn it down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roadworthy.errors import NotYours
from roadworthy.escalation import opinions, rows
from roadworthy.escalation.opinions import Feedback, Rating
from roadworthy.escalation.policy import Inbox
from roadworthy.escalation.rows import Vote
from roadworthy.escalation.views import Escalation
from roadworthy.packet import approval_of
from roadworthy.store import waits
from roadworthy.store.codec import Seal, encode_json
from roadworthy.store.database import Tx
from roadworthy.store.runs import body_hash

NOT_DECIDED = ("user", "later", "handover", "errand")


def agreed(
    tx: Tx, wait_id: str, answer: Mapping[str, Any], inbox: Inbox, at: tuple[Seal, int]
) -> bool:
    """Whether this answer decides. False: it is logged, and a second person must agree.

    Raises: NotYours: another person has it; they lack the skill, or have agreed already.
    """
    wait = waits.by_id(tx, wait_id)
    item = None if wait is None else rows.of_run(tx, wait.run_id)
    if wait is None or item is None or wait.asks != "operator" or wait.answered_at is not None:
        return True
    by, decision, policy = answer["by"], answer["decision"], inbox.queue(item.queue)
    busy = item.status == "taken" or (item.locked_until or 0) > at[1]
    if busy and item.assignee not in (None, by):
        raise NotYours(f"{item.assignee} is on it.")
    if policy.lacks(by, item.skill):
        raise NotYours(f"This needs the skill {item.skill!r}, and {by} has it not.")
    approval = approval_of(wait)
    if decision not in ("approve", "edit") or not policy.needs_two(approval):
        return True
    arguments = answer["arguments"] if decision == "edit" else approval.arguments
    mine = Vote(wait_id, body_hash(arguments), by)
    newest = {vote.by: vote for vote in rows.votes(tx, item.id) if vote.approval == wait_id}
    if newest.get(by) == mine:
        raise NotYours(f"{by} has agreed to this already: it needs a second person.")
    if any(vote.content == mine.content for who, vote in newest.items() if who != by):
        return True
    rows.vote(tx, item.id, mine, f"{decision}: it needs a second person", at)
    return False


def note_decision(tx: Tx, wait_id: str, answer: Mapping[str, Any], at: tuple[Seal, int]) -> None:
    """Log who decided a call; when nothing else is to be decided, nobody is needed any more."""
    decided = waits.by_id(tx, wait_id)
    item = None if decided is None else rows.of_run(tx, decided.run_id)
    if decided is None or item is None:
        return
    rows.log(tx, item.id, (answer["decision"], answer["by"], answer.get("note", "")), *at)
    _as_feedback(tx, item, wait_id, answer, at)
    left = any(
        wait.answered_at is None and wait.asks == "operator" and wait.kind not in NOT_DECIDED
        for wait in waits.of_run(tx, item.run_id)
    )
    if item.kind == "decision" and not left:
        said_so = f"{answer['decision']} by {answer['by']}"
        rows.resolve(tx, item.run_id, ("decided", answer["by"], said_so), *at)


def _as_feedback(
    tx: Tx, item: Escalation, wait_id: str, answer: Mapping[str, Any], at: tuple[Seal, int]
) -> None:
    """What operators decide says what was right."""
    ratings: Mapping[str, Rating] = {"approve": 1, "reject": -1}
    changed = answer.get("arguments")
    given = Feedback(
        tenant=item.tenant,
        run_id=item.run_id,
        conversation=item.conversation,
        agent=item.agent,
        kind="operator",
        by=answer["by"],
        rating=ratings.get(answer["decision"], 0),
        reason=answer.get("note", ""),
        correction="" if changed is None else encode_json(changed).decode(),
        about=wait_id,
        at=at[1],
    )
    opinions.put(tx, given, at[0])

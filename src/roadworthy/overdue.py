"""The clocks of the queue: what nobody took, claims that ran out, silent owners, ended snoozes.

The keepers call it each second, in whatever process. Invariant: one unit per item, which holds its
run and looks again: however many processes look, each thing happens once.
"""

from __future__ import annotations

from roadworthy.escalation import rows, said
from roadworthy.escalation.policy import Inbox
from roadworthy.escalation.views import Escalation
from roadworthy.store import runs
from roadworthy.store.codec import Seal
from roadworthy.store.database import Tx
from roadworthy.takeover import Act

MOST_LEVEL = 5  # further than that the clock escalates nothing; it stays overdue


def due(tx: Tx, now: int) -> list[tuple[str, str]]:
    """(escalation, run) of what has a clock that has run out."""
    return rows.due(tx, now, MOST_LEVEL)


def mind(tx: Tx, due: tuple[str, str], inbox: Inbox, now: int) -> str | None:
    """Act on one item whose time has come. Returns what was logged; None: somebody was quicker."""
    escalation, run_id = due
    row = runs.hold(tx, run_id)
    if row.conversation is not None:
        runs.hold_conversation(tx, row.tenant, row.conversation, row.user)
    item = rows.by_id(tx, escalation)
    seal = Seal(runs.tenant_key_of(tx, row.tenant))
    act = Act(tx, item, row, "", now, seal, inbox.queue(item.queue))
    if item.status == "resolved":
        return None
    if item.snoozed_until is not None:
        return _back_in_sight(act) if item.snoozed_until <= now else None
    if item.status == "taken":
        return _silent(act) if _past(item.due_at, now) else None
    if item.assignee is not None and _past(item.locked_until, now):
        return _unlocked(act)
    if _past(item.due_at, now) and item.level < MOST_LEVEL:
        return _further(act, inbox)
    return None


def _past(at: int | None, now: int) -> bool:
    return at is not None and at <= now


def _back_in_sight(act: Act) -> str:
    act.log("woken")
    due_at = act.policy.silent_at if act.item.status == "taken" else act.policy.due_at
    act.save(snoozed_until=None, due_at=due_at(act.now))
    return "woken"


def _silent(act: Act) -> str:
    """The queue owns it again; the agent stays silent until somebody gives it back."""
    item: Escalation = act.item
    if item.conversation is not None:
        said.set_owner(act.tx, (item.tenant, item.conversation), "waiting")
    act.log("silent", f"Nothing was heard of {item.assignee}: it is in the queue again.")
    act.save(status="open", assignee=None, locked_until=None, due_at=act.policy.due_at(act.now))
    return "silent"


def _unlocked(act: Act) -> str:
    act.log("lock_expired", f"{act.item.assignee} claimed it and did not take it.")
    act.save(assignee=None, locked_until=None)
    return "lock_expired"


def _further(act: Act, inbox: Inbox) -> str:
    """Nobody took it in time: before others, in the queue for such, with a clock of its own."""
    item, to = act.item, inbox.queue(act.policy.overflow or act.policy.name)
    where = f", and goes to {to.name}" if to.name != item.queue else ""
    act.log("overdue", f"Nobody took it in time. It comes before others{where}.")
    act.save(
        queue=to.name,
        priority=max(1, item.priority // 2),
        due_at=to.due_at(act.now),
        level=item.level + 1,
    )
    return "overdue"

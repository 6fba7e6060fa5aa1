"""What an action of a person changes, in its one transaction: `Act`, and the larger ones.

`people` calls it. Invariant: the run and its conversation are held, so one person owns it, and what
is recorded of a handover is whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from roadworthy.ending import TAKE
from roadworthy.errors import NotYours, RunError
from roadworthy.escalation import opinions, rows, said
from roadworthy.escalation.opinions import Feedback
from roadworthy.escalation.policy import Inbox, QueuePolicy
from roadworthy.escalation.views import Escalation, Said
from roadworthy.handover import fold
from roadworthy.handovers import handover_key
from roadworthy.messages import Message
from roadworthy.result import ENDS
from roadworthy.stops import handover_wait, person_id
from roadworthy.store import runs, waits
from roadworthy.store.codec import Seal
from roadworthy.store.database import Tx
from roadworthy.store.runs import RunRow, body_hash
from roadworthy.store.waits import WaitRow
from roadworthy.triggers import EscalationRules


@dataclass
class Act:
    """One action in its transaction: the item and its run, both held."""

    tx: Tx
    item: Escalation
    row: RunRow
    by: str
    now: int
    seal: Seal
    policy: QueuePolicy
    key: str | None = None  # of the request; the first thing that is logged bears it

    @property
    def place(self) -> said.Place:
        """Where its words are said."""
        return said.Place(
            tenant=self.item.tenant,
            conversation=self.item.place,
            run_id=self.row.id,
            handover=self.item.handover,
        )

    def save(self, **changes: Any) -> Escalation:  # noqa: ANN401 - fields of Escalation
        """Write the item back, changed. What its owner does is a sign of life."""
        changed = dataclasses.replace(self.item, **changes)
        if changed.status == "taken" and changed.assignee == self.by:
            changed = dataclasses.replace(changed, due_at=self.policy.silent_at(self.now))
        self.item = rows.save(self.tx, changed, self.seal, self.now)
        return self.item

    def log(self, action: str, text: str = "") -> None:
        """Say what was done."""
        key, self.key = self.key, None
        rows.log(self.tx, self.item.id, (action, self.by, text), self.seal, self.now, key)

    def mine(self) -> None:
        """Raises: NotYours: somebody else has it, or nobody took it over."""
        item = self.item
        if item.status == "taken" and item.assignee != self.by:
            raise NotYours(f"{item.assignee} owns this conversation now.")
        if item.status == "resolved":
            raise NotYours("This escalation is resolved; its agent has the conversation again.")
        if item.status != "taken":
            raise NotYours("Nobody owns this conversation yet. Take it over first.")

    def able(self, who: str) -> None:
        """Raises: NotYours: it needs a skill that they have not."""
        if self.policy.lacks(who, self.item.skill):
            raise NotYours(
                f"This needs the skill {self.item.skill!r}, and {who} has it not. The skills of "
                f"operators are declared in QueuePolicy({self.policy.name!r}, skills=...)."
            )

    def free(self) -> None:
        """Raises: NotYours: somebody else has it, or it is resolved."""
        item = self.item
        if item.status == "resolved":
            raise NotYours("This escalation is resolved.")
        other = item.assignee not in (None, self.by)
        locked = item.status == "taken" or (item.locked_until or 0) > self.now
        if other and locked:
            raise NotYours(f"{item.assignee} is on it.")


def take(act: Act, by: str) -> Escalation:
    """The conversation is a person's, at once or when the process that executes lets go."""
    act.free()
    act.able(by)
    item, row, tx = act.item, act.row, act.tx
    if item.status == "taken":
        return item
    if row.status in ENDS:
        raise RunError("Its run is over; there is nothing to take over.")
    lock = act.policy.locked_until(act.now)
    if any(command[2] == TAKE for command in waits.commands_for(tx, row.id)):
        act.log("taking")  # its process was told already: who is assigned then gets it
        return act.save(assignee=by, locked_until=lock)
    known = [w for w in waits.of_run(tx, row.id) if w.kind == "handover"]
    held = any(w.answered_at is None for w in known)
    key = item.handover if held else handover_key(len(known) + 1)
    if not held:
        judged = (item.trigger, item.reason)
        waits.add(tx, _row(row.id, key, judged, by), act.seal, act.now)
        if row.status == "running" or row.segment == 0:
            waits.add_command(tx, row.id, TAKE, by, act.now)
    if not held and row.status == "running":  # it lets go before its next step
        act.log("taking")
        return act.save(kind="handover", handover=key, assignee=by, locked_until=lock)
    act.item = dataclasses.replace(item, kind="handover", handover=key)
    if item.conversation is not None:
        fold(tx, act.place, row, act.seal, act.now)
        said.set_owner(tx, (item.tenant, item.conversation), "person", by)
    runs.wake(tx, row.id, act.now)  # so that its status says so; it suspends at once
    act.log("taken")
    return act.save(status="taken", assignee=by, locked_until=lock, snoozed_until=None)


def take_run(
    tx: Tx, row: RunRow, rules: EscalationRules, who: tuple[Inbox, str], at: tuple[Seal, int]
) -> Escalation | None:
    """Take over a run that nobody escalated, in one go. None: it is over. who: the inbox, and the
    person; at: the seal, and now."""
    (inbox, by), (seal, now) = who, at
    if row.status in ENDS:
        return None
    item = rows.of_run(tx, row.id)
    if item is None:
        new = rows.NewEscalation(
            run_id=row.id,
            tenant=row.tenant,
            user=row.user,
            conversation=row.conversation,
            agent=row.pattern,
            kind="handover",
            trigger="takeover",
            reason="A person took the conversation over.",
            queue=rules.queue,
            skill="",
            priority=rules.priority_of("takeover"),
            due_at=None,
        )
        item = rows.put(tx, new, seal, now, by)
    return take(Act(tx, item, row, by, now, seal, inbox.queue(item.queue)), by)


def give_back(act: Act, answer: Mapping[str, Any]) -> Escalation:
    """The agent has it again, or the run ends as settled."""
    item, tx = act.item, act.tx
    ends = bool(answer.get("ends"))
    if item.kind == "decision":
        raise RunError("Calls of it wait to be decided: approve, edit, reject or respond to them.")
    action = "resolved" if ends else "handed_back"
    if item.kind == "handover":
        commands = waits.commands_for(tx, act.row.id)
        if item.status != "taken" and any(command[2] == TAKE for command in commands):
            raise NotYours("It is being taken over just now. Ask again in a moment.")
        talk = [msgspec.to_builtins(as_told(s)) for s in said.of_handover(tx, act.place)]
        waits.withdraw(tx, act.row.id)
        wait = person_id(act.row.id, item.handover)
        waits.answer(tx, wait, {**answer, "talk": talk}, act.seal, act.now)
        if item.conversation is not None:
            said.set_owner(tx, (item.tenant, item.conversation), "agent")
        runs.wake(tx, act.row.id, act.now)
    act.log(action, str(answer["instruction"]))
    if answer["instruction"]:
        opinions.put(tx, _opinion(act, str(answer["instruction"]), ends=ends), act.seal)
    said_so = str(answer["instruction"]) or ("Settled." if ends else "Handed back.")
    return act.save(status="resolved", resolved_at=act.now, resolution=said_so, locked_until=None)


def _opinion(act: Act, instruction: str, *, ends: bool) -> Feedback:
    """What the person tells the agent on the way back is what it should have known."""
    item = act.item
    return Feedback(
        tenant=item.tenant,
        run_id=item.run_id,
        conversation=item.conversation,
        agent=item.agent,
        kind="operator",
        by=act.by,
        rating=0,
        reason=instruction if ends else "",
        correction="" if ends else instruction,
        about=item.id,
        at=act.now,
    )


def errand(act: Act, kind: str, tool: str, detail: Mapping[str, Any]) -> str:
    """Leave something to do for whoever executes the run. Returns its key."""
    number = waits.errands(act.tx, act.row.id) + 1
    key = f"{act.item.handover}/errand/{number}"
    wait = WaitRow(
        id=person_id(act.row.id, key),
        run_id=act.row.id,
        key=key,
        kind="errand",
        tool=tool,
        asks="operator",
        detail={**detail, "kind": kind, "by": act.by},
        arguments_hash="",
        expires=None,
        answered_at=None,
        answer=None,
    )
    waits.add(act.tx, wait, act.seal, act.now)
    runs.wake(act.tx, act.row.id, act.now)
    act.save()
    return key


def errand_by(act: Act, key: str | None) -> str | None:
    """The errand that was left under this key. Raises: IdempotencyConflict."""
    if key is None:
        return None
    found = [w for w in waits.of_run(act.tx, act.row.id) if w.kind == "errand"]
    rows.logged(act.tx, act.item.id, key)  # also another action's key
    act.key = key
    return next((w.key for w in found if w.detail.get("key") == key), None)


def _row(run_id: str, key: str, judged: tuple[str, str], by: str) -> WaitRow:
    wait = handover_wait(run_id, key, judged, by)
    return WaitRow(
        id=wait.id,
        run_id=run_id,
        key=key,
        kind=wait.kind,
        tool="",
        asks="operator",
        detail=wait.detail,
        arguments_hash="",
        expires=None,
        answered_at=None,
        answer=None,
    )


def as_told(one: Said) -> Message:
    """What was said, as the agent reads it: a person spoke in its name."""
    return one.message if one.who == "user" else Message.assistant(one.text)


def claim(act: Act) -> Escalation:
    """Keep it from others for a while."""
    act.free()
    act.able(act.by)
    act.log("claimed")
    return act.save(assignee=act.by, locked_until=act.policy.locked_until(act.now))


def release(act: Act) -> Escalation:
    """Give a claim up."""
    if act.item.status == "taken":
        raise NotYours("The conversation is taken over: hand it back, or assign it.")
    act.free()
    act.log("released")
    return act.save(assignee=None, locked_until=None)


def assign(act: Act, to: str) -> Escalation:
    """Make it somebody else's; with it goes the conversation, when it is taken over."""
    item, due_at = act.item, act.item.due_at
    if item.status == "resolved":
        raise NotYours("This escalation is resolved.")
    act.able(to)
    if item.status == "taken":
        due_at = act.policy.silent_at(act.now)
        if item.conversation is not None:
            said.set_owner(act.tx, (item.tenant, item.conversation), "person", to)
    had = f", who takes it from {item.assignee}" if item.assignee not in (None, to) else ""
    act.log("assigned", f"{to}{had}")
    lock = act.policy.locked_until(act.now)
    return act.save(assignee=to, locked_until=lock, due_at=due_at, snoozed_until=None)


def snooze(act: Act, until: int | None) -> Escalation:
    """Out of sight until then."""
    act.free()
    act.log("snoozed" if until is not None else "woken")
    if until is not None:
        return act.save(snoozed_until=until)
    taken = act.item.status == "taken"
    due_at = act.policy.silent_at(act.now) if taken else act.policy.due_at(act.now)
    return act.save(snoozed_until=None, due_at=due_at)


def further(act: Act, reason: str, policy: QueuePolicy, priority: int | None) -> Escalation:
    """Back into a queue, before others; who owned it gives it up."""
    act.free()
    item = act.item
    if item.status == "taken" and item.conversation is not None:
        said.set_owner(act.tx, (item.tenant, item.conversation), "waiting")
    act.log("escalated", reason)
    return act.save(
        status="open",
        assignee=None,
        locked_until=None,
        queue=policy.name,
        priority=max(1, item.priority // 2) if priority is None else priority,
        due_at=policy.due_at(act.now),
        snoozed_until=None,
        level=item.level + 1,
    )


def note(act: Act, text: str) -> Escalation:
    """A note for other operators."""
    act.log("note", text)
    return act.save()


def tag(act: Act, tags: tuple[str, ...]) -> Escalation:
    """Replace its tags."""
    act.log("tagged", ", ".join(tags))
    return act.save(tags=tags)


def key_of(key: str | None, action: str, by: str, *body: object) -> str | None:
    """A sender's key with what it stands for: the same again is a repeat, another thing is none."""
    return None if key is None else f"{key}{rows.SAME}{body_hash([action, by, *body])}"

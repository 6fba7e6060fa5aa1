"""Where a message goes: to a run of its own, to the one that asked, or to the person who owns it.

`intake` calls it in the unit that accepts a request. Invariant: a message of a conversation goes to
exactly one of the three, however often it is sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from roadworthy.agent import Agent
from roadworthy.context import User
from roadworthy.errors import ConversationBusy, IdempotencyConflict, RunError
from roadworthy.escalation import notices, rows, said
from roadworthy.events import InputReceived, RunWaiting
from roadworthy.messages import Message
from roadworthy.record import options_to
from roadworthy.run import RunOptions
from roadworthy.store import recorded, runs, waits
from roadworthy.store.codec import Seal
from roadworthy.store.database import Tx
from roadworthy.store.waits import WaitRow


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as accepted. check: raises in the commit that would accept it. also: what else
    that commit does with the new run's id."""

    pattern: Agent[Any, Any]
    input: Message
    user: User
    conversation: str | None
    key: str | None
    options: RunOptions
    check: Callable[[Tx], None] | None = None
    also: Callable[[Tx, str], object] | None = None

    @property
    def body_hash(self) -> str:
        """What makes a repeated request the same one."""
        return runs.body_hash(
            [
                self.pattern.name,
                msgspec.to_builtins(self.input),
                self.user.id,
                self.conversation,
                options_to(self.options),
            ]
        )


@dataclass(frozen=True)
class Accepted:
    """The run that does it, and the position after which it tells of this request."""

    run_id: str
    after: int = -1


def enter(tx: Tx, request: Request) -> str | None:
    """Hold the request's conversation, and before it the run that it would speak to, if any.

    Raises: RunError: a conversation belongs to the user who began it.
    """
    if request.conversation is None:
        return None
    place = request.user.tenant, request.conversation
    while True:
        active = runs.active_run(tx, *place) or runs.next_in_conversation(tx, *place)
        if active is not None:
            runs.hold(tx, active)
        owner = runs.hold_conversation(tx, *place, request.user.id)
        now = runs.active_run(tx, *place) or runs.next_in_conversation(tx, *place)
        if now == active:
            break
    if owner != request.user.id:
        raise RunError(
            f"Conversation {request.conversation!r} belongs to another user; use another id."
        )
    return active


def _told_before(tx: Tx, request: Request) -> Accepted | None:
    """The run that this very request answered before; sent again, it changes nothing.

    Raises: IdempotencyConflict: the key was used for another answer.
    """
    if request.key is None or request.conversation is None:
        return None
    for wait in waits.answers_of_user(tx, request.user.tenant, request.conversation):
        key, body_hash = wait.answer.get("request", (None, ""))
        if key == request.key and body_hash != request.body_hash:
            raise IdempotencyConflict(
                f"The key {key!r} was used before for another answer (run {wait.run_id}). Use a "
                "new key for a new request."
            )
        if key == request.key:
            return Accepted(wait.run_id, _asked_at(tx, wait))
    return None


def _asked_at(tx: Tx, wait: WaitRow) -> int:
    """Where the run told that it waits for this answer."""
    place = -1
    for event in recorded.events(tx, wait.run_id):
        if isinstance(event, RunWaiting):
            place = event.seq
        elif isinstance(event, InputReceived) and event.key == wait.key:
            break
    return place


def asking(
    tx: Tx, request: Request, active: str | None, seal: Seal, now: int, *, logs: bool
) -> Accepted | None:
    """A message to a conversation whose active run asks the user is the answer to it; to one that
    a person owns, theirs. logs: whether what is said is kept.

    Raises: IdempotencyConflict, ConversationBusy.
    """
    if request.check is not None:
        request.check(tx)
    told = _told_before(tx, request)  # it knows where the answer was given
    if told is None and logs:
        told = _said_before(tx, request)
    if told is None and active is not None and logs:
        told = _to_person(tx, request, active, seal, now)
    if told is not None or active is None:
        return told
    for wait in waits.of_run(tx, active):
        if wait.kind == "user" and wait.answered_at is None:
            answer = {
                "input": msgspec.to_builtins(request.input),
                "request": [request.key, request.body_hash],
            }
            waits.answer(tx, wait.id, answer, seal, now)
            runs.wake(tx, active, now)
            if logs:
                say(tx, request, active, seal, now)
            return Accepted(active, recorded.last_seq(tx, active))
    if request.options.when_busy == "reject":
        raise ConversationBusy(
            f"Conversation {request.conversation!r} has an active run ({active}). Wait for it, or "
            'send with when_busy="queue".'
        )
    return None


def joined(tx: Tx, request: Request, run_id: str, seal: Seal, now: int, *, logs: bool) -> None:
    """What else belongs to the commit that accepts a new run."""
    if logs:
        say(tx, request, run_id, seal, now)
    if request.also is not None:
        request.also(tx, run_id)


def say(tx: Tx, request: Request, run_id: str, seal: Seal, now: int, *, handover: str = "") -> None:
    """Keep the user's message in the conversation's own record."""
    if request.input.by_runtime:
        return  # nobody said it
    place = said.Place(
        tenant=request.user.tenant,
        conversation=request.conversation or run_id,
        run_id=run_id,
        handover=handover,
    )
    key = request.key if request.conversation is not None else None
    sent = said.Sent(who="user", key=key, body_hash=request.body_hash)
    said.add(tx, place, sent, request.input, seal, now)


def _said_before(tx: Tx, request: Request) -> Accepted | None:
    """What became of this very message, sent before to a person or as an answer."""
    if request.key is None or request.conversation is None:
        return None
    known = said.by_key(tx, request.user.tenant, request.conversation, request.key)
    if known is None:
        return None
    run_id, body_hash, _ = known
    if body_hash != request.body_hash:
        raise IdempotencyConflict(
            f"The key {request.key!r} was used before for another message. Use a new key for a "
            "new message."
        )
    return Accepted(run_id, recorded.last_seq(tx, run_id))


def _to_person(tx: Tx, request: Request, active: str, seal: Seal, now: int) -> Accepted | None:
    """A message to a conversation that is with persons reaches them, and starts no run."""
    owner, _ = said.owner_of(tx, request.user.tenant, request.conversation or "")
    item = None if owner == "agent" else rows.of_run(tx, active)
    if item is None:
        return None
    say(tx, request, active, seal, now, handover=item.handover)
    rows.log(tx, item.id, ("user_said", "", ""), seal, now)
    if item.status == "taken":
        notices.add(tx, item.id, "user_said", now)
    if item.snoozed_until is not None:  # the keeper puts it back, its clock begun anew
        rows.save(tx, dataclasses.replace(item, snoozed_until=now), seal, now)
    return Accepted(active, recorded.last_seq(tx, active))

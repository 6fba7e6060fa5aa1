"""A run's way to a person and back: the gate before each turn, errands, and the suspension.

The loop calls it. Invariant: while a person owns the run its agent is asked nothing and says
nothing; what a person did not see is not carried out after they gave it back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace as changed
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from roadworthy import ending, stops
from roadworthy.budget import Amount, settle
from roadworthy.calls import Asked, closing_id
from roadworthy.ending import TAKE, Desk, close
from roadworthy.errors import ModelError
from roadworthy.escalation import rows, said
from roadworthy.escalation.policy import Inbox
from roadworthy.escalation.views import Owner
from roadworthy.events import (
    EscalationRaised,
    HandedBack,
    Noted,
    RunEnded,
    RunWaiting,
)
from roadworthy.handovers import Errand, Handover
from roadworthy.messages import Message, ToolCall
from roadworthy.result import Report, RunResult
from roadworthy.run import Done, Run
from roadworthy.stops import Stop, Suspend, Wait
from roadworthy.store import recorded, runs, waits
from roadworthy.store.codec import Seal
from roadworthy.store.database import Tx
from roadworthy.store.journal import add_event
from roadworthy.store.runs import RunRow
from roadworthy.tool_calls import wait_row
from roadworthy.transcript import came_back, runtime_note
from roadworthy.triggers import Judged, RunState, Trigger

log = logging.getLogger("roadworthy.run")
_NO_INBOX = "%s wants a person and there is no inbox: Runtime(..., inbox=Inbox()) makes one"
_ENDS_THOUGH_OWNED = ("cancelled", "declaration_changed", "poison")
_LIMITS = ("turn_limit", "tool_call_limit", "time_limit", "budget")
_DRAFT = (
    "A person answers the user now. Draft the next reply for that person to send: only the words "
    "to the user, no promise of what has not been done.{wish}"
)


def handover_wait(run_id: str, key: str, judged: Judged, by: str = "") -> Wait:
    """What a run waits for while it is with persons."""
    return stops.handover_wait(run_id, key, (judged.trigger, judged.why), by)


# --- before each turn ----------------------------------------------------------------------


async def gate(run: Run, desk: Desk) -> None:
    """Take in what persons gave back; while one owns the run, go no further.

    Raises: Suspend: a person owns it. Stop: they settled it, or a rule of its own wants one.
    """
    reply = run.past.outcomes.get(f"turn/{run.turn + 1}/model")
    for handover in run.past.handovers.all:
        back = handover.back
        if back is not None and back.key not in run.returned:
            if reply is None or reply.seq > back.seq:
                _take_in(run, handover, back)
        elif back is None and reply is None:
            run.check_cancelled()
            raise Suspend([_wait_of(run, handover)])
    if run.agent.escalation.custom and desk.inbox is not None and not run.overtaken(run.turn):
        _judge_state(run)


def _take_in(run: Run, handover: Handover, back: HandedBack) -> None:
    run.returned.add(back.key)
    run.visited.add(back.key)
    run.messages += came_back(back)
    for errand in handover.errands:
        _settled(run, errand)
    run.effects_done.clear()
    if back.ends:
        raise Stop("resolved", back.instruction or "A person settled it.")


def _settled(run: Run, errand: Errand) -> None:
    """An errand of a handover that is over: what it cost counts, whoever wanted it."""
    for key, events in run.past.attempts.items():
        if key.startswith(f"{errand.key}/") or key == errand.key:
            run.visited.add(key)
            for event in events:
                run.meter.count(event)
    for key in (errand.key, f"{errand.key}/tool/0", f"{errand.key}/failed"):
        outcome = run.past.outcomes.get(key)
        if outcome is not None:
            run.visited.add(key)
            run.meter.count(outcome)


def judge_words(run: Run, desk: Desk, text: str) -> None:
    """Whether the user's words alone want a person. Raises: Stop."""
    if desk.inbox is None or run.overtaken(run.turn):
        return
    if f"turn/{run.turn + 1}/model" in run.past.outcomes:
        return  # they were judged when they came, by the rules of then
    judged = run.agent.escalation.judge(RunState(message=text))
    if judged is not None:
        raise Stop("escalated", judged.why, trigger=judged.trigger)


def _judge_state(run: Run) -> None:
    words = next((m for m in reversed(run.messages) if m.role == "user" and not m.by_runtime), None)
    meter = run.meter
    state = RunState(
        message="" if words is None else words.text,
        turns=run.turn,
        tool_calls=meter.tool_calls,
        usd=(meter.nanos + meter.assumed) / 1e9,
    )
    judged = run.agent.escalation.judge_custom(state)
    if judged is not None:
        raise Stop("escalated", judged.why, trigger=judged.trigger)


# --- errands -------------------------------------------------------------------------------


async def _errands(run: Run, desk: Desk, handover: Handover) -> None:
    """In order, each once; what goes wrong with one is told, and is no end of the run."""
    for errand in handover.errands:
        failed = f"{errand.key}/failed"
        if failed in run.past.outcomes:
            continue
        try:
            await (_draft if errand.kind == "draft" else _call)(run, desk, errand)
        except (Stop, ModelError) as error:
            if isinstance(error, Stop) and error.reason == "cancelled":
                raise
            why = error.why if isinstance(error, Stop) else str(error)
            await _failed(run, failed, why)


async def _failed(run: Run, key: str, why: str) -> None:
    async def effect() -> Done[Noted]:
        return Done(Noted(key=key, value=why))

    await run.step(key, effect)


async def _call(run: Run, desk: Desk, errand: Errand) -> None:
    call = ToolCall(tool=errand.tool, arguments=errand.detail["arguments"], id=errand.key)
    await desk.tools.for_person(run, errand.key, call)


async def _draft(run: Run, desk: Desk, errand: Errand) -> None:
    """A reply that nobody is sent."""
    wish = errand.detail.get("wish", "")
    directive = _DRAFT.format(wish=f" The person adds: {wish}" if wish else "")
    talk = msgspec.convert(errand.detail.get("talk", ()), list[Message])
    asked = Asked(
        key=errand.key,
        instructions="\n\n".join(t for t in run.agent.texts if isinstance(t, str)),
        messages=[*run.messages, *talk, runtime_note(directive)],
        phase="finish",
    )
    await desk.models.ask(run, asked)


# --- suspending ----------------------------------------------------------------------------


async def stopped(run: Run, desk: Desk, stop: Stop) -> RunResult[Any]:
    """A stop: to a person where rules and an inbox say so, else an end."""
    if stop.reason == "resolved":
        return await ending.resolved(run, stop)
    if run.cancelled and stop.reason == "escalated":
        stop = Stop("cancelled", "The run was cancelled.")  # no person is needed any more
    held = run.past.handovers.open
    if held is not None and stop.reason not in _ENDS_THOUGH_OWNED:  # it is theirs, not the agent's
        return await suspended(run, desk, Suspend([_wait_of(run, held)]))
    judged = None if desk.inbox is None else _wants_person(run, stop)
    if judged is None:
        if stop.reason == "escalated":
            log.warning(_NO_INBOX, run.agent.name, extra={"run": run.id})
        try:
            return await close(run, desk, stop)
        except Suspend as taken:  # a person takes over just now
            return await suspended(run, desk, taken)
    wait = handover_wait(run.id, run.past.handovers.next_key, judged)
    return await suspended(run, desk, Suspend([wait]))


def _wants_person(run: Run, stop: Stop) -> Judged | None:
    rules = run.agent.escalation
    if stop.reason == "escalated":
        return Judged(_trigger(stop), stop.why)
    if run.overtaken(run.turn):
        return None  # a person had it, and did not raise the limit
    if stop.reason == "loop":
        return rules.judge(RunState(repeats=run.limits.repeats))
    if stop.reason in _LIMITS:
        judged = rules.judge(RunState(stop=_limit(stop)))
        return None if judged is None else Judged(judged.trigger, stop.why)
    return None


def _trigger(stop: Stop) -> Trigger:
    return stop.trigger or "agent_asked"  # type: ignore[return-value]


def _limit(stop: Stop) -> Literal["turn_limit", "tool_call_limit", "time_limit", "budget"]:
    return stop.reason  # type: ignore[return-value]


async def suspended(run: Run, desk: Desk, suspend: Suspend) -> RunResult[Any]:
    """The run waits: for a person who owns it, or for what its calls and questions need."""
    asked = [wait for wait in suspend.waits if wait.kind == "handover"]
    held = run.past.handovers.open
    if (not asked and held is None) or run.differences is not None:
        return await ending.suspend(run, desk, suspend)
    if run.cancelled:
        return await close(run, desk, Stop("cancelled", "The run was cancelled."))
    others = [each for each in suspend.waits if each.kind not in ("handover", "user")]
    if held is None:
        return await _to_person(run, desk, asked[0], others)
    try:
        await _errands(run, desk, held)
    except Suspend as more:
        others += [each for each in more.waits if each.kind != "handover"]
    except Stop as stop:  # cancelled
        return await close(run, desk, stop)
    wait = _wait_of(run, held)
    return await _to_person(run, desk, wait, others)


async def _to_person(run: Run, desk: Desk, wait: Wait, others: Sequence[Wait]) -> RunResult[Any]:
    """One commit in which the conversation becomes a person's, or the queue's."""
    await run.flushed()
    if run.shown:
        run.replace(f"turn/{run.turn}/model")  # no half of an answer stays on a screen
    new = wait.key not in run.past.attempts
    notice = run.agent.escalation.notice if new else ""
    approvals = tuple(ending.approval_of(run, each) for each in others if each.kind != "later")
    result = replace(
        ending.result_of(run, "escalated", "escalated", notice, _report(run, wait, others)),
        waiting=approvals,
    )
    raised = EscalationRaised(
        key=wait.key,
        trigger=wait.detail["trigger"],
        detail=wait.detail["why"],
        by=wait.detail.get("by", ""),
    )
    waiting = RunWaiting(
        key=wait.key,
        status="escalated",
        kind="person",
        result=result,
        deadline=min((w.expires for w in others if w.expires), default=None),
    )

    def also(tx: Tx) -> None:
        now, seal = run.clock.now(), run.position.seal
        for each in (wait, *others):
            waits.add(tx, wait_row(run, each), seal, now)
        settle(tx, closing_id(run), Amount(), "released")
        runs.set_status(tx, run.id, "escalated", "escalated", ending.totals(run), now)
        taking = [c for c in waits.commands_for(tx, run.id) if c[2] == TAKE]
        for command_id, *_ in taking:
            waits.do_command(tx, command_id, now)
        if not waits.is_answered(tx, wait.id):  # else it was given back while an errand was done
            _own(tx, run, desk.inbox, wait, (bool(taking), notice))
        left = waits.commands_for(tx, run.id)
        answered = any(waits.is_answered(tx, each.id) for each in (wait, *others))
        if left or answered or waits.errands(tx, run.id) > _known_errands(run):
            runs.wake(tx, run.id, now)

    news = [ending.asked_event(each) for each in others if each.kind != "later"]
    await run.record(*([raised] if new else []), *news, waiting, also=also)
    return result


def _own(tx: Tx, run: Run, inbox: Inbox | None, wait: Wait, told: tuple[bool, str]) -> None:
    """The conversation's owner, its queued messages, and the item in the queue. told: whether a
    person takes it, who is assigned to the item; and what the user is told."""
    taking, notice = told
    seal, now, place = run.position.seal, run.clock.now(), place_of(run, wait.key)
    row = runs.get(tx, run.id)
    if row.conversation is not None:
        runs.hold_conversation(tx, row.tenant, row.conversation, row.user)
        fold(tx, place, row, seal, now)
    if notice and run.logs:
        said.add(tx, place, said.Sent(who="agent"), Message.assistant(notice), seal, now)
    item = rows.of_run(tx, run.id)
    if item is None or item.kind != "handover" or item.handover != wait.key:
        item = rows.put(tx, _item(run, inbox or Inbox(), wait, now), seal, now)
    by = item.assignee if taking or item.status == "taken" else None
    if by and item.status != "taken":
        due_at = (inbox or Inbox()).queue(item.queue).silent_at(now)
        item = changed(item, status="taken", assignee=by, due_at=due_at, snoozed_until=None)
        rows.log(tx, item.id, ("taken", by, ""), seal, now)
        rows.save(tx, item, seal, now)
    if row.conversation is not None:
        owner: Owner = "person" if by else "waiting"
        said.set_owner(tx, (row.tenant, row.conversation), owner, by or "")


def _item(run: Run, inbox: Inbox, wait: Wait, now: int) -> rows.NewEscalation:
    rules, trigger = run.agent.escalation, wait.detail["trigger"]
    return rows.NewEscalation(
        run_id=run.id,
        tenant=run.user.tenant,
        user=run.user.id,
        conversation=run.conversation,
        agent=run.agent.name,
        kind="handover",
        trigger=trigger,
        reason=wait.detail["why"],
        queue=rules.queue,
        skill=rules.skill_of(trigger, RunState(turns=run.turn)),
        priority=rules.priority_of(trigger),
        due_at=inbox.queue(rules.queue).due_at(now),
        handover=wait.key,
    )


def place_of(run: Run, handover: str = "") -> said.Place:
    """Where the run's words are said."""
    return said.Place(
        tenant=run.user.tenant,
        conversation=run.conversation or run.id,
        run_id=run.id,
        handover=handover,
    )


def fold(tx: Tx, place: said.Place, row: RunRow, seal: Seal, now: int) -> None:
    """Messages that waited their turn behind this run go to the person; their runs end unbegun."""
    for waiting in runs.queued_behind(tx, row):
        said.move(tx, place, waiting.id)
        result = RunResult[Any](
            run_id=waiting.id,
            status="stopped",
            reason="joined",
            report=Report(why="A person answers in this conversation; the message went to them."),
            conversation=waiting.conversation,
        )
        ended = RunEnded(status="stopped", reason="joined", result=result)
        add_event(tx, ended, seal, (waiting.id, recorded.last_seq(tx, waiting.id) + 1, now))
        runs.set_status(tx, waiting.id, "stopped", "joined", (0, 0, 0), now)
        waits.drop(tx, waiting.id, now)


def _wait_of(run: Run, handover: Handover) -> Wait:
    judged = (handover.trigger, handover.why)
    return stops.handover_wait(run.id, handover.key, judged, handover.by)


def _known_errands(run: Run) -> int:
    return sum(len(handover.errands) for handover in run.past.handovers.all)


def _report(run: Run, wait: Wait, others: Sequence[Wait]) -> Report:
    missing = tuple(each.reason or "an answer" for each in (wait, *others))
    return Report(done=tuple(run.done[-20:]), missing=missing, why=wait.detail["why"])

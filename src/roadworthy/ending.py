"""How a run is left: answered, closed early with the best there is, or suspended.

The loop calls it. Invariant: whatever happened, the user gets checked text and the journal a
status, a reason and a report; and nothing stays reserved by a run that is over.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msgspec.structs import replace

from roadworthy.agent import Agent, Verdict
from roadworthy.budget import Amount, release_all, settle
from roadworthy.calls import ModelCalls, closing_id
from roadworthy.closing import closing_answer
from roadworthy.escalation import rows, said
from roadworthy.escalation.policy import Inbox
from roadworthy.events import (
    ApprovalAsked,
    Delivered,
    EscalationRaised,
    Noted,
    RunEnded,
    RunWaiting,
)
from roadworthy.guardrails.verdicts import Checked, check
from roadworthy.messages import Message
from roadworthy.result import (
    MARKS,
    Approval,
    ApprovalKind,
    EndStatus,
    Reason,
    Report,
    RunResult,
    WaitStatus,
)
from roadworthy.run import Done, Refusal, Run
from roadworthy.stops import Stop, Suspend, Wait
from roadworthy.store import runs, waits
from roadworthy.store.codec import encode_json
from roadworthy.store.database import Tx
from roadworthy.tool_calls import ToolCalls, wait_row
from roadworthy.tools.outputs import OutputReader, shown
from roadworthy.triggers import RunState
from roadworthy.undo import undoable

_SORRY: Mapping[str, str] = {
    "cancelled": "This request was cancelled.",
    "guardrail": "I cannot help with this request.",
    "escalated": "A person needs to look at this.",
    "model_failed": "I could not finish this just now. Please try again later.",
    "model_rejected": "I could not process this request.",
    "declaration_changed": "This request was stopped.",
    "error": "Something went wrong here, so I could not finish this.",
    "poison": "Something went wrong here, so I could not finish this.",
}
_CONFIRM = "This needs a moment: somebody has to confirm it first."
_YOU_CONFIRM = "Please confirm this first."
_LATER = "This takes a while: a result is still to come. I will go on when it is there."
_MOST_REPORTED = 20
TAKE = "take"  # the command that a person leaves who takes over a run that executes


@dataclass(frozen=True)
class Desk:
    """What one agent works with in this process."""

    agent: Agent[Any, Any]
    models: ModelCalls
    tools: ToolCalls
    output: OutputReader | None
    inbox: Inbox | None = None


async def checked(run: Run, stage: Literal["input", "output"], text: str, key: str) -> Checked:
    """The text after the stage's guardrails, decided once and recorded when they object."""
    if not any(guard.stage == stage for guard in run.agent.guardrails):
        return await check((), stage, text, run.context(), key)
    found: list[Checked] = []

    async def effect() -> Done[Noted]:
        verdict = await check(run.agent.guardrails, stage, text, run.context(), key)
        found.append(verdict)
        value = {
            "action": verdict.verdict.action,
            "why": verdict.verdict.text,
            "text": verdict.text,
        }
        return Done(Noted(key=key, value=value), verdict.given)

    recorded = (await run.step(key, effect)).value
    if found:
        return found[0]
    return Checked(recorded["text"], Verdict(recorded["action"], recorded["why"]), ())


async def answered(run: Run, desk: Desk, text: str, output: object) -> RunResult[Any]:
    """The run completes with this checked answer."""
    plain = None if desk.output is None else desk.output.plain(output)
    if desk.output is not None and text != shown(output, plain):
        plain = desk.output.redacted(plain, text)
    report = Report(done=_done(run), undoable=_undoable(run))
    result = result_of(run, "completed", "answered", text, report)
    return await _end(run, replace(result, output=plain))


async def close(run: Run, desk: Desk, stop: Stop) -> RunResult[Any]:
    """A stop: the best answer there is, a report, an end."""
    run.closing = True
    if run.differences is None:
        await run.flushed()
        await desk.models.assume_open(run)
        await desk.tools.assume_open(run)
    text = stop.text or ""
    if not text and "limit" in MARKS[stop.reason] and run.reserved:
        text = await closing_answer(run, desk.models, stop, _undoable(run))
    if text:
        key = f"turn/{run.turn}/closing_checked/{run.past.reopened}"
        verdict = await checked(run, "output", text, key)
        text = verdict.text if verdict.verdict.action == "allow" else ""
    done = _done(run)
    report = Report(done=done, missing=_missing(run), why=stop.why, undoable=_undoable(run))
    status = _status(stop.reason, has_value=bool(text or done))
    rendered = text or _rendered(stop.reason, report)
    return await _end(run, result_of(run, status, stop.reason, rendered, report), stop)


async def checked_answer(run: Run, desk: Desk, text: str, output: object) -> Checked:
    """What the user sees of an answer, and the fields of a typed one beside its text."""
    key = f"turn/{run.turn}/checked"
    verdict = await checked(run, "output", text, key)
    plain = None if desk.output is None else desk.output.plain(output)
    if verdict.verdict.action != "allow" or not isinstance(plain, dict) or "text" not in plain:
        return verdict
    rest = encode_json({name: value for name, value in plain.items() if name != "text"}).decode()
    beside = await checked(run, "output", rest, f"{key}_fields")
    if beside.verdict.action == "allow" and beside.text == rest:
        return verdict
    if beside.verdict.action == "allow":
        why = "A field of it holds what must not be shown; leave that out."
        return Checked(text, Verdict.revise(why), ())
    return beside


async def suspend(run: Run, desk: Desk, suspend: Suspend) -> RunResult[Any]:
    """The run becomes a row that an answer wakes; a question is checked like an answer."""
    if run.differences is not None:
        return result_of(run, "waiting", "waiting", "", Report())
    await run.flushed()
    for wait in suspend.waits:
        if wait.kind == "user":
            verdict = await checked(run, "output", str(wait.detail), f"{wait.key}/asked")
            if verdict.verdict.action != "allow":
                return await close(run, desk, Stop("guardrail", verdict.verdict.text))
            offered = await _offered(run, wait)
            asked = dataclasses.replace(wait, detail=verdict.text, choices=offered)
            suspend = Suspend([asked if w is wait else w for w in suspend.waits])
    of_persons = [w for w in suspend.waits if w.kind not in ("user", "later")]
    approvals = tuple(approval_of(run, w) for w in of_persons)
    question = next((str(w.detail) for w in suspend.waits if w.kind == "user"), None)
    report = Report(done=_done(run), missing=tuple(w.reason or "an answer" for w in suspend.waits))
    text = question or _told_meanwhile(run, approvals)
    result = replace(
        result_of(run, "waiting", "waiting", text, report),
        waiting=approvals,
        question=question,
        choices=next((w.choices for w in suspend.waits if w.kind == "user"), ()),
    )
    kind: Literal["person", "later"] = "person" if approvals else "later"
    events = [
        *map(asked_event, of_persons),
        RunWaiting(
            key=f"turn/{run.turn}",
            status="waiting",
            kind="user" if question is not None else kind,
            result=result,
            deadline=min((w.expires for w in suspend.waits if w.expires), default=None),
        ),
    ]

    def also(tx: Tx) -> None:
        now = run.clock.now()
        for wait in suspend.waits:
            waits.add(tx, wait_row(run, wait), run.position.seal, now)
        settle(tx, closing_id(run), Amount(), "released")  # a wait holds no money back
        runs.set_status(tx, run.id, "waiting", "waiting", totals(run), now)
        if desk.inbox is not None:
            _put_in_queue(tx, run, desk.inbox, [w for w in of_persons if w.asks == "operator"])
        _say(tx, run, text)
        answered = any(waits.is_answered(tx, wait.id) for wait in suspend.waits)
        if answered or waits.commands_for(tx, run.id):
            runs.wake(tx, run.id, now)  # somebody spoke while the run was on its way here

    _stream(run, text)
    await run.record(*events, also=also)
    return result


async def resolved(run: Run, stop: Stop) -> RunResult[Any]:
    """A person settled it: what they said has been said, and no word is added."""
    back = run.past.handovers.all[-1].back
    last = [m.text for m in (back.talk if back else ()) if m.role == "assistant"]
    report = Report(done=_done(run), why=stop.why)
    return await _end(
        run, result_of(run, "completed", "resolved", "".join(last[-1:]), report), stop
    )


# --- parts ---------------------------------------------------------------------------------


async def _offered(run: Run, wait: Wait) -> tuple[str, ...]:
    """The answers a question offers, where the guardrails leave them as they are."""
    if not wait.choices:
        return ()
    said = "\n".join(wait.choices)
    verdict = await checked(run, "output", said, f"{wait.key}/choices/asked")
    same = verdict.verdict.action == "allow" and verdict.text == said
    return wait.choices if same else ()


def _told_meanwhile(run: Run, approvals: Sequence[Approval]) -> str:
    """What the user is told while the run waits: of operators, where there are any, not a word."""
    if not approvals:
        return _LATER
    if run.logs and all(approval.asks == "operator" for approval in approvals):
        return run.agent.escalation.notice
    yours = all(approval.asks == "user" for approval in approvals)
    return _YOU_CONFIRM if yours else _CONFIRM


def _put_in_queue(tx: Tx, run: Run, inbox: Inbox, asked: Sequence[Wait]) -> None:
    """Calls that operators decide, as one item; none: what there was of it is decided."""
    now, seal, rules = run.clock.now(), run.position.seal, run.agent.escalation
    if not asked:
        rows.resolve(tx, run.id, ("decided", "", ""), seal, now)
        return
    trigger = min((_trigger(run, wait) for wait in asked), key=rules.priority_of)
    new = rows.NewEscalation(
        run_id=run.id,
        tenant=run.user.tenant,
        user=run.user.id,
        conversation=run.conversation,
        agent=run.agent.name,
        kind="decision",
        trigger=trigger,
        reason=" ".join(wait.reason for wait in asked),
        queue=rules.queue,
        skill=rules.skill_of(trigger, RunState(turns=run.turn)),
        priority=rules.priority_of(trigger),
        due_at=inbox.queue(rules.queue).due_at(now),
    )
    rows.put(tx, new, seal, now)


def _trigger(run: Run, wait: Wait) -> Any:  # noqa: ANN401 - a Trigger: kinds of waits are some
    """Why an operator is asked."""
    tool = run.agent.toolbelt.get(wait.tool)
    if wait.kind == "approval" and tool and run.agent.escalation.asks_operator(tool.severity):
        return "severity"
    return "tool_failed" if wait.kind == "failure" else wait.kind


def _say(tx: Tx, run: Run, text: str) -> None:
    """The agent's word to the user, in the conversation's own record."""
    if not (run.logs and text):
        return
    place = said.Place(
        tenant=run.user.tenant, conversation=run.conversation or run.id, run_id=run.id
    )
    message = Message.assistant(text)
    said.add(tx, place, said.Sent(who="agent"), message, run.position.seal, run.clock.now())


def result_of(
    run: Run, status: EndStatus | WaitStatus, reason: Reason, text: str, report: Report
) -> RunResult[Any]:
    return RunResult(
        run_id=run.id,
        status=status,
        reason=reason,
        text=text,
        report=report,
        usage=run.usage,
        conversation=run.conversation,
    )


async def _end(run: Run, result: RunResult[Any], stop: Stop | None = None) -> RunResult[Any]:
    """Deliver and end in one commit: reserves released, the conversation free."""
    if run.differences is not None:
        return result
    status: EndStatus = result.status  # type: ignore[assignment]
    key = f"deliver/{run.past.reopened}"
    raised = (
        (EscalationRaised(trigger=stop.trigger or stop.reason, detail=stop.why),)
        if stop is not None and stop.reason in ("loop", "escalated")
        else ()
    )

    held = run.past.handovers.open is not None
    delivers = result.reason != "resolved" and not held  # then a person speaks

    def also(tx: Tx) -> Refusal | None:
        now = run.clock.now()
        gone = result.reason in ("cancelled", "poison")  # whoever owns it
        if run.logs and not gone and any(c[2] == TAKE for c in waits.commands_for(tx, run.id)):
            return Refusal()  # a person takes over just now: not a word more
        release_all(tx, run.id, closing_id(run))
        segments = runs.set_status(tx, run.id, status, result.reason, totals(run), now)
        if segments > 1 and not gone and _is_with_persons(tx, run.id):
            return Refusal()
        waits.drop(tx, run.id, now, asked=segments > 1)
        if segments > 1 or result.reason in ("poison", "cancelled"):
            _leave_queue(tx, run, result.reason)
        if delivers:
            _say(tx, run, result.text)
        return None

    if delivers:
        _stream(run, result.text)
    ended = RunEnded(status=status, reason=result.reason, result=result)
    delivered = (Delivered(key=key, text=result.text),) if delivers else ()
    if await run.record(*raised, *delivered, ended, also=also, must=True) is not None:
        raise run.overtaken_by()
    return result


def _is_with_persons(tx: Tx, run_id: str) -> bool:
    """A person took it over while it was not executing; what it had ready is not said."""
    found = waits.of_run(tx, run_id)
    return any(wait.kind == "handover" and wait.answered_at is None for wait in found)


def _leave_queue(tx: Tx, run: Run, reason: Reason) -> None:
    """The run is over: nobody is asked any more, and the conversation is its agent's."""
    seal, now = run.position.seal, run.clock.now()
    rows.resolve(tx, run.id, ("ended", "", f"The run ended: {reason}."), seal, now)
    if run.conversation is not None and run.past.handovers.all:
        said.set_owner(tx, (run.user.tenant, run.conversation), "agent")
    if reason == "poison" and run.logs:
        why = "It ended several processes that executed it, and was parked."
        rules = run.agent.escalation
        new = rows.NewEscalation(
            run_id=run.id,
            tenant=run.user.tenant,
            user=run.user.id,
            conversation=run.conversation,
            agent=run.agent.name,
            kind="notice",
            trigger="poison",
            reason=why,
            queue=rules.queue,
            skill="",
            priority=rules.priority_of("poison"),
            due_at=None,
        )
        rows.put(tx, new, seal, now)


def _stream(run: Run, text: str) -> None:
    """Whoever reads the stream alone sees the same text, where it has not been streamed yet."""
    if run.live.watched(run.id) and run.shown != text:
        run.show(f"deliver/{run.past.reopened}", text)


def _status(reason: Reason, *, has_value: bool) -> EndStatus:
    if reason in ("cancelled", "guardrail", "declaration_changed"):
        return "stopped"
    if "limit" in MARKS[reason] or reason in ("escalated", "poison"):
        return "partial" if has_value or reason == "escalated" else "stopped"
    return "partial" if has_value else "failed"


def _done(run: Run) -> tuple[str, ...]:
    return tuple(run.done[-_MOST_REPORTED:])


def _undoable(run: Run) -> tuple[str, ...]:
    return tuple(deed.tool for deed in itertools.islice(undoable(run.deeds), _MOST_REPORTED))


def _missing(run: Run) -> tuple[str, ...]:
    asked = next(
        (m.text for m in reversed(run.messages) if m.role == "user" and not m.by_runtime), ""
    )
    return (f"a full answer to: {asked[:200]}",) if asked else ()


def _rendered(reason: Reason, report: Report) -> str:
    """An answer without a model: what is known to be done, and that something is missing."""
    lines = [_SORRY.get(reason, "I could not finish this within its limits.")]
    if report.done:
        lines.append(f"Done so far: {', '.join(report.done)}.")
    if report.undoable:
        lines.append(f"This can still be undone: {', '.join(report.undoable)}.")
    return " ".join(lines)


def totals(run: Run) -> tuple[int, int, int]:
    meter = run.meter
    return meter.nanos + meter.assumed, meter.input_tokens, meter.output_tokens


def _kind(wait: Wait) -> ApprovalKind:
    assert wait.kind != "user"  # noqa: S101 - its callers leave questions
    assert wait.kind != "later"  # noqa: S101 - and awaited results out
    assert wait.kind != "handover"  # noqa: S101 - `handover` suspends for persons
    return wait.kind


def approval_of(run: Run, wait: Wait) -> Approval:
    return Approval(
        id=wait.id,
        run_id=run.id,
        tool=wait.tool,
        arguments=wait.detail["arguments"],
        asks=wait.asks,
        kind=_kind(wait),
        reason=wait.reason,
        expires=wait.expires,
    )


def asked_event(wait: Wait) -> ApprovalAsked:
    return ApprovalAsked(
        key=wait.key,
        approval_id=wait.id,
        tool=wait.tool,
        arguments=wait.detail["arguments"],
        arguments_hash=wait.arguments_hash,
        asks=wait.asks,
        kind=_kind(wait),
        reason=wait.reason,
        expires=wait.expires,
    )

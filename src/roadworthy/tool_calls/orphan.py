"""An effect that was begun under another declaration: its tool is gone, or means something else.

`call` and `turn` meet one when they take a run up. Invariant: what was begun is neither repeated
nor forgotten without a person, who says whether it took place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from roadworthy.events import (
    ToolFailed,
    ToolIntended,
    ToolOutcome,
    ToolRefused,
    ToolSucceeded,
    call_key,
)
from roadworthy.messages import ToolResult, ToolStatus
from roadworthy.run import Done, Run
from roadworthy.stops import Suspend
from roadworthy.tool_calls.approval import unknown_outcome, wait_id
from roadworthy.tool_calls.plan import Planned


def is_another(intent: ToolIntended, planned: Planned) -> bool:
    """Whether what was begun is not what would be done now. A read has done nothing."""
    if intent.effect == "read":
        return False
    if (intent.tool, intent.arguments_hash) != (planned.tool.name, planned.arguments_hash):
        return True
    return intent.effect != planned.effect


def answer_to_changed(run: Run, intent: ToolIntended, planned: Planned) -> Mapping[str, Any]:
    """A person's word on an effect begun otherwise than it would be done now, which they saw.

    Raises: Suspend: they are asked.
    """
    told = run.past.answers.get(unknown_outcome(run, intent, intent.attempt, "").key)
    if told is not None and told["decision"] != "approve":
        return told  # it happened or not, whatever the tool is now
    begun = json.dumps(intent.arguments, ensure_ascii=False, default=str)
    why = (
        f"A process ended during this call, begun as {intent.effect} with {begun}. Its tool "
        "changed since: did that take place? If it did not, it would run as shown."
    )
    wait = unknown_outcome(run, planned, intent.attempt, why)
    key = f"{wait.key}/{planned.arguments_hash[:8]}/{planned.effect}"
    answer = run.past.answers.get(key)
    if answer is None:
        raise Suspend([replace(wait, key=key, id=wait_id(run.id, key))])
    return answer


def orphan(run: Run, refused: ToolRefused) -> ToolIntended | None:
    """The intent of a call that cannot even be planned now, if it had begun to change things."""
    if refused.key in run.past.outcomes:
        return None
    for key in run.past.attempts:
        if call_key(key) == refused.key:
            intent = run.open_intent(key)
            if isinstance(intent, ToolIntended) and intent.effect != "read":
                return intent
    return None


async def settled(run: Run, intent: ToolIntended, refused: ToolRefused) -> Done[ToolOutcome]:
    """What becomes of an orphan. Raises: Suspend: a person is asked."""
    why = f"A process ended during this call, and it cannot run now: {refused.result.content}"
    wait = unknown_outcome(run, intent, intent.attempt, why)
    answer = run.past.answers.get(wait.key)
    if answer is None:
        raise Suspend([wait])
    by, note = answer.get("by", ""), answer.get("note", "")
    other = intent.key != refused.key  # an alternative's: it is the call's own tool that counts
    asked = refused if other else intent
    common: dict[str, Any] = {
        "key": refused.key,
        "tool": asked.tool,
        "arguments": asked.arguments,
        "arguments_hash": asked.arguments_hash,
    }

    def told(content: str, status: ToolStatus) -> ToolResult:
        call = refused.result
        return ToolResult(tool=call.tool, call_id=call.call_id, content=content, status=status)

    if answer["decision"] == "respond":
        result = told(note or "done", "ok")
        common["by"] = intent.tool if other else ""
        return Done(ToolSucceeded(**common, result=result, effect=intent.effect, source="person"))
    if answer["decision"] == "reject":
        text = f"{by or 'A person'} found that it did not take place and left it so. {note}".strip()
        failed = ToolFailed(**common, result=told(text, "error"), effect=intent.effect, code="left")
        return Done(failed)
    return Done(refused)

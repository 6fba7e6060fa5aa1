"""What each call of a reply will be: checked against the registry before any executes.

Used by `turn` and `call`. Invariant: a plan says yes only to a declared tool with valid arguments.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roadworthy.agent import Effect, Tool
from roadworthy.events import ToolRefused
from roadworthy.messages import File, JsonObject, ToolCall, ToolResult, ToolSpec, ToolStatus
from roadworthy.run import Run
from roadworthy.tool_calls.absent import not_now
from roadworthy.tool_calls.private import check
from roadworthy.tool_calls.ruled import broken_by, forbidden
from roadworthy.tools.registry import Accepted, Registry

_MOST_CHOICES, _MOST_CHOICE = 8, 120
ASK_USER = ToolSpec(
    name="ask_user",
    description=(
        "Ask the user one question when information you need is missing and no tool can find it. "
        "The conversation goes on with the answer."
    ),
    parameters={
        "type": "object",
        "properties": {
            "question": {"type": "string", "description": "The question, in full."},
            "choices": {
                "type": "array",
                "items": {"type": "string"},
                "description": "The possible answers, if there are only a few.",
            },
        },
        "required": ["question"],
        "additionalProperties": False,
    },
)
ESCALATE = ToolSpec(
    name="escalate",
    description=(
        "Hand the conversation to a person: when the user asks for one, or when you cannot or must "
        "not solve this yourself."
    ),
    parameters={
        "type": "object",
        "properties": {"reason": {"type": "string", "description": "Why a person is needed."}},
        "required": ["reason"],
        "additionalProperties": False,
    },
)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """An accepted call on its way. `key` names its step; values are typed, arguments plain JSON.
    note: what a person did to it, told to the model with the result."""

    key: str
    call: ToolCall
    tool: Tool[Any]
    values: Mapping[str, Any]
    arguments: JsonObject
    arguments_hash: str
    note: str = ""

    @property
    def effect(self) -> Effect:
        """What the tool may do to the world."""
        return self.tool.effect

    @property
    def changes(self) -> bool:
        """Whether it runs alone, in order, with an intent."""
        return self.tool.effect != "read"

    def result(
        self, content: str, status: ToolStatus = "ok", files: tuple[File, ...] = ()
    ) -> ToolResult:
        """What the model is told of this call."""
        content = f"[{self.note}]\n{content}" if self.note else content
        return ToolResult(
            tool=self.call.tool, call_id=self.call.id, content=content, status=status, files=files
        )

    def refused(self, code: str, content: str) -> ToolRefused:
        """The outcome of a call that never ran."""
        return ToolRefused(
            key=self.key,
            tool=self.tool.name,
            arguments=self.arguments,
            arguments_hash=self.arguments_hash,
            result=self.result(content, "refused"),
            code=code,
        )


async def plan(
    run: Run, registry: Registry, place: str, calls: Sequence[tuple[int, ToolCall]]
) -> list[Planned | ToolRefused]:
    """Every call, with its place in the reply, as planned or refused. Limits count executions,
    of the agent's calls. place: of the reply, such as `turn/3`."""
    left = sys.maxsize if by_person(place) else run.limits.tool_calls - run.meter.tool_calls
    planned: list[Planned | ToolRefused] = []
    running: Counter[str] = Counter()
    for index, call in calls:
        key = f"{place}/tool/{index}"
        checked = await check(run, registry, call)
        if index >= run.limits.plan_steps:
            planned.append(_refuse(key, call, "plan_limit", _too_many(run.limits.plan_steps)))
        elif not isinstance(checked, Accepted):
            planned.append(_refuse(key, call, checked.reason_code, checked.message))
        elif (other := forbidden(run, checked.tool.name)) is not None:
            planned.append(_refuse(key, call, "not_allowed", other))
        elif checked.tool.name in run.away:
            said = not_now(run, checked.tool.name, registry.names)
            planned.append(_refuse(key, call, "unavailable", said))
        elif (broken := broken_by(run, checked, running[checked.tool.name])) is not None:
            planned.append(_refuse(key, call, broken.code, broken.text))
        elif running.total() >= left:
            planned.append(_refuse(key, call, "limit", "No tool calls are left. Answer now."))
        else:
            running[checked.tool.name] += 1
            planned.append(
                Planned(
                    key=key,
                    call=call,
                    tool=checked.tool,
                    values=checked.values,
                    arguments=checked.canonical,
                    arguments_hash=checked.hash,
                )
            )
    return planned


def by_person(key: str) -> bool:
    """Whether a call is that of a person who owns the run."""
    return key.startswith("escalation/")


def choices_of(call: ToolCall) -> tuple[str, ...]:
    """The answers that a question offers: at most eight short ones, each once."""
    given = call.arguments.get("choices")
    listed = given if isinstance(given, list) else []
    plain = (" ".join(each.split()) for each in listed if isinstance(each, str))
    found = tuple(dict.fromkeys(each for each in plain if 0 < len(each) <= _MOST_CHOICE))
    return found if 1 < len(found) <= _MOST_CHOICES else ()


def chosen_of(choices: Sequence[str], said: str) -> str:
    """The choice that the user's words name, by its text or its number; else the words."""
    plain = " ".join(said.split()).rstrip(".").casefold()
    if plain.isdecimal() and 1 <= int(plain) <= len(choices):
        return choices[int(plain) - 1]
    return next((each for each in choices if each.rstrip(".").casefold() == plain), said)


def may_ask(run: Run) -> bool:
    """Whether the user can be asked: the agent may, and there is a conversation to answer in."""
    return "ask_user" in run.agent.may and run.conversation is not None


def idempotency_key(run_id: str, key: str) -> str:
    """Equal over attempts, resumes and machines; never derived from arguments."""
    return hashlib.sha256(f"{run_id}\0{key}".encode()).hexdigest()[:32]


def _too_many(most: int) -> str:
    return f"Only {most} calls per reply are carried out. Ask again for the rest if you need it."


def _refuse(key: str, call: ToolCall, code: str, message: str) -> ToolRefused:
    arguments = call.arguments if call.malformed is None else {"malformed": call.malformed[:2_000]}
    result = ToolResult(tool=call.tool, call_id=call.id, content=message, status="refused")
    if code == "too_large":
        arguments = {}
    return ToolRefused(key=key, tool=call.tool[:128], arguments=arguments, result=result, code=code)

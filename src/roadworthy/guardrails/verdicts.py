"""Runs the declared guardrails of one stage over a text.

Called by the loop on input and by `ending` on output. Invariant: a guardrail that fails counts as
`block`: a broken check never lets anything pass.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from roadworthy.agent import Guardrail, Verdict
from roadworthy.context import RunContext
from roadworthy.events import VerdictGiven

log = logging.getLogger("roadworthy.guardrails")


@dataclass(frozen=True)
class Checked:
    """The text after all guardrails, the verdict that stopped them (or allow), and the record."""

    text: str
    verdict: Verdict
    given: tuple[VerdictGiven, ...]


async def check(
    guardrails: Sequence[Guardrail],
    stage: Literal["input", "output"],
    text: str,
    context: RunContext[Any],
    key: str,
) -> Checked:
    """Each guardrail of the stage in declared order; the first objection ends the row."""
    given: list[VerdictGiven] = []
    for guard in guardrails:
        if guard.stage != stage:
            continue
        verdict = await _ask(guard, text, context)
        if verdict.action == "allow":
            continue
        given.append(
            VerdictGiven(
                key=key,
                guardrail=guard.name,
                stage=stage,
                action=verdict.action,
                text=verdict.text,
            )
        )
        if verdict.action != "redact":
            return Checked(text, verdict, tuple(given))
        text = verdict.text
    return Checked(text, Verdict.allow(), tuple(given))


async def _ask(guard: Guardrail, text: str, context: RunContext[Any]) -> Verdict:
    try:
        answer = guard.function(context, text)
        verdict: object = await answer if inspect.isawaitable(answer) else answer
    except Exception as error:  # noqa: BLE001 - border: a user's check; it fails closed
        log.warning("guardrail %s failed: %s", guard.name, error, extra={"run": context.run_id})
        return Verdict.block(f"The check {guard.name!r} itself failed ({type(error).__name__}).")
    if not isinstance(verdict, Verdict):
        return Verdict.block(f"The check {guard.name!r} returned {verdict!r} instead of a Verdict.")
    return verdict

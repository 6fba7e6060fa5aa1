"""The limits that a person may raise when they hand a run back that one of them stopped.

The inbox draws them, its hand-back reads them. Invariant: what was not touched stays as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from decimal import Decimal

from roadworthy.console import forms
from roadworthy.escalation import Escalation
from roadworthy.limits import Limits
from roadworthy.messages import JsonObject
from roadworthy.runtime import Runtime
from roadworthy.trace import limits_of

_SCHEMA: JsonObject = {
    "properties": {
        "turns": {"type": "integer"},
        "tool_calls": {"type": "integer"},
        "seconds": {"type": "number", "description": "Active time; waiting does not count."},
        "usd": {"type": "number"},
    },
}


async def drawn(rt: Runtime, item: Escalation) -> Sequence[forms.Field]:
    """Their controls; none where no limit brought the run here."""
    if item.trigger not in ("limit", "cost") or item.status == "resolved":
        return ()
    return forms.fields(_SCHEMA, _values(limits_of(await rt.record(item.run_id))))


async def raised(rt: Runtime, item: Escalation, said: Mapping[str, str]) -> Limits | None:
    """The limits as they were filled in; None: as they were. Raises: RunError, DeclarationError."""
    if not said or item.trigger not in ("limit", "cost"):
        return None
    limits = limits_of(await rt.record(item.run_id))
    before = _values(limits)
    after = forms.read(_SCHEMA, before, said)
    changed = {name: value for name, value in after.items() if value != before.get(name)}
    if "usd" in changed:
        changed["usd"] = Decimal(str(changed["usd"]))
    return dataclasses.replace(limits, **changed) if changed else None


def _values(limits: Limits) -> JsonObject:
    found = {"turns": limits.turns, "tool_calls": limits.tool_calls, "seconds": limits.seconds}
    return found if limits.usd is None else found | {"usd": float(limits.usd)}

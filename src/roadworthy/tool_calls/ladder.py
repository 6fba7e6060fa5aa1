"""The ladder of a call: the tool, its alternatives, a degraded answer, a person.

`turn` climbs it, in one step of the run. Invariant: each rung that is left is recorded, so that a
process that takes the run up goes on where it stood; nothing stands in for an effect that may have
happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from roadworthy.agent import Alternative, Rung
from roadworthy.clock import MICROS
from roadworthy.events import (
    RunEvent,
    ToolFailed,
    ToolIntended,
    ToolOutcome,
    ToolRungLeft,
    ToolSucceeded,
    alternative_key,
)
from roadworthy.messages import ToolCall
from roadworthy.run import Done, Run
from roadworthy.standins import AskPerson, Default, LastGood
from roadworthy.stops import Suspend, Wait
from roadworthy.tool_calls import cache
from roadworthy.tool_calls.approval import decided, wait_id
from roadworthy.tool_calls.call import Call, Climb, Failed, digest
from roadworthy.tool_calls.hands import Hands
from roadworthy.tool_calls.orphan import settled
from roadworthy.tool_calls.plan import Planned
from roadworthy.tool_calls.private import check
from roadworthy.tool_calls.recovery import left_unknown
from roadworthy.tools.registry import Accepted, Registry
from roadworthy.tools.results import Rendered, render

_NOW_WHAT = "Do not repeat the same call; use another way or tell the user."
_RUNGS: dict[type, Any] = {
    Alternative: "alternative",
    LastGood: "last_good",
    Default: "default",
    AskPerson: "person",
}
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


async def perform(hands: Hands, run: Run, planned: Planned) -> Done[ToolOutcome]:
    """The effect of a call's step. Raises: Suspend (a person is asked, or its result comes
    later), Stop."""
    return await _Ladder(hands, run, planned).climb()


def visit(run: Run, planned: Planned) -> None:
    """Count what alternatives of this call cost, as `Run.step` does for the call itself."""
    for number in range(1, len(planned.tool.fallback) + 1):
        key = alternative_key(planned.key, number)
        if key not in run.visited:
            run.visited.add(key)
            for event in run.past.attempts.get(key, ()):
                run.meter.count(event)
    climbed = 1  # what persons said of it is a part of it too
    while (
        planned.tool.fallback and (asked := _asked_key(planned.key, climbed)) in run.past.outcomes
    ):
        run.visited.add(asked)
        climbed += 1


def _asked_key(key: str, climb: int) -> str:
    """Where the word of a person stands after a climb that came to nothing."""
    return f"{key}/failure/{climb}"


class _Ladder:
    """One climb. `left`: the rungs given up in it, as recorded."""

    def __init__(self, hands: Hands, run: Run, planned: Planned) -> None:
        self.hands, self.run, self.planned = hands, run, planned
        self.rungs = planned.tool.fallback
        past = [e for e in run.past.attempts.get(planned.key, ()) if isinstance(e, ToolRungLeft)]
        self.round = 1
        while past and run.past.answers.get(self._person_key, {}).get("decision") == "approve":
            self.round += 1
        earlier = [e.seq for e in past if e.round < self.round]
        self.since = max([run.past.reopened_at, *earlier])
        here = [e for e in past if e.round == self.round]
        self.begun = self._begun(here)
        if self.begun is None:
            here = [e for e in here if e.seq > self.since]  # reopened, it begins at the top
        self.left = here
        self.own = Call(hands, run, planned, self._climb(0))

    def _begun(self, left: Sequence[ToolRungLeft]) -> ToolIntended | None:
        """The effect that the rung it stands on began, if nobody knows what became of it."""
        if not (left and self.planned.changes):
            return None
        key = alternative_key(self.planned.key, left[-1].number + 1)
        if self.run.open_intent(key) is None and not left_unknown(self.run, key):
            return None
        tried = self.run.past.attempts[key]
        return next((e for e in reversed(tried) if isinstance(e, ToolIntended)), None)

    @property
    def _person_key(self) -> str:
        return _asked_key(self.planned.key, self.round)

    def _climb(self, number: int) -> Climb:
        return Climb(
            since=self.since,
            recovering=number > 0 or self.round > 1,
            more=number < len(self.rungs),
        )

    async def climb(self) -> Done[ToolOutcome]:
        """Down from where it stands. Raises: Suspend, Stop."""
        if self.round > 1:
            await self._approved()
        number = 1
        if self.left:
            number = self.left[-1].number + 1
            gone = number > len(self.rungs) or not isinstance(self.rungs[number - 1], Alternative)
            if self.begun is not None and gone:
                why = "its alternative is declared no more"
                return await settled(self.run, self.begun, self.planned.refused("changed", why))
        else:
            try:
                return await self.own.go()
            except Failed as failed:
                if failed.final or not self.rungs:
                    return self._gave_up(failed.code, str(failed))
                await self._leave(self.own, 0, failed)
        for place in range(number, len(self.rungs) + 1):
            done = await self._rung(place, self.rungs[place - 1])
            if done is not None:
                return done
        return self._gave_up(self.left[0].code, self.left[0].message)

    async def _rung(self, number: int, rung: Rung[Any]) -> Done[ToolOutcome] | None:
        """What this rung gives. None: nothing, which is recorded unless it was the last."""
        match rung:
            case Alternative():
                return await self._alternative(number, rung)
            case LastGood():
                return await self._last_good(number, rung)
            case Default():
                shown = render(rung.value, self.planned.tool.name)
                why = "a declared stand-in, no live answer: say so if it matters"
                return self._instead(shown, why, source="default")
            case AskPerson():
                return self._person(rung)

    async def _leave(self, call: Call | None, number: int, failed: Failed) -> None:
        """Record that a rung is given up, with the end of its last attempt in the same commit."""
        if number >= len(self.rungs):
            await self._close(call, failed)
            return
        rung: Any = "tool" if number == 0 else _RUNGS[type(self.rungs[number - 1])]
        left = ToolRungLeft(
            key=self.planned.key,
            tool=self.planned.tool.name if call is None else call.tool.name,
            rung=rung,
            number=number,
            next=_RUNGS[type(self.rungs[number])],
            code=failed.code,
            message=str(failed),
            attempts=0 if call is None else call.attempts - call.before,
            round=self.round,
        )
        await self._close(call, failed, left)
        self.left.append(left)

    async def _close(self, call: Call | None, failed: Failed, *events: RunEvent) -> None:
        paid = None
        if call is not None and failed.last is not None:
            events = (call.attempt_failed(failed.last), *events)
            paid = call.charge.paid()
        if events:
            await self.run.record(*events, also=paid)
        if call is not None:
            call.charge.released()()

    # --- the rungs -------------------------------------------------------------------------

    async def _alternative(self, number: int, rung: Alternative[Any]) -> Done[ToolOutcome] | None:
        """Another tool, under a key of its own: it is another effect."""
        run, planned = self.run, self.planned
        asked = ToolCall(rung.tool.name, dict(rung.mapped(planned.arguments)), id=planned.call.id)
        checked = await check(run, Registry([rung.tool]), asked)
        if not isinstance(checked, Accepted):
            await self._leave(None, number, Failed("does_not_fit", checked.message))
            return None
        other = Planned(
            key=alternative_key(planned.key, number),
            call=asked,
            tool=checked.tool,
            values=checked.values,
            arguments=checked.canonical,
            arguments_hash=checked.hash,
        )
        call = Call(self.hands, run, other, self._climb(number))
        try:
            done = await call.go()
        except Failed as failed:
            if not failed.final:
                await self._leave(call, number, failed)
                return None
            await self._close(call, failed)
            return self._gave_up(failed.code, f"{self._what()}; {rung.tool.name}: {failed}")
        result = done.outcome.result
        why = f"this is from {rung.tool.name}"
        ours = self._instead(
            Rendered(result.content, result.files),
            why,
            source="fallback",
            by=rung.tool.name,
            nanos=getattr(done.outcome, "nanos", 0),
            attempts=call.attempts,
            undo_by=getattr(done.outcome, "undo_by", ""),
            undo=getattr(done.outcome, "undo", None),
        )
        return replace(done, outcome=ours.outcome)

    async def _last_good(self, number: int, rung: LastGood) -> Done[ToolOutcome] | None:
        kept = await cache.find(self.hands.read, self.run, self.planned, rung.seconds)
        if kept is None:
            why = f"none in the last {_span(rung.seconds)}"
            await self._leave(None, number, Failed("no_last_good", why))
            return None
        why = f"this is its last good answer, {_span(kept.age / MICROS)} old: say so if it matters"
        return self._instead(kept.shown, why, source="last_good", age=kept.age)

    def _person(self, rung: AskPerson) -> Done[ToolOutcome]:
        """What a person makes of it. Raises: Suspend: they are asked."""
        key = self._person_key
        answer = self.run.past.answers.get(key)
        if answer is None:
            raise Suspend([self._question(key, rung)])
        by, note = answer.get("by", ""), answer.get("note", "")
        said = (decided(key, wait_id(self.run.id, key), answer),)
        if answer["decision"] == "respond":
            told = self.planned.result(note or "done")
            facts = self.own.facts(told)
            return Done(ToolSucceeded(**facts, source="person", asked=rung.asks), beside=said)
        done = self._gave_up("left", f"{by or 'a person'} left it so. {note}".strip(" ."))
        return replace(done, beside=said)

    async def _approved(self) -> None:
        """Record that a person had it tried again, once."""
        key = _asked_key(self.planned.key, self.round - 1)
        if key not in self.run.past.outcomes:
            answer = self.run.past.answers[key]
            await self.run.record(decided(key, wait_id(self.run.id, key), answer))

    def _question(self, key: str, rung: AskPerson) -> Wait:
        why = f"{self._what()}: {self.left[0].message}"
        return Wait(
            id=wait_id(self.run.id, key),
            key=key,
            kind="failure",
            tool=self.planned.tool.name,
            asks=rung.asks,
            detail={"arguments": self.planned.arguments, "reason": why},
            arguments_hash=self.planned.arguments_hash,
            reason=why,
        )

    # --- outcomes --------------------------------------------------------------------------

    def _what(self) -> str:
        """What happened to the tool itself, in few words."""
        first = self.left[0]
        after = f" after {first.attempts} attempts" if first.attempts > 1 else ""
        return f"{self.planned.tool.name} failed{after} ({first.code})"

    def _instead(self, shown: Rendered, why: str, **facts: Any) -> Done[ToolOutcome]:  # noqa: ANN401
        """A result that is not the tool's own; the model is told in one line."""
        text = f"[{self._what()}; {why}]\n{shown.text}"
        told = self.planned.result(text, files=shown.files)
        common = self.own.facts(told) | {"result_hash": digest(shown.text), "phase": "recover"}
        return Done(ToolSucceeded(**(common | facts)))

    def _gave_up(self, code: str, message: str) -> Done[ToolOutcome]:
        attempts = self.own.attempts - self.own.before
        after = f" after {attempts} attempts" if attempts > 1 else ""
        text = f"{self.planned.tool.name} failed{after}: {message}. {_NOW_WHAT}"
        if code == "tool_error":
            text = message
        told = self.planned.result(text, "error")
        return self.own.done(ToolFailed(**self.own.facts(told), code=code))


def _span(seconds: float) -> str:
    """A length of time in words."""
    for unit, name in ((_DAY, "days"), (_HOUR, "hours"), (_MINUTE, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"

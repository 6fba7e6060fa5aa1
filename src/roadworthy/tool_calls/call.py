"""One tool's part in an accepted call: recover or intend, and try with backoff.

`ladder` calls it for the tool and for each alternative; this file decides what happened. Invariant:
an effect whose outcome is unknown is reconciled, retried under the same key, or put before a
person; never silently repeated, and never taken for one that did not happen.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from roadworthy.clock import MICROS
from roadworthy.deadline import time_left
from roadworthy.errors import ToolError
from roadworthy.events import (
    Source,
    ToolAttemptFailed,
    ToolIntended,
    ToolOutcome,
    ToolSucceeded,
)
from roadworthy.limits import Phase
from roadworthy.messages import ToolResult
from roadworthy.retries import rest, tool_retry_at, tried_before
from roadworthy.run import Done, Run
from roadworthy.standins import LastGood
from roadworthy.stops import Stop, Suspend
from roadworthy.store.database import Tx
from roadworthy.tool_calls import cache, later
from roadworthy.tool_calls.approval import unknown_outcome
from roadworthy.tool_calls.arrival import Arrival
from roadworthy.tool_calls.attempt import SHUT, Attempt
from roadworthy.tool_calls.charge import Charge, Charged, assume_open
from roadworthy.tool_calls.hands import Hands
from roadworthy.tool_calls.orphan import answer_to_changed, is_another
from roadworthy.tool_calls.plan import Planned, idempotency_key
from roadworthy.tool_calls.recovery import left_unknown, reconcile
from roadworthy.tools.execution import AttemptFailed
from roadworthy.tools.results import Rendered, render

_DIED = "a process ended during the call"


class Failed(Exception):
    """This tool gives no result. final: nor may anything else stand in for it.

    last: the attempt that has no event. An effect that fails so surely did not happen: one of
    unknown outcome ends in a result, a further attempt, or before a person.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        final: bool = False,
        last: AttemptFailed | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.final, self.last = code, final, last


@dataclass(frozen=True, kw_only=True)
class Climb:
    """Where on its ladder a call stands. since: place among the events after which attempts count
    (those before belong to an earlier climb). recovering: it is not the tool's first chance.
    more: there is something below, so that nothing need be waited for too long."""

    since: int
    recovering: bool = False
    more: bool = False


class Call:
    """One tool, tried until it gives a result or gives up."""

    def __init__(self, hands: Hands, run: Run, planned: Planned, climb: Climb) -> None:
        self.hands, self.run, self.planned, self.tool = hands, run, planned, planned.tool
        self.key, self.climb = planned.key, climb
        self.idempotency_key = idempotency_key(run.id, planned.key)
        if self.tool.later:
            self.idempotency_key = later.token_of(run, planned.key)
        self.arrival = Arrival(run, planned, self.idempotency_key) if self.tool.later else None
        self.attempts = run.tried(planned.key)
        self.before = tried_before(run, planned.key, climb.since)
        self.most = self.before + 1 + self.tool.retries
        self.retry_at = tool_retry_at(run.past.attempts.get(planned.key, ()))
        self.charge = Charge(hands.ledger, run, planned.key)
        self.started = run.clock.monotonic()
        self.waited = 0.0  # seconds of it for a free place
        self.unknown = planned.changes and left_unknown(run, planned.key)  # it may have happened
        self.ruled_out = False  # the last attempt surely had none, says `reconcile`
        self.granted = False  # a person gave one more attempt

    async def go(self) -> Done[ToolOutcome]:
        """Its result. Raises: Failed; Suspend: a person is asked, or its result comes later;
        Stop."""
        intent = self.run.open_intent(self.key)
        try:
            if isinstance(intent, ToolIntended):
                recovered = await self._go_on(intent)
                if recovered is not None:
                    return recovered
            return await self._cached() or await self._try()
        except Failed as failed:
            if self.arrival is None:
                raise
            return await self._settle(self.arrival, failed)

    async def _go_on(self, intent: ToolIntended) -> Done[ToolOutcome] | None:
        """What became of the attempt a process died in. None: another one is left."""
        await assume_open(self.run, self.key)
        if is_another(intent, self.planned):
            self.granted, self.unknown = True, False
            return await self._answered(answer_to_changed(self.run, intent, self.planned))
        answer = later.answer_of(self.run, self.key)
        if answer is not None:
            return self._arrived(answer)
        begun = later.acknowledged(self.run, self.key)
        if begun is not None:
            raise Suspend([later.wait_for(self.run, self.planned, begun.expires)])
        self.unknown = self.planned.changes
        recovered = await self._recover(_DIED)
        if recovered is None and self.attempts >= self.most and not self.granted:
            raise Failed("crashed", _DIED, last=_attempt_failed("crashed", _DIED))
        return recovered

    async def _cached(self) -> Done[ToolOutcome] | None:
        ttl = self.tool.cache_ttl
        if ttl is None:
            if any(isinstance(rung, LastGood) for rung in self.tool.fallback):
                await cache.begin(self.hands.read, self.run, self.planned)
            return None
        kept = await cache.find(self.hands.read, self.run, self.planned, ttl)
        return None if kept is None else self._succeeded(kept.shown, "cache")

    # --- trying --------------------------------------------------------------------------

    async def _try(self) -> Done[ToolOutcome]:
        while True:
            await rest(self.run, self.retry_at)
            try:
                value = await self._attempt()
                if self.arrival is not None:
                    return await self._acknowledged(self.arrival, value)
                return self._kept(value) or self._succeeded(self._shown(value), "call")
            except AttemptFailed as error:
                failure = error
            recovered = await self._after(failure)
            if recovered is not None:
                return recovered

    async def _after(self, failure: AttemptFailed) -> Done[ToolOutcome] | None:
        """What follows a failed attempt. None: another one, at its time. Raises: Failed."""
        shut, definite = failure.code == SHUT, failure.definite
        self.unknown = self.unknown or (self.planned.changes and failure.applied == "unknown")
        unknown, over = self.unknown, shut or definite or self.attempts >= self.most
        if unknown:  # None: it surely did not happen, or may be repeated
            recovered = await self._recover(str(failure), over=over)
            if recovered is not None:
                return recovered
            if self.ruled_out:
                failure.applied = "no"
        if definite:  # it is an answer, once no earlier attempt is in doubt
            raise Failed(failure.code, str(failure), final=True, last=failure)
        last = None if shut else failure
        if over or not (failure.transient or unknown):
            raise Failed(failure.code, str(failure), last=last)
        pause = self.hands.backoff.seconds(self.attempts - self.before, failure.fault.retry_after)
        if self.climb.more and not unknown and pause > time_left(self.run):
            raise Failed(failure.code, str(failure), last=last)
        self.retry_at = self.run.clock.now() + int(pause * MICROS)
        await self.run.record(self.attempt_failed(failure, self.retry_at), also=self.charge.paid())
        self.charge.released()()
        return None

    async def _attempt(self) -> object:
        """Raises: AttemptFailed; Stop."""
        attempt = Attempt(self.hands, self.run, self.planned, self.idempotency_key)
        gate = await attempt.admitted()
        self.attempts += 1
        try:
            return await attempt.go(self.attempts, gate, self._intend)
        except (Stop, asyncio.CancelledError):  # what was begun may be charged all the same
            if self.charge.nanos:
                await self._charged("interrupted", "", "assumed")
            raise
        finally:
            self.waited += attempt.waited

    def attempt_failed(
        self, failure: AttemptFailed, retry_at: int | None = None, state: Charged = "settled"
    ) -> ToolAttemptFailed:
        """The last attempt, which gave no outcome; its cost ends with it."""
        nanos = self.charge.nanos
        return ToolAttemptFailed(
            key=self.key,
            tool=self.tool.name,
            attempt=self.attempts,
            code=failure.code,
            message=str(failure),
            applied="no" if failure.applied == "no" else "unknown",
            retry_at=retry_at,
            nanos=0 if state == "assumed" else nanos,
            assumed=nanos if state == "assumed" else 0,
            phase=self.phase if nanos else "execute",
            ruled_out=self.planned.changes and failure.applied == "no" and not self.unknown,
        )

    async def _charged(self, code: str, why: str, state: Charged) -> None:
        """Nothing stays reserved while nobody knows what became of the attempt."""
        failed = self.attempt_failed(_attempt_failed(code, why, "unknown"), state=state)
        await self.run.record(failed, also=self.charge.paid(state))
        self.charge.released()()

    # --- intent and recovery -------------------------------------------------------------

    async def _intend(self) -> None:
        """T1: what is about to happen is durable before it happens; its cost is reserved."""
        if not self.planned.changes and not self.tool.cost_nanos:
            return
        public = self.idempotency_key
        if self.arrival is not None:
            await self.arrival.expect()
            public = later.wait_id(public)  # the token is known to its tool alone
        intent = ToolIntended(
            key=self.key,
            tool=self.tool.name,
            arguments=self.planned.arguments,
            arguments_hash=self.planned.arguments_hash,
            effect=self.planned.effect,
            idempotency_key=public,
            attempt=self.attempts,
            nanos=self.tool.cost_nanos,
        )
        await self.charge.intend(intent)
        self.ruled_out = False

    async def _recover(self, why: str, *, over: bool = False) -> Done[ToolOutcome] | None:
        """What became of an effect of unknown outcome. None: it may be tried again, or it is ruled
        out. over: it may not be tried again."""
        if not self.planned.changes:
            return None
        asked = unknown_outcome(self.run, self.planned, self.attempts, why)
        answer = self.run.past.answers.get(asked.key)
        if answer is not None:
            self.granted, self.unknown = True, False
            return await self._answered(answer)
        found = await self._found_out()
        if found is not None or self.ruled_out:
            self.unknown = False
            return found
        if self.tool.effect == "write" and self.attempts < self.most and not over:
            return None
        if self.charge.nanos:
            await self._charged("unknown", why, "settled")
        waits = [asked]
        if self.tool.later:  # its result may come while a person thinks
            waits.append(later.wait_for(self.run, self.planned))
        raise Suspend(waits)

    async def _found_out(self) -> Done[ToolOutcome] | None:
        """What became of it, as far as that can be learnt without a person."""
        if self.arrival is not None:
            answer = await self.arrival.delivered(self.hands.read)
            if answer is not None:
                return self._arrived(answer)
        context = self.run.context(self.idempotency_key, self.attempts, self.tool.name)
        match await reconcile(self.run, self.hands.threads, self.planned, context):
            case ("applied", value) if self.arrival is not None:
                return await self._acknowledged(self.arrival, value)
            case ("applied", value):
                return self._succeeded(self._shown(value), "reconciled")
            case "not_applied":
                self.ruled_out = True
            case _:
                pass
        return None

    async def _answered(self, answer: Mapping[str, Any]) -> Done[ToolOutcome] | None:
        """What a person said of an unknown outcome. None: try again."""
        decision, note, by = answer["decision"], answer.get("note", ""), answer.get("by", "")
        if decision == "respond":
            closed = None
            if self.arrival is not None:
                closed = await self.arrival.closed("left", "a person gave the result")
            if closed is not None and later.failed(closed) is None:
                return self._arrived(closed)
            return self._succeeded(Rendered(note or "done"), "person")
        if decision == "reject":
            message = f"{by or 'A person'} found that it did not take place and left it so. {note}"
            raise Failed("left", message.strip(), final=True)
        return None

    # --- results that arrive later ---------------------------------------------------------

    async def _acknowledged(self, arrival: Arrival, value: object) -> Done[ToolOutcome]:
        """It is begun. Raises: Suspend."""
        said = "" if value is None else self._shown(value).text
        return self._arrived(await arrival.begun(self.attempts, said, self.charge))

    def _arrived(self, answer: later.Answer) -> Done[ToolOutcome]:
        failed = later.failed(answer)
        if failed is not None:
            raise Failed(*failed)
        return self._succeeded(later.rendered(answer), "later")

    async def _settle(self, arrival: Arrival, failed: Failed) -> Done[ToolOutcome]:
        """It has failed, unless a result came first; from now on none is taken any more."""
        answer = await arrival.closed(failed.code, str(failed))
        if answer is None:
            raise failed
        return self._arrived(answer)

    # --- outcomes ------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """What the last attempt's cost is spent on: all beyond the first is recovering."""
        first = self.attempts - self.before <= 1 and not self.climb.recovering
        return "execute" if first else "recover"

    def _shown(self, value: object) -> Rendered:
        """What it returned, for the model; it did happen, whether that can be shown or not."""
        try:
            return render(value, self.tool.name)
        except ToolError as error:
            return Rendered(f"Done, but the result is unreadable: {error}")

    def _kept(self, value: object) -> Done[ToolOutcome] | None:
        """A readable result that may be used again is kept in the commit of its outcome."""
        good = next((r.seconds for r in self.tool.fallback if isinstance(r, LastGood)), 0.0)
        seconds = max(good, self.tool.cache_ttl or 0.0)
        if not seconds:
            return None
        try:
            shown = render(value, self.tool.name)
        except ToolError:
            return None
        done, run, planned = self._succeeded(shown, "call"), self.run, self.planned
        paid = done.also

        def also(tx: Tx) -> None:
            cache.keep(tx, run, planned, shown, seconds)
            if paid is not None:
                paid(tx)

        return replace(done, also=also)

    def _succeeded(self, shown: Rendered, source: Source) -> Done[ToolOutcome]:
        told, undo = self.planned.result(shown.text, files=shown.files), self.tool.undo
        result = None if source == "person" else shown.text  # a person's words are no result
        back = {} if undo is None else undo.recorded(self.planned.arguments, result)
        return self.done(ToolSucceeded(**self.facts(told), source=source, **back))

    def facts(self, result: ToolResult) -> dict[str, Any]:
        """What every outcome of this call says."""
        return {
            "key": self.key,
            "tool": self.tool.name,
            "arguments": self.planned.arguments,
            "arguments_hash": self.planned.arguments_hash,
            "result": result,
            "result_hash": digest(result.content),
            "effect": self.planned.effect,
            "attempts": self.attempts,
            "micros": int((self.run.clock.monotonic() - self.started) * MICROS),
            "nanos": self.charge.nanos,
            "waited": int(self.waited * MICROS),
            "phase": self.phase if self.charge.nanos else "execute",
        }

    def done(self, outcome: ToolOutcome) -> Done[ToolOutcome]:
        """The outcome, and the cost of its attempt settled with it."""
        paid = self.charge.paid()
        if paid is None:
            return Done(outcome)
        return Done(outcome, also=paid, then=self.charge.released())


def digest(text: str) -> str:
    """16 hex digits of a result: the loop guard compares them."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _attempt_failed(code: str, why: str, applied: str = "no") -> AttemptFailed:
    return AttemptFailed(code, why, applied=applied, transient=False)

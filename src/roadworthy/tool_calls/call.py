"""One accepted call: recover or intend, try with backoff, and its outcome.

`turn` decides when; this file decides what happened. Invariant: an effect whose outcome is unknown
is reconciled, retried under the same key, or put before a person; never silently repeated.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from roadworthy.agent import Tool
from roadworthy.budget import Amount, Ask, Exhausted, Held, Ledger, bearer_of, settle
from roadworthy.clock import MICROS
from roadworthy.deadline import in_time
from roadworthy.errors import ToolError
from roadworthy.events import (
    ToolAcknowledged,
    ToolAttemptFailed,
    ToolFailed,
    ToolIntended,
    ToolOutcome,
    ToolSucceeded,
)
from roadworthy.messages import ToolCall, ToolResult
from roadworthy.retries import Backoff, rest, tool_retry_at, tried_before_reopening
from roadworthy.run import Done, Run, Stop, Suspend
from roadworthy.store import waits
from roadworthy.store.database import Tx
from roadworthy.tool_calls import cache, later
from roadworthy.tool_calls.approval import unknown_outcome
from roadworthy.tool_calls.cache import Reader
from roadworthy.tool_calls.orphan import answer_to_changed, is_another
from roadworthy.tool_calls.plan import Planned, idempotency_key
from roadworthy.tool_calls.private import attempt, check, reconciled
from roadworthy.tools.execution import AttemptFailed, ToolThreads
from roadworthy.tools.registry import Accepted, Registry
from roadworthy.tools.results import Rendered, render

Charge: TypeAlias = Literal["settled", "assumed"]
Source: TypeAlias = Literal["call", "cache", "repeat", "reconciled", "person", "fallback", "later"]

_DIED = "a process ended during the call"
_NOW_WHAT = "Do not repeat the same call; use another way or tell the user."


@dataclass(kw_only=True)
class Hands:
    """What executing needs, one per process."""

    ledger: Ledger
    threads: ToolThreads
    read: Reader
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.2, most=10.0))


async def assume_open(run: Run, key: str) -> None:
    """A process died during a paid attempt of this call: its cost stands as assumed."""
    intent: ToolIntended | None = None
    for event in run.past.attempts.get(key, ()):
        if isinstance(event, ToolIntended) and event.nanos:
            intent = event
        elif isinstance(event, ToolAttemptFailed | ToolAcknowledged):
            intent = None
    if intent is None or (reservation := f"{run.id}:{key}:{intent.attempt}") in run.assumed:
        return
    run.assumed.add(reservation)
    amount = Amount(nanos=intent.nanos)
    failed = ToolAttemptFailed(
        key=key, tool=intent.tool, attempt=intent.attempt, code="crashed", assumed=amount.nanos
    )
    await run.record(failed, also=lambda tx: settle(tx, reservation, amount, "assumed", key=key))


async def perform(hands: Hands, run: Run, planned: Planned) -> Done[ToolOutcome]:
    """The effect of a call's step. Raises: Suspend (a person is asked, or its result comes
    later), Stop."""
    return await _Call(hands, run, planned).go()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


class _Failed(Exception):
    """All attempts are used up. `done`: told to the model."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Call:
    def __init__(self, hands: Hands, run: Run, planned: Planned) -> None:
        self.hands, self.run, self.planned, self.tool = hands, run, planned, planned.tool
        self.key = planned.key
        self.idempotency_key = idempotency_key(run.id, planned.key)
        if self.tool.later:
            self.idempotency_key = later.token_of(run, planned.key)
        self.attempts = run.tried(planned.key)
        self.most = tried_before_reopening(run, planned.key) + 1 + self.tool.retries
        self.retry_at = tool_retry_at(run.past.attempts.get(planned.key, ()))
        self.started = run.clock.monotonic()
        self.held: Held | None = None  # for the attempt that runs, or that the outcome is of
        self.ruled_out = False  # the last attempt surely had no effect, says `reconcile`
        self.granted = False  # a person gave one more attempt

    async def go(self) -> Done[ToolOutcome]:
        intent = self.run.open_intent(self.key)
        try:
            if isinstance(intent, ToolIntended):
                recovered = await self._go_on(intent)
                if recovered is not None:
                    return recovered
            return await self._cached() or await self._try()
        except _Failed as failed:
            settled = await self._settle(failed) if self.tool.later else failed
            return settled if isinstance(settled, Done) else await self._give_up(settled)

    async def _go_on(self, intent: ToolIntended) -> Done[ToolOutcome] | None:
        """What became of the attempt a process died in. None: another one is left."""
        await assume_open(self.run, self.key)
        if is_another(intent, self.planned):
            self.granted = True
            return await self._answered(answer_to_changed(self.run, intent, self.planned))
        answer = later.answer_of(self.run, self.key)
        if answer is not None:
            return self._arrived(answer)
        begun = later.acknowledged(self.run, self.key)
        if begun is not None:
            raise Suspend([later.wait_for(self.run, self.planned, begun.expires)])
        recovered = await self._recover(_DIED)
        if recovered is None and self.attempts >= self.most and not self.granted:
            raise _Failed("crashed", _DIED)
        return recovered

    async def _cached(self) -> Done[ToolOutcome] | None:
        if self.tool.cache_ttl is None:
            return None
        kept = await cache.find(self.hands.read, self.run, self.planned)
        return None if kept is None else self._succeeded(kept, "cache")

    # --- trying --------------------------------------------------------------------------

    async def _try(self) -> Done[ToolOutcome]:
        while True:
            await rest(self.run, self.retry_at)
            self.attempts += 1
            await self._intend()
            self.ruled_out = False
            try:
                value = await self._once()
                if self.tool.later:
                    return await self._acknowledged(value)
                return self._kept(value) or self._succeeded(self._shown(value), "call")
            except AttemptFailed as error:
                failure = error
            unknown = self.planned.changes and failure.applied == "unknown"
            if unknown:  # None: it surely did not happen, or may be repeated
                recovered = await self._recover(str(failure))
                if recovered is not None:
                    return recovered
                if self.ruled_out:
                    failure.applied = "no"
            if not (failure.transient or unknown) or self.attempts >= self.most:
                raise _Failed(failure.code, str(failure))
            pause = self.hands.backoff.seconds(self.attempts)
            self.retry_at = self.run.clock.now() + int(pause * MICROS)
            await self._failed(failure, self.retry_at)

    def _kept(self, value: object) -> Done[ToolOutcome] | None:
        """A readable result that may be reused is kept in the commit of its outcome."""
        if self.tool.cache_ttl is None:
            return None
        try:
            shown = render(value, self.tool.name)
        except ToolError:
            return None
        done, run, planned = self._succeeded(shown, "call"), self.run, self.planned
        paid = done.also

        def also(tx: Tx) -> None:
            cache.keep(tx, run, planned, shown)
            if paid is not None:
                paid(tx)

        return replace(done, also=also)

    def _shown(self, value: object) -> Rendered:
        """What it returned, for the model; it did happen, whether that can be shown or not."""
        try:
            return render(value, self.tool.name)
        except ToolError as error:
            return Rendered(f"Done, but the result is unreadable: {error}")

    async def _once(self) -> object:
        seconds = self.tool.timeout or self.run.limits.tool_seconds
        context = self.run.context(self.idempotency_key, self.attempts, self.tool.name)
        work = attempt(self.run, self.hands.threads, self.tool, context, self.planned.values)
        try:
            if self.planned.changes:  # an effect is never interrupted, only timed
                async with asyncio.timeout(seconds):
                    return await work
            async with in_time(self.run, seconds):
                return await work
        except TimeoutError as error:
            raise AttemptFailed(
                "timeout", f"no answer in {seconds:g} s", applied="unknown", transient=True
            ) from error
        except (Stop, asyncio.CancelledError):  # what was begun may be charged all the same
            if self.held is not None:
                why = AttemptFailed("interrupted", "", applied="unknown", transient=False)
                await self._failed(why, state="assumed")
            raise

    async def _failed(
        self, failure: AttemptFailed, retry_at: int | None = None, state: Charge = "settled"
    ) -> None:
        """Record an attempt that gave no outcome; its cost ends with it."""
        failed = ToolAttemptFailed(
            key=self.key,
            tool=self.tool.name,
            attempt=self.attempts,
            code=failure.code,
            message=str(failure),
            applied="no" if failure.applied == "no" else "unknown",
            retry_at=retry_at,
            nanos=0 if state == "assumed" else self._nanos,
            assumed=self._nanos if state == "assumed" else 0,
        )
        await self.run.record(failed, also=self._paid(state))
        if self.held is not None:
            self.hands.ledger.released(self.held.accounts)
            self.held = None

    # --- intent and recovery -------------------------------------------------------------

    async def _intend(self) -> None:
        """T1: what is about to happen is durable before it happens; its cost is reserved."""
        if not self.planned.changes and not self.tool.cost_nanos:
            return
        if self.tool.later:
            await self._expect()
        intent = ToolIntended(
            key=self.key,
            tool=self.tool.name,
            arguments=self.planned.arguments,
            arguments_hash=self.planned.arguments_hash,
            effect=self.planned.effect,
            idempotency_key=self._public_key,
            attempt=self.attempts,
            nanos=self.tool.cost_nanos,
        )
        run = self.run
        run.check_cancelled()
        if not self.tool.cost_nanos:
            await run.record(intent)
            return
        amount = Amount(nanos=self.tool.cost_nanos)
        ask = Ask(
            key=self.key,
            reservation=f"{run.id}:{self.key}:{self.attempts}",
            full=amount,
            least=amount,
            fit=lambda there: amount if amount.within(there) else None,
            intent=lambda _: intent,
        )
        held = await self.hands.ledger.reserve(run.position, bearer_of(run), ask)
        await run.flushed()
        if isinstance(held, Exhausted):
            raise Stop("budget", f"The budget does not cover the tool {self.tool.name}.")
        self.held = held

    async def _recover(self, why: str) -> Done[ToolOutcome] | None:
        """What became of an attempt of unknown outcome. None: it may be tried again."""
        if not self.planned.changes:
            return None
        answer = self.run.past.answers.get(
            unknown_outcome(self.run, self.planned, self.attempts, why).key
        )
        if answer is not None:
            self.granted = True
            return await self._answered(answer)
        found = await self._found_out()
        if found is not None or self.ruled_out:
            return found
        if self.tool.effect == "write" and self.attempts < self.most:
            return None
        if self.held is not None:  # nothing stays reserved while a person thinks
            unknown = AttemptFailed("unknown", why, applied="unknown", transient=False)
            await self._failed(unknown, None)
        asked = [unknown_outcome(self.run, self.planned, self.attempts, why)]
        if self.tool.later:  # its result may come while a person thinks
            asked.append(later.wait_for(self.run, self.planned))
        raise Suspend(asked)

    async def _found_out(self) -> Done[ToolOutcome] | None:
        """What became of it, as far as that can be learnt without a person."""
        if self.tool.later and (arrived := await self._delivered()) is not None:
            return arrived
        match await self._reconcile():
            case ("applied", value) if self.tool.later:
                return await self._acknowledged(value)
            case ("applied", value):
                return self._succeeded(self._shown(value), "reconciled")
            case "not_applied":
                self.ruled_out = True
            case _:
                pass
        return None

    async def _reconcile(self) -> object:
        function = self.tool.reconcile
        if function is None:
            return "unknown"
        context = self.run.context(self.idempotency_key, self.attempts, self.tool.name)
        try:
            async with asyncio.timeout(self.tool.timeout or self.run.limits.tool_seconds):
                found = await self.hands.threads.call(function, (context,), self.planned.values)
        except Exception:  # noqa: BLE001 - border: a user's function; not knowing is its answer
            return "unknown"
        return await reconciled(self.run, self.tool, found)

    async def _answered(self, answer: Mapping[str, Any]) -> Done[ToolOutcome] | None:
        """What a person said of an unknown outcome. None: try again."""
        decision, note, by = answer["decision"], answer.get("note", ""), answer.get("by", "")
        if decision == "respond":
            closed = None
            if self.tool.later:
                closed = await self._closed("left", "a person gave the result")
            if closed is not None and later.failed(closed) is None:
                return self._arrived(closed)
            return self._succeeded(Rendered(note or "done"), "person")
        if decision == "reject":
            message = f"{by or 'A person'} found that it did not take place and left it so. {note}"
            raise _Failed("left", message.strip())
        return None

    # --- results that arrive later ---------------------------------------------------------

    @property
    def _public_key(self) -> str:
        """The idempotency key as it may be read by anyone: a token is known to its tool alone."""
        return later.wait_id(self.idempotency_key) if self.tool.later else self.idempotency_key

    async def _expect(self) -> None:
        """From now on there is something to answer, however quick the answer is."""
        run, wait = self.run, later.wait_for(self.run, self.planned)
        row, now = later.wait_row(run, wait), run.clock.now()
        await run.record(also=lambda tx: waits.add(tx, row, run.position.seal, now))

    async def _acknowledged(self, value: object) -> Done[ToolOutcome]:
        """It is begun: nothing is held until its result is there. Raises: Suspend."""
        run, wait = self.run, later.wait_for(self.run, self.planned)
        expires = run.clock.now() + int(self.tool.later_seconds * MICROS)
        paid, held = self._paid(), self.held
        begun = ToolAcknowledged(
            key=self.key,
            tool=self.tool.name,
            attempt=self.attempts,
            expires=expires,
            message="" if value is None else self._shown(value).text,
            nanos=self._nanos,
        )

        def also(tx: Tx) -> Mapping[str, Any] | None:
            if paid is not None:
                paid(tx)
            waits.set_deadline(tx, wait.id, expires)
            found = waits.by_id(tx, wait.id)
            return None if found is None else found.answer

        answer = await run.record(begun, also=also, must=True)
        if held is not None:
            self.hands.ledger.released(held.accounts)
            self.held = None
        if isinstance(answer, Mapping):  # it was quicker than we are
            return self._arrived(answer)
        raise Suspend([later.wait_for(run, self.planned, expires)])

    def _arrived(self, answer: Mapping[str, Any]) -> Done[ToolOutcome]:
        failed = later.failed(answer)
        if failed is not None:
            raise _Failed(*failed)
        return self._succeeded(later.rendered(answer), "later")

    async def _delivered(self) -> Done[ToolOutcome] | None:
        """The result, when it is there although the call seemed to fail."""
        wait = later.wait_id(self.idempotency_key)
        found = await self.hands.read(lambda tx: waits.by_id(tx, wait))
        return None if found is None or found.answer is None else self._arrived(found.answer)

    async def _settle(self, failed: _Failed) -> Done[ToolOutcome] | _Failed:
        """It has failed, unless a result came first; from now on none is taken any more."""
        answer = await self._closed(failed.code, str(failed))
        if answer is None:
            return failed
        why = later.failed(answer)
        return self._arrived(answer) if why is None else _Failed(*why)

    async def _closed(self, code: str, why: str) -> Mapping[str, Any] | None:
        """What the wait of this call is answered with: this, or what came before."""
        run, wait = self.run, later.wait_id(self.idempotency_key)
        answer, now = later.failure(code, why, ours=True), run.clock.now()

        def also(tx: Tx) -> Mapping[str, Any] | None:
            waits.answer(tx, wait, answer, run.position.seal, now)
            found = waits.by_id(tx, wait)
            return None if found is None else found.answer

        recorded = await run.record(also=also)
        return recorded if isinstance(recorded, Mapping) else None

    # --- outcomes ------------------------------------------------------------------------

    def _succeeded(self, shown: Rendered, source: Source) -> Done[ToolOutcome]:
        told = self.planned.result(shown.text, files=shown.files)
        outcome = ToolSucceeded(**self._common(told), source=source)
        return self._done(outcome)

    async def _give_up(self, failed: _Failed) -> Done[ToolOutcome]:
        if self.tool.fallback is not None:
            done = await self._fallback(self.tool.fallback, failed)
            if done is not None:
                return done
        tries = f" after {self.attempts} attempts" if self.attempts > 1 else ""
        text = (
            str(failed)
            if failed.code == "tool_error"
            else (f"{self.tool.name} failed{tries}: {failed}. {_NOW_WHAT}")
        )
        told = self.planned.result(text, "error")
        outcome = ToolFailed(**self._common(told), code=failed.code)
        return self._done(outcome)

    async def _fallback(self, other: Tool[Any], failed: _Failed) -> Done[ToolOutcome] | None:
        """The alternative tool, with the same arguments where its schema takes them."""
        call, run = ToolCall(other.name, dict(self.planned.arguments)), self.run
        checked = await check(run, Registry([other]), call)
        if not isinstance(checked, Accepted):
            return None
        context = self.run.context(self.idempotency_key, 1, other.name)
        if self.held is not None:  # whatever comes of the other, this attempt is over
            why = AttemptFailed(failed.code, str(failed), applied="unknown", transient=False)
            await self._failed(why)
        try:
            async with in_time(self.run, other.timeout or self.run.limits.tool_seconds):
                value = await attempt(run, self.hands.threads, other, context, checked.values)
            shown = render(value, other.name)
        except (AttemptFailed, TimeoutError, ToolError):
            return None
        text = f"[{self.tool.name} failed ({failed.code}); this is from {other.name}]\n{shown.text}"
        return self._succeeded(Rendered(text, shown.files), "fallback")

    def _common(self, result: ToolResult) -> dict[str, Any]:
        return {
            "key": self.key,
            "tool": self.tool.name,
            "arguments": self.planned.arguments,
            "arguments_hash": self.planned.arguments_hash,
            "result": result,
            "result_hash": _digest(result.content),
            "effect": self.planned.effect,
            "attempts": self.attempts,
            "micros": int((self.run.clock.monotonic() - self.started) * MICROS),
            "nanos": self._nanos,
        }

    @property
    def _nanos(self) -> int:
        """The cost of the last attempt, unless its own event has it or none was made."""
        return 0 if self.held is None else self.held.amount.nanos

    def _done(self, outcome: ToolOutcome) -> Done[ToolOutcome]:
        held = self.held
        if held is None:
            return Done(outcome)
        return Done(
            outcome, also=self._paid(), then=lambda: self.hands.ledger.released(held.accounts)
        )

    def _paid(self, state: Charge = "settled") -> Callable[[Any], None] | None:
        """Settles this attempt's declared cost; an attempt is paid for whatever it came to."""
        held = self.held
        if held is None:
            return None
        return lambda tx: settle(tx, held.reservation, held.amount, state, key=self.key)

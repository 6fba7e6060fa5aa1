"""One paid model call: reserve its worst case, ask, settle its truth.

`turns` and `ending` call it. Invariant: no request leaves before its reservation is durable,
and every reservation ends settled, assumed at worst case, or released.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from roadworthy.agent import Model
from roadworthy.breakers import Admission, Circuits, Ended
from roadworthy.budget import Account, Amount, Ask, Exhausted, Held, Ledger, bearer_of, settle
from roadworthy.clock import MICROS
from roadworthy.deadline import in_time
from roadworthy.errors import (
    ModelError,
    ModelInterrupted,
    ModelOutcomeUnknown,
    ModelRejected,
    ModelUnavailable,
)
from roadworthy.events import (
    BreakerRefused,
    BudgetRefused,
    ModelFailed,
    ModelIntended,
    ModelReplied,
    RunEvent,
)
from roadworthy.limits import Phase, to_dollars
from roadworthy.messages import Message, ModelRequest, ModelSettings, OutputSpec, Reply, ToolSpec
from roadworthy.models.catalog import Catalog
from roadworthy.models.failures import UNREACHED
from roadworthy.models.prices import Rates
from roadworthy.models.tokens import fixed_bound, message_bound
from roadworthy.result import Reason
from roadworthy.retries import Backoff, ModelTries, rest
from roadworthy.run import Done, Run
from roadworthy.stops import Stop
from roadworthy.store.database import Tx
from roadworthy.transcript import as_told

ATTEMPTS_PER_MODEL = 4
LEAST_TOKENS = 200  # a shrunk reply below this is of no use to anybody
CLOSING_INPUT, CLOSING_OUTPUT = 6_000, 500
_LAST_RESORT = 5.0  # seconds past a model's own timeout
Tried: TypeAlias = "Done[ModelReplied] | tuple[ModelError, int | None]"


class BudgetExhausted(Stop):
    """The worst case of a call fits no longer."""


class ModelGone(Stop):
    """No model of the chain answered."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a call sends, beside the messages."""

    key: str
    instructions: str
    tools: tuple[ToolSpec, ...] = ()
    output: OutputSpec | None = None
    phase: Phase = "execute"
    messages: list[Message] | None = None  # instead of the run's own
    most_tokens: int | None = None
    beside: Callable[[Reply], tuple[RunEvent, ...]] | None = None  # facts to record with the reply
    closing: bool = False  # gives up the closing reserve for this call
    stream: bool = False

    @functools.cached_property
    def fixed(self) -> int:
        """The bound of what is sent beside the messages, in tokens."""
        return fixed_bound(self.instructions, self.tools, self.output)

    @functools.cached_property
    def head(self) -> hashlib._Hash:
        """The hash of what is sent beside the messages; copy it to go on."""
        begun = hashlib.sha256(self.instructions.encode("utf-8", "replace"))
        begun.update(msgspec.json.encode([self.tools, self.output]))
        return begun


class Gate:
    """The breakers of a model: its own, and its provider's, which opens when nothing of the
    provider can be reached: as two of its models at least say."""

    def __init__(self, circuits: Circuits, catalog: Catalog, model: Model, run: Run) -> None:
        self._circuits, self._model = circuits, model
        self._name, self._breaker = catalog.circuit(model, run.user.tenant)
        self._provider = catalog.provider(model, run.user.tenant)
        self._seconds = run.agent.settings.timeout + _LAST_RESORT
        self._all: Admission | None = None
        self._own: Admission | None = None

    async def shut(self) -> int | None:
        """Until when the model is left alone. Microseconds UTC; None: it may be asked."""
        breaker, seconds = self._breaker, self._seconds
        if breaker is None:
            return None
        if self._provider:
            found = await self._circuits.admit(self._provider, breaker, seconds, kinds=2)
            if not isinstance(found, Admission):
                return found
            self._all = found
        found = await self._circuits.admit(self._name, breaker, seconds)
        if isinstance(found, Admission):
            self._own = found
            return None
        if self._all is not None:
            await self._all.ended("neither")
        return found

    async def ended(self, how: Ended, error: ModelError | None) -> None:
        """Tell them what came of the attempt."""
        cause = "" if error is None else error.cause or type(error).__name__
        if self._own is not None:
            await self._own.ended(how, cause)
        if self._all is not None:
            reached: Ended = "neither" if how == "neither" or cause == "timeout" else "worked"
            unreached = how == "failed" and cause == UNREACHED
            await self._all.ended("failed" if unreached else reached, cause, self._model.name)


@dataclass
class ModelCalls:
    """The paid calls of a process."""

    ledger: Ledger
    catalog: Catalog
    circuits: Circuits
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.5, most=20.0))

    async def ask(self, run: Run, asked: Asked) -> Reply:
        """The model's reply to the run's messages, from the record or by a paid call.

        Raises: BudgetExhausted, ModelGone, Stop (cancelled).
        """

        def verify(recorded: ModelReplied) -> None:
            now = _request_hash(run, asked)
            if recorded.request_hash != now and run.differences is not None:
                run.differences.append(
                    f"{asked.key}: the request would differ (recorded {recorded.request_hash}, "
                    f"now {now})"
                )

        outcome = await run.step(asked.key, lambda: self._call(run, asked), verify)
        _remember(run, asked, outcome)
        return outcome.reply

    async def _call(self, run: Run, asked: Asked) -> Done[ModelReplied]:
        await self._assume_open(run, asked.key)
        wanted = run.options.model or run.agent.model
        if asked.closing and asked.messages is not None:
            wanted = self.catalog.smallest(wanted)
        attempt, tries = run.tried(asked.key), ModelTries.recorded(run, asked.key)
        request_hash = _request_hash(run, asked)
        for model in self.catalog.chain(wanted, run.user.tenant):
            for left in range(tries.left(model.name, ATTEMPTS_PER_MODEL), 0, -1):
                await rest(run, tries.retry_at)
                gate = await self._admitted(run, asked, model)
                if isinstance(gate, ModelUnavailable):
                    tries.error, tries.retry_at = gate, None
                    break
                attempt += 1
                trial = _Trial(self, run, asked, model, attempt, request_hash)
                outcome = await _told(gate, trial.go(ATTEMPTS_PER_MODEL - left + 1))
                if isinstance(outcome, Done):
                    return outcome
                tries.error, tries.retry_at = outcome
                if tries.retry_at is None:
                    break
        reason: Reason = (
            "model_rejected" if isinstance(tries.error, ModelRejected) else "model_failed"
        )
        raise ModelGone(reason, f"No model answered: {tries.error}")

    async def _admitted(self, run: Run, asked: Asked, model: Model) -> Gate | ModelUnavailable:
        """The breakers it passed; or it is left alone, which is recorded."""
        gate = Gate(self.circuits, self.catalog, model, run)
        until = await gate.shut()
        if until is None:
            return gate
        await run.record(BreakerRefused(key=asked.key, model=model.name, until=until))
        return ModelUnavailable(f"{model.name} failed too often just now and is left alone")

    async def assume_open(self, run: Run) -> None:
        """The run ends: what it asked in a process that died, and asks no more, is assumed too."""
        for key in run.past.attempts:
            if key not in run.past.outcomes:
                await self._assume_open(run, key)

    async def _assume_open(self, run: Run, key: str) -> None:
        """A process died during this call: its charge is unknown, so it stands at worst case."""
        intent = run.open_intent(key)
        if isinstance(intent, ModelIntended) and intent.reservation not in run.assumed:
            run.assumed.add(intent.reservation)
            assumed = Amount(intent.nanos, intent.input_bound + intent.max_tokens)
            failed = ModelFailed(
                key=key,
                attempt=intent.attempt,
                model=intent.model,
                code="crashed",
                assumed=assumed.nanos,
                phase=intent.phase,
            )
            reservation = intent.reservation
            await run.record(
                failed, also=lambda tx: settle(tx, reservation, assumed, "assumed", key=key)
            )

    def closing_reserve(self, run: Run) -> tuple[str, Amount] | None:
        """What one short last answer costs at worst; held from the first paid call on."""
        wanted = self.catalog.smallest(run.options.model or run.agent.model)
        model = self.catalog.chain(wanted, run.user.tenant)[0]
        nanos = self.catalog.rates(model).worst(CLOSING_INPUT, CLOSING_OUTPUT)
        return (closing_id(run), Amount(nanos, CLOSING_INPUT + CLOSING_OUTPUT))


@dataclass
class _Trial:
    """One attempt at one model: its own reservation, its own end."""

    calls: ModelCalls
    run: Run
    asked: Asked
    model: Model
    attempt: int
    request_hash: str

    async def go(self, nth: int) -> Tried:
        """The outcome, or why this attempt failed and when the next is due (None: the model gave
        up), as recorded. nth: of this model's attempts."""
        run, rates = self.run, self.calls.catalog.rates(self.model)
        bound = _input_bound(run, self.asked, self.model.name)
        held = await self._reserve(rates, bound)
        if isinstance(held, Exhausted):
            raise BudgetExhausted("budget", _why(held.account, held))
        most = held.amount.tokens - bound
        request = self._request(most)
        started = run.clock.monotonic()
        try:
            reply = await run.veil.conceal(await self._exchange(request))
        except ModelError as error:
            retry_at = None
            if error.retryable and nth < ATTEMPTS_PER_MODEL:
                pause = self.calls.backoff.seconds(nth, error.retry_after)
                retry_at = run.clock.now() + int(pause * MICROS)
            await self._failed(held, error, retry_at, gave_up=retry_at is None)
            return error, retry_at
        except BaseException:  # cancelled or stopped: the request has left all the same
            await self._failed(held, ModelInterrupted("broken off"), None, gave_up=False)
            raise
        micros = int((run.clock.monotonic() - started) * MICROS)
        return self._done(held, reply, rates, micros)

    def _request(self, most_tokens: int) -> ModelRequest:
        run, asked = self.run, self.asked
        return ModelRequest(
            instructions=asked.instructions,
            messages=run.told() if asked.messages is None else tuple(map(as_told, asked.messages)),
            tools=asked.tools,
            output=asked.output,
            settings=replace(run.agent.settings, max_tokens=most_tokens),
            run_id=run.id,
            ordinal=run.meter.replies + run.meter.failures,
        )

    async def _exchange(self, request: ModelRequest) -> Reply:
        run, key, shown = self.run, self.asked.key, 0

        def on_text(text: str) -> None:
            nonlocal shown
            run.show(key, text, self.attempt, shown)
            shown += len(text)

        watch = self.asked.stream and run.live.watched(run.id)
        if watch and self.attempt > 1:
            run.replace(key)
        try:
            seconds = request.settings.timeout  # the model's own affair; this is the last resort
            async with in_time(run, seconds + min(_LAST_RESORT, seconds)):
                return _sound(await self.model.request(request, on_text if watch else None))
        except TimeoutError as error:
            said = f"{self.model.name} did not answer in {request.settings.timeout:g} s"
            raise ModelOutcomeUnknown(said, cause="timeout") from error

    async def _reserve(self, rates: Rates, bound: int) -> Held | Exhausted:
        run, asked = self.run, self.asked
        settings: ModelSettings = run.agent.settings
        most = min(settings.max_tokens, asked.most_tokens or settings.max_tokens)
        least = min(most, LEAST_TOKENS)
        own = closing_id(run)
        reserve = None
        if not asked.closing and not run.reserved:
            reserve = self.calls.closing_reserve(run)

        def worst(tokens: int) -> Amount:
            return Amount(rates.worst(bound, tokens), bound + tokens)

        def fit(there: Amount) -> Amount | None:
            tokens = min(most, there.tokens - bound, rates.affordable(there.nanos, bound))
            return worst(tokens) if tokens >= least else None

        def intent(amount: Amount) -> RunEvent:
            return ModelIntended(
                key=asked.key,
                attempt=self.attempt,
                model=self.model.name,
                reservation=reservation,
                nanos=amount.nanos,
                input_bound=bound,
                max_tokens=amount.tokens - bound,
                phase=asked.phase,
                request_hash=self.request_hash,
            )

        reservation = f"{run.id}:{asked.key}:{self.attempt}"
        ask = Ask(
            key=asked.key,
            reservation=reservation,
            full=worst(most),
            least=worst(least),
            fit=fit,
            intent=intent,
            reserve=reserve,
            own=own,
            release=own if asked.closing else None,
        )
        held = await self.calls.ledger.reserve(run.position, bearer_of(run), ask)
        await run.flushed()
        run.reserved = run.reserved or isinstance(held, Held)
        return held

    async def _failed(
        self, held: Held, error: ModelError, retry_at: int | None, *, gave_up: bool
    ) -> None:
        """Record the failure and end the reservation."""
        charged = held.amount if error.charge_unknown else Amount()
        failed = ModelFailed(
            key=self.asked.key,
            attempt=self.attempt,
            model=self.model.name,
            code=type(error).__name__,
            message=str(error)[:500],
            assumed=charged.nanos,
            retry_at=retry_at,
            phase=self.asked.phase,
            gave_up=gave_up,
        )
        state: Literal["assumed", "released"] = "assumed" if error.charge_unknown else "released"
        await self.run.record(
            failed, also=lambda tx: settle(tx, held.reservation, charged, state, key=failed.key)
        )
        self.calls.ledger.released(held.accounts)

    def _done(self, held: Held, reply: Reply, rates: Rates, micros: int) -> Done[ModelReplied]:
        usage = reply.usage
        nanos = rates.cost(usage)
        actual = Amount(nanos, usage.input + usage.output)
        outcome = ModelReplied(
            key=self.asked.key,
            attempt=self.attempt,
            model=self.model.name,
            reply=reply,
            input_tokens=usage.input,
            output_tokens=usage.output,
            cache_read_tokens=usage.cache_read,
            nanos=nanos,
            micros=micros,
            phase=self.asked.phase,
            request_hash=self.request_hash,
        )

        def also(tx: Tx) -> None:
            settle(tx, held.reservation, actual, key=self.asked.key)

        beside = self.asked.beside(reply) if self.asked.beside else ()
        return Done(
            outcome, beside, also=also, then=lambda: self.calls.ledger.released(held.accounts)
        )


async def _told(gate: Gate, trial: Awaitable[Tried]) -> Tried:
    """What the attempt came to, once its breakers know."""
    how: Ended = "neither"
    error: ModelError | None = None
    try:
        outcome = await trial
        error = outcome[0] if isinstance(outcome, tuple) else None
        how = "failed" if error is not None and error.retryable else "worked"
    finally:
        await gate.ended(how, error)
    return outcome


def closing_id(run: Run) -> str:
    """The reservation kept for the closing answer, new after each wait and reopening."""
    return f"{run.id}:closing:{run.past.reserves}"


def _sound(reply: Reply) -> Reply:
    """The reply; half surrogate pairs, which neither JSON nor a store can hold, are replaced."""
    try:
        msgspec.json.encode(reply)
    except UnicodeEncodeError:
        return msgspec.convert(_replaced(msgspec.to_builtins(reply)), Reply)
    return reply


def _replaced(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_replaced(key): _replaced(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item) for item in value]
    return value


def _input_bound(run: Run, asked: Asked, model: str) -> int:
    """A strict upper bound of the request's tokens: what was counted, plus bytes said since."""
    if asked.messages is not None:
        return asked.fixed + sum(map(message_bound, asked.messages))
    known = run.known
    if known.model == model and known.head == asked.head.digest():
        return known.tokens + sum(map(message_bound, run.messages[known.counted :]))
    return asked.fixed + sum(map(message_bound, run.messages))


def _remember(run: Run, asked: Asked, outcome: ModelReplied) -> None:
    """After a reply its request's size is known exactly; the next bound starts from there."""
    if asked.messages is None:
        known = run.known
        known.model = outcome.model
        known.head = asked.head.digest()
        known.counted = len(run.messages)
        known.tokens = outcome.input_tokens


def _request_hash(run: Run, asked: Asked) -> str:
    """Hash of what is asked. Messages are hashed once each, as a chain."""
    head = asked.head.copy()
    if asked.messages is not None:
        head.update(msgspec.json.encode(asked.messages))
        return head.hexdigest()[:16]
    known = run.known
    for message in run.messages[known.hashed :]:
        data = msgspec.json.encode(message)
        known.hash = hashlib.sha256(known.hash + data).digest()
    known.hashed = len(run.messages)
    head.update(known.hash)
    return head.hexdigest()[:16]


def _why(account: Account | BudgetRefused, verdict: Exhausted | BudgetRefused) -> str:
    """Why a budget refused; a replay says it in the same words, from the recorded refusal."""
    amount = (
        f"${to_dollars(verdict.need):f} needed, ${to_dollars(max(0, verdict.left)):f} left"
        if account.unit == "usd"
        else f"{verdict.need} tokens needed, {max(0, verdict.left)} left"
    )
    window = "" if account.window == "total" else f" of this {account.window}"
    busy = ", the rest is held by calls in flight" if verdict.busy else ""
    run = account.scope == "run"
    mend = "Limits" if run else f"Budget({account.scope!r}, {account.window!r})"
    return (
        f"The {account.scope} budget{window} does not cover another call: {amount}{busy}. "
        f"Raise {account.unit} of {mend} and resume."
    )

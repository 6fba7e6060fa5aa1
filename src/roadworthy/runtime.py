"""The composition root and the one object users open: `Runtime`.

Everything else is data (patterns) or an id (run, conversation, approval), so any process can act
on any run. Invariant: what is accepted here is durable before anything else happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, TypeVar, cast

from roadworthy.agent import Agent, Model, OnChange, check_on_change
from roadworthy.clock import Clock, SystemClock
from roadworthy.context import User
from roadworthy.engine.jobs import EngineSettings
from roadworthy.errors import ConfigurationError, IdempotencyConflict
from roadworthy.escalation.policy import Inbox
from roadworthy.events import RunEnded, RunEvent, RunWaiting, StreamEvent
from roadworthy.intake import checked_input
from roadworthy.keeper import Keeper
from roadworthy.limits import Budget, Limits, Price
from roadworthy.live import Told
from roadworthy.loop_thread import LoopThread, running_loop
from roadworthy.messages import Json, UserInput
from roadworthy.models.catalog import Catalog
from roadworthy.models.providers import ProviderOptions
from roadworthy.opened import Opened
from roadworthy.privacy import Privacy
from roadworthy.reception import Accepted, Request
from roadworthy.records import Records
from roadworthy.replaying import Replayed, replay
from roadworthy.result import Decision, RunResult
from roadworthy.run import RunOptions
from roadworthy.settings import Settings, set_up_logging
from roadworthy.store import migrations
from roadworthy.store.opening import open_database
from roadworthy.store.ownership import check_whole
from roadworthy.store.schedules import Schedule
from roadworthy.timetable import Missed
from roadworthy.undoing import undoing

T = TypeVar("T")
Deps = TypeVar("Deps")
Output = TypeVar("Output")
CLOSE_SECONDS = 5.0  # what executes gets so long; the rest goes on elsewhere or later


class Runtime(Records):
    """Opens a store and runs patterns on it. Use as `with` or `async with`; no I/O before.

    url: `sqlite:///file.db`, or `postgresql://...` for many processes; default ROADWORTHY_URL.
    patterns: what this process can execute and resume. tiers: name -> models in order of
    preference. prices: model name -> Price, for models the price table does not know. budgets:
    bounds over many runs. providers: options by provider or model name. on_event: called with
    every event of every run here, read-only. privacy: keeps personal data out of the store and
    away from models (`roadworthy.privacy`); what is recorded, and so what on_event is told, then
    holds tokens. inbox: where runs go that need a person; without one they end as partial. version,
    on_change: for agents that say none, see there. execute: False only looks and leaves requests
    and commands; another process executes them. On Postgres: redis carries live streams between
    machines (default ROADWORTHY_REDIS, else Postgres does); engine says how this process takes
    part in executing (default from the environment).
    """

    def __init__(  # noqa: PLR0913 - the composition root
        self,
        url: str | None = None,
        *,
        patterns: Sequence[Agent[Any, Any]] = (),
        tiers: Mapping[str, Sequence[str | Model]] | None = None,
        prices: Mapping[str, Price] | None = None,
        budgets: Sequence[Budget] = (),
        providers: Mapping[str, ProviderOptions] | None = None,
        on_event: Callable[[StreamEvent], None] | None = None,
        clock: Clock | None = None,
        privacy: Privacy | None = None,
        inbox: Inbox | None = None,
        version: str = "",
        on_change: OnChange = "continue",
        execute: bool = True,
        redis: str | None = None,
        engine: EngineSettings | None = None,
    ) -> None:
        check_on_change("Runtime", on_change)
        self._settings = Settings.from_environment()
        self._database = open_database(url or self._settings.url)
        self._patterns = tuple(patterns)
        self._catalog = Catalog(tiers or {}, prices or {}, providers or {})
        self._budgets = tuple(budgets)
        self._on_event = on_event
        self._privacy, self._inbox = privacy, inbox
        self._version, self._on_change = version, on_change
        self.execute = execute
        self._redis = redis or self._settings.redis
        self.engine = engine or EngineSettings().adjusted(
            lease=self._settings.lease,
            concurrency=self._settings.concurrency,
            drain=self._settings.drain,
        )
        self._clock: Clock = clock or SystemClock()
        self._thread: LoopThread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: Opened | None = None
        names = [pattern.name for pattern in self._patterns]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigurationError(f"Two patterns are named {sorted(twice)}; rename one.")

    async def __aenter__(self) -> Runtime:
        """Open on this event loop; unfinished runs of known patterns go on in the background."""
        self._check_closed()
        set_up_logging(self._settings.log)
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(migrations.upgrade, self._database)
            await asyncio.to_thread(self._database.read, check_whole)
            self._opened = Opened(
                self._database,
                self._clock,
                self._catalog,
                budgets=self._budgets,
                busy_seconds=self._settings.busy_seconds,
                on_event=self._on_event,
                privacy=self._privacy,
                inbox=self._inbox,
                version=self._version,
                on_change=self._on_change,
                execute=self.execute,
                redis=self._redis,
                inline=self._settings.engine == "inline",
                engine=self.engine,
            )
            await self._opened.open(self._patterns)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let running segments finish their step, then close. Runs go on at the next opening."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close(CLOSE_SECONDS)
        await asyncio.to_thread(self._database.close)

    def __enter__(self) -> Runtime:
        """Open for sync code, on a loop thread of its own."""
        self._check_closed()
        self._thread = LoopThread()
        try:
            return self._thread.call(self.__aenter__())
        except BaseException:
            self._thread.close()
            self._thread = None
            raise

    def __exit__(self, *exc: object) -> None:
        """Close."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.call(self.__aexit__(*exc))
            thread.close()

    def _check_closed(self) -> None:
        if self._opened is not None:
            raise ConfigurationError("This runtime is open already; open it once and share it.")

    @property
    def _open(self) -> Opened:
        if self._opened is None:
            raise ConfigurationError(
                "This runtime is not open. Write `with Runtime(...) as rt:` or, in async code, "
                "`async with Runtime(...) as rt:`."
            )
        if running_loop() not in (None, self._loop):
            raise ConfigurationError(
                "This runtime is open on another event loop. After `with`, use rt.run_sync(...) "
                "or rt.sync(rt.run(...)); in async code open it with `async with`."
            )
        return self._opened

    @property
    def url(self) -> str:
        """The store's address."""
        return self._database.url

    @property
    def patterns(self) -> tuple[Agent[Any, Any], ...]:
        """What this runtime was made with, or was given by `register`."""
        return self._patterns

    def register(self, *patterns: Agent[Any, Any]) -> None:
        """Add patterns that this process can execute and resume, before it is opened."""
        self._patterns += patterns

    async def run(
        self,
        pattern: Agent[Deps, Output],
        input: UserInput,
        *,
        user: User | str = "anonymous",
        conversation: str | None = None,
        key: str | None = None,
        options: RunOptions | None = None,
    ) -> RunResult[Output]:
        """Run to an end or a wait. A repeated `key` of a tenant is the same run.

        Raises: IdempotencyConflict, ConversationBusy, StoreError, ConfigurationError.
        """
        run_id = await self.start(
            pattern, input, user=user, conversation=conversation, key=key, options=options
        )
        return cast("RunResult[Output]", await self.wait(run_id))

    def run_sync(
        self,
        pattern: Agent[Deps, Output],
        input: UserInput,
        *,
        user: User | str = "anonymous",
        conversation: str | None = None,
        key: str | None = None,
        options: RunOptions | None = None,
    ) -> RunResult[Output]:
        """`run` for sync code. Raises: ConfigurationError: called on the runtime's own loop."""
        work = self.run(
            pattern, input, user=user, conversation=conversation, key=key, options=options
        )
        return self.sync(work)

    def sync(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for any of the async methods from sync code: `rt.sync(rt.cancel(run_id))`."""
        if self._thread is None:
            work.close()
            raise ConfigurationError(
                "Sync calls need a runtime opened with `with`. Inside `async with`, use "
                "`await rt.run(...)`."
            )
        return self._thread.call(work)

    async def start(
        self,
        pattern: Agent[Any, Any],
        input: UserInput,
        *,
        user: User | str = "anonymous",
        conversation: str | None = None,
        key: str | None = None,
        options: RunOptions | None = None,
    ) -> str:
        """Accept a request durably and execute it in the background. Returns the run's id."""
        request = self._request(
            pattern, input, user=user, conversation=conversation, key=key, options=options
        )
        return (await self._accept(request)).run_id

    async def follow(
        self,
        pattern: Agent[Any, Any],
        input: UserInput,
        *,
        user: User | str = "anonymous",
        conversation: str | None = None,
        key: str | None = None,
        options: RunOptions | None = None,
    ) -> tuple[str, AsyncIterator[StreamEvent]]:
        """`start`, and the events that `stream` would yield: of an answer, those that follow it."""
        request = self._request(
            pattern, input, user=user, conversation=conversation, key=key, options=options
        )
        accepted = await self._accept(request)
        return accepted.run_id, self.events(accepted.run_id, accepted.after)

    def _request(
        self,
        pattern: Agent[Any, Any],
        input: UserInput,
        *,
        user: User | str,
        conversation: str | None,
        key: str | None,
        options: RunOptions | None,
    ) -> Request:
        who = user if isinstance(user, User) else User(user)
        return Request(
            pattern=pattern,
            input=checked_input(input),
            user=who,
            conversation=conversation,
            key=key,
            options=options or RunOptions(),
        )

    async def _accept(self, request: Request) -> Accepted:
        opened = self._open
        await opened.executor.admit(request.pattern)
        await opened.check(request)
        await opened.keeper.admit(request.options.priority)
        accepted = await opened.intake.accept(request, mine=opened.keeper.owner)
        opened.keeper.wake(accepted.run_id)
        return accepted

    async def stream(
        self,
        pattern: Agent[Any, Any],
        input: UserInput,
        *,
        user: User | str = "anonymous",
        conversation: str | None = None,
        key: str | None = None,
        options: RunOptions | None = None,
    ) -> AsyncIterator[StreamEvent]:
        """Run and yield its events as they happen, until it ends or waits.

        Leaving the loop early does not cancel the run; `events` re-attaches.
        """
        _, events = await self.follow(
            pattern, input, user=user, conversation=conversation, key=key, options=options
        )
        async for event in events:
            yield event

    async def events(self, run_id: str, after: int = -1) -> AsyncIterator[StreamEvent]:
        """A run's events after position `after` (`event.seq`), then live ones, until it stops.

        Raises: UnknownRun. PatternUnknown: its agent is not registered where runs execute.
        VersionHeld: it is left to a process that has the agent as it was.
        """
        opened = self._open
        queue = opened.live.watch(run_id)
        try:
            while True:
                row, recorded = await opened.record_after(run_id, after)
                for event in recorded:
                    after = event.seq
                    yield await opened.shown(event, row)
                if row.status not in ("queued", "running"):
                    return
                await opened.executor.check_known(row, here=opened.keeper.owner)
                async for live in opened.follow(queue, after):
                    if isinstance(live, RunEvent):
                        after = live.seq
                    yield await opened.shown(live, row)
                    if isinstance(live, RunEnded | RunWaiting):
                        return
        finally:
            opened.live.leave(run_id, queue)

    async def wait(self, run_id: str) -> RunResult[Any]:
        """The result, once the run has ended or waits.

        Raises: UnknownRun; PatternUnknown: its agent is not registered where runs execute;
        VersionHeld: it is left to a process that has the agent as it was;
        StoreError: nothing moves, the store is in trouble or too new.
        """
        opened = self._open
        told = opened.live.expect(run_id)
        try:
            while True:
                result: Told = None
                if not opened.executor.executes(run_id):  # else we are told
                    here = opened.keeper.owner
                    result = await opened.executor.result(run_id, here=here)
                if result is None:
                    result = await opened.until(told)
                if isinstance(result, Exception):
                    raise result
                if result is not None:
                    return result
        finally:
            opened.live.forget(run_id, told)

    async def result(self, run_id: str) -> RunResult[Any]:
        """The latest result, waiting while the run executes. From any process."""
        return await self.wait(run_id)

    async def resolve(
        self,
        approval_id: str,
        decision: Decision,
        *,
        by: str,
        arguments: Mapping[str, Json] | None = None,
        note: str = "",
    ) -> None:
        """Decide a waiting call: approve, edit (with `arguments`), reject, respond (with `note`);
        or whether a run goes on under its changed agent: approve, reject.

        The run goes on once decided. Raises: UnknownApproval: no such, or decided already;
        RunError: the arguments do not fit the tool.
        """
        opened = self._open
        answer: dict[str, Any] = {"decision": decision, "by": by, "note": note}
        if arguments is not None:
            answer["arguments"] = dict(arguments)
        opened.keeper.wake(await opened.intake.decide(approval_id, answer))

    async def deliver(
        self, token: str, result: object = None, *, error: str | None = None
    ) -> Literal["accepted", "kept", "repeated"]:
        """The result of a call with `later=True`, or why there is none. token: its `run.key`.

        "accepted": recorded, the run goes on; "repeated": the same came before, nothing changes;
        "kept": a limit has ended the run, which finds it when it is resumed.
        Raises: UnknownToken; ResultConflict: another result came before; ResultTooLate: the call
        or its run is over; RunError: a tool could not return this.
        """
        opened = self._open
        delivery = await opened.intake.deliver(token, result, error)
        opened.keeper.wake(delivery.run_id)
        return delivery.taken

    async def cancel(self, run_id: str, *, by: str = "") -> None:
        """Ask a run to stop: reads and model calls are interrupted, effects are not.

        An ended run stays as it is. Raises: UnknownRun.
        """
        opened = self._open
        await opened.intake.cancel(run_id, by)
        await opened.keeper.hear()

    async def resume(self, run_id: str, *, limits: Limits | None = None) -> None:
        """Go on with a run that ended partial, or that a limit or budget stopped. What it did is
        not done again. `limits` replaces its limits. Raises: NotResumable: it ended otherwise, or
        the conversation has gone on. PatternUnknown: its agent is not registered here.
        """
        opened = self._open
        if opened.keeper.owner:
            opened.executor.agent((await self.find(run_id)).pattern)
        await opened.intake.reopen(run_id, limits)
        opened.keeper.wake(run_id)

    async def undo(self, run_id: str, *, by: str) -> str:
        """Take back what a run did that is over, newest first, by the `undo=` of its tools: as a
        run of its own, whose id this returns. Asked again it is the same run. What no machine can
        take back is in that run's report; the undone run is resumed no more. by: who asks.

        Raises: UnknownRun, PatternUnknown; NotUndoable: it is not over, or nothing can be undone.
        """
        asked = await undoing(self._open.executor, run_id, by)
        if isinstance(asked, str):
            return asked
        try:
            return (await self._accept(asked)).run_id
        except IdempotencyConflict:  # somebody else asked just now
            known = await undoing(self._open.executor, run_id, by)
            if isinstance(known, str):
                return known
            raise

    async def schedule(  # noqa: PLR0913 - a declaration
        self,
        name: str,
        pattern: Agent[Any, Any],
        input: UserInput,
        *,
        cron: str,
        user: User | str = "anonymous",
        conversation: str | None = None,
        options: RunOptions | None = None,
        missed: Missed = "once",
    ) -> Schedule:
        """Make this request at every instant of `cron`, from now on, each once however many
        processes there are. It is kept in the store: declaring it again changes what is different.

        cron: minute, hour, day, month, weekday, in UTC. missed: of instants at which no process
        was there, `once` makes the last one up, `skip` none. Raises: DeclarationError; as `start`.
        """
        request = self._request(
            pattern, input, user=user, conversation=conversation, key=None, options=options
        )
        opened = self._open
        await opened.executor.admit(pattern)
        await opened.check(request)
        return await opened.timetable.add(name, cron, request, missed)

    async def unschedule(self, name: str) -> bool:
        """Forget a schedule. False: there is none of this name."""
        return await self._open.timetable.remove(name)

    async def schedules(self) -> list[Schedule]:
        """Every schedule of the store, by name."""
        return await self._open.timetable.all()

    async def catch_up(self) -> None:
        """Act on what has come due, as is done each second: for tests with a clock of their own."""
        await self._open.keeper.catch_up()

    async def replay(self, run_id: str) -> Replayed:
        """Re-execute a recorded run with no model and no tool call; says where it would differ."""
        return await replay(self._open.executor, run_id)

    @property
    def crew(self) -> Keeper:
        """Who executes runs: `drain` this process, `workers`, `ask_to_drain` one, `health`."""
        return self._open.keeper

    @property
    def trouble(self) -> str | None:
        """Why the store cannot commit just now, or None when all is well."""
        return self._open.journal.trouble

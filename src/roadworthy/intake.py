"""What comes in: requests, answers, decisions, reopenings; each durable before it is acted on.

The runtime's methods call it. Invariant: a request is one run however often it is sent, and a wait
is answered once.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sys import maxsize
from typing import Any, Literal, cast, get_args

from msgspec.structs import replace

from roadworthy.compensation import undone_by
from roadworthy.deciding import NOT_DECIDED, agreed, note_decision
from roadworthy.errors import (
    NotResumable,
    ResultConflict,
    ResultTooLate,
    RunError,
    ToolError,
    UnknownApproval,
    UnknownToken,
)
from roadworthy.events import RunReopened, RunStarted, SegmentStarted
from roadworthy.executor import Executor
from roadworthy.limits import Limits
from roadworthy.messages import File, Json, Message, Text, ToolCall, UserInput
from roadworthy.privacy import Veil
from roadworthy.reception import Accepted, Request, asking, enter, joined
from roadworthy.record import Loaded, options_to
from roadworthy.result import Decision, is_resumable
from roadworthy.run import Position, Unit
from roadworthy.store import recorded, runs, waits
from roadworthy.store.codec import Seal
from roadworthy.store.database import Tx
from roadworthy.store.journal import add_event
from roadworthy.store.runs import NewRun, RunRow
from roadworthy.store.waits import WaitRow
from roadworthy.tool_calls import later
from roadworthy.tool_calls.ruled import check_only
from roadworthy.tools.registry import Refused
from roadworthy.tools.results import Rendered, render

RELEASE = "0.1.0"
MOST_INPUT = 2_000_000
_LAST = 1_000_000


@dataclass(frozen=True)
class Delivery:
    """A result that was taken. taken: `accepted`; `kept` for a run that a limit ended, should it be
    resumed; `repeated`: it was there before."""

    run_id: str
    taken: Literal["accepted", "kept", "repeated"]


class Intake:
    """The incoming side of one process."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._house = executor.house
        self._seals: dict[str, Seal] = {}
        self._declared: set[str] = set()  # fingerprints that are on record

    async def accept(self, request: Request, *, mine: bool) -> Accepted:
        """The new run, the one this key made before, or the one that asked.

        mine: this process executes it. A run outside any conversation waits for no other, so the
        commit that accepts it claims it too and opens its first segment.
        Raises: IdempotencyConflict, ConversationBusy, StoreError.
        """
        check_ids(request)
        _check_priority(request.options.priority)
        only, whole = request.options.tools, self._executor.agent(request.pattern.name)
        check_only(whole, only, complete=not request.pattern.toolsets)
        now = self._house.clock.now()
        run_id = f"run_{now:x}{secrets.token_hex(5)}"
        if self._house.privacy is not None:
            request = await self._concealed(request, run_id)
        seal = await self.seal(request.user.tenant)
        new, started = self._new(run_id, request)
        declared = None
        if new.fingerprint not in self._declared:
            declared = self._executor.roster.declaration(request.pattern.name).body
        position = Position(run_id, 0, 0, seal)
        claims = mine and request.conversation is None
        logs = self._house.inbox is not None

        def apply(tx: Tx) -> Accepted | RunRow:
            active = enter(tx, request)
            known = runs.known_run(tx, new)
            if known is not None:
                return Accepted(known)
            told = asking(tx, request, active, seal, now, logs=logs)
            if told is not None:
                return told
            if not runs.add_run(tx, new, declared, now):
                return Accepted(runs.known_run(tx, new) or run_id)
            tx.emit(started)
            joined(tx, request, run_id, seal, now, logs=logs)
            return self._begun(tx, position, now) if claims else Accepted(run_id)

        self._executor.arriving.add(run_id)
        try:
            accepted = await self._house.journal.commit(Unit(position=position, apply=apply))
        finally:
            self._executor.arriving.discard(run_id)
        if isinstance(accepted, Accepted) and accepted.run_id != run_id:
            return accepted
        self._declared.add(new.fingerprint)
        if isinstance(accepted, RunRow):
            fresh = Loaded(row=accepted, events=(started,), waits=(), history=(), seal=seal)
            self._executor.begin(fresh, position)
        return Accepted(run_id)

    def _begun(self, tx: Tx, position: Position, now: int) -> Accepted | RunRow:
        """The run claimed in the commit that accepts it, its first segment open."""
        claimed = runs.claim(tx, runs.get(tx, position.run_id), self._house.holder, now)
        if claimed is None:
            return Accepted(position.run_id)
        position.epoch, segment = claimed
        tx.emit(SegmentStarted(segment=segment, epoch=position.epoch))
        return runs.get(tx, position.run_id)

    async def decide(self, wait_id: str, answer: Mapping[str, Any]) -> str:
        """A person's decision on a waiting call. Returns the run that goes on with it.

        Raises: UnknownApproval: no such, or decided already; RunError: it cannot be decided so.
        """

        def read(tx: Tx) -> tuple[WaitRow, RunRow] | None:
            wait = waits.by_id(tx, wait_id)
            if wait is None or wait.answered_at is not None or wait.kind in NOT_DECIDED:
                return None
            return wait, runs.get(tx, wait.run_id)

        found = await self._house.read(read)
        if found is None:
            raise UnknownApproval(f"No open approval {wait_id!r}; it may be decided already.")
        wait, row = found
        decision, arguments = answer["decision"], answer.get("arguments")
        if decision not in get_args(Decision):
            raise RunError(f"{decision!r} is no decision: approve, edit, reject or respond.")
        if wait.kind == "version" and decision not in ("approve", "reject"):
            raise RunError("This asks whether the run goes on as declared now: approve or reject.")
        if decision == "edit" and wait.kind == "failure":
            raise RunError(
                "This asks what becomes of a call that failed: approve (try it again), respond "
                "(with its result as note=) or reject (leave it)."
            )
        if decision == "edit" and wait.kind == "unknown_outcome":
            raise RunError(
                "This asks whether a call happened: approve (it did not, run it), respond (it did, "
                "with its result as note=) or reject (leave it)."
            )
        if decision == "edit":
            await self.check_edit(wait.run_id, wait.tool, arguments)
        elif arguments is not None:
            raise RunError('arguments= belongs to "edit".')
        await self._answer(wait.id, row, answer)
        return wait.run_id

    async def _answer(self, wait_id: str, row: RunRow, answer: Mapping[str, Any]) -> None:
        """Answer a wait once and make its run executable. Raises: UnknownApproval."""
        said = {name: answer[name] for name in ("arguments", "note") if name in answer}
        answer = {**answer, **await self._house.veil(row).conceal(said)}
        seal = await self.seal(row.tenant)
        now, inbox = self._house.clock.now(), self._house.inbox

        def apply(tx: Tx) -> bool:
            runs.hold(tx, row.id)
            if inbox is not None and not agreed(tx, wait_id, answer, inbox, (seal, now)):
                return True  # a second person must agree
            answered = waits.answer(tx, wait_id, answer, seal, now)
            if answered and inbox is not None:
                note_decision(tx, wait_id, answer, (seal, now))
            runs.wake(tx, row.id, now)
            return answered

        if await self._house.journal.commit(Unit(apply=apply)) is not True:
            raise UnknownApproval(f"{wait_id!r} was decided by somebody else meanwhile.")

    async def deliver(self, token: str, result: object, error: str | None) -> Delivery:
        """Record what became of a call whose result comes later, and make its run executable.

        Raises: UnknownToken, ResultConflict, ResultTooLate; RunError: no such result can be told.
        """
        wait = await self._house.read(lambda tx: waits.by_id(tx, later.wait_id(token)))
        if wait is None:
            raise UnknownToken("No call waits for a result under this token.")
        row = await self._house.read(lambda tx: runs.get(tx, wait.run_id))
        answer = await _delivered(self._house.veil(row), wait.tool, result, error)
        now = self._house.clock.now()
        taken = await self._house.journal.commit(
            Unit(apply=lambda tx: later.take(tx, wait.id, answer, now))
        )
        match taken:
            case "accepted" | "kept" | "repeated":
                return Delivery(wait.run_id, taken)
            case "conflict":
                raise ResultConflict(f"{wait.tool} was given another result under this token.")
            case "over":
                raise ResultTooLate(f"The run that called {wait.tool} has ended.")
            case _:
                raise ResultTooLate(f"{wait.tool} takes no result any more: it failed before.")

    async def check_edit(
        self, run_id: str, tool: str, arguments: Mapping[str, Json] | None
    ) -> None:
        """Raises: RunError: the edited arguments do not fit the tool."""
        if arguments is None:
            raise RunError('"edit" needs arguments=.')
        row = await self._house.read(lambda tx: runs.get(tx, run_id))
        await self._executor.complete(row.pattern)
        desk = self._executor.desk(row.pattern)
        checked = desk.tools.registry.check(ToolCall(tool, dict(arguments)))
        if isinstance(checked, Refused):
            raise RunError(checked.message)
        beyond = desk.agent.rulebook.out_of_bounds(tool, checked.canonical)
        if beyond is not None:
            raise RunError(beyond.text)

    async def cancel(self, run_id: str, by: str) -> None:
        """Leave the command for whoever executes the run. Raises: UnknownRun."""
        await self._house.read(lambda tx: runs.get(tx, run_id))
        now = self._house.clock.now()

        def leave(tx: Tx) -> None:
            if runs.hold(tx, run_id).status in ("queued", "running", "waiting", "escalated"):
                waits.add_command(tx, run_id, "cancel", by, now)
                runs.wake(tx, run_id, now)

        await self._house.journal.commit(Unit(apply=leave))

    async def reopen(self, run_id: str, limits: Limits | None) -> None:
        """Make an ended run executable again. Raises: NotResumable."""
        row = await self._house.read(lambda tx: runs.get(tx, run_id))
        seal = await self.seal(row.tenant)
        now = self._house.clock.now()
        event = RunReopened(limits=None if limits is None else limits.declared())

        def apply(tx: Tx) -> None:
            current = runs.hold(tx, run_id)
            if not is_resumable(current.status, current.reason):
                raise NotResumable(
                    f"Run {run_id} is {current.status} ({current.reason}); only partial runs, and "
                    "those that a limit, a budget or dying processes stopped, can be resumed. "
                    "Start a new run."
                )
            if current.conversation is not None:
                runs.hold_conversation(tx, current.tenant, current.conversation, current.user)
            if (undone := undone_by(tx, current)) is not None:
                raise NotResumable(f"Run {run_id} is undone by {undone}; start a new run.")
            if runs.has_later(tx, current):
                raise NotResumable(f"The conversation of {run_id} has gone on; start a new run.")
            add_event(tx, event, seal, (run_id, recorded.last_seq(tx, run_id) + 1, now))
            runs.reopen(tx, run_id, now)

        await self._house.journal.commit(Unit(apply=apply))

    async def seal(self, tenant: str) -> Seal:
        """The tenant's payload key, made on first use."""
        if tenant not in self._seals:
            fresh = secrets.token_bytes(32)
            key = await self._house.journal.commit(
                Unit(apply=lambda tx: runs.tenant_key(tx, tenant, fresh))
            )
            self._seals[tenant] = Seal(cast(bytes, key))
        return self._seals[tenant]

    async def _concealed(self, request: Request, run_id: str) -> Request:
        """The request as it is stored and hashed.

        Without a conversation the values are the run's own: one sent again is concealed as that
        run's, so that it reads the same, and another text under its key does not.
        """
        tenant, key = request.user.tenant, request.key
        owner = request.conversation
        if owner is None and key is not None:
            owner = await self._house.read(lambda tx: runs.id_by_key(tx, tenant, key))
        veil = Veil(self._house.privacy, tenant, owner or run_id)
        history = await veil.conceal(tuple(request.options.history))
        return dataclasses.replace(
            request,
            input=await veil.conceal(request.input),
            options=dataclasses.replace(request.options, history=history),
        )

    def _new(self, run_id: str, request: Request) -> tuple[NewRun, RunStarted]:
        agent = request.pattern
        new = NewRun(
            id=run_id,
            tenant=request.user.tenant,
            user=request.user.id,
            conversation=request.conversation,
            pattern=agent.name,
            fingerprint=self._executor.roster.declaration(agent.name).fingerprint,
            idempotency_key=request.key,
            body_hash=request.body_hash,
            priority=request.options.priority,
        )
        started = RunStarted(
            agent=agent.name,
            fingerprint=new.fingerprint,
            input=request.input,
            limits=(request.options.limits or agent.limits).declared(),
            options=options_to(request.options),
            prices=self._house.catalog.prices,
            release=RELEASE,
        )
        return new, started


async def _delivered(veil: Veil, tool: str, result: object, error: str | None) -> Mapping[str, Any]:
    """A delivery as it is stored: concealed whole, then cut."""
    if error is not None:
        if result is not None:
            raise RunError("Deliver a result or error=, not both.")
        said: str = render(await veil.conceal(error), tool).text
        return later.failure("tool_error", said, ours=False)
    try:
        whole = render(result, tool, most=maxsize)
    except ToolError as failed:
        raise RunError(str(failed)) from None
    text = await veil.conceal(whole.text)
    files = await veil.conceal(whole.files)
    return later.result(Rendered(render(text, tool).text, files), text)


def checked_input(given: UserInput) -> Message:
    """The user's words as a message; broken Unicode is replaced.

    Raises: RunError: no text, empty or too large.
    """
    items: Sequence[object] = [given] if isinstance(given, str | File) else _listed(given)
    if not all(isinstance(item, str | File) for item in items):
        raise RunError(f"The input is {given!r:.80}: give text, a File, or a list of them.")
    message = Message.user(cast(Any, items))
    parts = tuple(
        replace(part, text=part.text.encode("utf-8", "replace").decode())
        if isinstance(part, Text)
        else part
        for part in message.parts
    )
    files = any(isinstance(part, File) for part in parts)
    if not message.text.strip() and not files:
        raise RunError("The input is empty. Send some text or a file.")
    if len(message.text) > MOST_INPUT:
        raise RunError(
            f"The input has {len(message.text):,} characters, at most {MOST_INPUT:,} are taken. "
            "Send the essential part, or give it as a File to a tool."
        )
    return replace(message, parts=parts)


def _listed(given: object) -> Sequence[object]:
    return given if isinstance(given, list | tuple) else [given]


def check_ids(request: Request) -> None:
    """Raises: RunError: an id is empty or no valid text."""
    ids: dict[str, object] = {
        "user": request.user.id,
        "tenant": request.user.tenant,
        "conversation": request.conversation,
        "key": request.key,
    }
    for name, value in ids.items():
        if value is None or (name == "tenant" and not value):
            continue
        if not isinstance(value, str) or not value:
            raise RunError(f"{name}={value!r}: give a text that is not empty, or leave it out.")
        if any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in value):
            raise RunError(
                f"{name}={value!r}: no valid Unicode text, or it has control characters."
            )


def _check_priority(priority: int) -> None:
    """Raises: RunError: it is none."""
    if type(priority) is not int or not 1 <= priority <= _LAST:
        raise RunError(f"priority={priority!r}: use a whole number from 1, the first, to {_LAST}.")

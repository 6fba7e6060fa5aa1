"""What persons do: `rt.inbox` reads the queue, takes conversations over, speaks, hands back.

The console, the API, the terminal and a help desk use it. Invariant: each action is one commit that
holds the run and its conversation: one owner at a time, nothing said twice, everything logged.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec

from roadworthy import takeover
from roadworthy.context import User
from roadworthy.errands import outcome
from roadworthy.errors import ConfigurationError, NotYours, RunError, UnknownApproval
from roadworthy.escalation import rows, said
from roadworthy.escalation.policy import Inbox
from roadworthy.escalation.views import Escalation, Status
from roadworthy.events import ModelReplied, RunEvent, ToolOutcome
from roadworthy.executor import Executor
from roadworthy.intake import Intake
from roadworthy.keeper import Keeper
from roadworthy.limits import Limits
from roadworthy.live import Live
from roadworthy.messages import Json, Message, ToolCall
from roadworthy.packet import Attempt, Packet, attempts_of, read_packet
from roadworthy.reception import Request
from roadworthy.result import Decision
from roadworthy.run import RunOptions, Unit
from roadworthy.store import runs, waits
from roadworthy.store.database import Tx
from roadworthy.store.runs import RunRow
from roadworthy.takeover import Act, as_told, errand, errand_by, give_back, key_of, take, take_run
from roadworthy.tools.registry import Refused
from roadworthy.transcript import runtime_note

T = TypeVar("T")
LOOK_SECONDS = 0.15
_TAKE_SECONDS = 15.0
_MOST_SAID = 20_000
_OPENED = "A person of the staff opened this conversation; the user has not written yet."


class People:
    """The operator's side of one process. `of` gives it for one tenant."""

    def __init__(
        self,
        executor: Executor,
        intake: Intake,
        keeper: Keeper,
        live: Live,
        tenant: str | None = None,
    ) -> None:
        self._executor, self._intake, self._keeper, self._live = executor, intake, keeper, live
        self._house = executor.house
        self._tenant = tenant

    def of(self, tenant: str | None) -> People:
        """The same for one tenant's escalations only; None: for those of all."""
        return People(self._executor, self._intake, self._keeper, self._live, tenant)

    @property
    def declared(self) -> Inbox:
        """The inbox as declared. Raises: ConfigurationError: the runtime has none."""
        if self._house.inbox is None:
            raise ConfigurationError(
                "This runtime has no inbox. Declare one: Runtime(..., inbox=Inbox()), from "
                "roadworthy.escalation, in every process that opens this store."
            )
        return self._house.inbox

    # --- looking -------------------------------------------------------------------------

    async def list(
        self,
        *,
        status: Status | None = None,
        queue: str | None = None,
        assignee: str | None = None,
        skills: Sequence[str] | None = None,
        most: int = 200,
    ) -> list[Escalation]:
        """What is in the queue, first things first. status None: all that is not resolved.
        skills: only what needs none, or one of these."""
        _ = self.declared
        of = {"status": status, "tenant": self._tenant, "queue": queue, "assignee": assignee}
        enough = most if skills is None else 10_000
        found = await self._house.read(lambda tx: rows.listed(tx, of, enough))
        return [i for i in found if skills is None or i.skill in ("", *skills)][:most]

    async def get(self, escalation: str) -> Escalation:
        """One escalation. Raises: UnknownEscalation."""
        return await self._house.read(lambda tx: rows.by_id(tx, escalation, self._tenant))

    async def packet(self, escalation: str) -> Packet:
        """All that an operator needs of one. Raises: UnknownEscalation."""

        packet, row = await self._house.read(
            lambda tx: read_packet(tx, rows.by_id(tx, escalation, self._tenant))
        )
        packet = await self._with_tools(packet)
        return await self._house.veil(row).reveal(packet)

    async def _with_tools(self, packet: Packet) -> Packet:
        """What the owner may call, where its agent is known here."""
        name = packet.escalation.agent
        if not self._executor.knows(name):
            return packet
        await self._executor.complete(name)
        belt = self._executor.desk(name).agent.toolbelt
        return dataclasses.replace(
            packet,
            tools=tuple(belt),
            schemas={tool.name: tool.parameters for tool in belt.values()},
        )

    async def changes(self) -> AsyncIterator[int]:
        """A number, now and each time the queue has changed, here or in another process."""
        known = None
        while True:
            number = await self._house.read(rows.pulse)
            if number != known:
                known = number
                yield number
            await asyncio.sleep(LOOK_SECONDS)  # noqa: TID251 - other processes write there

    # --- whose it is ---------------------------------------------------------------------

    async def claim(self, escalation: str, by: str, *, key: str | None = None) -> Escalation:
        """Keep it from others for a while: it is mine to look at. Raises: NotYours."""
        return await self._act(escalation, by, takeover.claim, key=key_of(key, "claim", by))

    async def release(self, escalation: str, by: str, *, key: str | None = None) -> Escalation:
        """Give a claim up. One who owns the conversation hands it back instead."""
        return await self._act(escalation, by, takeover.release, key=key_of(key, "release", by))

    async def assign(
        self, escalation: str, to: str, by: str, *, key: str | None = None
    ) -> Escalation:
        """Make it somebody else's; with it goes the conversation, when it is taken over."""
        _named(to, "to")
        return await self._act(
            escalation, by, lambda act: takeover.assign(act, to), key=key_of(key, "assign", by, to)
        )

    async def take(self, escalation: str, by: str, *, key: str | None = None) -> Escalation:
        """Take the conversation over: from now on the agent is silent, until it is handed back.

        A call that is under way is finished first. Raises: NotYours; RunError: the run is over, or
        its process did not let go in time (ask again).
        """
        scoped = key_of(key, "take", by)
        item = await self._act(escalation, by, lambda act: take(act, by), key=scoped)
        self._live.look()
        if item.status != "taken":
            item = await self._until_taken(item, by)
        return item

    async def take_conversation(
        self, conversation: str, by: str, *, tenant: str = ""
    ) -> Escalation:
        """Take over a conversation that nobody escalated. Raises: RunError: there is none."""
        _named(by, "by")
        tenant = tenant if self._tenant is None else self._tenant
        inbox, seal, item = self.declared, await self._intake.seal(tenant), None
        while item is None:  # the run may end just now, or another begin
            run_id = await self._house.read(lambda tx: _active(tx, tenant, conversation))
            run_id = run_id or await self._open_run(conversation, tenant, by)

            def apply(tx: Tx, run_id: str = run_id) -> Escalation | None:
                row = runs.hold(tx, run_id)
                runs.hold_conversation(tx, tenant, conversation, row.user)
                if _active(tx, tenant, conversation) != run_id:
                    return None
                rules = self._executor.agent(row.pattern).escalation
                return take_run(tx, row, rules, (inbox, by), (seal, self._house.clock.now()))

            item = cast("Escalation | None", await self._house.journal.commit(Unit(apply=apply)))
        self._live.look()
        return item if item.status == "taken" else await self._until_taken(item, by)

    async def _open_run(self, conversation: str, tenant: str, by: str) -> str:
        """A run that a person begins, because none is under way: theirs from its first commit."""

        def last(tx: Tx) -> tuple[str | None, RunRow | None]:
            owner = runs.conversation_user(tx, tenant, conversation)
            return owner, runs.last_of_conversation(tx, tenant, conversation)

        owner, row = await self._house.read(last)
        if owner is None or row is None:
            raise RunError(f"There is no conversation {conversation!r} here.")
        agent = self._executor.agent(row.pattern)
        who, at = (self.declared, by), (await self._intake.seal(tenant), self._house.clock.now())
        request = Request(
            pattern=agent,
            input=runtime_note(_OPENED),
            user=User(owner, tenant),
            conversation=conversation,
            key=None,
            options=RunOptions(),
            also=lambda tx, run_id: take_run(tx, runs.get(tx, run_id), agent.escalation, who, at),
        )
        return (await self._intake.accept(request, mine=False)).run_id

    async def _until_taken(self, item: Escalation, by: str) -> Escalation:
        self._keeper.wake(item.run_id)
        await self._keeper.hear()  # in this process; others look by themselves
        try:
            async with asyncio.timeout(_TAKE_SECONDS):
                while item.status == "open" and item.assignee == by:
                    await asyncio.sleep(LOOK_SECONDS / 5)  # noqa: TID251 - another process acts
                    item = await self.get(item.id)
        except TimeoutError:
            raise RunError(
                "The agent is still carrying out an action, which is not broken off. The "
                "conversation is yours as soon as it is done: ask again."
            ) from None
        if item.status == "resolved" or item.assignee != by:
            raise NotYours("The run ended, or somebody else was quicker.")
        return item

    # --- speaking and acting -------------------------------------------------------------

    async def say(
        self, escalation: str, text: str, by: str, *, key: str | None = None
    ) -> Escalation:
        """Words to the user, on the same channel in the same voice; takes the conversation over
        when nobody has. Sent again under its `key` it is said once. Raises: NotYours; RunError."""
        if not text.strip() or len(text) > _MOST_SAID:
            raise RunError(f"Say something, at most {_MOST_SAID:,} characters.")
        item, key = await self.get(escalation), key_of(key, "say", by, text)
        if item.status == "open" and not await self._done(escalation, key):
            await self.take(escalation, by)
        row = await self._house.read(lambda tx: runs.get(tx, item.run_id))
        words = await self._house.veil(row).conceal(text)

        def change(act: Act) -> Escalation:
            act.mine()
            sent = said.Sent(who="person", by=by)
            said.add(act.tx, act.place, sent, Message.assistant(words), act.seal, act.now)
            act.log("said")
            return act.save(locked_until=act.policy.locked_until(act.now))

        return await self._act(escalation, by, change, key=key)

    async def draft(
        self, escalation: str, by: str, *, wish: str = "", key: str | None = None
    ) -> str:
        """A reply that the agent writes for the owner to send; nobody else sees it. Paid by the
        run. Raises: NotYours; RunError: it could not be written."""

        key = key_of(key, "draft", by, wish)

        def change(act: Act) -> tuple[RunRow, str]:
            act.mine()
            known = errand_by(act, key)
            if known is not None:
                return act.row, known
            act.log("drafted")
            talk = [as_told(s) for s in said.of_handover(act.tx, act.place)]
            plain = [msgspec.to_builtins(message) for message in talk]
            return act.row, errand(
                act, "draft", "", {"wish": wish, "talk": plain, "key": key or ""}
            )

        row, left = await self._act(escalation, by, change)
        self._keeper.wake(row.id)
        done = await self._outcome(row, (left, f"{left}/failed"))
        if isinstance(done, ModelReplied):
            return str(await self._house.veil(row).reveal(done.reply.text))
        raise RunError(f"No draft could be written: {getattr(done, 'value', 'the run ended')}.")

    async def call(
        self,
        escalation: str,
        tool: str,
        arguments: Mapping[str, Json],
        by: str,
        *,
        key: str | None = None,
    ) -> Attempt:
        """Have one of the agent's tools do something: same checks, same record, no model.

        Raises: NotYours; RunError: no such tool, or the arguments do not fit it.
        """
        item = await self.get(escalation)
        await self._executor.complete(item.agent)
        checked = self._executor.desk(item.agent).tools.registry.check(
            ToolCall(tool, dict(arguments))
        )
        if isinstance(checked, Refused):
            raise RunError(checked.message)
        row = await self._house.read(lambda tx: runs.get(tx, item.run_id))
        hidden = await self._house.veil(row).conceal(dict(arguments))
        key = key_of(key, "call", by, tool, dict(arguments))

        def change(act: Act) -> tuple[RunRow, str]:
            act.mine()
            known = errand_by(act, key)
            if known is not None:
                return act.row, known
            act.log("called", tool)
            return act.row, errand(act, "call", tool, {"arguments": hidden, "key": key or ""})

        row, left = await self._act(escalation, by, change)
        self._keeper.wake(row.id)
        done = await self._outcome(row, (f"{left}/tool/0", f"{left}/failed"))
        if not isinstance(done, ToolOutcome):
            why = getattr(done, "value", "the run ended, or a person is asked about it")
            raise RunError(f"Nothing came of it: {why}.")
        found = attempts_of([done], {left: by})[0]
        return await self._house.veil(row).reveal(found)

    async def decide(
        self,
        approval: str,
        decision: Decision,
        by: str,
        *,
        arguments: Mapping[str, Json] | None = None,
        note: str = "",
    ) -> None:
        """Decide a waiting call, as `rt.resolve`; where four eyes are declared, the second person
        who agrees to the same does. Raises: UnknownApproval, NotYours, RunError."""

        def whose(tx: Tx) -> RunRow | None:
            wait = waits.by_id(tx, approval)
            return None if wait is None else runs.get(tx, wait.run_id)

        row = await self._house.read(whose)
        if row is None or (self._tenant is not None and row.tenant != self._tenant):
            raise UnknownApproval(f"No open approval {approval!r}; it may be decided already.")
        answer: dict[str, Any] = {"decision": decision, "by": by, "note": note}
        if arguments is not None:
            answer["arguments"] = dict(arguments)
        self._keeper.wake(await self._intake.decide(approval, answer))

    # --- giving it back ------------------------------------------------------------------

    async def hand_back(
        self,
        escalation: str,
        by: str,
        *,
        instruction: str = "",
        limits: Limits | None = None,
        key: str | None = None,
    ) -> Escalation:
        """Give the conversation back: the agent reads what was said, and the same run goes on.

        instruction: for the agent. limits: raised, where a limit brought the run here. Raises:
        NotYours; RunError: there is nothing to hand back.
        """
        raised = None if limits is None else limits.declared()
        answer = {"by": by, "instruction": instruction, "limits": raised}
        return await self._back(escalation, by, answer, key)

    async def close(
        self, escalation: str, by: str, *, resolution: str = "", key: str | None = None
    ) -> Escalation:
        """A person settled it: the run ends as completed, and nothing more is said.

        Raises: NotYours; RunError: calls of it wait to be decided.
        """
        return await self._back(
            escalation, by, {"by": by, "instruction": resolution, "ends": True}, key
        )

    async def _back(
        self, escalation: str, by: str, answer: Mapping[str, Any], key: str | None
    ) -> Escalation:
        def change(act: Act) -> Escalation:
            if act.item.status == "resolved":
                raise NotYours("This escalation is resolved already.")
            if act.item.status == "taken":
                act.mine()
            else:
                act.free()
            return give_back(act, answer)

        item = await self._act(escalation, by, change, key=key_of(key, "back", by, dict(answer)))
        self._keeper.wake(item.run_id)
        self._live.look()
        return item

    # --- keeping house -------------------------------------------------------------------

    async def note(
        self, escalation: str, text: str, by: str, *, key: str | None = None
    ) -> Escalation:
        """A note for other operators; the user and the agent never see it."""
        if not text.strip():
            raise RunError("The note is empty.")
        return await self._act(
            escalation, by, lambda act: takeover.note(act, text), key=key_of(key, "note", by, text)
        )

    async def tag(
        self, escalation: str, tags: Sequence[str], by: str, *, key: str | None = None
    ) -> Escalation:
        """Replace its tags."""
        plain = tuple(dict.fromkeys(" ".join(tag.split()) for tag in tags if tag.strip()))
        return await self._act(
            escalation, by, lambda act: takeover.tag(act, plain), key=key_of(key, "tag", by, plain)
        )

    async def snooze(
        self, escalation: str, until: int | None, by: str, *, key: str | None = None
    ) -> Escalation:
        """Out of sight until then (microseconds UTC); None: back at once."""
        return await self._act(
            escalation,
            by,
            lambda act: takeover.snooze(act, until),
            key=key_of(key, "snooze", by, until),
        )

    async def escalate(
        self,
        escalation: str,
        by: str,
        *,
        reason: str,
        queue: str | None = None,
        priority: int | None = None,
        key: str | None = None,
    ) -> Escalation:
        """Put it further up: back into a queue, before others. Who owned it gives it up."""
        declared = self.declared
        return await self._act(
            escalation,
            by,
            lambda act: takeover.further(
                act, reason, declared.queue(queue or act.item.queue), priority
            ),
            key=key_of(key, "escalate", by, reason, queue, priority),
        )

    # --- inside --------------------------------------------------------------------------

    async def _act(
        self,
        escalation: str,
        by: str,
        change: Callable[[Act], T],
        *,
        key: str | None = None,
    ) -> T:
        """One action: the run, its conversation and the item are held while `change` works."""
        _named(by, "by")
        declared = self.declared
        item = await self.get(escalation)
        seal, now = await self._intake.seal(item.tenant), self._house.clock.now()

        def apply(tx: Tx) -> T:
            row = runs.hold(tx, item.run_id)
            if item.conversation is not None:
                runs.hold_conversation(tx, item.tenant, item.conversation, item.user)
            current = rows.by_id(tx, escalation, self._tenant)
            policy = declared.queue(current.queue)
            act = Act(tx, current, row, by, now, seal, policy, key)
            if rows.logged(tx, escalation, key):
                return current  # type: ignore[return-value]
            return change(act)

        return await self._house.journal.commit(Unit(apply=apply))  # type: ignore[return-value]

    async def _done(self, escalation: str, key: str | None) -> bool:
        """Whether an action was done under this key."""
        return await self._house.read(lambda tx: rows.logged(tx, escalation, key))

    async def _outcome(self, row: RunRow, keys: Sequence[str]) -> RunEvent | None:
        """What came of an errand."""
        patience = self._keeper.patience or 1.0
        return await outcome(self._house, self._live, row.id, keys, patience)


def _active(tx: Tx, tenant: str, conversation: str) -> str | None:
    """The run under way in a conversation, or the next one."""
    return runs.active_run(tx, tenant, conversation) or runs.next_in_conversation(
        tx, tenant, conversation
    )


def _named(who: str, what: str) -> None:
    if not who or not who.strip():
        raise RunError(f"{what}={who!r}: say who.")

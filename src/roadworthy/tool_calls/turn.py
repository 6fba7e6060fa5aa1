"""All calls of one reply: reads side by side, effects one by one, waits last.

The loop hands a reply's calls in; what the model is told comes out, in reply order. Invariant:
every call gets exactly one result, and an effect runs only after all earlier calls have theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from roadworthy.agent import Agent
from roadworthy.events import (
    ApprovalDecided,
    InputReceived,
    ToolOutcome,
    ToolRefused,
    ToolSucceeded,
)
from roadworthy.messages import File, Message, ToolCall, ToolResult
from roadworthy.run import Done, Run
from roadworthy.stops import Stop, Suspend, Wait
from roadworthy.tool_calls.approval import approval, asked_before, asks_whom, wait_id
from roadworthy.tool_calls.cache import dropping
from roadworthy.tool_calls.charge import assume_open
from roadworthy.tool_calls.earlier import look_back
from roadworthy.tool_calls.hands import Hands
from roadworthy.tool_calls.ladder import perform, visit
from roadworthy.tool_calls.more import shortened
from roadworthy.tool_calls.orphan import orphan, settled
from roadworthy.tool_calls.own import own_tools, serve
from roadworthy.tool_calls.plan import (
    ASK_USER,
    Planned,
    by_person,
    choices_of,
    chosen_of,
    may_ask,
    plan,
)
from roadworthy.tool_calls.private import check
from roadworthy.tool_calls.ruled import out_of_bounds
from roadworthy.tools.registry import Accepted, Registry
from roadworthy.transcript import with_text

OVERTAKEN = (
    "Not carried out: a person took over before this. Read what was said since, and decide anew."
)
_STRICTER = "With these arguments an operator has to agree, not the user."


@dataclass(frozen=True)
class Carried:
    """Results for the model in reply order, their outcomes, and whether the user was asked."""

    results: tuple[ToolResult, ...]
    outcomes: tuple[ToolOutcome, ...]
    asked: bool = False


@dataclass
class ToolCalls:
    """The tool calls of one agent in one process."""

    agent: Agent[Any, Any]
    hands: Hands
    registry: Registry = field(init=False)

    def __post_init__(self) -> None:
        self.registry = Registry(self.agent.toolbelt.values())

    async def carry_out(self, run: Run, calls: Sequence[ToolCall]) -> Carried:
        """What the model is told of each call, in order.

        Raises: Suspend: some calls wait for a person (their siblings are finished). Stop: the
        budget or a cancel ends the run.
        """
        turn = _Turn(self, run, f"turn/{run.turn}")
        try:
            return await self._carry_out(turn, run, calls)
        except Stop:  # the closing answer knows what was done, and no call is left unanswered
            run.messages.append(Message(role="tool", parts=turn.so_far(calls)))
            raise

    async def for_person(self, run: Run, place: str, call: ToolCall) -> None:
        """One call of the person who owns the run: same checks, same record, no model."""
        await _Turn(self, run, place).go([(0, call)])

    async def assume_open(self, run: Run) -> None:
        """The run ends: the cost of calls that died with a process is assumed and counted."""
        for key, events in run.past.attempts.items():
            if "/tool/" not in key or key in run.past.outcomes:
                continue
            if key not in run.visited:  # its turn stopped before it
                run.visited.add(key)
                for event in events:
                    run.meter.count(event)
            await assume_open(run, key)

    async def _carry_out(self, turn: _Turn, run: Run, calls: Sequence[ToolCall]) -> Carried:
        asks = [may_ask(run) and call.tool == ASK_USER.name for call in calls]
        questions = [(i, call) for i, call in enumerate(calls) if asks[i]]
        own = {spec.name for spec in own_tools(run, self.registry)}
        ours = [(i, call) for i, call in enumerate(calls) if call.tool in own]
        others = [(i, c) for i, c in enumerate(calls) if not asks[i] and c.tool not in own]
        outcomes = await turn.go(others) if others else []
        found = {i: outcome.result for (i, _), outcome in zip(others, outcomes, strict=True)}
        for index, call in ours:
            outcomes.append(await turn.own(index, call))
            found[index] = outcomes[-1].result
        for index, call in questions:
            found[index] = await turn.question(index, call)
        results = tuple(found[i] for i in range(len(calls)))
        return Carried(results, tuple(outcomes), asked=bool(questions))


class _Turn:
    def __init__(self, owner: ToolCalls, run: Run, place: str) -> None:
        self.hands, self.registry, self.run, self.place = owner.hands, owner.registry, run, place
        self.outcomes: dict[str, ToolOutcome] = {}
        self.waits: list[Wait] = []
        self.rejected = False
        self.behind = False  # an effect keeps its place, so what follows it keeps its own
        self.behind_person = False

    async def go(self, calls: Sequence[tuple[int, ToolCall]]) -> list[ToolOutcome]:
        await look_back(self.hands.read, self.run, (call.tool for _, call in calls))
        plans = await plan(self.run, self.registry, self.place, calls)
        if self.run.past.handovers.all:
            plans = [self._after_person(planned) for planned in plans]
        decisions = await self._approvals([p for p in plans if isinstance(p, Planned)])
        reads: list[Planned] = []
        stopped = False
        for planned in plans:
            if isinstance(planned, ToolRefused):
                stopped = await self._refused(planned) or stopped
            elif self._held(planned, decisions.get(planned.key)):
                self.behind = self.behind or planned.changes
            elif not planned.changes and decisions.get(planned.key) is None:
                reads.append(planned)
            else:
                await self._reads(reads)
                reads = []
                stopped = await self._in_turn(planned, decisions.get(planned.key), stopped=stopped)
        await self._reads(reads)
        if self.waits:
            raise Suspend(self.waits)
        if self.behind_person:
            raise self.run.overtaken_by()
        return [self.outcomes[p.key] for p in plans]

    def _begun(self, planned: Planned) -> bool:
        """Whether something is recorded of a call that has to be settled, whoever owns the run."""
        past = self.run.past
        return planned.key in past.outcomes or self.run.open_intent(planned.key) is not None

    def _after_person(self, planned: Planned | ToolRefused) -> Planned | ToolRefused:
        """A call that was asked for before a person gave the run back, and not begun, is stale."""
        stale = not by_person(self.place) and self.run.overtaken(self.run.turn)
        if isinstance(planned, ToolRefused) or not stale:
            return planned
        known = self.run.past.outcomes.get(planned.key)
        refused_then = isinstance(known, ToolRefused) and known.code == "overtaken"
        if self._begun(planned) and not refused_then:
            return planned
        return planned.refused("overtaken", OVERTAKEN)

    def _held(self, planned: Planned, decision: ApprovalDecided | Wait | None) -> bool:
        """Whether a call keeps still because a person owns the run: all but what they decided."""
        run = self.run
        if run.past.handovers.open is None or by_person(self.place) or self._begun(planned):
            return False
        if isinstance(decision, ApprovalDecided | Wait):
            return False
        self.behind_person = True
        return True

    async def own(self, index: int, call: ToolCall) -> ToolOutcome:
        """A call of a tool of the runtime's own: it reads what the run has, and changes nothing."""
        run, key = self.run, f"{self.place}/tool/{index}"

        async def effect() -> Done[ToolOutcome]:
            return await serve(self.hands.read, run, self.registry, (key, call))

        outcome = self.outcomes[key] = await run.step(key, effect)
        return outcome

    async def question(self, index: int, call: ToolCall) -> ToolResult:
        """The user's answer to a question of the agent, as the call's result."""
        run, key = self.run, f"{self.place}/ask/{index}"
        text = str(call.arguments.get("question", "")) or "Could you tell me more?"
        choices = choices_of(call)
        wait = Wait(
            id=wait_id(run.id, key),
            key=key,
            kind="user",
            asks="user",
            detail=text,
            choices=choices,
        )
        if run.overtaken(run.turn) and key not in run.past.outcomes:
            return ToolResult(tool=call.tool, call_id=call.id, content=OVERTAKEN, status="skipped")

        async def effect() -> Done[InputReceived]:
            answer = run.past.answers.get(key)
            if answer is None:
                raise Suspend([wait])
            said: Message = answer["input"]
            chosen = chosen_of(choices, said.text)
            return Done(InputReceived(key=key, input=with_text(said, chosen)))

        received = await run.step(key, effect)
        run.effects_done.clear()
        message: Message = received.input
        files = tuple(part for part in message.parts if isinstance(part, File))
        return ToolResult(tool=call.tool, call_id=call.id, content=message.text, files=files)

    def _is_read(self, name: str) -> bool:
        tool = self.run.agent.toolbelt.get(name)
        return tool is not None and tool.effect == "read"

    def so_far(self, calls: Sequence[ToolCall]) -> tuple[ToolResult, ...]:
        """What is known of each call of a turn that ends early."""
        known = [self.outcomes.get(f"{self.place}/tool/{i}") for i in range(len(calls))]
        return tuple(
            ToolResult(
                tool=call.tool, call_id=call.id, content="Not carried out.", status="skipped"
            )
            if outcome is None
            else outcome.result
            for call, outcome in zip(calls, known, strict=True)
        )

    # --- approvals -----------------------------------------------------------------------

    async def _approvals(self, plans: Sequence[Planned]) -> dict[str, ApprovalDecided | Wait]:
        """All of a turn are asked at once, so that a person sees them together."""
        found = {}
        for planned in plans:
            if self._repeats(planned) is not None:
                continue
            asks = await self._asks(planned)
            if asks is not None:
                found[planned.key] = await approval(self.run, planned, asks)
        return found

    async def _asks(self, planned: Planned) -> str | None:
        """Who decides the call: whoever was asked, else whom its tool declares."""
        before = asked_before(self.run, planned)
        if before is not None:
            self.run.visited.add(f"{planned.key}/asks")
            return before.asks
        if f"{planned.key}/approval" in self.run.past.outcomes:
            self.run.visited.add(f"{planned.key}/asks")
            return "operator"  # a rule agreed to it
        if by_person(planned.key):
            return None  # whoever asks for it is who would be asked
        if planned.key in self.run.past.outcomes:  # done before its tool asked for a word
            self.run.visited.add(f"{planned.key}/asks")
            return None
        return await asks_whom(self.run, planned)

    async def _in_turn(
        self, planned: Planned, decision: ApprovalDecided | Wait | None, *, stopped: bool
    ) -> bool:
        """One call that runs alone. Returns whether later effects of this reply must not run."""
        if isinstance(decision, Wait):
            self.waits.append(decision)
        self.behind = self.behind or not self._beside_others(planned)
        if self.behind or isinstance(decision, Wait):
            return True  # an earlier effect waits: this one keeps its place behind it
        begun = planned.tool.later and self.run.open_intent(planned.key) is not None
        if (stopped or (self.rejected and decision is None)) and not begun:
            text = "Not attempted, because an earlier call of this reply did not succeed."
            await self._record(planned.refused("not_attempted", text))
            return True
        if decision is not None and decision.decision == "reject":
            self.rejected = True  # what a person agreed to knowing this call may still run
            await self._decided(planned, decision)
            return False
        waiting = len(self.waits)
        outcome = await self._decided(planned, decision)
        if len(self.waits) > waiting:
            return stopped  # it has no outcome yet
        return not isinstance(outcome, ToolSucceeded)

    def _beside_others(self, planned: Planned) -> bool:
        """Whether it may begin now: results of earlier calls that are still to come hold up no
        other call of that kind, unless it is the same one again."""
        return all(
            planned.tool.later
            and wait.kind == "later"
            and (planned.tool.repeatable or wait.arguments_hash != planned.arguments_hash)
            for wait in self.waits
        )

    async def _decided(self, planned: Planned, decision: ApprovalDecided | None) -> ToolOutcome:
        if decision is None or decision.decision == "approve":
            return await self._perform(planned)
        if decision.decision == "edit":
            return await self._edited(planned, decision)
        if decision.decision == "respond":
            before = asked_before(self.run, planned)
            outcome = ToolSucceeded(
                key=planned.key,
                tool=planned.tool.name,
                arguments=planned.arguments,
                arguments_hash=planned.arguments_hash,
                result=planned.result(decision.note),
                effect=planned.effect,
                source="person",
                asked="operator" if before is None else before.asks,
            )
            return await self._record(outcome)
        said = f"{decision.note} " if decision.note else ""
        text = f"A person rejected this call. {said}Do not try it again."
        return await self._record(planned.refused("rejected", text))

    async def _edited(self, planned: Planned, decision: ApprovalDecided) -> ToolOutcome:
        """With a person's arguments, who may do no more than the call's rules let them."""
        asked = ToolCall(planned.call.tool, decision.arguments or {}, id=planned.call.id)
        edited = await check(self.run, self.registry, asked)
        if not isinstance(edited, Accepted):
            return await self._record(planned.refused("invalid_edit", edited.message))
        changed = Planned(
            key=planned.key,
            call=planned.call,
            tool=edited.tool,
            values=edited.values,
            arguments=edited.canonical,
            arguments_hash=edited.hash,
            note="A person changed the arguments before it ran.",
        )
        beyond = out_of_bounds(self.run, edited)
        why = None if beyond is None else beyond.text
        if why is None and await asks_whom(self.run, planned) == "user":
            now = await asks_whom(self.run, changed, "/edited")
            why = _STRICTER if now == "operator" else None
        if why is not None:
            return await self._record(planned.refused("invalid_edit", why))
        return await self._perform(changed)

    # --- carrying out --------------------------------------------------------------------

    async def _reads(self, reads: Sequence[Planned]) -> None:
        """Recorded ones first, in order; the others side by side."""
        fresh = []
        for planned in reads:
            if planned.key in self.run.past.outcomes:
                await self._perform(planned)
            else:
                fresh.append(planned)
        if len(fresh) == 1:
            await self._perform(fresh[0])
        elif fresh:
            try:
                async with asyncio.TaskGroup() as group:
                    for planned in fresh:
                        group.create_task(self._perform(planned))
            except BaseExceptionGroup as group:  # one failed, the others were cancelled
                raise _first(group) from None

    async def _refused(self, planned: ToolRefused) -> bool:
        """A call that cannot run as declared now. Returns whether later effects must not run."""
        run = self.run
        intent = orphan(run, planned)

        async def effect() -> Done[ToolOutcome]:
            if intent is None:
                return Done(planned)
            await assume_open(run, intent.key)
            return await settled(run, intent, planned)

        try:
            outcome = await run.step(planned.key, effect)
        except Suspend as suspend:
            return self._waits(suspend)
        self.outcomes[planned.key] = outcome
        if not isinstance(outcome, ToolSucceeded):
            return not self._is_read(planned.tool)
        if outcome.source != "repeat":  # done while its tool was declared otherwise
            run.done.append(outcome.tool)
        if outcome.effect != "read":
            run.effects_done[outcome.arguments_hash] = outcome
            run.deeds.append(outcome)
        return False

    def _waits(self, suspend: Suspend) -> bool:
        """A call that waits; its siblings are finished first, unless the whole run may do nothing.

        Raises: Suspend.
        """
        if suspend is self.run.barred:
            raise suspend
        self.waits.extend(suspend.waits)
        return True

    async def _perform(self, planned: Planned) -> ToolOutcome:
        done_before = self._repeats(planned)
        visit(self.run, planned)

        async def effect() -> Done[ToolOutcome]:
            if done_before is not None:
                return Done(_repeat(planned, done_before))
            done = dropping(self.run, planned, await perform(self.hands, self.run, planned))
            return shortened(self.run, planned, done)

        try:
            outcome = await self.run.step(planned.key, effect)
        except Suspend as suspend:
            self._waits(suspend)
            return planned.refused("unknown", "")  # never recorded: the run suspends
        self.outcomes[planned.key] = outcome
        if isinstance(outcome, ToolSucceeded) and outcome.source != "repeat":
            self.run.done.append(planned.tool.name)
        if planned.changes and isinstance(outcome, ToolSucceeded):
            self.run.effects_done[planned.arguments_hash] = outcome
            self.run.deeds.append(outcome)
        return outcome

    def _repeats(self, planned: Planned) -> ToolSucceeded | None:
        """The same effect with the same arguments that already succeeded for this message."""
        if not planned.changes or planned.tool.repeatable:
            return None
        done = self.run.effects_done.get(planned.arguments_hash)
        return done if done is not None and done.key != planned.key else None

    async def _record(self, outcome: ToolOutcome) -> ToolOutcome:
        async def effect() -> Done[ToolOutcome]:
            return Done(outcome)

        recorded = await self.run.step(outcome.key, effect)
        self.outcomes[outcome.key] = recorded
        return recorded


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _repeat(planned: Planned, before: ToolSucceeded) -> ToolSucceeded:
    text = f"Already done in this conversation, not repeated. Its result: {before.result.content}"
    return ToolSucceeded(
        key=planned.key,
        tool=planned.tool.name,
        arguments=planned.arguments,
        arguments_hash=planned.arguments_hash,
        result=planned.result(text),
        result_hash=before.result_hash,
        effect=planned.effect,
        source="repeat",
    )

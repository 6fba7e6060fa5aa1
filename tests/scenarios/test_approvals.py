"""A person decides a call: approve, edit, reject, respond; once, and bound to what was shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from roadworthy import Agent, RunContext, Runtime, Tool, ToolCall, tool
from roadworthy.errors import RunError, UnknownApproval
from roadworthy.events import (
    ApprovalAsked,
    ApprovalDecided,
    SegmentStarted,
    ToolRefused,
    ToolSucceeded,
)
from roadworthy.messages import Json
from roadworthy.testing import ScriptedModel
from tests.scenarios.world import Given, journal, kinds, of_kind, unanswered, url


@dataclass
class Bank:
    """What left the bank."""

    paid: list[tuple[str, int]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def tool(self, **options: Given) -> Tool[None]:
        @tool(effect="irreversible", **options)
        def refund(run: RunContext[None], order_id: str, euros: int) -> str:
            """Refund. order_id: such as A-17. euros: how much."""
            self.paid.append((order_id, euros))
            self.keys.append(run.key)
            return f"refunded {euros}"

        return refund


def pay(order: str, euros: int) -> ToolCall:
    return ToolCall("refund", {"order_id": order, "euros": euros})


def desk(bank: Bank, script: Sequence[Given], **options: Given) -> Agent:
    options = options or {"approval": "operator"}
    return Agent("desk", model=ScriptedModel(list(script)), tools=[bank.tool(**options)])


@pytest.mark.requirement("TOL-2")
async def test_a_call_that_needs_a_person_waits_and_runs_once_approved(tmp_path: Path) -> None:
    bank = Bank()
    agent = desk(bank, [pay("A-17", 40), "Refunded."])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Refund A-17")
        assert (waiting.status, waiting.text != "") == ("waiting", True)
        (approval,) = waiting.waiting
        assert approval.tool == "refund"
        assert approval.arguments == {"order_id": "A-17", "euros": 40}
        assert (approval.asks, approval.kind, approval.run_id) == (
            "operator",
            "approval",
            waiting.run_id,
        )
        assert bank.paid == []
        await rt.resolve(approval.id, "approve", by="lea")
        done = await rt.result(waiting.run_id)
        (asked,) = await of_kind(rt, done.run_id, ApprovalAsked)
        (decided,) = await of_kind(rt, done.run_id, ApprovalDecided)
        replayed = await rt.replay(done.run_id)
    assert (done.status, done.text) == ("completed", "Refunded.")
    assert bank.paid == [("A-17", 40)]
    assert asked.approval_id == decided.approval_id == approval.id
    assert (decided.decision, decided.by) == ("approve", "lea")
    assert replayed.differences == ()


async def test_a_rule_decides_from_the_call_whom_to_ask(tmp_path: Path) -> None:
    bank = Bank()

    def who(run: RunContext[None], call: ToolCall) -> Literal["user", "operator"] | None:
        if call.arguments["euros"] > 50:
            return "operator"
        return "user" if call.arguments["euros"] > 10 else None

    agent = desk(bank, [pay("A", 5), pay("B", 20), pay("C", 90), "Done."], approval=who)
    async with Runtime(url(tmp_path)) as rt:
        second = await rt.run(agent, "Refund")
        assert (bank.paid, second.waiting[0].asks) == ([("A", 5)], "user")
        await rt.resolve(second.waiting[0].id, "approve", by="ana")
        third = await rt.result(second.run_id)
        assert third.waiting[0].asks == "operator"
        await rt.resolve(third.waiting[0].id, "approve", by="lea")
        done = await rt.result(second.run_id)
    assert done.status == "completed"
    assert bank.paid == [("A", 5), ("B", 20), ("C", 90)]


async def test_edited_arguments_run_and_the_model_is_told(tmp_path: Path) -> None:
    bank = Bank()
    agent = desk(bank, [pay("A-17", 400), "Refunded 40."])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Refund")
        edited: dict[str, Json] = {"order_id": "A-17", "euros": 40}
        await rt.resolve(waiting.waiting[0].id, "edit", by="lea", arguments=edited)
        done = await rt.result(waiting.run_id)
        (succeeded,) = await of_kind(rt, done.run_id, ToolSucceeded)
    assert bank.paid == [("A-17", 40)]
    assert succeeded.arguments == edited
    assert "A person changed the arguments" in succeeded.result.content


@pytest.mark.requirement("TOL-2")
async def test_an_edit_that_does_not_fit_the_tool_is_refused_and_the_call_still_waits(
    tmp_path: Path,
) -> None:
    bank = Bank()
    agent = desk(bank, [pay("A-17", 40), "Done."])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Refund")
        approval = waiting.waiting[0].id
        with pytest.raises(RunError, match="euros must be an integer"):
            await rt.resolve(
                approval, "edit", by="lea", arguments={"order_id": "A", "euros": "many"}
            )
        with pytest.raises(RunError, match="needs arguments"):
            await rt.resolve(approval, "edit", by="lea")
        with pytest.raises(RunError, match='belongs to "edit"'):
            await rt.resolve(approval, "approve", by="lea", arguments={})
        wrong: Any = "aprove"
        with pytest.raises(RunError, match="approve, edit, reject or respond"):
            await rt.resolve(approval, wrong, by="lea")
        assert (await rt.result(waiting.run_id)).status == "waiting"
        assert bank.paid == []
        await rt.resolve(approval, "approve", by="lea")
        assert (await rt.result(waiting.run_id)).status == "completed"


async def test_a_rejected_call_never_runs_and_the_model_goes_on(tmp_path: Path) -> None:
    bank = Bank()
    agent = desk(bank, [pay("A-17", 40), "Sorry."])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Refund")
        await rt.resolve(waiting.waiting[0].id, "reject", by="lea", note="Too old.")
        done = await rt.result(waiting.run_id)
        (refused,) = await of_kind(rt, done.run_id, ToolRefused)
    assert (done.status, done.text, bank.paid) == ("completed", "Sorry.", [])
    assert refused.code == "rejected"
    assert "Too old." in refused.result.content


async def test_a_person_may_answer_in_the_tools_place(tmp_path: Path) -> None:
    bank = Bank()
    agent = desk(bank, [pay("A-17", 40), "Done by hand."])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Refund")
        await rt.resolve(waiting.waiting[0].id, "respond", by="lea", note="I paid it in cash.")
        done = await rt.result(waiting.run_id)
        (succeeded,) = await of_kind(rt, done.run_id, ToolSucceeded)
    assert (done.status, bank.paid) == ("completed", [])
    assert (succeeded.source, succeeded.result.content) == ("person", "I paid it in cash.")


async def test_several_calls_of_a_turn_are_asked_together_and_decided_one_by_one(
    tmp_path: Path,
) -> None:
    bank = Bank()
    agent = desk(bank, [[pay("A", 1), pay("B", 2), pay("C", 3)], "Some."])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Refund", conversation="c")
        first, second, third = waiting.waiting
        assert [a.arguments["order_id"] for a in waiting.waiting] == ["A", "B", "C"]
        await rt.resolve(third.id, "approve", by="lea")
        still = await rt.result(waiting.run_id)
        assert [a.id for a in still.waiting] == [first.id, second.id]
        assert bank.paid == []  # an effect keeps its place behind the earlier ones
        await rt.resolve(first.id, "reject", by="lea")
        still = await rt.result(waiting.run_id)
        assert [a.id for a in still.waiting] == [second.id]
        await rt.resolve(second.id, "edit", by="max", arguments={"order_id": "B", "euros": 1})
        done = await rt.result(waiting.run_id)
        history = await rt.history("c")
    assert done.status == "completed"
    assert bank.paid == [("B", 1), ("C", 3)]
    assert not unanswered(history)


async def test_reads_beside_a_waiting_call_are_finished_first(tmp_path: Path) -> None:
    bank = Bank()

    @tool(effect="read")
    def look(order_id: str) -> str:
        """Look. order_id: such as A-17."""
        return "a lamp"

    call = ToolCall("look", {"order_id": "A-17"})
    model = ScriptedModel([[pay("A-17", 40), call], "Done."])
    agent = Agent("desk", model=model, tools=[bank.tool(approval="operator"), look])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Refund")
        events = kinds(await journal(rt, waiting.run_id))
        assert events[-3:] == ["ToolSucceeded", "ApprovalAsked", "RunWaiting"]
        await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        done = await rt.result(waiting.run_id)
    assert done.status == "completed"
    assert model.requests[1].results == ("refunded 40", "a lamp")


async def test_a_decision_counts_once(tmp_path: Path) -> None:
    bank = Bank()
    agent = desk(bank, [pay("A-17", 40), "Done."])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Refund")
        approval = waiting.waiting[0].id
        await rt.resolve(approval, "approve", by="lea")
        with pytest.raises(UnknownApproval, match="decided already"):
            await rt.resolve(approval, "reject", by="max")
        with pytest.raises(UnknownApproval, match="No open approval 'apr_x'"):
            await rt.resolve("apr_x", "approve", by="lea")
        assert (await rt.result(waiting.run_id)).status == "completed"
    assert bank.paid == [("A-17", 40)]


@pytest.mark.requirement("MEM-3", "REC-8")
async def test_a_waiting_call_survives_reopening_and_finishes_there(tmp_path: Path) -> None:
    bank = Bank()
    agent = desk(bank, [pay("A-17", 40), "Refunded."])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Refund")
    async with Runtime(url(tmp_path), patterns=[agent]) as rt:
        again = await rt.result(waiting.run_id)
        assert again.waiting == waiting.waiting
        await rt.resolve(again.waiting[0].id, "approve", by="lea")
        done = await rt.result(waiting.run_id)
    assert (done.status, done.text) == ("completed", "Refunded.")
    assert bank.paid == [("A-17", 40)]


async def test_a_decision_made_where_the_agent_is_unknown_is_carried_out_where_it_is_known(
    tmp_path: Path,
) -> None:
    bank = Bank()
    agent = desk(bank, [pay("A-17", 40), "Refunded."])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Refund")
    async with Runtime(url(tmp_path)) as rt:
        await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        assert bank.paid == []
    async with Runtime(url(tmp_path), patterns=[agent]) as rt:
        done = await rt.result(waiting.run_id)
    assert done.status == "completed"
    assert bank.paid == [("A-17", 40)]


async def test_an_approval_of_a_cancelled_run_can_no_longer_be_given(tmp_path: Path) -> None:
    bank = Bank()
    agent = desk(bank, [pay("A-17", 40), "Refunded."])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Refund")
        await rt.cancel(waiting.run_id, by="ana")
        ended = await rt.result(waiting.run_id)
        assert (ended.status, ended.reason) == ("stopped", "cancelled")
        with pytest.raises(UnknownApproval):
            await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        assert (await rt.result(waiting.run_id)).status == "stopped"
    assert bank.paid == []


async def test_a_rule_that_breaks_lets_nothing_run(tmp_path: Path) -> None:
    bank = Bank()

    def who(run: RunContext[None], call: ToolCall) -> None:
        raise ConnectionError("the policy server is down")

    agent = desk(bank, [pay("A-17", 40), "Refunded."], approval=who)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(agent, "Refund")
    assert bank.paid == []
    assert result.status in ("waiting", "failed")


@pytest.mark.parametrize("few", [0, 200])
async def test_much_recorded_or_little_a_run_is_taken_up_alike(
    tmp_path: Path, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long record is read beside the writer, a short one in the commit that claims the run."""
    monkeypatch.setattr("roadworthy.executor._FEW", few)
    bank = Bank()
    agent = desk(bank, [pay("A-17", 40), "Refunded."])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Refund A-17")
        await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        done = await rt.result(waiting.run_id)
        recorded = await rt.record(done.run_id)
    assert (done.text, bank.paid) == ("Refunded.", [("A-17", 40)])
    assert [event.seq for event in recorded] == list(range(len(recorded)))
    begun = [event.segment for event in recorded if isinstance(event, SegmentStarted)]
    assert begun == [1, 2]


async def test_a_short_record_is_taken_up_in_one_commit(tmp_path: Path) -> None:
    agent = desk(Bank(), [pay("A-17", 40), "Refunded."])
    async with Runtime(url(tmp_path), patterns=[agent]) as rt:
        waiting = await rt.run(agent, "Refund A-17")
        opened = rt._open
        await opened.keeper._stop()
        answer = {"decision": "approve", "by": "lea", "note": ""}
        await opened.intake.decide(waiting.waiting[0].id, answer)
        before = opened.journal.batches
        run = await opened.executor._take(waiting.run_id, None)
        commits = opened.journal.batches - before
    assert run is not None
    assert commits == 1

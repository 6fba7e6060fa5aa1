"""What a run did is taken back: newest first, once, by the same rules as everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from roadworthy import (
    Agent,
    Limits,
    NotApplied,
    RunContext,
    RunResult,
    Runtime,
    Tool,
    ToolCall,
    tool,
)
from roadworthy.errors import DeclarationError, NotResumable, NotUndoable, PatternUnknown
from roadworthy.events import RunStarted, ToolIntended
from roadworthy.reception import Request
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.tools import Alternative, Undo, at_most, only_after_approval, requires
from roadworthy.undoing import undoing
from tests.scenarios.world import Given, of_kind, url

pytestmark = pytest.mark.requirement("REC-5")


class Travel:
    """What is booked, and all that was done, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.faults: dict[str, Callable[[], None]] = {}

    def did(self, what: str) -> None:
        self.faults.get(what.partition(" ")[0], lambda: None)()
        self.done.append(what)

    def tools(self) -> list[Tool[Any]]:
        @tool(effect="write", idempotent_by_nature=True)
        def cancel_flight(booking: str, why: str = "undone") -> str:
            """Cancel a flight. booking: its number. why: the reason."""
            self.did(f"cancel_flight {booking} {why}")
            return "cancelled"

        @tool
        def cancel_hotel(hotel: str, nights: int) -> str:
            """Cancel a hotel. hotel: which. nights: how many."""
            self.did(f"cancel_hotel {hotel} {nights}")
            return "cancelled"

        @tool(undo=Undo(cancel_flight, {"booking": "result.booking.id"}))
        def book_flight(to: str) -> dict[str, Any]:
            """Book a flight. to: where."""
            self.did(f"book_flight {to}")
            return {"booking": {"id": f"F-{to}"}}

        @tool(undo=cancel_hotel)
        def book_hotel(hotel: str, nights: int = 2) -> str:
            """Book a hotel. hotel: which. nights: how many."""
            self.did(f"book_hotel {hotel}")
            return "booked"

        @tool
        def book_car(size: str) -> str:
            """Book a car. size: which."""
            self.did(f"book_car {size}")
            return "booked"

        return [book_flight, book_hotel, book_car, cancel_flight]


FLIGHT = ToolCall("book_flight", {"to": "Rome"})
HOTEL = ToolCall("book_hotel", {"hotel": "Ritz"})
CAR = ToolCall("book_car", {"size": "small"})


def agent(travel: Travel, script: Sequence[Any], **more: Given) -> Agent[None, str]:
    return Agent("desk", model=ScriptedModel(script), tools=travel.tools(), **more)


def sold_out() -> None:
    raise NotApplied("sold out")


async def stopped(rt: Runtime, travel: Travel, **more: Given) -> RunResult:
    """Flight and hotel are booked, the car fails, and then the turns are over."""
    travel.faults["book_car"] = sold_out
    desk = agent(travel, [FLIGHT, HOTEL, CAR, "I booked what I could."], **more)
    result: RunResult = await rt.run(desk, "Book my journey.")
    return result


LIMITED = {"limits": Limits(turns=3)}


async def test_a_partial_run_says_what_can_be_undone_and_it_is_newest_first_once(
    tmp_path: Path,
) -> None:
    travel = Travel()
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await stopped(rt, travel, **LIMITED)
        assert (result.status, result.reason) == ("partial", "turn_limit")
        assert result.report.undoable == ("book_hotel", "book_flight")
        undo = await rt.undo(result.run_id, by="ana")
        done = await rt.result(undo)
        assert await rt.undo(result.run_id, by="bob") == undo
        row = await rt.find(undo)
        (started,) = await of_kind(rt, undo, RunStarted)
        assert started.options["tags"] == {"undoes": result.run_id, "by": "ana"}
        assert not (await rt.replay(undo)).differences
        with pytest.raises(NotResumable, match=f"is undone by {undo}"):
            await rt.resume(result.run_id, limits=Limits(turns=9))
    assert travel.done == [
        "book_flight Rome",
        "book_hotel Ritz",
        "cancel_hotel Ritz 2",
        "cancel_flight F-Rome undone",
    ]
    assert (done.status, row.pattern) == ("completed", "desk-undo")
    assert done.text == ("Undone: book_hotel (by cancel_hotel), book_flight (by cancel_flight).")


async def test_an_answer_made_without_a_model_says_that_it_can_be_undone(tmp_path: Path) -> None:
    travel = Travel()
    script: list[Given] = [FLIGHT, ConnectionError("the model is gone")]
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(agent(travel, script), "Book.")
    assert result.text.endswith("Done so far: book_flight. This can still be undone: book_flight.")


async def test_the_closing_call_is_told_what_can_be_undone(tmp_path: Path) -> None:
    travel = Travel()
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        travel.faults["book_car"] = sold_out
        desk = agent(travel, [FLIGHT, HOTEL, CAR, "Sorry."], **LIMITED)
        await rt.run(desk, "Book.")
    assert isinstance(desk.model, ScriptedModel)
    last = desk.model.requests[-1].messages[-1].text
    assert "this can still be undone, if the user wants that: book_hotel, book_flight" in last


async def test_a_completed_run_is_undone_and_one_that_is_not_over_is_refused(
    tmp_path: Path,
) -> None:
    travel = Travel()
    ask = only_after_approval("book_hotel")
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(agent(travel, [FLIGHT, "Booked."]), "Book.")
        assert result.report.undoable == ("book_flight",)
        assert (await rt.result(await rt.undo(result.run_id, by="ana"))).status == "completed"
        waiting = await rt.run(agent(travel, [HOTEL, "Booked."], rules=[ask]), "Book.")
        with pytest.raises(
            NotUndoable, match=r"is waiting, not over\. Wait for its end, or cancel"
        ):
            await rt.undo(waiting.run_id, by="ana")
        nothing = await rt.run(agent(travel, [CAR, "Booked."]), "Book.")
        with pytest.raises(NotUndoable, match=r"person has to look at: book_car \(it declares no"):
            await rt.undo(nothing.run_id, by="ana")
    assert travel.done == ["book_flight Rome", "cancel_flight F-Rome undone", "book_car small"]


async def test_what_the_model_took_back_is_not_taken_back_again(tmp_path: Path) -> None:
    travel = Travel()
    cancel = ToolCall("cancel_flight", {"booking": "F-Rome"})
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(agent(travel, [FLIGHT, HOTEL, cancel, "Only a hotel."]), "Book.")
        assert result.report.undoable == ("book_hotel",)
        done = await rt.result(await rt.undo(result.run_id, by="ana"))
    assert done.text == "Undone: book_hotel (by cancel_hotel)."
    assert travel.done[-1] == "cancel_hotel Ritz 2"
    assert len([what for what in travel.done if what.startswith("cancel_flight")]) == 1


async def test_what_nobody_knows_is_left_to_a_person(tmp_path: Path) -> None:
    travel = Travel()

    def lost() -> None:
        travel.done.append("lost")
        raise TimeoutError("no answer")

    travel.faults["book_hotel"] = lost
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent(travel, [FLIGHT, HOTEL, "Booked."]), "Book.")
        assert [each.kind for each in waiting.waiting] == ["unknown_outcome"]
        await rt.cancel(waiting.run_id)
        assert (await rt.result(waiting.run_id)).status == "stopped"
        done = await rt.result(await rt.undo(waiting.run_id, by="ana"))
    assert travel.done == ["book_flight Rome", "lost", "cancel_flight F-Rome undone"]
    assert done.status == "partial"
    assert "book_hotel (nobody knows whether it took place)" in done.report.why
    assert done.text.startswith("Undone: book_flight (by cancel_flight). Not undone, a person has")


async def test_a_step_that_fails_asks_a_person_and_what_came_before_it_stands(
    tmp_path: Path,
) -> None:
    travel = Travel()
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await stopped(rt, travel, **LIMITED)
        travel.faults["cancel_hotel"] = sold_out
        undo = await rt.undo(result.run_id, by="ana")
        waiting = await rt.result(undo)
        assert [each.kind for each in waiting.waiting] == ["failure"]
        await rt.resolve(waiting.waiting[0].id, "reject", by="lea")
        done = await rt.result(undo)
    assert not [what for what in travel.done if what.startswith("cancel")]
    assert done.status == "partial"
    assert "book_hotel (cancel_hotel did not succeed); book_flight (it came before" in done.text


async def test_a_step_is_under_the_rules_of_the_agent(tmp_path: Path) -> None:
    travel = Travel()
    rules = [
        only_after_approval("cancel_flight"),
        at_most("cancel_flight", 1),
        requires("cancel_flight", "book_car"),
    ]
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(agent(travel, [FLIGHT, "Booked."], rules=rules), "Book.")
        undo = await rt.undo(result.run_id, by="ana")
        waiting = await rt.result(undo)
        assert [(each.kind, each.tool) for each in waiting.waiting] == [
            ("approval", "cancel_flight")
        ]
        assert travel.done == ["book_flight Rome"]
        await rt.resolve(waiting.waiting[0].id, "approve", by="lea")
        assert (await rt.result(undo)).status == "completed"
    assert travel.done[-1] == "cancel_flight F-Rome undone"


async def test_equal_effects_are_each_taken_back(tmp_path: Path) -> None:
    paid: list[int] = []

    @tool(effect="write")
    def pay_back(run: RunContext[None], cents: int) -> str:
        """Pay back. cents: how much."""
        paid.append(-cents)
        return run.key

    @tool(effect="write", repeatable=True, undo=pay_back)
    def charge(run: RunContext[None], cents: int) -> str:
        """Charge. cents: how much."""
        paid.append(cents)
        return run.key

    call = ToolCall("charge", {"cents": 5})
    script: list[Given] = [[call, call], "Charged."]
    desk = Agent("desk", model=ScriptedModel(script), tools=[charge])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Charge twice.")
        undo = await rt.undo(result.run_id, by="ana")
        assert (await rt.result(undo)).status == "completed"
        keys = {event.idempotency_key for event in await of_kind(rt, undo, ToolIntended)}
    assert paid == [5, 5, -5, -5]
    assert len(keys) == 2


async def test_many_who_ask_at_once_ask_for_one_run(tmp_path: Path) -> None:
    travel = Travel()
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(agent(travel, [FLIGHT, "Booked."]), "Book.")
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(rt.undo(result.run_id, by=who)) for who in ("ana", "bob", "eve")
            ]
        assert len({task.result() for task in asked}) == 1
        await rt.result(asked[0].result())
        assert len(await rt.runs()) == 2
    assert travel.done == ["book_flight Rome", "cancel_flight F-Rome undone"]


async def test_a_long_run_is_undone_whole(tmp_path: Path) -> None:
    """More effects than a run may have calls by default, with equal results: no limit is met."""
    done: list[int] = []

    @tool(breaker=None)
    def take(number: int) -> str:
        """Take. number: which."""
        done.remove(number)
        return "taken"

    @tool(undo=take)
    def give(number: int, note: str | None = None) -> str:
        """Give. number: which. note: any."""
        done.append(number)
        return "given"

    calls = [ToolCall("give", {"number": number}) for number in range(60)]
    script: list[Given] = [*(calls[at : at + 15] for at in range(0, 60, 15)), "Given."]
    limits = Limits(tool_calls=60)
    desk = Agent("desk", model=ScriptedModel(script), tools=[give], limits=limits)
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Give.")
        assert len(done) == 60
        undone = await rt.result(await rt.undo(result.run_id, by="ana"))
    assert (undone.status, done) == ("completed", [])


async def test_one_that_goes_on_meanwhile_is_not_undone_by_what_was_known(tmp_path: Path) -> None:
    """Planned while it stood still, accepted after it was resumed: refused, nothing begins."""
    travel = Travel()
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await stopped(rt, travel, **LIMITED)
        planned = await undoing(rt._open.executor, result.run_id, "ana")
        assert isinstance(planned, Request)
        await rt.resume(result.run_id, limits=Limits(turns=9))
        await rt.result(result.run_id)
        with pytest.raises(NotUndoable, match="went on while this was asked for"):
            await rt._accept(planned)
        undo = await rt.undo(result.run_id, by="ana")
        assert (await rt.result(undo)).status == "completed"
    assert travel.done[2:] == ["cancel_hotel Ritz 2", "cancel_flight F-Rome undone"]


async def test_an_alternative_is_taken_back_by_its_own_undo(tmp_path: Path) -> None:
    done: list[str] = []

    @tool
    def leave_inn(room: str) -> str:
        """Leave. room: which."""
        done.append(f"leave_inn {room}")
        return "left"

    @tool(undo=Undo(leave_inn, {"room": "result"}))
    def book_inn(town: str) -> str:
        """Book. town: where."""
        done.append("book_inn")
        return "12"

    @tool(fallback=Alternative(book_inn, {"town": "city"}), undo=Undo(leave_inn, {"room": "city"}))
    def book_hotel(city: str) -> str:
        """Book. city: where."""
        raise NotApplied("full")

    script: list[Given] = [ToolCall("book_hotel", {"city": "Rome"}), "Booked."]
    desk = Agent("desk", model=ScriptedModel(script), tools=[book_hotel])
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(desk, "Book.")
        assert (await rt.result(await rt.undo(result.run_id, by="ana"))).status == "completed"
    assert done == ["book_inn", "leave_inn 12"]


async def test_a_result_that_does_not_tell_is_left_to_a_person(tmp_path: Path) -> None:
    travel = Travel()
    tools = travel.tools()

    @tool(undo=Undo(tools[3], {"booking": "result.id"}))
    def book_train(to: str) -> str:
        """Book a train. to: where."""
        return "booked, have a good journey"

    script: list[Given] = [ToolCall("book_train", {"to": "Rome"}), "Booked."]
    desk = Agent("desk", model=ScriptedModel(script), tools=[book_train])
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk, "Book.")
        assert result.report.undoable == ()
        why = r"book_train \(what cancel_flight needs to take it back is not on record\)"
        with pytest.raises(NotUndoable, match=why):
            await rt.undo(result.run_id, by="ana")


async def test_who_does_not_have_the_agent_is_told(tmp_path: Path) -> None:
    travel = Travel()
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(agent(travel, [FLIGHT, "Booked."]), "Book.")
    async with Runtime(url(tmp_path)) as rt:
        with pytest.raises(PatternUnknown, match="No pattern 'desk' is registered"):
            await rt.undo(result.run_id, by="ana")


async def test_a_user_may_not_name_an_agent_like_an_undoer(tmp_path: Path) -> None:
    travel = Travel()
    other = Agent("desk-undo", model=ScriptedModel(["x"]))
    for patterns in ([agent(travel, ["x"]), other], [other, agent(travel, ["x"])]):
        with pytest.raises(DeclarationError, match="'desk-undo': this is the name of what undoes"):
            async with Runtime(url(tmp_path), patterns=patterns):
                pass


async def test_a_process_that_only_looks_asks_and_the_one_that_executes_does_it(
    tmp_path: Path,
) -> None:
    travel = Travel()
    desk = agent(travel, [FLIGHT, "Booked."])
    async with (
        Runtime(url(tmp_path), patterns=[desk]) as owner,
        Runtime(url(tmp_path), patterns=[desk], execute=False) as guest,
    ):
        result = await owner.run(desk, "Book.")
        undo = await guest.undo(result.run_id, by="ana")
        assert (await guest.result(undo)).status == "completed"
        assert await owner.undo(result.run_id, by="bob") == undo
    assert travel.done == ["book_flight Rome", "cancel_flight F-Rome undone"]


async def test_a_person_who_did_a_step_by_hand_has_the_rest_done(tmp_path: Path) -> None:
    travel = Travel()
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await stopped(rt, travel, **LIMITED)
        travel.faults["cancel_hotel"] = sold_out
        undo = await rt.undo(result.run_id, by="ana")
        (asked,) = (await rt.result(undo)).waiting
        await rt.resolve(asked.id, "respond", by="lea", note="I rang them up.")
        done = await rt.result(undo)
    assert (done.status, travel.done[2:]) == ("completed", ["cancel_flight F-Rome undone"])

"""Results that arrive later, when the call itself fails, is cut off, or its process dies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from roadworthy import (
    NotApplied,
    RunContext,
    RunResult,
    Runtime,
    ToolError,
)
from roadworthy.errors import (
    ResultTooLate,
    UnknownToken,
)
from roadworthy.events import (
    ToolSucceeded,
)
from roadworthy.testing import FakeClock
from tests.properties.snapshots import Snapshots
from tests.scenarios.carrier import Carrier, ship, shipper, told
from tests.scenarios.world import Given, of_kind, url

# --- trouble ----------------------------------------------------------------------------------


async def test_a_failure_to_begin_is_the_result_and_the_token_is_worth_nothing(
    tmp_path: Path,
) -> None:
    """Also while its run still waits for something else."""

    async def refuse_first(_: str) -> None:
        if len(carrier.tokens) == 1:
            raise ToolError("We do not ship there.")

    carrier = Carrier(during=refuse_first)
    agent = shipper(carrier, ship("P-1"), ship("P-2"), "One is shipped.")
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship them")
        with pytest.raises(ResultTooLate):
            await rt.deliver(carrier.tokens[0], "T-1")
        await rt.deliver(carrier.tokens[1], "T-2")
        done = await rt.result(waiting.run_id)
    assert (done.status, told(agent)) == ("completed", ("We do not ship there.", "T-2"))


async def test_one_that_fails_takes_none_of_the_others_with_it(tmp_path: Path) -> None:
    carrier = Carrier()
    agent = shipper(carrier, [ship("P-1"), ship("P-2")], "One is shipped.")
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship both")
        await rt.deliver(carrier.tokens[0], error="lost")
        assert (await rt.result(waiting.run_id)).status == "waiting"
        assert await rt.deliver(carrier.tokens[1], "T-2") == "accepted"
        done = await rt.result(waiting.run_id)
    assert (done.status, told(agent)) == ("completed", ("lost", "T-2"))


async def test_what_surely_did_not_begin_is_tried_again_under_the_same_token(
    tmp_path: Path,
) -> None:
    async def busy_once(_: str) -> None:
        if len(carrier.tokens) == 1:
            raise NotApplied("busy")

    carrier = Carrier(during=busy_once)
    agent = shipper(carrier, effect="irreversible")
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        assert len(carrier.tokens) == 2
        assert len(set(carrier.tokens)) == 1
        await rt.deliver(carrier.tokens[0], "T-9")
        assert (await rt.result(waiting.run_id)).status == "completed"


async def cut_off(_: str) -> None:
    raise ConnectionError("reset")


async def test_while_a_person_is_asked_whether_it_began_a_result_answers(tmp_path: Path) -> None:
    carrier = Carrier(during=cut_off)
    agent = shipper(carrier, effect="irreversible")
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        assert [asked.kind for asked in waiting.waiting] == ["unknown_outcome"]
        await rt.deliver(carrier.tokens[0], "T-9")
        done = await rt.result(waiting.run_id)
        replayed = await rt.replay(waiting.run_id)
    assert (done.status, told(agent), carrier.parcels) == ("completed", ("T-9",), ["P-1"])
    assert replayed.differences == ()


@pytest.mark.parametrize("decision", ["approve", "respond", "reject"])
async def test_a_person_says_whether_it_began(tmp_path: Path, decision: Given) -> None:
    carrier = Carrier(during=cut_off)
    agent = shipper(carrier, effect="irreversible")
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        carrier.during = None
        await rt.resolve(waiting.waiting[0].id, decision, by="lea", note="T-5")
        result = await rt.result(waiting.run_id)
        if decision == "approve":
            assert (result.status, carrier.tokens[0]) == ("waiting", carrier.tokens[1])
            await rt.deliver(carrier.tokens[0], "T-9")
            result = await rt.result(waiting.run_id)
        else:
            with pytest.raises(ResultTooLate):
                await rt.deliver(carrier.tokens[0], "T-9")
    assert result.status == "completed"
    words = {"approve": "T-9", "respond": "T-5", "reject": "did not take place"}
    assert words[decision] in told(agent)[0]


async def test_reconcile_finds_that_it_began_and_the_result_is_awaited(tmp_path: Path) -> None:
    def began(run: RunContext[None], parcel: str) -> tuple[str, object]:
        return "applied", f"{parcel} is queued"

    carrier = Carrier(during=cut_off)
    agent = shipper(carrier, effect="irreversible", reconcile=began)
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        assert (waiting.status, waiting.waiting) == ("waiting", ())
        await rt.deliver(carrier.tokens[0], "T-9")
        done = await rt.result(waiting.run_id)
    assert (done.status, told(agent), carrier.parcels) == ("completed", ("T-9",), ["P-1"])


@pytest.mark.sqlite_only
@pytest.mark.parametrize("effect", ["write", "irreversible"])
async def test_a_process_that_dies_at_any_commit_loses_and_doubles_nothing(
    tmp_path: Path, effect: str
) -> None:
    """Cut at every commit; elsewhere it goes on: the same token, one result, the same end."""
    snapshots = Snapshots(tmp_path / "s.db", tmp_path / "cuts")
    carrier = Carrier()
    two = [ship("P-1"), ship("P-2")]
    agent = shipper(carrier, two, "Shipped.", effect=effect)
    async with Runtime(snapshots.url, on_event=snapshots.taken) as rt:
        first = await rt.run(agent, "Ship both")
        for token in dict.fromkeys(carrier.tokens):
            await rt.deliver(token, f"T of {token}")
            await rt.result(first.run_id)
    tokens = list(dict.fromkeys(carrier.tokens))
    assert len(snapshots.files) > 10
    asked = 0
    for cut in snapshots.files:
        again = Carrier()
        fresh = shipper(again, two, "Shipped.", effect=effect)
        async with Runtime(f"sqlite:///{cut}", patterns=[fresh]) as rt:
            result = await rt.wait(first.run_id)
            while result.status == "waiting":
                result, questions = await answered(rt, result, tokens)
                asked += questions
            replayed = await rt.replay(first.run_id)
            outcomes = await of_kind(rt, first.run_id, ToolSucceeded)
        assert result.status == "completed", cut
        assert [o.result.content for o in outcomes] == [f"T of {token}" for token in tokens]
        assert set(again.tokens) <= set(tokens)
        assert replayed.differences == ()
    assert (asked > 0) == (effect == "irreversible")  # an unknown outcome was put before a person


async def answered(rt: Runtime, result: RunResult, tokens: Sequence[str]) -> tuple[RunResult, int]:
    """What the world does while a run waits: persons decide, results arrive."""
    for approval in result.waiting:
        assert approval.kind == "unknown_outcome"
        await rt.resolve(approval.id, "approve", by="lea")
    if not result.waiting:
        for token in tokens:
            try:
                await rt.deliver(token, f"T of {token}")
            except UnknownToken:
                continue  # this call was not begun yet
    after = await rt.result(result.run_id)
    return after, len(result.waiting)


async def test_a_process_that_closes_between_call_and_result_leaves_it_to_the_next(
    tmp_path: Path,
) -> None:
    """On both stores: the call is cut off, and made again under the same token."""
    begun = asyncio.Event()

    async def hang(_: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    carrier = Carrier(during=hang)
    async with Runtime(url(tmp_path)) as rt:
        run_id = await rt.start(shipper(carrier, timeout=60), "Ship P-1")
        await begun.wait()
    carrier.during = None
    agent = shipper(carrier)
    async with Runtime(url(tmp_path), patterns=[agent]) as rt:
        waiting = await rt.wait(run_id)
        assert (waiting.status, len(carrier.tokens), len(set(carrier.tokens))) == ("waiting", 2, 1)
        await rt.deliver(carrier.tokens[0], "T-9")
        done = await rt.result(run_id)
    assert (done.status, told(agent)) == ("completed", ("T-9",))

"""Results that arrive later: by webhook, from any process, an hour or a month after the call."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from roadworthy import (
    DeclarationError,
    File,
    Limits,
    RunContext,
    Runtime,
    ToolCall,
    tool,
)
from roadworthy.api import create_app
from roadworthy.errors import (
    ResultConflict,
    ResultTooLate,
    RunError,
    UnknownApproval,
    UnknownToken,
)
from roadworthy.events import (
    RunWaiting,
    SegmentStarted,
    ToolAcknowledged,
    ToolFailed,
    ToolIntended,
    ToolRefused,
    ToolSucceeded,
)
from roadworthy.testing import FakeClock
from tests.scenarios.carrier import DAY, Carrier, ship, shipper, told, until_told
from tests.scenarios.test_privacy import ANA, Vault
from tests.scenarios.world import Given, journal, of_kind, url

# --- the story ------------------------------------------------------------------------------


async def test_a_result_that_arrives_later_wakes_the_run_and_is_told_to_the_model(
    tmp_path: Path,
) -> None:
    carrier = Carrier(says="queued as 7")
    agent = shipper(carrier)
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        assert (waiting.status, waiting.waiting, waiting.question) == ("waiting", (), None)
        assert waiting.report.missing == ("the result of ship",)
        (begun,) = await of_kind(rt, waiting.run_id, ToolAcknowledged)
        (wait,) = await of_kind(rt, waiting.run_id, RunWaiting)
        assert await rt.deliver(carrier.tokens[0], {"tracking": "T-9"}) == "accepted"
        done = await rt.result(waiting.run_id)
        (outcome,) = await of_kind(rt, waiting.run_id, ToolSucceeded)
        replayed = await rt.replay(waiting.run_id)
    assert (done.status, done.text) == ("completed", "It is shipped.")
    assert told(agent) == ('{"tracking":"T-9"}',)
    assert (begun.message, outcome.source, carrier.parcels) == ("queued as 7", "later", ["P-1"])
    assert (wait.kind, wait.deadline) == ("later", begun.expires)
    assert begun.expires - begun.at == pytest.approx(7 * DAY * 1e6, rel=0.01)
    assert replayed.differences == ()


async def test_it_waits_as_a_row_and_any_process_takes_the_result(tmp_path: Path) -> None:
    carrier = Carrier()
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(shipper(carrier), "Ship P-1")
    async with Runtime(url(tmp_path), execute=False) as rt:  # knows no agent
        assert await rt.deliver(carrier.tokens[0], "T-9") == "accepted"
        assert (await rt.find(waiting.run_id)).status == "queued"
    agent = shipper(carrier)
    async with Runtime(url(tmp_path), patterns=[agent]) as rt:
        done = await rt.wait(waiting.run_id)
    assert (done.status, told(agent), carrier.parcels) == ("completed", ("T-9",), ["P-1"])


async def test_the_token_cannot_be_guessed_and_is_not_recorded(tmp_path: Path) -> None:
    carrier = Carrier()
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(shipper(carrier), "Ship P-1")
        other = await rt.run(shipper(carrier), "Ship P-1")
        recorded = repr(await journal(rt, waiting.run_id))
        (intended,) = await of_kind(rt, waiting.run_id, ToolIntended)
        for guess in (waiting.run_id, intended.idempotency_key, "", "x" * 40):
            with pytest.raises(UnknownToken):
                await rt.deliver(guess, "T-9")
        with pytest.raises(UnknownApproval):
            await rt.resolve(intended.idempotency_key, "respond", by="eve", note="T-9")
        assert (await rt.result(other.run_id)).status == "waiting"
    first, second = carrier.tokens
    assert first != second
    assert first not in recorded
    assert waiting.run_id not in first


async def test_a_delivery_sent_again_changes_nothing_and_another_one_is_a_conflict(
    tmp_path: Path,
) -> None:
    carrier = Carrier()
    agent = shipper(carrier)
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        (token,) = carrier.tokens
        taken = [await rt.deliver(token, {"tracking": "T-9"}) for _ in range(3)]
        with pytest.raises(ResultConflict):
            await rt.deliver(token, {"tracking": "T-8"})
        with pytest.raises(ResultConflict):
            await rt.deliver(token, error="lost")
        done = await rt.result(waiting.run_id)
        assert await rt.deliver(token, {"tracking": "T-9"}) == "repeated"  # the run is over
        with pytest.raises(ResultConflict):
            await rt.deliver(token, {"tracking": "T-8"})
        segments = await of_kind(rt, waiting.run_id, SegmentStarted)
    assert taken == ["accepted", "repeated", "repeated"]
    assert (done.status, told(agent), len(segments)) == ("completed", ('{"tracking":"T-9"}',), 2)


async def test_many_deliveries_at_once_are_one(tmp_path: Path) -> None:
    carrier = Carrier()
    agent = shipper(carrier)
    async with Runtime(url(tmp_path)) as rt, Runtime(url(tmp_path), execute=False) as other:
        waiting = await rt.run(agent, "Ship P-1")
        (token,) = carrier.tokens
        taken: list[str] = []

        async def deliver(process: Runtime, result: str) -> None:
            try:
                taken.append(await process.deliver(token, result))
            except ResultConflict:
                taken.append("conflict")

        async with asyncio.TaskGroup() as group:
            for number in range(12):
                process = rt if number % 2 else other
                group.create_task(deliver(process, "T-9" if number % 3 else "T-8"))
        done = await rt.result(waiting.run_id)
    assert taken.count("accepted") == 1
    assert sorted(set(taken)) == ["accepted", "conflict", "repeated"]
    assert (done.status, len(told(agent))) == ("completed", 1)


async def test_an_error_that_arrives_later_is_told_to_the_model(tmp_path: Path) -> None:
    carrier = Carrier()
    agent = shipper(carrier)
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        with pytest.raises(RunError, match="not both"):
            await rt.deliver(carrier.tokens[0], "T-9", error="lost")
        with pytest.raises(RunError, match="bytes"):
            await rt.deliver(carrier.tokens[0], b"T-9")
        await rt.deliver(carrier.tokens[0], error="No truck today.")
        done = await rt.result(waiting.run_id)
        (failed,) = await of_kind(rt, waiting.run_id, ToolFailed)
    assert (done.status, failed.code, told(agent)) == (
        "completed",
        "tool_error",
        ("No truck today.",),
    )


async def test_files_come_later_too(tmp_path: Path) -> None:
    carrier = Carrier()
    agent = shipper(carrier)
    label = File(media_type="image/png", data=b"png", name="label.png")
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        assert await rt.deliver(carrier.tokens[0], [label]) == "accepted"
        assert await rt.deliver(carrier.tokens[0], [label]) == "repeated"
        await rt.result(waiting.run_id)
        (outcome,) = await of_kind(rt, waiting.run_id, ToolSucceeded)
    assert [file.data for file in outcome.result.files] == [b"png"]


# --- when it comes at another moment ----------------------------------------------------------


async def test_a_result_that_comes_before_the_call_has_returned_is_used(tmp_path: Path) -> None:
    async with Runtime(url(tmp_path)) as rt, Runtime(url(tmp_path), execute=False) as webhook:
        carrier = Carrier(during=lambda token: webhook.deliver(token, "T-9"))
        agent = shipper(carrier)
        done = await rt.run(agent, "Ship P-1")
        replayed = await rt.replay(done.run_id)
    assert (done.status, told(agent), carrier.parcels) == ("completed", ("T-9",), ["P-1"])
    assert replayed.differences == ()


async def test_a_result_counts_even_if_the_call_itself_seems_to_fail(tmp_path: Path) -> None:
    """Its outcome would be unknown; the result says that it took place."""
    async with Runtime(url(tmp_path)) as rt:

        async def answered_then_cut(token: str) -> None:
            await rt.deliver(token, "T-9")
            raise ConnectionError("reset")

        for effect in ("write", "irreversible"):
            carrier = Carrier(during=answered_then_cut)
            agent = shipper(carrier, effect=effect)
            done = await rt.run(agent, "Ship P-1")
            assert (done.status, told(agent)) == ("completed", ("T-9",))
            assert carrier.parcels == ["P-1"]


async def test_a_result_that_comes_while_the_run_executes_again_is_used(tmp_path: Path) -> None:
    """Two calls; the second's result arrives while the run is awake for the first's."""
    carrier = Carrier()
    both = [ship("P-1"), ship("P-2")]
    agent = shipper(carrier, both, "Both are shipped.")
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship both")
        first, second = carrier.tokens
        async with asyncio.TaskGroup() as group:
            group.create_task(rt.deliver(first, "T-1"))
            group.create_task(rt.deliver(second, "T-2"))
        done = await rt.wait(waiting.run_id)
        while done.status == "waiting":
            done = await rt.wait(waiting.run_id)
    assert (done.status, told(agent)) == ("completed", ("T-1", "T-2"))
    assert carrier.parcels == ["P-1", "P-2"]


async def test_after_the_deadline_the_call_fails_and_a_result_comes_too_late(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    carrier = Carrier()
    agent = shipper(carrier, later_seconds=30 * DAY, limits=Limits(seconds=60))
    async with Runtime(url(tmp_path), clock=clock) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        await clock.advance(30 * DAY - 1)
        await rt.catch_up()
        assert (await rt.result(waiting.run_id)).status == "waiting"
        await clock.advance(2)
        await rt.catch_up()
        done = await rt.result(waiting.run_id)
        (failed,) = await of_kind(rt, waiting.run_id, ToolFailed)
        with pytest.raises(ResultTooLate):
            await rt.deliver(carrier.tokens[0], "T-9")
        replayed = await rt.replay(waiting.run_id)
    assert (done.status, failed.code, carrier.parcels) == ("completed", "late", ["P-1"])
    assert "no result came by 2026-01-31" in told(agent)[0]
    assert done.usage.seconds < 60  # waiting does not count
    assert replayed.differences == ()


async def test_the_deadline_holds_also_when_nobody_has_looked_yet(tmp_path: Path) -> None:
    clock = FakeClock()
    carrier = Carrier()
    agent = shipper(carrier, later_seconds=DAY)
    async with Runtime(url(tmp_path), clock=clock) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        await clock.advance(DAY)
        with pytest.raises(ResultTooLate):
            await rt.deliver(carrier.tokens[0], "T-9")
        await rt.catch_up()
        done = await rt.result(waiting.run_id)
        (failed,) = await of_kind(rt, waiting.run_id, ToolFailed)
    assert (done.status, failed.code) == ("completed", "late")


async def test_a_result_after_a_cancel_comes_too_late(tmp_path: Path) -> None:
    carrier = Carrier()
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(shipper(carrier), "Ship P-1")
        await rt.cancel(waiting.run_id)
        stopped = await rt.result(waiting.run_id)
        with pytest.raises(ResultTooLate, match="has ended"):
            await rt.deliver(carrier.tokens[0], "T-9")
    assert (stopped.status, stopped.reason) == ("stopped", "cancelled")


async def test_a_result_for_a_run_that_a_limit_ended_is_kept_until_it_is_resumed(
    tmp_path: Path,
) -> None:
    """The second tool does not fit the budget, so the turn ends while the first call is out."""
    carrier = Carrier()

    @tool(effect="write", cost=5, idempotent_by_nature=True)
    def print_label(parcel: str) -> str:
        """Print. parcel: such as P-1."""
        return "printed"

    calls = [ship("P-1"), ToolCall("print_label", {"parcel": "P-1"})]
    agent = shipper(carrier, until_told(calls), tools=[print_label], limits=Limits(usd="1"))
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        await rt.deliver(carrier.tokens[0], "T-9")
        ended = await rt.result(waiting.run_id)
        assert (ended.status, ended.reason) == ("partial", "budget")
        assert await rt.deliver(carrier.tokens[0], "T-9") == "repeated"
        await rt.resume(waiting.run_id, limits=Limits(usd="20"))
        done = await rt.result(waiting.run_id)
    assert (done.status, told(agent)) == ("completed", ("T-9", "printed"))
    assert carrier.parcels == ["P-1"]


async def test_a_result_is_kept_for_a_run_that_ended_while_its_call_was_out(
    tmp_path: Path,
) -> None:
    carrier = Carrier()
    costly = [ship("P-1"), ToolCall("track", {"parcel": "P-1"})]

    @tool(effect="write", cost=5, later=True, name="track")
    def track(run: RunContext[None], parcel: str) -> None:
        """Track. parcel: such as P-1."""
        carrier.tokens.append(run.key)

    agent = shipper(carrier, until_told(costly), tools=[track], limits=Limits(usd="1"))
    async with Runtime(url(tmp_path)) as rt:
        ended = await rt.run(agent, "Ship P-1")
        assert (ended.reason, len(carrier.tokens)) == ("budget", 1)
        assert await rt.deliver(carrier.tokens[0], "T-9") == "kept"
        assert await rt.deliver(carrier.tokens[0], "T-9") == "repeated"
        await rt.resume(ended.run_id, limits=Limits(usd="20"))
        waiting = await rt.result(ended.run_id)
        assert waiting.status == "waiting"
        await rt.deliver(carrier.tokens[1], "on its way")
        done = await rt.result(ended.run_id)
    assert (done.status, told(agent)) == ("completed", ("T-9", "on its way"))
    assert carrier.parcels == ["P-1"]


# --- several, and others beside them ----------------------------------------------------------


async def test_several_of_one_turn_are_independent_and_all_are_awaited(tmp_path: Path) -> None:
    carrier = Carrier()
    three = [ship("P-1"), ship("P-2"), ship("P-3")]
    agent = shipper(carrier, three, "All are shipped.")
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship all")
        assert carrier.parcels == ["P-1", "P-2", "P-3"]  # none waits for another
        tokens = list(carrier.tokens)
        for token, result in ((tokens[2], "T-3"), (tokens[0], "T-1")):
            await rt.deliver(token, result)
            assert (await rt.result(waiting.run_id)).status == "waiting"
        await rt.deliver(tokens[1], error="lost")
        done = await rt.result(waiting.run_id)
        replayed = await rt.replay(waiting.run_id)
    assert (done.status, told(agent)) == ("completed", ("T-1", "lost", "T-3"))
    assert carrier.parcels == ["P-1", "P-2", "P-3"]
    assert replayed.differences == ()


async def test_the_same_call_again_waits_for_the_result_of_the_first(tmp_path: Path) -> None:
    carrier = Carrier()
    agent = shipper(carrier, [ship("P-1"), ship("P-1")], "It is shipped.")
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        await rt.deliver(carrier.tokens[0], "T-1")
        done = await rt.result(waiting.run_id)
    assert (done.status, carrier.parcels) == ("completed", ["P-1"])
    assert "Already done" in told(agent)[1]


async def test_reads_finish_first_and_an_effect_behind_keeps_its_place(tmp_path: Path) -> None:
    carrier = Carrier()
    done: list[str] = []

    @tool(effect="read")
    def look() -> str:
        """Look."""
        done.append("look")
        return "seen"

    @tool(effect="write", idempotent_by_nature=True)
    def notify() -> str:
        """Notify."""
        done.append("notify")
        return "notified"

    calls = [ship("P-1"), ToolCall("notify", {}), ship("P-2"), ToolCall("look", {})]
    for how in ("result", "error"):
        done.clear()
        carrier = Carrier()
        agent = shipper(carrier, calls, "Done.", tools=[look, notify])
        async with Runtime(url(tmp_path)) as rt:
            waiting = await rt.run(agent, "Go")
            assert (done, carrier.parcels) == (["look"], ["P-1"])
            await rt.deliver(carrier.tokens[0], **{how: "T-1"})
            after = await rt.result(waiting.run_id)
            if how == "error":
                refused = await of_kind(rt, waiting.run_id, ToolRefused)
                assert (after.status, done) == ("completed", ["look"])
                assert [r.code for r in refused] == ["not_attempted", "not_attempted"]
                continue
            assert (after.status, done, carrier.parcels) == (
                "waiting",
                ["look", "notify"],
                ["P-1", "P-2"],
            )
            await rt.deliver(carrier.tokens[1], "T-2")
            assert (await rt.result(waiting.run_id)).status == "completed"
        assert told(agent) == ("T-1", "notified", "T-2", "seen")


async def test_an_approval_comes_first_and_the_result_after_it(tmp_path: Path) -> None:
    carrier = Carrier()
    agent = shipper(carrier, approval="operator")
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        assert carrier.parcels == []
        edited: Given = {"parcel": "P-2"}
        await rt.resolve(waiting.waiting[0].id, "edit", by="lea", arguments=edited)
        waiting = await rt.result(waiting.run_id)
        assert (waiting.status, waiting.waiting, carrier.parcels) == ("waiting", (), ["P-2"])
        await rt.deliver(carrier.tokens[0], "T-2")
        done = await rt.result(waiting.run_id)
        replayed = await rt.replay(waiting.run_id)
    assert (done.status, carrier.parcels) == ("completed", ["P-2"])
    assert told(agent)[0].endswith("T-2")
    assert replayed.differences == ()


async def test_its_cost_is_settled_when_it_is_begun_and_nothing_is_held_meanwhile(
    tmp_path: Path,
) -> None:
    carrier = Carrier()
    agent = shipper(carrier, cost="0.25", limits=Limits(usd="1"))
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        await rt.deliver(carrier.tokens[0], "T-9")
        done = await rt.result(waiting.run_id)
        (outcome,) = await of_kind(rt, waiting.run_id, ToolSucceeded)
        row = await rt.find(waiting.run_id)
    assert waiting.usage.nanos - 250_000_000 < 10_000_000
    assert (outcome.nanos, waiting.usage.nanos >= 250_000_000) == (0, True)
    assert row.nanos == done.usage.nanos < 2 * 250_000_000


async def test_personal_data_in_a_late_result_is_concealed(tmp_path: Path) -> None:
    carrier = Carrier()
    agent = shipper(carrier)
    async with Runtime(url(tmp_path), privacy=Vault()) as rt:
        waiting = await rt.run(agent, "Ship P-1")
        result = {"signed by": ANA}
        assert await rt.deliver(carrier.tokens[0], result) == "accepted"
        assert await rt.deliver(carrier.tokens[0], result) == "repeated"
        await rt.result(waiting.run_id)
        recorded = repr(await rt.record(waiting.run_id))
    assert told(agent) == ('{"signed by":"[[EMAIL_1]]"}',)
    assert ANA not in recorded


# --- its declaration, and the way over HTTP ---------------------------------------------------


def test_a_declaration_that_could_not_be_answered_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"run\.key"):

        @tool(later=True)
        def ship(parcel: str) -> None:
            """Ship. parcel: such as P-1."""

    with pytest.raises(DeclarationError, match='effect="write"'):
        Carrier().tool(effect="read")
    with pytest.raises(DeclarationError, match="later_seconds"):
        Carrier().tool(later_seconds=0)


async def test_a_result_comes_over_http(tmp_path: Path) -> None:
    carrier = Carrier()
    agent = shipper(carrier)
    async with Runtime(url(tmp_path), patterns=[agent]) as rt:
        transport = httpx.ASGITransport(create_app(rt))
        async with httpx.AsyncClient(transport=transport, base_url="http://desk") as client:
            waiting = (await client.post("/v1/runs", json={"input": "Ship P-1"})).json()
            place = f"/v1/later/{carrier.tokens[0]}"
            answers = [
                await client.post(place, json={"result": {"tracking": "T-9"}}),
                await client.post(place, json={"result": {"tracking": "T-9"}}),
                await client.post(place, json={"result": "T-8"}),
                await client.post("/v1/later/nothing", json={"result": 1}),
                await client.post(place, json={"outcome": 1}),
            ]
            done = await rt.result(waiting["run_id"])
            heard = told(agent)
            second = (await client.post("/v1/runs", json={"input": "Ship P-1"})).json()
            await client.post(f"/v1/runs/{second['run_id']}/cancel", json={})
            await rt.result(second["run_id"])
            late = await client.post(f"/v1/later/{carrier.tokens[1]}", json={"error": "lost"})
            shown = await client.get(f"/v1/runs/{waiting['run_id']}/trace")
    assert [a.status_code for a in answers] == [202, 202, 409, 404, 422]
    assert [a.json().get("taken", a.json().get("error")) for a in answers[:4]] == [
        "accepted",
        "repeated",
        "result_conflict",
        "unknown_token",
    ]
    assert (late.status_code, late.json()["error"]) == (410, "result_too_late")
    assert (done.status, heard) == ("completed", ('{"tracking":"T-9"}',))
    assert carrier.tokens[0] not in json.dumps(shown.json())

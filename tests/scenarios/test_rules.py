"""Rules outside the model: order, count, bounds, a person's word, and what one run may use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import pytest

from roadworthy import (
    Agent,
    Limits,
    NotApplied,
    RunContext,
    Runtime,
    Tool,
    ToolCall,
    tool,
)
from roadworthy.errors import RunError
from roadworthy.events import (
    ApprovalAsked,
    RunEvent,
    ToolIntended,
    ToolOutcome,
    ToolRefused,
)
from roadworthy.privacy import Scope
from roadworthy.testing import ScriptedModel
from roadworthy.tools import (
    Rule,
    at_most,
    bounds,
    only_after_approval,
    over,
    requires,
)
from roadworthy.trace import story
from tests.properties.snapshots import Snapshots
from tests.scenarios.world import Given, journal, of_kind, results, url

pytestmark = pytest.mark.requirement("TOL-7")


@dataclass
class Shop:
    """What was looked up and what was paid back. `broken`: looking up fails; `shut`: the bank."""

    looked: list[str] = field(default_factory=list)
    paid: list[tuple[str, Decimal]] = field(default_factory=list)
    broken: bool = False
    shut: int = 0

    def __post_init__(self) -> None:
        @tool(effect="read", retries=0)
        def find_order(order_id: str) -> str:
            """Look an order up. order_id: such as A-17."""
            self.looked.append(order_id)
            if self.broken:
                raise ConnectionError("no database")
            return f"{order_id} is there"

        @tool(retries=0)
        def refund(order_id: str, usd: Decimal) -> str:
            """Pay back. order_id: such as A-17. usd: how much."""
            if self.shut:
                self.shut -= 1
                raise NotApplied("the bank is closed", retry=False)
            self.paid.append((order_id, usd))
            return f"paid {usd}"

        self.find_order: Tool[None] = find_order
        self.refund: Tool[None] = refund

    def desk(self, script: Sequence[Given], *rules: Rule, **options: Given) -> Agent:
        model = options.pop("model", ScriptedModel(list(script)))
        tools = [self.find_order, self.refund]
        return Agent("desk", model=model, tools=tools, rules=rules, **options)


def find(order: str = "A") -> ToolCall:
    return ToolCall("find_order", {"order_id": order})


def pay(order: str = "A", usd: Given = 10) -> ToolCall:
    return ToolCall("refund", {"order_id": order, "usd": usd})


def told(model: ScriptedModel) -> list[str]:
    """What the model was last told of each call."""
    return [result.content for result in results(model.requests[-1].messages)]


def codes(events: Sequence[RunEvent]) -> list[str]:
    return [event.code for event in events if isinstance(event, ToolRefused)]


# --- order --------------------------------------------------------------------------------


async def test_a_refund_before_the_lookup_is_refused_and_the_model_learns_the_order(
    tmp_path: Path,
) -> None:
    shop = Shop()
    model = ScriptedModel([pay(), find(), pay(), "Done."])
    desk = shop.desk([], requires(shop.refund, shop.find_order), model=model)
    async with Runtime(url(tmp_path)) as rt:
        done = await rt.run(desk, "Refund A")
        events = await journal(rt, done.run_id)
        assert (await rt.replay(done.run_id)).differences == ()
    assert (done.status, shop.paid) == ("completed", [("A", Decimal(10))])
    first = told(model)[0]
    assert first == (
        "refund was not carried out. Rule requires(refund, find_order): call find_order first and "
        "wait for the result."
    )
    assert codes(events) == ["requires"]
    (step,) = (step for step in story(events) if step.state == "refused")
    assert (step.title, step.detail["code"], step.detail["result"]) == ("refund", "requires", first)


async def test_a_lookup_in_the_same_reply_has_not_been_seen_yet(tmp_path: Path) -> None:
    shop = Shop()
    desk = shop.desk([[find(), pay()], pay(), "Done."], requires(shop.refund, shop.find_order))
    async with Runtime(url(tmp_path)) as rt:
        done = await rt.run(desk, "Refund A")
        events = await journal(rt, done.run_id)
    assert (len(shop.looked), len(shop.paid), codes(events)) == (1, 1, ["requires"])


async def test_a_lookup_that_failed_opens_nothing(tmp_path: Path) -> None:
    shop = Shop(broken=True)
    desk = shop.desk([find(), pay(), "Sorry."], requires("refund", "find_order"))
    async with Runtime(url(tmp_path)) as rt:
        done = await rt.run(desk, "Refund A")
        events = await journal(rt, done.run_id)
    assert (shop.looked, shop.paid, codes(events)) == (["A"], [], ["requires"])


# --- count --------------------------------------------------------------------------------


async def test_a_third_refund_is_refused_and_a_repeat_is_told_what_was_done(tmp_path: Path) -> None:
    shop = Shop()
    model = ScriptedModel([pay("A"), pay("B"), pay("C"), pay("A"), "Done."])
    async with Runtime(url(tmp_path)) as rt:
        done = await rt.run(shop.desk([], at_most(shop.refund, 2), model=model), "Refund")
        events = await journal(rt, done.run_id)
        assert (await rt.replay(done.run_id)).differences == ()
    assert [order for order, _ in shop.paid] == ["A", "B"]
    assert codes(events) == ["at_most"]
    assert "Rule at_most(refund, 2): no further call" in told(model)[2]
    assert told(model)[3].startswith("Already done")


async def test_what_was_answered_from_the_record_does_not_count(tmp_path: Path) -> None:
    shop = Shop()
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(shop.desk([pay("A"), pay("A"), pay("B"), "."], at_most("refund", 2)), "Refund")
    assert [order for order, _ in shop.paid] == ["A", "B"]


async def test_parallel_calls_of_one_reply_count_together(tmp_path: Path) -> None:
    shop = Shop()
    calls = [pay("A"), pay("B"), pay("C"), pay("D")]
    async with Runtime(url(tmp_path)) as rt:
        done = await rt.run(shop.desk([calls, "Done."], at_most("refund", 2)), "Refund")
        events = await journal(rt, done.run_id)
    assert [order for order, _ in shop.paid] == ["A", "B"]
    assert codes(events) == ["at_most", "at_most"]


async def test_parallel_reads_count_together(tmp_path: Path) -> None:
    shop = Shop()
    calls = [find("A"), find("B"), find("C")]
    async with Runtime(url(tmp_path)) as rt:
        await rt.run(shop.desk([calls, "Done."], at_most("find_order", 2)), "Look")
    assert sorted(shop.looked) == ["A", "B"]


async def test_what_surely_did_not_happen_does_not_count(tmp_path: Path) -> None:
    shop = Shop(shut=1)
    desk = shop.desk([pay("A"), pay("A"), pay("B"), "Done."], at_most(shop.refund, 1))
    async with Runtime(url(tmp_path)) as rt:
        done = await rt.run(desk, "Refund")
        events = await journal(rt, done.run_id)
    assert (shop.paid, codes(events)) == ([("A", Decimal(10))], ["at_most"])


@pytest.mark.parametrize(("decision", "paid"), [("respond", []), ("reject", ["B"])])
async def test_an_effect_of_unknown_outcome_counts_until_a_person_says_it_did_not_happen(
    tmp_path: Path, decision: Given, paid: list[str]
) -> None:
    done: list[str] = []

    @tool
    def launch(pad: str) -> str:
        """Launch. pad: which."""
        if pad == "A":
            raise ConnectionError("reset")
        done.append(pad)
        return "up"

    script: list[Given] = [*(ToolCall("launch", {"pad": pad}) for pad in "AB"), "."]
    desk = Agent("desk", model=ScriptedModel(script), tools=[launch], rules=[at_most(launch, 1)])
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(desk, "Launch")
        await rt.resolve(waiting.waiting[0].id, decision, by="lea", note="It is up.")
        assert (await rt.result(waiting.run_id)).status == "completed"
    assert done == paid


@pytest.mark.requirement("REC-8")
@pytest.mark.sqlite_only
async def test_a_crash_at_any_commit_changes_neither_count_nor_order(tmp_path: Path) -> None:
    script: list[Given] = [[pay("A"), find("A")], [pay("A"), pay("B"), pay("C")], pay("D"), "Done."]

    def rules(shop: Shop) -> list[Rule]:
        return [at_most(shop.refund, 2), requires(shop.refund, shop.find_order)]

    def essence(events: Sequence[RunEvent]) -> list[tuple[str, str, str]]:
        outcomes = sorted((e for e in events if isinstance(e, ToolOutcome)), key=lambda e: e.key)
        return [(e.key, type(e).__name__, e.result.content) for e in outcomes]

    snapshots = Snapshots(tmp_path / "s.db", tmp_path / "cuts")
    shop = Shop()
    async with Runtime(snapshots.url, on_event=snapshots.taken) as rt:
        whole = await rt.run(shop.desk(script, *rules(shop)), "Refund")
        recorded = await journal(rt, whole.run_id)
    assert codes(recorded) == ["requires", "at_most", "at_most"]
    for cut in snapshots.files:
        again = Shop()
        desk = again.desk(script, *rules(again))
        async with Runtime(f"sqlite:///{cut}", patterns=[desk]) as rt:
            await rt.wait(whole.run_id)
            found = await rt.result(whole.run_id)
            for approval in found.waiting:  # its process died in the call: it did happen
                await rt.resolve(approval.id, "respond", by="lea", note="paid 10")
                found = await rt.result(whole.run_id)
            events = await journal(rt, whole.run_id)
            assert (await rt.replay(whole.run_id)).differences == (), cut
        assert essence(events) == essence(recorded), cut
        assert len([e for e in events if isinstance(e, ToolIntended)]) == 2


async def test_a_run_that_is_resumed_after_a_restart_counts_on(tmp_path: Path) -> None:
    shop = Shop()
    script: list[Given] = [pay("A"), "So far.", pay("B"), pay("C"), "Done."]
    desk = shop.desk(script, at_most(shop.refund, 2), limits=Limits(turns=1))
    async with Runtime(url(tmp_path)) as rt:
        first = await rt.run(desk, "Refund")
        assert first.reason == "turn_limit"
    later = replace(desk, model=ScriptedModel(script))
    async with Runtime(url(tmp_path), patterns=[later]) as rt:
        await rt.resume(first.run_id, limits=Limits(turns=9))
        await rt.wait(first.run_id)
        events = await journal(rt, first.run_id)
        assert (await rt.replay(first.run_id)).differences == ()
    assert [order for order, _ in shop.paid] == ["A", "B"]
    assert codes(events) == ["at_most"]


# --- bounds -------------------------------------------------------------------------------


async def test_an_amount_of_ten_thousand_is_refused(tmp_path: Path) -> None:
    shop = Shop()
    model = ScriptedModel([pay(usd=10_000), pay(usd="200.01"), pay(usd=0), pay(usd=200), "Done."])
    desk = shop.desk([], bounds(shop.refund, usd=(1, 200)), model=model)
    async with Runtime(url(tmp_path)) as rt:
        done = await rt.run(desk, "Refund")
        events = await journal(rt, done.run_id)
        assert (await rt.replay(done.run_id)).differences == ()
    assert (shop.paid, codes(events)) == ([("A", Decimal(200))], ["bounds"] * 3)
    rule = "refund was not carried out. Rule bounds(refund, usd=(1, 200)): usd must be at "
    assert told(model)[:3] == [f"{rule}most 200.", f"{rule}most 200.", f"{rule}least 1."]


class Numbers:
    """Keeps numbers from the store and the model."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    async def conceal(self, text: str, scope: Scope) -> str:
        def token(found: re.Match[str]) -> str:
            self.kept.append(found[0])
            return f"<{'abcdefgh'[len(self.kept) - 1]}>"

        return re.sub(r"\d{3,}", token, text)

    async def reveal(self, text: str, scope: Scope) -> str:
        return re.sub("<([a-h])>", lambda found: self.kept["abcdefgh".index(found[1])], text)


async def test_what_is_concealed_is_judged_by_what_it_means(tmp_path: Path) -> None:
    shop = Shop()
    rules = (
        bounds(shop.refund, usd=(None, 200)),
        only_after_approval("refund", when=over("usd", 180)),
    )
    script = [pay(usd="<a>"), pay(usd="<b>"), pay(usd="<c>")]
    async with Runtime(url(tmp_path), privacy=Numbers()) as rt:
        done = await rt.run(shop.desk(script, *rules), "Refund 900, or 150, or 190.")
        events = await journal(rt, done.run_id)
    assert (shop.paid, codes(events)) == ([("A", Decimal(150))], ["bounds"])
    assert done.status == "waiting"


@pytest.mark.requirement("TOL-2")
async def test_an_edit_of_a_person_stays_within_bounds_too(tmp_path: Path) -> None:
    shop = Shop()
    rules = bounds(shop.refund, usd=(None, 200)), only_after_approval(shop.refund)
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(shop.desk([pay(usd=90), "Done."], *rules), "Refund")
        approval = waiting.waiting[0].id
        with pytest.raises(RunError, match="usd must be at most 200"):
            await rt.resolve(approval, "edit", by="lea", arguments={"order_id": "A", "usd": 900})
        await rt.resolve(approval, "edit", by="lea", arguments={"order_id": "A", "usd": 100})
        assert (await rt.result(waiting.run_id)).status == "completed"
    assert shop.paid == [("A", Decimal(100))]


async def test_an_edit_is_held_to_the_bounds_that_hold_when_it_runs(tmp_path: Path) -> None:
    shop = Shop()
    script = [pay(usd=90), "Done."]
    loose = shop.desk(script, only_after_approval(shop.refund))
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(loose, "Refund")
    async with Runtime(url(tmp_path), patterns=[loose], execute=False) as rt:
        edited: Given = {"order_id": "A", "usd": 900}
        await rt.resolve(waiting.waiting[0].id, "edit", by="lea", arguments=edited)
    strict = replace(loose, rules=(*loose.rules, bounds(shop.refund, usd=(None, 200))))
    async with Runtime(url(tmp_path), patterns=[strict]) as rt:
        done = await rt.wait(waiting.run_id)
        events = await journal(rt, waiting.run_id)
    assert (done.status, shop.paid, codes(events)) == ("completed", [], ["invalid_edit"])


# --- approval -----------------------------------------------------------------------------


async def test_above_fifty_a_person_decides(tmp_path: Path) -> None:
    shop = Shop()
    rule = only_after_approval(shop.refund, when=over("usd", 50))
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(shop.desk([pay("A", 50), pay("B", 51), "Done."], rule), "Refund")
        assert (waiting.status, shop.paid) == ("waiting", [("A", Decimal(50))])
        (approval,) = waiting.waiting
        assert approval.asks == "operator"
        assert "only_after_approval(refund, when=over(usd, 50))" in approval.reason
        await rt.resolve(approval.id, "approve", by="lea")
        done = await rt.result(waiting.run_id)
        assert (await rt.replay(done.run_id)).differences == ()
    assert [order for order, _ in shop.paid] == ["A", "B"]


async def test_a_function_says_when_once_and_what_it_said_is_recorded(tmp_path: Path) -> None:
    shop = Shop()
    asked: list[str] = []

    def first_of_the_day(run: RunContext[None], call: ToolCall) -> bool:
        asked.append(call.arguments["order_id"])
        return len(asked) == 1

    rule = only_after_approval(shop.refund, when=first_of_the_day, asks="user")
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(shop.desk([pay("A"), pay("B"), "Done."], rule), "Refund")
        assert waiting.waiting[0].asks == "user"
        assert "when=" in waiting.waiting[0].reason
    async with Runtime(url(tmp_path), patterns=[shop.desk([pay("A"), pay("B"), "."], rule)]) as rt:
        await rt.resolve(waiting.waiting[0].id, "approve", by="ana")
        assert (await rt.result(waiting.run_id)).status == "completed"
        assert (await rt.replay(waiting.run_id)).differences == ()
        assert len(await of_kind(rt, waiting.run_id, ApprovalAsked)) == 1
    assert (asked, len(shop.paid)) == (["A", "B"], 2)


async def test_a_function_that_fails_leaves_it_to_a_person(tmp_path: Path) -> None:
    shop = Shop()

    def broken(run: RunContext[None], call: ToolCall) -> bool:
        raise KeyError("usd")

    rule = only_after_approval(shop.refund, when=broken)
    async with Runtime(url(tmp_path)) as rt:
        assert (await rt.run(shop.desk([pay()], rule), "Refund")).status == "waiting"


async def test_where_tool_and_rule_ask_the_operator_decides(tmp_path: Path) -> None:
    @tool(approval="user")
    def close(account: str) -> str:
        """Close. account: which."""
        return "closed"

    script = [ToolCall("close", {"account": "A"})]
    rules = [only_after_approval(close)]
    desk = Agent("desk", model=ScriptedModel(script), tools=[close], rules=rules)
    async with Runtime(url(tmp_path)) as rt:
        waiting = await rt.run(desk, "Close")
    assert waiting.waiting[0].asks == "operator"

"""What becomes of a call whose tool fails: retry, another tool, a degraded answer, a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from roadworthy import (
    Agent,
    Limits,
    NotApplied,
    RunContext,
    RunEvent,
    Runtime,
    Tool,
    ToolCall,
    ToolError,
    tool,
)
from roadworthy.errors import RunError
from roadworthy.events import (
    ApprovalDecided,
    ToolAttemptFailed,
    ToolFailed,
    ToolIntended,
    ToolOutcome,
    ToolRungLeft,
    ToolSucceeded,
)
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.tools import Alternative, AskPerson, Default, LastGood
from roadworthy.trace import story
from tests.properties.snapshots import Snapshots
from tests.scenarios.world import Given, journal, of_kind, url

DOWN = ConnectionError("down")


def call(name: str, **arguments: object) -> ToolCall:
    return ToolCall(name, arguments)


class Line:
    """What is behind the tools of a test: `up` says whether it answers."""

    def __init__(self) -> None:
        self.up, self.asked = False, 0

    def read(self, **options: Given) -> Tool[None]:
        @tool(effect="read", **options)
        def weather(city: str) -> str:
            """Weather. city: which."""
            self.asked += 1
            if not self.up:
                raise ConnectionError("down")
            return f"sun in {city}"

        return weather


@tool(effect="read")
def archive(place: str, unit: str = "C") -> str:
    """Old weather. place: where. unit: C or F."""
    return f"rain in {place}, {unit}"


ARCHIVE = Alternative(archive, arguments={"place": "city"}, fixed={"unit": "F"})


def desk(model: ScriptedModel, *tools: Tool[None]) -> Agent[None, str]:
    return Agent("desk", model=model, tools=tools)


def asking(*calls: ToolCall) -> ScriptedModel:
    return ScriptedModel([*calls, "Done."])


@pytest.mark.requirement("REC-1", "REC-7", "TOL-3")
async def test_another_tool_answers_with_its_arguments_mapped(tmp_path: Path) -> None:
    line, model = Line(), asking(call("weather", city="Rome"))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(desk(model, line.read(fallback=ARCHIVE)), "Go")
        (left,) = await of_kind(rt, result.run_id, ToolRungLeft)
        (done,) = await of_kind(rt, result.run_id, ToolSucceeded)
        replayed = await rt.replay(result.run_id)
    assert line.asked == 3
    assert (left.rung, left.next, left.code, left.attempts) == (
        "tool", "alternative", "exception", 3,
    )  # fmt: skip
    assert (done.source, done.by, done.tool) == ("fallback", "archive", "weather")
    told = model.requests[1].results[0]
    assert told == "[weather failed after 3 attempts (exception); this is from archive]\n" + (
        "rain in Rome, F"
    )
    assert replayed.differences == ()


@pytest.mark.requirement("REC-1")
async def test_a_definite_answer_of_a_tool_is_not_replaced(tmp_path: Path) -> None:
    @tool(effect="read", fallback=Default("nothing"))
    def find(x: str) -> str:
        """Find. x: what."""
        raise ToolError("No such order.")

    model = asking(call("find", x="1"))
    async with Runtime(url(tmp_path)) as rt:
        result = await rt.run(desk(model, find), "Go")
        assert await of_kind(rt, result.run_id, ToolRungLeft) == []
    assert model.requests[1].results[0] == "No such order."


@pytest.mark.requirement("REC-1")
async def test_the_last_good_value_says_its_age_and_is_forgotten_in_time(tmp_path: Path) -> None:
    line, clock = Line(), FakeClock(auto=True)
    line.up = True
    weather = line.read(fallback=[LastGood(3_600), Default({"sky": None})], retries=0, breaker=None)
    model = ScriptedModel(lambda r: call("weather", city="Rome") if not r.messages[1:] else "Done.")
    async with Runtime(url(tmp_path), clock=clock) as rt:
        await rt.run(desk(model, weather), "Go")
        line.up = False
        await clock.sleep(600)
        stale = await rt.run(desk(model, weather), "Go")
        (kept,) = await of_kind(rt, stale.run_id, ToolSucceeded)
        await clock.sleep(3_600)
        old = await rt.run(desk(model, weather), "Go")
        (default,) = await of_kind(rt, old.run_id, ToolSucceeded)
        rungs = await of_kind(rt, old.run_id, ToolRungLeft)
    assert (kept.source, kept.age // 1_000_000) == ("last_good", 600)
    assert "its last good answer, 10 minutes old: say so" in kept.result.content
    assert kept.result.content.endswith("sun in Rome")
    assert default.source == "default"
    assert "no live answer" in default.result.content
    assert default.result.content.endswith('{"sky":null}')
    assert [(r.rung, r.code) for r in rungs] == [
        ("tool", "exception"),
        ("last_good", "no_last_good"),
    ]


@pytest.mark.requirement("REC-1")
@pytest.mark.parametrize(
    ("decision", "note", "told", "status"),
    [
        ("respond", "It is sunny.", "It is sunny.", ToolSucceeded),
        ("reject", "Let it be.", "lea left it so. Let it be", ToolFailed),
        ("approve", "", "sun in Rome", ToolSucceeded),
    ],
)
async def test_a_person_has_the_last_word(
    tmp_path: Path, decision: Given, note: str, told: str, status: type[ToolOutcome]
) -> None:
    line, model = Line(), asking(call("weather", city="Rome"))
    agent = desk(model, line.read(fallback=AskPerson()))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(agent, "Go")
        (approval,) = result.waiting
        assert (result.status, approval.kind, line.asked) == ("waiting", "failure", 3)
        assert "weather failed after 3 attempts" in approval.reason
        with pytest.raises(RunError, match="try it again"):
            await rt.resolve(approval.id, "edit", by="lea", arguments={"city": "Oslo"})
        line.up = True
        await rt.resolve(approval.id, decision, by="lea", note=note)
        done = await rt.result(result.run_id)
        (outcome,) = await of_kind(rt, result.run_id, status)
        (said,) = await of_kind(rt, result.run_id, ApprovalDecided)
        replayed = await rt.replay(result.run_id)
    assert done.status == "completed"
    assert told in model.requests[1].results[0]
    assert line.asked == (4 if decision == "approve" else 3)
    assert outcome.key == "turn/1/tool/0"
    assert (said.decision, said.by, said.approval_id) == (decision, "lea", approval.id)
    assert replayed.differences == ()


@pytest.mark.requirement("REC-1")
async def test_each_word_of_a_person_is_one_more_climb(tmp_path: Path) -> None:
    """Never endless: what goes on failing is put before a person again, not tried for ever."""
    line = Line()
    agent = desk(asking(call("weather", city="Rome")), line.read(fallback=AskPerson(), retries=1))
    clock = FakeClock(auto=True)
    async with Runtime(url(tmp_path), clock=clock) as rt:
        result = await rt.run(agent, "Go")
        for climb in (1, 2, 3):
            assert line.asked == 2 * climb
            await clock.sleep(120)  # else its breaker would be open
            await rt.resolve(result.waiting[0].id, "approve", by="lea")
            result = await rt.result(result.run_id)
        assert (result.status, line.asked) == ("waiting", 8)
        assert [e.round for e in await of_kind(rt, result.run_id, ToolRungLeft)] == [1, 2, 3, 4]


def pay_tools(
    first: Callable[[RunContext[None]], str], second: Callable[[RunContext[None]], str]
) -> Tool[None]:
    @tool(effect="irreversible", cost="0.01")
    def pay_by_post(run: RunContext[None], euros: int) -> str:
        """Pay by post. euros: how much."""
        return second(run)

    @tool(effect="irreversible", fallback=pay_by_post, retries=1, cost="0.02")
    def pay(run: RunContext[None], euros: int) -> str:
        """Pay. euros: how much."""
        return first(run)

    return pay


@pytest.mark.requirement("REC-1", "TOL-4", "OBS-2")
async def test_an_effect_that_surely_did_not_happen_is_done_another_way_and_paid_as_recovery(
    tmp_path: Path,
) -> None:
    keys: list[str] = []

    def full(run: RunContext[None]) -> str:
        keys.append(run.key)
        raise NotApplied("the bank is closed")

    def sent(run: RunContext[None]) -> str:
        keys.append(run.key)
        return "sent"

    agent = desk(asking(call("pay", euros=5)), pay_tools(full, sent))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(agent, "Go")
        intents = await of_kind(rt, result.run_id, ToolIntended)
        failed = await of_kind(rt, result.run_id, ToolAttemptFailed)
        (done,) = await of_kind(rt, result.run_id, ToolSucceeded)
        replayed = await rt.replay(result.run_id)
    assert [i.tool for i in intents] == ["pay", "pay", "pay_by_post"]
    assert (keys[0] == keys[1], keys[1] != keys[2]) == (True, True)  # another effect, another key
    assert [f.phase for f in failed] == ["execute", "recover"]
    assert (done.source, done.by, done.phase, done.nanos) == (
        "fallback", "pay_by_post", "recover", 10_000_000,
    )  # fmt: skip
    phases = {name: used.nanos for name, used in result.usage.by_phase.items() if used.nanos}
    assert phases == {"execute": 20_000_000, "recover": 30_000_000}
    assert replayed.differences == ()
    assert replayed.result is not None
    assert replayed.result.usage.nanos == result.usage.nanos


@pytest.mark.requirement("REC-1", "TOL-4")
@pytest.mark.parametrize(
    "faults", [[ConnectionResetError("gone")], [NotApplied("busy"), ConnectionResetError("gone")]]
)
async def test_nothing_stands_in_for_an_effect_that_may_have_happened(
    tmp_path: Path, faults: Sequence[Exception]
) -> None:
    left, posted = list(faults), list[str]()

    def lost(run: RunContext[None]) -> str:
        raise left.pop(0)

    def post(run: RunContext[None]) -> str:
        posted.append(run.key)
        return "sent"

    agent = desk(asking(call("pay", euros=5)), pay_tools(lost, post))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(agent, "Go")
    assert (result.status, result.waiting[0].kind) == ("waiting", "unknown_outcome")
    assert posted == []


@pytest.mark.requirement("REC-1", "TOL-4")
async def test_a_write_once_unknown_stays_so_although_later_tries_surely_did_nothing(
    tmp_path: Path,
) -> None:
    """The first try may have saved; that the others could not says nothing of it."""
    faults: list[Exception] = [TimeoutError("lost"), NotApplied("busy"), NotApplied("busy")]
    elsewhere: list[str] = []

    @tool(effect="write", idempotent_by_nature=True)
    def save_elsewhere(text: str) -> str:
        """Save elsewhere. text: what."""
        elsewhere.append(text)
        return "saved"

    @tool(effect="write", idempotent_by_nature=True, fallback=save_elsewhere)
    def save(text: str) -> str:
        """Save. text: what."""
        raise faults.pop(0)

    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(desk(asking(call("save", text="a")), save), "Go")
        assert (result.status, result.waiting[0].kind) == ("waiting", "unknown_outcome")
        assert (faults, elsewhere) == ([], [])


@pytest.mark.requirement("REC-1", "TOL-4")
async def test_an_alternative_whose_outcome_is_unknown_is_put_before_a_person(
    tmp_path: Path,
) -> None:
    tried: list[str] = []

    def closed(run: RunContext[None]) -> str:
        tried.append("pay")
        raise NotApplied("closed")

    def lost(run: RunContext[None]) -> str:
        tried.append("post")
        raise ConnectionResetError("gone")

    model = asking(call("pay", euros=5))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(desk(model, pay_tools(closed, lost)), "Go")
        (approval,) = result.waiting
        assert (approval.kind, approval.tool) == ("unknown_outcome", "pay_by_post")
        await rt.resolve(approval.id, "respond", by="lea", note="It arrived.")
        done = await rt.result(result.run_id)
    assert (done.status, tried) == ("completed", ["pay", "pay", "post"])
    assert "It arrived." in model.requests[1].results[0]


@pytest.mark.requirement("REC-1", "REC-8")
async def test_a_crash_at_any_rung_goes_on_from_that_rung(tmp_path: Path) -> None:
    """At each commit of a ladder with every kind of rung: no rung is climbed twice."""
    asked: list[str] = []

    @tool(effect="read", retries=1, cost="0.01")
    def second(place: str) -> str:
        """Another. place: where."""
        asked.append("second")
        raise ConnectionError("down too")

    @tool(effect="read", cost="0.01", fallback=[
        Alternative(second, arguments={"place": "city"}), LastGood(60), Default("unknown"),
    ])  # fmt: skip
    def first(city: str) -> str:
        """The first. city: which."""
        asked.append("first")
        raise ConnectionError("down")

    cuts: list[tuple[RunEvent, int, str]] = []
    snapshots = Snapshots(tmp_path / "s.db", tmp_path / "cuts")

    def seen(event: object) -> None:
        if isinstance(event, RunEvent):
            cuts.append((event, len(asked), snapshots.take()))

    model = asking(call("first", city="Rome"))
    agent = desk(model, first)
    async with Runtime(snapshots.url, clock=FakeClock(auto=True), on_event=seen) as rt:
        whole = await rt.run(agent, "Go")
    assert asked == ["first"] * 3 + ["second"] * 2
    for event, before, store in cuts:
        asked.clear()
        clock = FakeClock(start=event.at, auto=True)
        async with Runtime(store, patterns=[agent], clock=clock) as rt:
            result = await rt.wait(whole.run_id)
            rungs = await of_kind(rt, whole.run_id, ToolRungLeft)
            tried = await of_kind(rt, whole.run_id, ToolIntended)
        assert result.status == "completed"
        assert [r.rung for r in rungs] == ["tool", "alternative", "last_good"], event
        assert [i.tool for i in tried] == ["first"] * 3 + ["second"] * 2, event
        assert len(asked) <= 5 - before + 1, event  # at most the one that was begun is done again
        assert "unknown" in model.requests[-1].results[0]


@pytest.mark.requirement("REC-1", "TOL-3")
async def test_the_far_side_says_when_to_come_back(tmp_path: Path) -> None:
    @tool(effect="read")
    def busy(run: RunContext[None], x: int) -> str:
        """Busy. x: any."""
        if run.attempt == 1:
            raise ToolError("Too many requests.", retry=True, retry_after=17)
        return "ok"

    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(desk(asking(call("busy", x=1)), busy), "Go")
        (failed,) = await of_kind(rt, result.run_id, ToolAttemptFailed)
    assert failed.retry_at is not None
    assert abs(failed.retry_at - failed.at - 17_000_000) < 100_000


async def test_a_pause_beyond_the_time_of_the_run_gives_way_to_the_next_rung(
    tmp_path: Path,
) -> None:
    @tool(effect="read", fallback=Default("as yesterday"))
    def busy(x: int) -> str:
        """Busy. x: any."""
        raise ToolError("Too many requests.", retry=True, retry_after=50)

    model = asking(call("busy", x=1))
    agent = Agent("desk", model=model, tools=[busy], limits=Limits(seconds=20))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(agent, "Go")
    assert (result.status, result.usage.seconds < 20) == ("completed", True)
    assert "as yesterday" in model.requests[1].results[0]


@pytest.mark.requirement("REC-1", "TOL-4")
async def test_a_reopened_run_takes_up_the_alternative_whose_outcome_is_unknown(
    tmp_path: Path,
) -> None:
    """To begin again at the top would do the effect twice."""
    done: list[str] = []
    keys: set[str] = set()

    class Busy(Exception):
        status, retry_after = 503, 50.0

    @tool(effect="write")
    def save_elsewhere(run: RunContext[None], text: str) -> str:
        """Save elsewhere. text: what."""
        keys.add(run.key)
        done.append("elsewhere")
        if len(done) == 2:
            raise Busy("it may have arrived")
        return "saved"

    @tool(effect="irreversible", retries=0, fallback=save_elsewhere)
    def save(text: str) -> str:
        """Save. text: what."""
        done.append("save")
        raise NotApplied("full")

    agent = Agent(
        "desk",
        model=ScriptedModel([call("save", text="a"), "I ran out of time.", "Done."]),
        tools=[save],
        limits=Limits(seconds=20),
    )
    clock = FakeClock(auto=True)
    async with Runtime(url(tmp_path), clock=clock) as rt:
        stopped = await rt.run(agent, "Go")
        assert (stopped.reason, done) == ("time_limit", ["save", "elsewhere"])
        await clock.sleep(60)
        await rt.resume(stopped.run_id, limits=Limits(seconds=200))
        result = await rt.wait(stopped.run_id)
        assert (result.status, done) == ("completed", ["save", "elsewhere", "elsewhere"])
        assert len(keys) == 1
        assert (await rt.replay(stopped.run_id)).differences == ()


@pytest.mark.requirement("REC-1", "TOL-4")
@pytest.mark.parametrize("left", ["nothing", "the tool", "another ladder"])
async def test_an_alternative_begun_before_a_deploy_without_it_is_not_forgotten(
    tmp_path: Path, left: str
) -> None:
    cuts: list[str] = []
    snapshots = Snapshots(tmp_path / "s.db", tmp_path / "cuts")

    def seen(event: object) -> None:
        if isinstance(event, ToolIntended) and event.tool == "pay_by_post":
            cuts.append(snapshots.take())

    def closed(run: RunContext[None]) -> str:
        raise NotApplied("closed")

    model = asking(call("pay", euros=5))
    agent = desk(model, pay_tools(closed, lambda _: "sent"))
    async with Runtime(snapshots.url, clock=FakeClock(auto=True), on_event=seen) as rt:
        whole = await rt.run(agent, "Go")
    pay = agent.toolbelt["pay"]
    rungs = [] if left == "the tool" else [AskPerson()]
    tools = [] if left == "nothing" else [replace(pay, fallback=rungs)]
    bare = Agent("desk", model=model, tools=tools)
    async with Runtime(cuts[0], patterns=[bare], clock=FakeClock(auto=True)) as rt:
        result = await rt.wait(whole.run_id)
        assert result.waiting
        assert result.waiting[0].kind in ("unknown_outcome", "version")


async def test_the_story_of_a_run_tells_each_rung(tmp_path: Path) -> None:
    line = Line()
    agent = desk(asking(call("weather", city="Rome")), line.read(fallback=ARCHIVE, retries=0))
    async with Runtime(url(tmp_path), clock=FakeClock(auto=True)) as rt:
        result = await rt.run(agent, "Go")
        steps = story(await journal(rt, result.run_id))
    (step,) = [s for s in steps if s.kind == "tool"]
    assert (step.state, step.detail["source"], step.detail["by"]) == ("ok", "fallback", "archive")
    assert step.troubles[-1] == "weather given up (exception); next: alternative"

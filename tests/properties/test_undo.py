"""Whatever a run did, undoing it takes back what took place, backwards, each at most once."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadworthy import Agent, NotApplied, Runtime, Tool, ToolCall, tool
from roadworthy.errors import NotUndoable
from roadworthy.events import ToolSucceeded
from roadworthy.messages import ToolResult
from roadworthy.testing import FakeClock, ScriptedModel
from roadworthy.tools import Undo
from roadworthy.undo import standing
from tests.scenarios.world import url

pytestmark = pytest.mark.requirement("REC-5")

# (which tool, its argument, whether it fails): `give` is taken back by `take`, `send` by nothing
Did = tuple[str, int, bool]
dids = st.tuples(
    st.sampled_from(("give", "lend", "send", "take")), st.integers(0, 2), st.booleans()
)


def tools_of(done: list[tuple[str, int]]) -> list[Tool[None]]:
    def act(name: str, number: int, *, fails: bool) -> dict[str, int]:
        if fails:
            raise NotApplied("not now", retry=False)
        done.append((name, number))
        return {"id": number}

    @tool(repeatable=True, breaker=None)
    def take(number: int, fails: bool = False) -> dict[str, int]:
        """Take. number: which. fails: or not."""
        return act("take", number, fails=fails)

    @tool(repeatable=True, breaker=None)
    def fetch(number: int) -> dict[str, int]:
        """Fetch. number: which."""
        return act("fetch", number, fails=False)

    @tool(repeatable=True, breaker=None, undo=Undo(take, {"number": "result.id"}, {"fails": False}))
    def give(number: int, fails: bool) -> dict[str, int]:
        """Give. number: which. fails: or not."""
        return act("give", number, fails=fails)

    @tool(repeatable=True, breaker=None, undo=fetch)
    def lend(number: int, fails: bool) -> dict[str, int]:
        """Lend. number: which. fails: or not."""
        return act("lend", number, fails=fails)

    @tool(repeatable=True, breaker=None)
    def send(number: int, fails: bool) -> dict[str, int]:
        """Send. number: which. fails: or not."""
        return act("send", number, fails=fails)

    return [give, lend, send, take]


def backwards(done: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """What undoing comes to: the newest first, without what was taken back on the way."""
    stack: list[tuple[str, int]] = []
    for name, number in done:
        if name == "take" and ("give", number) in stack:
            at = len(stack) - 1 - stack[::-1].index(("give", number))
            del stack[at]
        else:
            stack.append((name, number))
    by = {"give": "take", "lend": "fetch"}
    return [(by[name], number) for name, number in reversed(stack) if name in by]


@settings(max_examples=25, deadline=None)
@given(st.lists(dids, min_size=1, max_size=8))
async def test_undoing_is_the_reverse(script: list[Did]) -> None:
    done: list[tuple[str, int]] = []
    calls = [ToolCall(name, {"number": n, "fails": fails}) for name, n, fails in script]
    model = ScriptedModel([*([call] for call in calls), "Done."])
    desk = Agent("desk", model=model, tools=tools_of(done))
    with tempfile.TemporaryDirectory() as folder:
        async with Runtime(url(Path(folder)), clock=FakeClock(auto=True)) as rt:
            result = await rt.run(desk, "Go.")
            wanted, before = backwards(done), len(done)
            try:
                for _ in range(2):
                    await rt.result(await rt.undo(result.run_id, by="ana"))
            except NotUndoable:
                assert not wanted
    assert done[before:] == wanted
    assert len(result.report.undoable) == len(wanted)


def deed(name: str, number: int) -> ToolSucceeded:
    back = {"undo_by": "take", "undo": {"n": number}} if name == "give" else {}
    told = ToolResult(tool=name, call_id="", content="ok")
    arguments = {"n": number}
    return ToolSucceeded(tool=name, result=told, effect="write", arguments=arguments, **back)  # type: ignore[arg-type]


def test_a_long_run_is_looked_at_in_one_pass() -> None:
    """Ten thousand effects, each taken back: pairing them up takes a moment, not minutes."""
    deeds = [deed(name, n) for n in range(10_000) for name in ("give", "take")]
    assert standing(deeds) == []

"""Whatever a model asks for, in whatever order, what is carried out breaks no rule."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadworthy import Agent, Limits, NotApplied, Runtime, Tool, ToolCall, tool
from roadworthy.testing import ScriptedModel
from roadworthy.tools import Rule, at_most, bounds, requires
from tests.scenarios.world import journal, url

pytestmark = pytest.mark.requirement("TOL-7")

NAMES = ("look", "check", "pay", "send")
Call = tuple[str, int, bool]

calls = st.tuples(st.sampled_from(NAMES), st.integers(-2, 12), st.booleans())
replies = st.lists(st.lists(calls, min_size=1, max_size=4), max_size=6)
order = st.sampled_from([(), (("pay", "look"),), (("pay", "look", "check"), ("send", "pay"))])
counts = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 3), max_size=4)
limits = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 10), max_size=4)


class Book:
    """What happened, by reply: (tool, amount, whether it came to something)."""

    def __init__(self) -> None:
        self.done: list[tuple[int, str, int, bool]] = []
        self.reply = 0

    def tools(self) -> list[Tool[None]]:
        return [self._tool(name) for name in NAMES]

    def _tool(self, name: str) -> Tool[None]:
        async def act(amount: int, fails: bool) -> str:
            """Act."""
            self.done.append((self.reply, name, amount, not fails))
            if fails:
                raise NotApplied("not now", retry=False)
            return f"{len(self.done)}"

        effect = tool(name=name, effect="read" if name in ("look", "check") else "irreversible")
        return effect(act)


@settings(max_examples=60, deadline=None)
@given(script=replies, before=order, most=counts, bound=limits)
async def test_no_executed_sequence_breaks_a_rule(
    script: list[list[Call]],
    before: tuple[tuple[str, ...], ...],
    most: dict[str, int],
    bound: dict[str, int],
) -> None:
    book = Book()
    rules: list[Rule] = [requires(*names) for names in before]
    rules += [at_most(name, times) for name, times in most.items()]
    rules += [bounds(name, amount=(0, high)) for name, high in bound.items()]

    async def say(request: object) -> list[ToolCall] | str:
        book.reply += 1
        if book.reply > len(script):
            return "Done."
        asked = script[book.reply - 1]
        return [ToolCall(name, {"amount": n, "fails": fails}) for name, n, fails in asked]

    agent = Agent(
        "desk",
        model=ScriptedModel(say),
        tools=book.tools(),
        rules=rules,
        limits=Limits(repeats=100),
    )
    with tempfile.TemporaryDirectory() as folder:
        async with Runtime(url(Path(folder))) as rt:
            result = await rt.run(agent, "Go")
            assert await journal(rt, result.run_id)
            assert (await rt.replay(result.run_id)).differences == ()
    assert result.status == "completed"
    _check(book, before, most, bound)


def _check(
    book: Book,
    before: tuple[tuple[str, ...], ...],
    most: dict[str, int],
    bound: dict[str, int],
) -> None:
    seen: dict[str, int] = {}  # the first reply in which a tool succeeded
    happened: Counter[str] = Counter()
    for reply, name, amount, succeeded in book.done:
        for tool_, *needed in before:
            if tool_ == name:
                assert all(seen.get(need, reply) < reply for need in needed), book.done
        assert 0 <= amount <= bound.get(name, 0) or name not in bound
        if succeeded:
            seen.setdefault(name, reply)
            happened[name] += 1
    assert all(happened[name] <= times for name, times in most.items()), book.done

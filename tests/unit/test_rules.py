"""Rules are checked when they are declared, and judge numbers however they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from roadworthy import Agent, RunContext, Tool, ToolCall, ToolResult, tool
from roadworthy.errors import DeclarationError
from roadworthy.events import ToolSucceeded
from roadworthy.messages import JsonObject
from roadworthy.meter import Meter
from roadworthy.rules import Rulebook, number
from roadworthy.testing import ScriptedModel
from roadworthy.tools import Rule, at_most, bounds, only_after_approval, over, requires
from roadworthy.versions import Declaration, diff
from tests.scenarios.world import Given

pytestmark = pytest.mark.requirement("TOL-7")


def given(thing: object) -> Given:
    """What a careless user hands in."""
    return thing


class Line(BaseModel):
    """One of an order."""

    price: Decimal
    note: str | None = None


class Order(BaseModel):
    """What is bought."""

    lines: list[Line]
    total: float | None = None


@tool(effect="read")
def look(page: int, deep: bool = False) -> str:
    """Look. page: which. deep: all of it."""
    return ""


@tool
def buy(order: Order, usd: Decimal = Decimal(1)) -> str:
    """Buy. order: what. usd: for how much."""
    return ""


@tool
def sell(order: Order) -> str:
    """Sell. order: what."""
    return ""


def agent(*rules: Rule, tools: Sequence[Tool[None]] = (look, buy, sell)) -> Agent:
    return Agent("desk", model=ScriptedModel(["Hi."]), rules=rules, tools=tools)


async def later(run: RunContext[None], call: ToolCall) -> bool:
    return True


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: at_most(buy, 0), r"at_most\(buy, 0\): use a whole number from 1"),
        (lambda: at_most(buy, given(True)), "use a whole number"),
        (lambda: requires(buy), "say what must come first"),
        (lambda: requires(given(3), buy), r"requires\(\): 3 is no tool"),
        (lambda: bounds(buy), r"bounds\(buy, usd=\(None, 200\)\)"),
        (lambda: bounds(buy, usd=(200, 1)), "contradicts itself"),
        (lambda: bounds(buy, usd=(None, None)), "bounds nothing"),
        (lambda: bounds(buy, usd=given(200)), r"give \(least, most\)"),
        (lambda: bounds(buy, usd=(None, "much")), "'much' is no finite number"),
        (lambda: bounds(buy, usd=(None, float("nan"))), "no finite number"),
        (lambda: over("usd", "inf"), "no finite number"),
        (lambda: only_after_approval(buy, when=given(5)), r"neither over\(argument, amount\) nor"),
        (lambda: only_after_approval(buy, when=given(later)), "a plain function"),
        (lambda: only_after_approval(buy, asks=given("lea")), 'neither "user" nor "operator"'),
    ],
)
def test_a_rule_that_says_nothing_is_none(declare: Callable[[], Rule], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        declare()


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([at_most("by", 1)], r"at_most\(by, 1\): there is no tool 'by'. Did you mean 'buy'"),
        ([requires(buy, "lok")], "no tool 'lok'. Did you mean 'look'"),
        ([bounds(buy, us=(None, 1))], "buy has no argument 'us'. Did you mean 'usd'"),
        ([bounds(buy, **{"order.sum": (None, 1)})], "no argument 'order.sum'. There are: lines, t"),
        ([bounds(buy, **{"usd.cents": (None, 1)})], "no argument 'usd.cents'"),
        ([bounds(look, deep=(0, 1))], r"'deep' of look is no number \(boolean\)"),
        ([bounds(buy, order=(0, 1))], r"'order' of buy is no number \(object\)"),
        ([only_after_approval(buy, when=over("dollars", 1))], "no argument 'dollars'"),
        ([at_most(buy, 1), at_most("buy", 2)], "bound the same; keep one"),
        ([bounds(buy, usd=(0, None)), bounds(buy, usd=(None, 5))], "bound the same; keep one"),
        ([requires(buy, buy)], "in a circle, so that none could ever run: buy before buy"),
        ([requires(buy, look, sell), requires(sell, buy)], "goes in a circle"),
        ([given("at_most(buy, 1)")], "is no rule; make one with"),
    ],
)
def test_a_rule_against_its_agent_says_what_is_wrong(rules: list[Rule], said: str) -> None:
    with pytest.raises(DeclarationError, match=f"Agent 'desk': .*{said}"):
        agent(*rules)


def test_rules_that_fit_are_part_of_the_declaration_as_they_are_written() -> None:
    def big(run: RunContext[None], call: ToolCall) -> bool:
        return True

    made = agent(
        requires(buy, look, "sell"),
        at_most(buy, 2),
        bounds(buy, usd=("0.5", 200), **{"order.total": (None, 9), "order.lines.price": (1, None)}),
        only_after_approval(buy, when=over("order.total", 5), asks="user"),
        only_after_approval(sell, when=big),
    )
    assert made.declared()["rules"] == [
        "requires(buy, look, sell)",
        "at_most(buy, 2)",
        "bounds(buy, usd=(0.5, 200), order.total=(None, 9), order.lines.price=(1, None))",
        "only_after_approval(buy, when=over(order.total, 5), asks=user)",
        f"only_after_approval(sell, when={big.__qualname__})",
    ]
    assert "rules" not in agent().declared()


def test_a_changed_rule_is_told_in_its_own_words() -> None:
    old, new = (Declaration.of(agent(at_most(buy, n)), output=None) for n in (1, 2))
    (change,) = diff(old.data, new.data)
    assert str(change) == "rules: -at_most(buy, 1) +at_most(buy, 2)"
    assert old.fingerprint != new.fingerprint
    bare = Declaration.of(agent(), output=None)
    assert [str(each) for each in diff(bare.data, new.data)] == ["rules: +at_most(buy, 2)"]


def test_a_tool_with_rules_stands_in_for_no_other() -> None:
    @tool(effect="read", fallback=look)
    def read(page: int, deep: bool = False) -> str:
        """Read. page: which. deep: all of it."""
        return ""

    with pytest.raises(DeclarationError, match="'look' has rules, and stands in for 'read'"):
        agent(at_most(look, 1), tools=[look, read])


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (3, Decimal(3)),
        (0.1, Decimal("0.1")),
        ("200.01", Decimal("200.01")),
        ("1e3", Decimal(1000)),
        (True, None),
        ("NaN", None),
        ("-Infinity", None),
        (float("inf"), None),
        ("1,000", None),
        ("200 USD", None),
        ("", None),
        ([1], None),
        (None, None),
    ],
)
def test_a_number_is_read_however_it_is_written(value: object, found: Decimal | None) -> None:
    assert number(value) == found


def test_a_number_may_be_very_long() -> None:
    found = number(10**5000)  # Python writes none this long as text
    assert found is not None
    assert found > 200


@pytest.mark.parametrize(
    ("arguments", "held"),
    [
        ({"usd": "5"}, False),
        ({"usd": 6}, True),
        ({"usd": "five"}, True),
        ({"usd": {"amount": 1}}, True),
        ({"usd": None}, False),
        ({}, False),
        ({"usd": [1, [6]]}, True),
        ({"order": {"lines": [{"price": 1}, {"price": 4}]}}, True),
        ({"order": {"lines": [{"price": 1}, {}]}}, False),
        ({"order": "4"}, False),
    ],
)
def test_bounds_look_at_every_value_that_is_given(arguments: JsonObject, held: bool) -> None:
    book = Rulebook([bounds("buy", usd=(0, 5), **{"order.lines.price": (None, 3)})])
    assert (book.out_of_bounds("buy", arguments) is not None) is held


@pytest.mark.parametrize(
    ("arguments", "holds"),
    [({"usd": 5}, False), ({"usd": 5.01}, True), ({"usd": "?"}, True), ({}, True)],
)
def test_an_amount_that_is_not_said_is_not_known_to_be_small(
    arguments: JsonObject, holds: bool
) -> None:
    assert over("usd", 5).holds(arguments) is holds


def test_a_result_that_only_stands_in_for_one_proves_nothing() -> None:
    meter, result = Meter(), ToolResult(tool="look", call_id="1", content="as of Monday")
    meter.count(ToolSucceeded(key="k", tool="look", result=result, source=given("stale")))
    assert (meter.succeeded, meter.happened["look"]) == (set(), 1)
    meter.count(ToolSucceeded(key="k", tool="look", result=result, source="cache"))
    assert (meter.succeeded, meter.happened["look"]) == ({"look"}, 1)


def test_a_schema_of_somebody_else_is_read_through_its_references() -> None:
    node: dict[str, Any] = {
        "type": "object",
        "properties": {"cost": {"type": ["number", "null"]}, "next": {"$ref": "#/$defs/node"}},
        "additionalProperties": False,
    }
    tree: Tool[None] = replace(
        look,
        parameters={
            "type": "object",
            "properties": {
                "root": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "free": {"type": "object"},
            },
            "$defs": {"node": node},
        },
    )
    deep: dict[str, Given] = {"root.next.next.cost": (None, 1), "free.anything": (None, 1)}
    assert agent(bounds(tree, **deep), tools=[tree]).rules
    with pytest.raises(DeclarationError, match=r"no argument 'root\.next\.price'"):
        agent(bounds(tree, **{"root.next.price": (None, 1)}), tools=[tree])

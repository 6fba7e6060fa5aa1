"""The lint of tool definitions: each finding by what causes it, and what causes none."""

from __future__ import annotations

from typing import Any

import pytest

from roadworthy import RunContext, Tool, tool
from roadworthy.tools import tool_from_schema
from roadworthy.tools.lint import lint
from tests.scenarios.world import Given


def schema_tool(name: str, description: str, **properties: Given) -> Tool[Any]:
    return tool_from_schema(
        name,
        description,
        {"type": "object", "properties": properties},
        lambda **_: None,
        effect="read",
    )


def codes(*tools: Tool[Any]) -> list[str]:
    return [finding.code for finding in lint(tools)]


@tool(effect="read")
def find_order(order_id: str) -> str:
    """One order of the current user, with its items and state. order_id: such as A-17."""
    return order_id


@tool(effect="read")
def track_parcel(parcel: str) -> str:
    """Where a parcel is on its way, and when it will arrive. parcel: its tracking number."""
    return parcel


@tool(effect="write")
def refund(run: RunContext[None], order_id: str) -> str:
    """Pay a customer's money back, once the goods have returned. order_id: such as A-17."""
    return f"{order_id} {run.key}"


def test_good_tools_have_no_findings() -> None:
    assert lint([find_order, track_parcel, refund]) == []


@pytest.mark.requirement("TOL-1")
def test_each_flaw_is_found_by_its_name() -> None:
    assert codes(schema_tool("look", "")) == ["no_description"]
    assert codes(schema_tool("get_order", "Gets the order.")) == ["thin_description"]
    said = "The weather of a city, as forecast for tomorrow."
    assert codes(schema_tool("weather", said, city={"description": "Its name."})) == [
        "untyped_parameter"
    ]
    assert codes(schema_tool("weather", said, city={"type": "string"})) == ["undescribed_parameter"]
    assert codes(schema_tool("weather", said, unit={"enum": ["c", "f"]})) == []


@pytest.mark.requirement("TOL-1")
def test_an_effect_left_out_is_said() -> None:
    @tool
    def pay(order_id: str) -> str:
        """Pay a customer's money back for goods. order_id: such as A-17."""
        return order_id

    assert pay.effect == "irreversible"
    assert codes(pay) == ["undeclared_effect"]

    @tool(effect="irreversible")
    def said(order_id: str) -> str:
        """Pay a customer's money back for goods. order_id: such as A-17."""
        return order_id

    assert codes(said) == []


@pytest.mark.requirement("TOL-1", "TOL-4")
def test_a_write_that_never_reads_its_key_is_an_error() -> None:
    @tool(effect="write")
    def note(run: RunContext[None], text: str) -> str:
        """Write a note for the next colleague. text: what."""
        return f"{text} by {run.user.id}"

    @tool(effect="write")
    def handed_on(run: RunContext[None], text: str) -> str:
        """Write a note for the next colleague. text: what."""
        return repr((run, text))

    @tool(effect="write", idempotent_by_nature=True)
    def setting(text: str) -> str:
        """Write a note for the next colleague. text: what."""
        return text

    (finding,) = lint([note])
    assert (finding.level, finding.code, finding.tools) == ("error", "key_unused", ("note",))
    assert codes(handed_on) == codes(setting) == codes(refund) == []


@pytest.mark.requirement("TOL-1")
def test_pairs_that_a_model_mixes_up_are_found() -> None:
    said = "Every open invoice of one customer, newest first."
    one, other = schema_tool("invoices", said), schema_tool("bills", said)
    assert codes(one, other) == ["same_description"]
    alike = schema_tool("bills", "Every open invoice of one customer, oldest first.")
    assert codes(one, alike) == ["look_alike"]
    near = schema_tool("invoice", "One customer's single document, by its own number.")
    assert codes(one, near) == ["similar_names"]
    for left, right, apart in [("getOrder", "get_order", 1), ("order", "border", 1),
                               ("orders", "order", 1), ("cart", "card", 1), ("cart", "trac", 0),
                               ("order", "invoice", 0), ("a", "abc", 0)]:  # fmt: skip
        pair = [schema_tool(left, "Alpha beta gamma."), schema_tool(right, "Delta omega zeta.")]
        assert codes(*pair) == ["similar_names"] * apart, (left, right)


@pytest.mark.requirement("TOL-1", "TOL-6")
def test_many_tools_are_a_warning() -> None:
    many = [schema_tool(f"t{n}x{n}", f"alpha{n} beta{n} gamma{n} delta{n}") for n in "abcdefgh"]
    assert codes(*many[:7]) == []
    (finding,) = lint(many)
    assert (finding.level, finding.code) == ("warning", "many_tools")


def test_errors_come_first() -> None:
    levels = [f.level for f in lint([schema_tool("get_order", "The order."), schema_tool("b", "")])]
    assert levels == ["error", "warning"]
